"""The plots of a run, as matplotlib figures: loss and mAP by epoch, AP and precision by class.

Figures are made without pyplot, which would keep them, and whatever the user's own settings are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.visualization.draw import COLOURS, class_colour

INK = "#333333"
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a class name may contain "$"
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
}
LINE_COLOURS = COLOURS[:6]  # of Okabe & Ito
in_house_style = matplotlib.style.context(["default", STYLE])  # decorates a function
_BARS_PER_COLUMN = 40


@in_house_style
def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The loss and its terms in metrics.jsonl by epoch, smoothed; None if there are no losses."""
    keys = dict.fromkeys(key for row in history for key in row if key.split("/")[0] == "loss")
    lines = {key: line for key in keys if (line := _by_epoch(history, "train", key)).size}
    if not lines:
        return None
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot(title="Training loss", xlabel="epoch")
    colours = iter(LINE_COLOURS * len(lines))
    # In the order of the last values, which is the order of the lines at the right edge.
    for key, (epochs, values) in sorted(lines.items(), key=lambda item: -item[1][1, -1]):
        total = key == "loss"
        colour = INK if total else next(colours)
        label = "total" if total else key.removeprefix("loss/").replace("_", " ")
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, values, color=colour, linewidth=0.8, alpha=0.25)
        width = 2.5 if total else 1.8
        # The mean over a centred window of a twenty-fifth of the points.
        window = np.ones(2 * (len(values) // 50) + 1)
        ones = np.ones(len(values))
        smooth = np.convolve(values, window, "same") / np.convolve(ones, window, "same")
        axes.plot(epochs, smooth, marker, color=colour, linewidth=width, label=label)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(left=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@in_house_style
def mean_ap_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """mAP by epoch with the best one marked; None if `history` has no evaluation."""
    epochs, values = _by_epoch(history, "eval", "mAP")
    if not len(epochs):
        return None
    values = 100 * values
    figure = Figure(figsize=(8, 4))
    axes = figure.add_subplot(title="Mean average precision", xlabel="epoch", ylabel="mAP (%)")
    axes.plot(epochs, values, "-o", color=COLOURS[0], linewidth=2, markersize=4)
    best, top = int(values.argmax()), max(values.max(), 5)
    axes.plot(epochs[best], values[best], "o", color=COLOURS[1], markersize=9)
    text, place, above = f"{values[best]:.1f}", (epochs[best], values[best]), (0, 9)
    axes.annotate(text, place, above, textcoords="offset points", ha="center", color=COLOURS[1])
    axes.set(xlim=(0, None), ylim=(0, 1.15 * top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=epochs[-1] >= 4))
    return figure


@in_house_style
def ap_figure(evaluation: Evaluation) -> Figure:
    """AP of each class as a bar, the best first, and the mAP as a line."""
    classes = enumerate(evaluation.classes.items())
    ranked = sorted(classes, key=lambda item: -np.nan_to_num(item[1][1].ap, nan=-1))
    num_columns = math.ceil(len(ranked) / _BARS_PER_COLUMN)
    num_rows = math.ceil(len(ranked) / num_columns)
    figure = Figure(figsize=(max(8, 5 * num_columns), 1.3 + 0.26 * num_rows))
    set_title(figure, "Average precision by class (%), and number of objects")
    mean = 100 * evaluation.mean_ap
    for column, axes in enumerate(figure.subplots(1, num_columns, squeeze=False)[0]):
        part = ranked[column * num_rows : (column + 1) * num_rows]
        for row, (label, (_, one)) in enumerate(part):
            value = 100 * np.nan_to_num(one.ap)
            axes.barh(row, value, color=class_colour(label), height=0.72)
            text = f"{value:.1f}" if one.num_objects else "no objects"
            on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # hides the line
            axes.text(value + 0.8, row, text, va="center", color=INK, fontsize=9, bbox=on_white)
        names = [f"{name} ({one.num_objects:,})" for _, (name, one) in part]
        axes.set_yticks(range(len(part)), names)
        axes.set(xlim=(0, 108), ylim=(num_rows - 0.4, -0.9), xticks=range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        if math.isfinite(mean):
            axes.axvline(mean, color=INK, linewidth=1.2, linestyle="--", zorder=0.9)
            axes.text(mean, -0.95, f"mAP {mean:.1f}", ha="center", va="bottom", color=INK)
    return figure


@in_house_style
def precision_recall_figure(evaluation: Evaluation) -> Figure | None:
    """Precision against recall, a panel for each class with objects; None if there is no such."""
    classes = [
        (label, name, one)
        for label, (name, one) in enumerate(evaluation.classes.items())
        if one.num_objects
    ]
    if not classes:
        return None
    num_rows = math.ceil(len(classes) / (5 if len(classes) <= 25 else 8))
    num_columns = math.ceil(len(classes) / num_rows)
    side = 2.6 if len(classes) <= 3 else 1.85 if len(classes) <= 25 else 1.4  # inches
    figure = Figure(figsize=(max(4.5, side * num_columns), 0.9 + side * num_rows))
    set_title(figure, "Precision against recall, and AP (%)")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for axes, (label, name, one) in zip(panels, classes, strict=False):
        # From recall 0, with the precision of the first detection.
        recall = np.append(0.0, one.recall)
        precision = np.append(one.precision[0] if len(one.precision) else 0.0, one.precision)
        axes.fill_between(recall, precision, color=class_colour(label), alpha=0.25, linewidth=0)
        axes.plot(recall, precision, color=class_colour(label), linewidth=1.6, clip_on=False)
        axes.set_title(f"{name}  {100 * one.ap:.1f}", fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.tick_params(labelsize=8)
        axes.label_outer()
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=10, color=INK)
    figure.supylabel("precision", fontsize=10, color=INK)
    return figure


def set_title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK)


def _by_epoch(history: Sequence[Mapping[str, Any]], split: str, key: str) -> np.ndarray:
    """Epochs and values of the rows that have a value, the last row of each step. [2, N]"""
    rows = {row["step"]: (row["epoch"], row.get(key)) for row in history if row["split"] == split}
    points = [rows[step] for step in sorted(rows) if rows[step][1] is not None]
    return np.array(points, np.float64).reshape(-1, 2).T
