"""Stopping on request: SIGINT (Ctrl-C) and SIGTERM (from a scheduler).

Python calls a signal's handler only between two instructions of the main thread, which may compile
for a minute, and the default one for Ctrl-C raises KeyboardInterrupt inside of any library. Here a
thread reacts at once, and nothing interrupts the main thread.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Requests:
    """What this process was asked for. Signals belong to a process, and so does this."""

    loop = False  # whether a loop runs that can stop by itself
    number: int | None = None  # the signal that asked the loop to stop
    reacted = threading.Event()


@contextlib.contextmanager
def watch_signals() -> Iterator[None]:
    """Ends the process at the first SIGINT or SIGTERM, with exit code 130 or 143.

    While a `StopSignal` is open, the first one asks its loop to stop, the second one ends the
    process. Outside the main thread, where Python allows no handlers, and within itself it does
    nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is _wait:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous = {number: signal.signal(number, _wait) for number in _SIGNALS}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_react, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in previous.items():
            signal.signal(number, handler)
        writer.close()  # the thread reads the end of the stream
        thread.join()
        reader.close()


def _wait(number: int, frame: types.FrameType | None) -> None:
    """Keeps the main thread, where Python can call this, until the other one has reacted."""
    _Requests.reacted.wait(timeout=1)
    _Requests.reacted.clear()


def _react(reader: socket.socket) -> None:
    """Reads the signals as they arrive, a byte for each."""
    while byte := reader.recv(1):
        number = byte[0]
        if number not in _SIGNALS:
            continue
        at_once = not _Requests.loop or _Requests.number is not None
        # A progress bar that stands in the terminal's last line is drawn again.
        clear = "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
        text = "stopped" if at_once else "stopping after this step; again to quit at once"
        os.write(2, f"{clear}{text}\n".encode())
        if at_once:
            os._exit(128 + number)
        _Requests.number = number
        if _process_count() > 1 and number == signal.SIGINT:
            os.kill(os.getpid(), signal.SIGTERM)  # which JAX passes on to the other processes
        _Requests.reacted.set()


def _process_count() -> int:
    import jax  # takes a second, and signals are watched from before

    return jax.process_count()


class StopSignal:
    """Whether the loop that opens it was asked to stop, so that it can stop between two steps.

    Several processes must stop after the same step: there JAX catches SIGTERM, whichever process
    receives it, and all of them agree on the call of `received` that first returns True.
    """

    def __init__(self) -> None:
        self._num_calls, self._all_stop = 0, False

    def __enter__(self) -> "StopSignal":
        _Requests.number, _Requests.loop = None, True
        return self

    def __exit__(self, *_: object) -> None:
        _Requests.loop = False

    def received(self) -> bool:
        """Whether to stop here. Every process must ask at the same places of the program."""
        self._num_calls += 1
        if _process_count() == 1:
            return _Requests.number is not None
        from jax.experimental import multihost_utils

        if not self._all_stop and multihost_utils.reached_preemption_sync_point(self._num_calls):
            _Requests.number = _Requests.number or signal.SIGTERM
            self._all_stop = True
        return self._all_stop

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 if it was not asked to stop."""
        return 0 if _Requests.number is None else 128 + _Requests.number
