"""How fast training is, apart from everything else that a run does."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Images per second of training alone, since it was last read."""

    def __init__(self) -> None:
        self._images = 0
        self._start = time.perf_counter()

    def count(self, images: int) -> None:
        self._images += images

    def read(self) -> float:
        speed = self._images / (time.perf_counter() - self._start)
        self._images, self._start = 0, time.perf_counter()
        return speed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        pause = time.perf_counter()
        yield
        self._start += time.perf_counter() - pause
