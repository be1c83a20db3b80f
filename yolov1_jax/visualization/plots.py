"""The plots of a run, as matplotlib figures: loss and mAP by epoch, AP and precision by class.

Figures are made without pyplot, which would keep them, and whatever the user's own settings are.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolov1_jax.data.dataset import shortened
from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.visualization.draw import COLOURS, class_colour, printable

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
_NUM_BINS = 40  # of the smooth loss curve


@in_house_style
def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The loss and its terms in metrics.jsonl by epoch, smoothed; None if there are no losses."""
    keys = dict.fromkeys(key for row in history for key in row if key.split("/")[0] == "loss")
    lines = {key: line for key in keys if (line := _by_epoch(history, "train", key)).size}
    if not lines:
        return None
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot(title="Training loss", xlabel="epoch")
    terms = sorted(key for key in keys if key != "loss")
    colours = {"loss": INK, **dict(zip(terms, itertools.cycle(LINE_COLOURS), strict=False))}
    smooth = {key: _binned(line, _NUM_BINS) for key, line in lines.items()}
    # In the order of the last values, which is the order of the lines at the right edge.
    for key, (epochs, values) in sorted(smooth.items(), key=lambda item: -item[1][1][-1]):
        label = "total" if key == "loss" else key.removeprefix("loss/").replace("_", " ")
        axes.plot(*_binned(lines[key]), color=colours[key], linewidth=0.8, alpha=0.25)
        width, marker = 2.5 if key == "loss" else 1.8, "o" if len(epochs) == 1 else ""
        axes.plot(epochs, values, marker, color=colours[key], linewidth=width, label=label)
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(0, max(epochs[-1] for epochs, _ in lines.values()))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@in_house_style
def mean_ap_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """mAP by epoch with the best one marked; None if `history` has no evaluation."""
    # A run that was continued with another protocol shows the last one only.
    protocol = [row.get("protocol") for row in history if row["split"] == "eval"][-1:]
    history = [row for row in history if [row.get("protocol")] == protocol]
    epochs, values = _by_epoch(history, "eval", "mAP")
    if not len(epochs):
        return None
    values = 100 * values
    figure = Figure(figsize=(8, 4))
    rule = f", {protocol[0]}" if protocol[0] else ""
    axes = figure.add_subplot(title="Mean average precision", xlabel="epoch")
    axes.set_ylabel(f"mAP (%){rule}")
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
    set_title(figure, f"AP by class (%), {evaluation.protocol}, and number of objects")
    shown = use_fonts_of(evaluation.classes)
    mean = 100 * evaluation.mean_ap
    for column, axes in enumerate(figure.subplots(1, num_columns, squeeze=False)[0]):
        part = ranked[column * num_rows : (column + 1) * num_rows]
        for row, (label, (_, one)) in enumerate(part):
            value = 100 * np.nan_to_num(one.ap)
            axes.barh(row, value, color=class_colour(label), height=0.72)
            text = f"{value:.1f}" if one.num_objects else "no objects"
            on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # hides the line
            axes.text(value + 0.8, row, text, va="center", color=INK, fontsize=9, bbox=on_white)
        names = [f"{shown[name]} ({one.num_objects:,})" for _, (name, one) in part]
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
    set_title(figure, f"Precision against recall, and AP (%), {evaluation.protocol}")
    shown = use_fonts_of(evaluation.classes)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for place, (axes, (label, name, one)) in enumerate(zip(panels, classes, strict=False)):
        # From recall 0, with the precision of the first detection.
        recall = np.append(0.0, one.recall)
        precision = np.append(one.precision[0] if len(one.precision) else 0.0, one.precision)
        axes.fill_between(recall, precision, color=class_colour(label), alpha=0.25, linewidth=0)
        axes.plot(recall, precision, color=class_colour(label), linewidth=1.6, clip_on=False)
        axes.set_title(f"{shortened(shown[name], 16)}  {100 * one.ap:.1f}", fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        # Numbers at the left edge, and below the last panel of every column.
        lowest, leftmost = place + num_columns >= len(classes), place % num_columns == 0
        axes.tick_params(labelsize=8, labelbottom=lowest, labelleft=leftmost)
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=10, color=INK)
    figure.supylabel("precision", fontsize=10, color=INK)
    return figure


def set_title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK)


def use_fonts_of(names: Iterable[str]) -> dict[str, str]:
    """What to write for each name; `in_house_style` takes the fonts for it back at its end."""
    shown = {name: printable(name) for name in names}
    families = ["DejaVu Sans", *(one.family for one in shown.values())]
    matplotlib.rcParams["font.family"] = list(dict.fromkeys(families))
    return {name: one.text for name, one in shown.items()}


def _binned(line: np.ndarray, max_bins: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """The centres of bins of equal length, and the mean loss of the steps in each.

    A value is the mean of the steps since the one before; the last may be of fewer than the others.
    """
    epochs, values = line
    length = np.diff(epochs, prepend=0)
    num_bins = max(1, min(max_bins, round(epochs[-1] / np.median(length))))
    edges = np.linspace(0, epochs[-1], num_bins + 1)
    sums = np.interp(edges, np.append(0, epochs), np.append(0, np.cumsum(values * length)))
    return (edges[1:] + edges[:-1]) / 2, np.diff(sums) / np.diff(edges)


def _by_epoch(history: Sequence[Mapping[str, Any]], split: str, key: str) -> np.ndarray:
    """Epochs and values of the rows that have a value, the last row of each step. [2, N]"""
    rows = {row["step"]: (row["epoch"], row.get(key)) for row in history if row["split"] == split}
    points = [rows[step] for step in sorted(rows) if rows[step][1] is not None]
    return np.array(points, np.float64).reshape(-1, 2).T
