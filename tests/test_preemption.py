"""The request to stop: remembered, the same for all processes, undone at the end."""

import os
import signal

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import multihost_utils

from yolov1_jax.training.checkpoint import Checkpoints
from yolov1_jax.training.preemption import StopRequested, StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered(number):
    with StopSignal() as stop:
        assert not stop.received()
        os.kill(os.getpid(), number)
        assert stop.received()
        assert stop.received()


def test_the_second_signal_has_its_usual_effect():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_can_be_done_again_is_interrupted():
    with StopSignal() as stop:
        items = stop.interrupting(range(5))
        assert [next(items), next(items)] == [0, 1]
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            next(items)


@pytest.fixture
def several_processes(monkeypatch):
    """JAX as one of two processes; the list of the counts that it was asked about."""
    asked = []

    def reached(count):
        asked.append(count)
        return count == 4  # as JAX's: true at one count, and false again behind it

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    return asked


def test_several_processes_ask_jax_with_a_count_of_their_own(several_processes):
    handlers = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) == handlers  # JAX catches it
        answers = [stop.received() for _ in range(6)]
    # It stays true.
    assert answers == [False, False, False, True, True, True]
    assert several_processes == [1, 2, 3, 4]


def test_checkpoints_do_not_ask_jax_in_between(tmp_path, monkeypatch):
    """JAX agrees on the largest count that it was asked about: nobody else may ask."""

    def refuse(count):
        raise AssertionError(f"JAX was asked about {count}")

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", refuse)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, {"step": jnp.asarray(5)}, {})
        checkpoints.wait()
        assert checkpoints.steps() == [5]
