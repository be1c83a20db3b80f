"""Ending a run early and in order: SIGTERM (a scheduler) and SIGINT (Ctrl-C)."""

import signal
import types
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

Item = TypeVar("Item")


class StopRequested(Exception):
    """Ends what can be done again later, such as an evaluation, because the run shall stop."""


class StopSignal:
    """Remembers that the run was asked to stop, so that the loop can stop between two steps.

    With several processes all of them must stop at the same place: there JAX's own service catches
    SIGTERM, on whichever process it arrives, and agrees on the call of `received` that tells.
    """

    def __init__(self) -> None:
        self._received = False
        self._num_calls = 0
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

    def received(self) -> bool:
        """Whether to stop here. Every process must call it at the same places of the program.

        All of them get the same answer, and once it is True it stays True.
        """
        self._num_calls += 1
        if jax.process_count() > 1 and not self._received:
            self._received = multihost_utils.reached_preemption_sync_point(self._num_calls)
        return self._received

    def interrupting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the items; raises StopRequested in front of the first one after the signal."""
        for item in items:
            if self.received():
                raise StopRequested
            yield item
