"""Metrics of a run: means over steps, metrics.jsonl, TensorBoard and the progress display.

`<workdir>/metrics.jsonl` holds one JSON object per line, in the order written:
`{"split": "train", "step": 50, "epoch": 1.25, "loss": 3.1, "loss/xy": 0.4, ...}`. An AP that does
not exist is `null`. TensorBoard shows the same numbers under `<split>/<key>`, as `train/loss/xy`.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import tensorboardX
from rich import progress as bars
from rich.console import Console

from yolov1_jax.config import RunError
from yolov1_jax.training.run_folder import metrics_path, write_text

Item = TypeVar("Item")
# The number that the best checkpoint is chosen by, of each config.task: its key in metrics.jsonl.
SCORES = {"detection": "mAP", "classification": "top1"}
ImageIds = Callable[[], Sequence[str]]  # of a batch; called only for a message


class NonFiniteLoss(RunError):
    """The loss, its gradient or the weights are NaN or infinite: training cannot go on."""


def check_finite(what: str, tree: Any, image_ids: ImageIds) -> None:
    """Checks arrays of one step; waits for the device to have computed them.

    Raises NonFiniteLoss, which names `what`, the arrays, and the images of the step's batch. A loss
    can be finite although the state after it is not: BatchNorm divides a value that is too large by
    infinity, and the update itself may overflow.
    """
    wrong = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(np.asarray(leaf)).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            wrong.append(f"{name}={leaf}" if np.ndim(leaf) == 0 else name)
    if wrong:
        raise NonFiniteLoss(
            f"{what} is not finite ({', '.join(wrong[:8])}); earlier checkpoints are good and can "
            "be continued, best with a smaller config.optimizer.learning_rate; images: "
            + ", ".join(image_ids())
        )


@dataclasses.dataclass
class LossWindow:
    """Means of the metrics of several steps. Its fields are stored in checkpoints."""

    count: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, step: int, metrics: Mapping[str, jax.Array], image_ids: ImageIds) -> None:
        """Adds the metrics of one step, after `check_finite`."""
        on_host = jax.device_get(dict(metrics))
        check_finite(f"the loss of step {step}", on_host, image_ids)
        # The total, its terms, the rest. A jitted function returns a dict in alphabetical order.
        names = sorted(on_host, key=lambda name: (not name.startswith("loss"), name))
        self.sums = {name: self.sums.get(name, 0.0) + float(on_host[name]) for name in names}
        self.count += 1

    def flush(self) -> dict[str, float]:
        """Returns the means since the last flush and starts anew."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order, without torn lines; none if there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # torn when a process was killed
            row = json.loads(line)
            is_eval = row["split"] == "eval" and not row.keys().isdisjoint(SCORES.values())
            if row["split"] == "train" or is_eval:
                rows.append({**row, "step": int(row["step"])})
    return rows


def score_name(row: Mapping[str, Any]) -> str:
    """The key of the number that the best evaluation is chosen by, in a row of an evaluation."""
    return next(name for name in SCORES.values() if name in row)


def evaluations_without_improvement(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many evaluations have followed the best one, the first of equals; 0 for none.

    From the rows of metrics.jsonl, so that a run that continues counts as if it had not stopped.
    """
    scores = [row[score_name(row)] for row in rows if row["split"] == "eval"]
    scores = [-math.inf if score is None else score for score in scores]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


class MetricWriter:
    """Writes the metrics of one run and shows its progress; only in the main process.

    A terminal shows a bar with epoch, steps, time left, loss and speed; a pipe or a file gets one
    line per row. A resumed run repeats the steps after `resume_step`, so their rows are dropped
    first: metrics.jsonl then reads as if the run had never been interrupted.
    """

    def __init__(
        self, workdir: pathlib.Path, *, resume_step: int, num_steps: int, steps_per_epoch: float
    ) -> None:
        is_main = jax.process_index() == 0
        path = metrics_path(workdir) if is_main else pathlib.Path(os.devnull)
        if is_main:
            rows = [row for row in read_metrics(path) if row["step"] <= resume_step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=resume_step + 1,  # hides what an interrupted run wrote from this step on
            flush_secs=5,
            write_to_disk=is_main,
        )
        self._num_steps, self._steps_per_epoch = num_steps, steps_per_epoch
        console = Console(quiet=not is_main)
        self._progress = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[numbers]}"),
            console=console,
            expand=True,
            speed_estimate_period=600,  # seconds; the mean then includes evaluations
            disable=console.quiet or not console.is_interactive,
        )
        self._bar = self._progress.add_task("", total=num_steps, numbers="")
        self.step(resume_step)
        self._progress.start()

    def write(self, split: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends a row and shows it. The line is in the file when this returns.

        Args:
          split: "train" or "eval".
          step: the number of optimizer steps done.
          metrics: floats, strings or None; of "train" there are "loss" and "images_per_second".
        """
        epoch = round(step / self._steps_per_epoch, 6)
        row = {"split": split, "step": step, "epoch": epoch, **metrics}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for key, value in row.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(f"{split}/{key}", value, step)
        if split == "train":
            self.step(step)
            numbers = f"loss {metrics['loss']:.4g}  {metrics['images_per_second']:.4g} images/s"
            self._progress.update(self._bar, numbers=numbers)
            if not self._progress.disable:
                return
        texts = [split, self._epoch(step), f"step {step}/{self._num_steps}"]
        for key, value in metrics.items():
            if isinstance(value, float) and not key.startswith("ap/"):
                is_share = key in ("mAP", "top1", "top5")
                texts.append(f"{key} {value:.1%}" if is_share else f"{key} {value:.4g}")
        seconds = self._progress.tasks[0].time_remaining
        if seconds is not None:
            texts.append(f"{datetime.timedelta(seconds=round(seconds))} left")
        self.print("  ".join(texts))

    def step(self, step: int) -> None:
        """Moves the progress bar; cheap enough to be called at every step."""
        self._progress.update(self._bar, completed=step, description=self._epoch(step))

    def print(self, text: str) -> None:
        """Prints text as it is, above the progress bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        """Yields the items, and shows a second bar of `total` steps meanwhile."""
        bar = self._progress.add_task(description, total=total, numbers="")
        try:
            for item in items:
                yield item
                self._progress.advance(bar)
        finally:
            self._progress.remove_task(bar)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files and leaves the last state of the bar on the screen."""
        self._progress.stop()
        self._file.close()
        self._tensorboard.close()

    def _epoch(self, step: int) -> str:
        epoch, last = step / self._steps_per_epoch, self._num_steps / self._steps_per_epoch
        return f"epoch {epoch:.1f}/{last:.1f}"
