"""What a run shows while it trains: a live display on a terminal, plain lines anywhere else.

On a terminal the last lines of the screen hold a bar (epoch, steps, time left) and the latest
numbers, each under its name; everything printed goes above them. In a file or a pipe there is one
line for each row of metrics.
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Item = TypeVar("Item")

_NUMBER_WIDTH = 7  # of almost every number that `_number` writes
_TITLES = {"learning_rate": "lr", "images_per_second": "images/s", "gradient_norm": "gradient"}


class Progress:
    """The display of one run; see the module. A dumb terminal gets plain lines."""

    def __init__(
        self, console: Console, *, resume_step: int, num_steps: int, steps_per_epoch: float
    ) -> None:
        self._console = console
        self._num_steps = num_steps
        self._steps_per_epoch = steps_per_epoch
        self._step = resume_step
        # The clock starts with the first step reported: the one before it is spent on compiling.
        self._first: tuple[int, float] | None = None
        self._numbers: dict[str, float | None] = {}
        self._side_task: tuple[str, int, int] | None = None
        self._exit = contextlib.ExitStack()
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        if self._is_live:
            live = Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=4,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._exit.enter_context(live)
            self._exit.enter_context(_log_handlers_follow_stderr())

    def step(self, step: int) -> None:
        """Records that `step` steps are done."""
        self._step = step
        if self._first is None:
            self._first = (step, time.monotonic())

    def show(self, row: Mapping[str, Any]) -> None:
        """Shows a row of metrics as `MetricWriter.write` made it."""
        numbers = {
            key: value
            for key, value in row.items()
            if key not in ("split", "step", "epoch") and not isinstance(value, str | dict | list)
        }
        if row["split"] == "train":
            self.step(row["step"])
            self._numbers = numbers
            if self._is_live:
                return
        # Terms and classes have a slash in their name; a line of evaluation has the totals only.
        if row["split"] != "train":
            numbers = {key: value for key, value in numbers.items() if "/" not in key}
        words = [f"{row['split']}  {self._position(row['step'])}"]
        for key, value in numbers.items():
            in_percent = key == "mAP" and value is not None  # as in every table
            words.append(f"{_title(key)} {f'{value:.1%}' if in_percent else _number(value)}")
        if row["split"] == "train":
            words.append(f"{self._time_left()} left")
        self.print("  ".join(words))

    def print(self, *objects: Any) -> None:
        """Prints above the display. Text is printed as it is, never wrapped or marked up."""
        self._console.print(*objects, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        """Yields the items, with a second bar below the first while they last."""
        try:
            for done, item in enumerate(items):
                self._side_task = (description, done, total)
                yield item
        finally:
            self._side_task = None

    def close(self) -> None:
        """Ends the live display and leaves its last state on the screen."""
        self._exit.close()

    def _position(self, step: int) -> str:
        # A whole number of epochs is rounded to steps: half a step more is not another epoch.
        num_epochs = max(1, math.ceil((self._num_steps - 0.5) / self._steps_per_epoch))
        epoch = min(num_epochs, max(1, math.ceil(step / self._steps_per_epoch)))
        return f"epoch {epoch:,}/{num_epochs:,}  step {step:,}/{self._num_steps:,}"

    def _time_left(self) -> str:
        """From the mean speed so far, which counts the evaluations on the way."""
        if self._step >= self._num_steps:
            return "0:00"
        if self._first is None or self._step <= self._first[0]:
            return "-:--"
        seconds_per_step = (time.monotonic() - self._first[1]) / (self._step - self._first[0])
        return _duration(seconds_per_step * (self._num_steps - self._step))

    def _render(self) -> RenderableType:
        lines: list[RenderableType] = [
            _bar_line(
                self._position(self._step),
                self._step,
                self._num_steps,
                f"{self._time_left()} left",
            )
        ]
        if self._numbers:
            cells = [_cell(_title(key), _number(value)) for key, value in self._numbers.items()]
            lines.append(Columns(cells, padding=(0, 1, 0, 0)))
        if self._side_task is not None:
            description, done, total = self._side_task
            lines.append(_bar_line(description, done, total, f"{done:,}/{total:,}"))
        return Group(*lines)


def _cell(title: str, number: str) -> Text:
    """A number below its name. As wide for every value, so that nothing moves."""
    width = max(len(title), _NUMBER_WIDTH)
    return Text(f"{title:>{width}}\n", style="dim").append(f"{number:>{width}}", style="not dim")


def _bar_line(left: str, done: int, total: int, right: str) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, ProgressBar(total=total, completed=done), right)
    return line


def _title(key: str) -> str:
    return _TITLES.get(key, key.removeprefix("loss/").replace("_", " "))


def _number(value: float | None) -> str:
    """Four significant digits, two for the very small and large; "nan" for what is not finite."""
    if value is None:
        return "nan"
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and not 1e-2 <= abs(value) < 1e5:
        return f"{value:.1e}"
    digits = 3 if value == 0 else min(max(0, 3 - math.floor(math.log10(abs(value)))), 4)
    return f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{hours // 24} d {hours % 24} h"


@contextlib.contextmanager
def _log_handlers_follow_stderr() -> Iterator[None]:
    """While rich catches what is written to `sys.stderr`, log handlers must write there too.

    A handler keeps the stream that it was made with, and would write into the live display.
    """
    moved = []
    for handler in logging.getLogger().handlers:
        handler = getattr(handler, "python_handler", handler)  # absl wraps its real handler
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__:
            moved.append((handler, handler.setStream(sys.stderr)))
    try:
        yield
    finally:
        for handler, stream in moved:
            if stream is not None:
                handler.setStream(stream)
