"""Metrics of a run: JSON lines in the run folder, TensorBoard, and the progress display.

`<workdir>/metrics.jsonl` holds one JSON object a line, in the order written:
`{"split": "train", "step": 50, "epoch": 1.25, "loss": 3.1, "loss/xy": 0.4, ...}`. A number that is
not finite is written as `null`, because JSON has no NaN. TensorBoard shows the same numbers under
`<split>/<key>`, so `train/loss/xy`, and leaves out those that are not finite.
"""

import json
import math
import os
import pathlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorboardX
from rich.console import Console

from yolov1_jax.training.progress import Progress

Item = TypeVar("Item")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order; none if there is no file.

    Lines that are not a JSON object with a split and a step are left out: a process killed while it
    wrote leaves half a line.
    """
    rows = []
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(row, dict):
            continue
        if isinstance(row.get("split"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class MetricWriter:
    """Writes the metrics of one run; every method does nothing outside the main process.

    A run that continues from the checkpoint of `resume_step` repeats the steps behind it, so their
    rows are dropped first: the file reads as if the run had never been interrupted.

    Args:
      workdir: the run folder; created if missing.
      resume_step: the number of steps the run has done; 0 for a new one.
      num_steps: the number of steps of the whole run.
      steps_per_epoch: may be fractional.
      is_main_process: whether this process is the one that writes.
      console: where the progress goes; by default standard output.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        resume_step: int,
        num_steps: int,
        steps_per_epoch: float,
        is_main_process: bool,
        console: Console | None = None,
    ) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._is_main_process = is_main_process
        if not is_main_process:
            return
        workdir = pathlib.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        _drop_rows_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        # TensorBoard itself hides what an interrupted run wrote from `purge_step` on.
        self._tensorboard = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=resume_step + 1, flush_secs=5
        )
        self._progress = Progress(
            console or Console(),
            resume_step=resume_step,
            num_steps=num_steps,
            steps_per_epoch=steps_per_epoch,
        )

    def write(self, split: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends a row and shows it. The line is in the file when this returns.

        Args:
          split: "train" or "eval".
          step: the number of optimizer steps done.
          metrics: numbers, or arrays of one number; strings, lists and dicts go to the file only.
        """
        if not self._is_main_process:
            return
        row = {
            "split": split,
            "step": int(step),
            "epoch": round(step / self._steps_per_epoch, 6),
            **{key: _plain(value) for key, value in metrics.items()},
        }
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for key, value in row.items():
            if isinstance(value, int | float) and key != "step":
                self._tensorboard.add_scalar(f"{split}/{key}", value, row["step"])
        self._progress.show(row)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Puts pictures into TensorBoard. `images`: tag -> uint8 RGB [H, W, 3]."""
        if not self._is_main_process:
            return
        for tag, image in images.items():
            self._tensorboard.add_image(tag, image, step, dataformats="HWC")

    def step(self, step: int) -> None:
        """Moves the progress bar; costs nothing, so it may be called at every step."""
        if self._is_main_process:
            self._progress.step(step)

    def print(self, *objects: Any) -> None:
        """Prints a line, or any renderable of rich, above the progress display."""
        if self._is_main_process:
            self._progress.print(*objects)

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        """Yields the items and shows how many of `total` are done, as in "evaluating 3/20"."""
        if not self._is_main_process:
            return iter(items)
        return self._progress.track(items, description, total)

    def close(self) -> None:
        """Closes the files and leaves the last state of the progress display on the screen."""
        if not self._is_main_process:
            return
        self._progress.close()
        self._file.close()
        self._tensorboard.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.close()


def _drop_rows_after(path: pathlib.Path, step: int) -> None:
    """Removes rows of later steps and torn lines, in one atomic replacement."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row["step"] <= step]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: Python numbers, `None` for one that is not finite."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(f"a metric is one number, found an array of shape {array.shape}")
    if array.dtype.kind in "biu":
        return array.item()
    # The shortest text that reads back as the same float32: 0.1, not 0.10000000149011612.
    number = float(str(array[()])) if array.dtype == np.float32 else float(array)
    return number if math.isfinite(number) else None
