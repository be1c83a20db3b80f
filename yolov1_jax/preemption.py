"""Ending a run early and in order: SIGTERM (a scheduler) and SIGINT (Ctrl-C)."""

import signal
import types
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """Remembers that the run was asked to stop, so that the loop can stop between two steps.

    With several processes all of them must stop after the same step: there JAX's own service
    catches SIGTERM, on whichever process it arrives, and agrees on the step.
    """

    def __init__(self) -> None:
        self._received = False
        self._previous: dict[int, Any] = {}

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
        # A second signal is meant: it ends the program at once.
        signal.signal(number, self._previous[number])

    def received(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer on every process."""
        if jax.process_count() == 1:
            return self._received
        return multihost_utils.reached_preemption_sync_point(step)
