"""The pictures and the table of a run of classification.

report/losses.png        loss by epoch
report/accuracy.png      top-1 and top-5 by epoch
report/predictions.jpg   a few evaluation images, each with its class and the one found
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from yolov1_jax.data.dataset import Source
from yolov1_jax.evaluation.accuracy import Accuracy, AnyResult
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.training.run_folder import replacing
from yolov1_jax.visualization import plots
from yolov1_jax.visualization.report import ap_table, report_result, write_page

_MOST_ROWS = 40


@plots.in_house_style
def accuracy_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Top-1 and top-5 in metrics.jsonl by epoch; None if `history` has no evaluation."""
    rows = [row for row in history if row["split"] == "eval" and "top1" in row]
    if not rows:
        return None
    figure = Figure(figsize=(8, 4))
    axes = figure.add_subplot(title="Accuracy on the evaluation set", xlabel="epoch", ylabel="%")
    for key, colour in zip(("top1", "top5"), plots.LINE_COLOURS, strict=False):
        values = [100 * row[key] for row in rows]
        axes.plot([row["epoch"] for row in rows], values, "-o", color=colour, label=key)
    axes.set(xlim=(0, None), ylim=(0, 103))
    axes.legend(loc="lower right")
    return figure


def accuracy_table(result: Accuracy, *, step: int | None = None) -> Table:
    """Top-1 of each class in percent, for a terminal; of many classes, the worst."""
    title = "accuracy" if step is None else f"accuracy, step {step:,}"
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("class", footer="top-1\ntop-5", overflow="fold")
    table.add_column("top-1", footer=f"{result.top(1):.1%}\n{result.top(5):.1%}", justify="right")
    table.add_column("images", footer=f"{len(result.ranks):,}", justify="right")
    counts = np.bincount(result.annotations.labels, minlength=len(result.annotations.class_names))
    rows = [
        (share, name, count)
        for (name, share), count in zip(result.top1_by_class().items(), counts, strict=True)
        if share is not None
    ]
    for share, name, count in rows if len(rows) <= _MOST_ROWS else sorted(rows)[:_MOST_ROWS]:
        table.add_row(escape(name), f"{share:.1%}", f"{count:,}")
    return table


def result_table(result: AnyResult, *, step: int | None = None) -> Table:
    """`ap_table` or `accuracy_table`."""
    if isinstance(result, Accuracy):
        return accuracy_table(result, step=step)
    return ap_table(result.evaluation, step=step)


def report_run(
    folder: pathlib.Path,
    result: AnyResult,
    source: Source,
    history_path: pathlib.Path,
    **options: Any,
) -> list[pathlib.Path]:
    """Arguments and files as of `report_result`; of classification the pictures above."""
    if not isinstance(result, Accuracy):
        return report_result(folder, result, source, history_path, **options)
    history, folder = read_metrics(history_path), folder / "report"
    figures = {
        "losses.png": plots.loss_figure(history),
        "accuracy.png": accuracy_figure(history),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        with replacing(folder / name) as temporary:
            figure.savefig(temporary)
    write_page(folder / "predictions.jpg", result, source)
    return [folder / name for name in (*drawn, "predictions.jpg")]
