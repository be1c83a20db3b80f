"""The request to stop: at once outside of a loop, after the step within one, nothing swallowed."""

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest
from jax.experimental import multihost_utils

from yolov1_jax.training.preemption import StopSignal, watch_signals

STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def wait_for(stop):
    deadline = time.monotonic() + 20
    while not stop.received() and time.monotonic() < deadline:
        time.sleep(0.001)
    return stop.received()


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_loop_is_told_and_the_handlers_are_restored(number, code, capfd):
    before = signal.getsignal(number)
    with watch_signals():
        with StopSignal() as stop:
            assert (stop.received(), stop.exit_code) == (False, 0)
            os.kill(os.getpid(), number)
            assert wait_for(stop)
        assert stop.exit_code == code
        with StopSignal() as later:
            assert not later.received()
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err == "stopping after this step; again to quit at once\n"


# The main thread sleeps within a C function, as it does while XLA compiles: no handler would run.
SLEEPER = """
import ctypes, os, signal, sys
from yolov1_jax.training.preemption import StopSignal, watch_signals
with watch_signals():
    with StopSignal():
        for _ in range({signals_in_loop}):
            print("ready", flush=True)
            sys.stdin.readline()
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code", "signals_in_loop"), [(signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 1)]
)
def test_the_process_ends_at_once(number, code, signals_in_loop):
    program = SLEEPER.format(signals_in_loop=signals_in_loop)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", program], text=True, **pipes)
    for _ in range(signals_in_loop):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.readline().startswith("stopping after this step")
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert process.stderr.read() == "stopped\n"
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with watch_signals(), StopSignal() as stop:
            seen.extend([stop.received(), signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]


def test_several_processes_ask_jax_which_counts_the_questions(monkeypatch):
    asked = []

    def reached(count):
        asked.append(count)
        return count == 4  # like JAX: True for one count, and False again after it

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with StopSignal() as stop:
        answers = [stop.received() for _ in range(6)]
        assert stop.exit_code == 143
    assert answers == [False, False, False, True, True, True]
    assert asked == [1, 2, 3, 4]
