"""The request to stop: remembered, the same for all processes, handlers restored at the end."""

import os
import signal

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import multihost_utils

from yolov1_jax.training.checkpoint import Checkpoints
from yolov1_jax.training.preemption import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_the_handlers_are_restored(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.received()
        os.kill(os.getpid(), number)
        assert [stop.received(), stop.received()] == [True, True]
    assert signal.getsignal(number) == before


def test_the_second_signal_has_its_usual_effect():
    with StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_several_processes_ask_jax_which_alone_counts_the_questions(tmp_path, monkeypatch):
    asked = []

    def reached(count):
        asked.append(count)
        return count == 4  # like JAX: True for one count, and False again after it

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    with Checkpoints(tmp_path) as checkpoints:  # orbax would ask as well
        checkpoints.save(5, {"step": jnp.asarray(5)}, {})
        checkpoints.wait()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) == before  # JAX catches the signal
        answers = [stop.received() for _ in range(6)]
    assert answers == [False, False, False, True, True, True]
    assert asked == [1, 2, 3, 4]
