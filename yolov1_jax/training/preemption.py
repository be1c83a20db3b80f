"""Stopping a run between two steps: SIGTERM (from a scheduler) and SIGINT (Ctrl-C)."""

import signal
import types
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Remembers that the run was asked to stop, so that the loop can stop between two steps.

    Several processes must stop after the same step: there JAX catches SIGTERM, whichever process
    receives it, and all of them agree on the call of `received` that first returns True.
    """

    def __init__(self) -> None:
        self._received, self._num_calls = False, 0
        self._previous: dict[int, Any] = {}  # handlers

    def __enter__(self) -> "StopSignal":
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._received = True
        signal.signal(number, self._previous[number])  # a second one ends the program at once

    def received(self) -> bool:
        """Whether to stop here. Every process must ask at the same places of the program."""
        self._num_calls += 1
        if jax.process_count() > 1 and not self._received:
            self._received = multihost_utils.reached_preemption_sync_point(self._num_calls)
        return self._received
