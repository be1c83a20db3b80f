"""The figures of a run, as matplotlib objects: nothing is shown, nothing is written.

Figures are made without pyplot, so they leave no global state, and in matplotlib's own default
style, whatever the user's settings are.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from yolov1_jax.evaluation.average_precision import Evaluation

Arguments = ParamSpec("Arguments")
Colours = Mapping[str, tuple[int, int, int]]  # class name -> 8-bit sRGB

INK = "#333333"
_FAINT = "#e4e4e4"
# Okabe & Ito (2008): told apart with any colour vision.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a class name may hold a "$"
    "figure.dpi": 130,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}
_BARS_PER_COLUMN = 40
_ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # hides a line behind text


def in_house_style(
    draw: Callable[Arguments, Figure | None],
) -> Callable[Arguments, Figure | None]:
    """Draws in this module's style, whatever the user's settings are."""

    @functools.wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure | None:
        with matplotlib.style.context(["default", _STYLE]):
            return draw(*args, **kwargs)

    return styled


@in_house_style
def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The loss and its terms by epoch (or step), on a logarithmic axis where they are positive."""
    rows = _rows(history, "train")
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if _is_loss(key)]
    unit = _unit(rows)
    lines = {key: _series(rows, key, unit) for key in keys}
    lines = {key: line for key, line in lines.items() if len(line)}
    if not lines:
        return None
    figure = Figure(figsize=(8, 4.5))
    axes = figure.add_subplot(title="Training loss", xlabel=unit)
    colours = iter(LINE_COLOURS * len(lines))
    # From the largest to the smallest at the end, so that the legend is in the order of the lines.
    for key, line in sorted(lines.items(), key=lambda item: -item[1][-1, 1]):
        is_total = key == "loss"
        colour = INK if is_total else next(colours)
        smooth = _smoothed(line[:, 1])
        if len(line) == 1:
            axes.plot(*line.T, "o", color=colour, label=_loss_name(key))
            continue
        axes.plot(*line.T, color=colour, linewidth=0.8, alpha=0.25)
        axes.plot(
            line[:, 0],
            smooth,
            color=colour,
            linewidth=2.5 if is_total else 1.8,
            label=_loss_name(key),
        )
    if all((line[:, 1] > 0).any() for line in lines.values()):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _count_axis(axes)
    return figure


@in_house_style
def mean_ap_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """mAP by epoch, with the best evaluation marked."""
    rows = _rows(history, "eval")
    unit = _unit(rows)
    line = _series(rows, "mAP", unit)
    if not len(line):
        return None
    figure = Figure(figsize=(8, 4))
    axes = figure.add_subplot(title="Mean average precision", xlabel=unit, ylabel="mAP (%)")
    when, values = line[:, 0], 100 * line[:, 1]
    axes.plot(when, values, "-o", color=LINE_COLOURS[0], linewidth=2, markersize=4)
    best = int(values.argmax())
    axes.plot(when[best], values[best], "o", color=LINE_COLOURS[1], markersize=9)
    axes.annotate(
        f"{values[best]:.1f}",
        (when[best], values[best]),
        (0, 9),
        textcoords="offset points",
        ha="center",
        color=LINE_COLOURS[1],
        weight="bold",
    )
    axes.set_ylim(0, min(112, max(values.max() * 1.2, 5)))
    _count_axis(axes)
    return figure


@in_house_style
def ap_figure(evaluation: Evaluation, colours: Colours) -> Figure | None:
    """AP of each class as bars, best first; classes without objects stand last, without a bar."""
    classes = sorted(
        evaluation.classes.items(),
        key=lambda item: -math.inf if math.isnan(item[1].ap) else item[1].ap,
        reverse=True,
    )
    if not classes:
        return None
    num_columns = math.ceil(len(classes) / _BARS_PER_COLUMN)
    num_rows = math.ceil(len(classes) / num_columns)
    figure = Figure(figsize=(max(8, 5 * num_columns), 1.3 + 0.26 * num_rows))
    figure.suptitle(
        "Average precision by class (%), and number of objects",
        x=0.01,
        ha="left",
        fontsize=12,
        color=INK,
    )
    mean = 100 * evaluation.mean_ap
    for column, axes in enumerate(np.ravel(figure.subplots(1, num_columns))):
        part = classes[column * num_rows : (column + 1) * num_rows]
        for row, (name, one) in enumerate(part):
            ap = 0.0 if math.isnan(one.ap) else 100 * one.ap
            axes.barh(row, ap, color=_rgb(colours[name]), height=0.72)
            text = "no objects" if math.isnan(one.ap) else f"{ap:.1f}"
            axes.text(ap + 0.8, row, text, va="center", color=INK, fontsize=9, bbox=_ON_WHITE)
        axes.set_yticks(range(len(part)), [f"{name} ({one.num_objects:,})" for name, one in part])
        axes.set(xlim=(0, 108), ylim=(num_rows - 0.4, -0.9), xticks=range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        if math.isfinite(mean):
            axes.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0.9)
            axes.text(mean, -0.95, f"mAP {mean:.1f}", ha="center", va="bottom", color=INK)
    return figure


@in_house_style
def precision_recall_figure(evaluation: Evaluation, colours: Colours) -> Figure | None:
    """One small panel for each class that has objects."""
    classes = {name: one for name, one in evaluation.classes.items() if one.num_objects}
    if not classes:
        return None
    num_columns = min(len(classes), 5 if len(classes) <= 25 else 8)
    num_rows = math.ceil(len(classes) / num_columns)
    side = 1.85 if num_columns <= 5 else 1.4
    width, height = max(4.5, side * num_columns), 0.9 + max(side * num_rows, 2.6)
    figure = Figure(figsize=(width, height))
    figure.suptitle(
        "Precision against recall, and AP (%)", x=0.01, ha="left", fontsize=12, color=INK
    )
    # Not shared: each limit set on one of 80 shared axes is passed on to all of them.
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in panels.flat[len(classes) :]:
        axes.set_visible(False)
    for axes, (name, one) in zip(panels.flat, classes.items(), strict=False):
        # From (0, first precision): recall starts at the first detection.
        recall = np.concatenate([[0.0], one.recall])
        precision = np.concatenate(
            [one.precision[:1] if len(one.precision) else [0.0], one.precision]
        )
        colour = _rgb(colours[name])
        axes.fill_between(recall, precision, color=colour, alpha=0.25, linewidth=0)
        axes.plot(recall, precision, color=colour, linewidth=1.6, clip_on=False)
        axes.set_title(f"{name}  {_percent(one.ap)}", fontsize=9 if side > 1.5 else 8)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.tick_params(labelsize=8)
        axes.label_outer()
    figure.supxlabel("recall", fontsize=10, color=INK)
    figure.supylabel("precision", fontsize=10, color=INK)
    return figure


def _rows(history: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """The rows of a split by ascending step; of several for one step, the last written."""
    by_step = {row["step"]: row for row in history if row.get("split") == split}
    return [by_step[step] for step in sorted(by_step)]


def _unit(rows: Sequence[Mapping[str, Any]]) -> str:
    """What to count along the axis: steps where less than an epoch passes (endless data)."""
    return "epoch" if rows and rows[-1]["epoch"] >= 1 else "step"


def _series(rows: Sequence[Mapping[str, Any]], key: str, unit: str) -> np.ndarray:
    """(epoch or step, value) where there is a value. [N, 2]"""
    points = [(row[unit], row[key]) for row in rows if row.get(key) is not None]
    return np.array(points, np.float64).reshape(-1, 2)


def _is_loss(key: str) -> bool:
    return key == "loss" or key.startswith("loss/")


def _loss_name(key: str) -> str:
    return "total" if key == "loss" else key.removeprefix("loss/").replace("_", " ")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a twenty-fifth of the points; at the ends, of what is there."""
    width = 2 * (len(values) // 50) + 1
    kernel = np.ones(width)
    total = np.convolve(values, kernel, mode="same")
    return total / np.convolve(np.ones(len(values)), kernel, mode="same")


def _count_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=axes.get_xlim()[1] >= 4))


def _percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"


def _rgb(colour: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)
