"""Entries in one picture: what was measured alike shares a panel, and nothing else does."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from yolov1_jax.comparison.entries import (
    Curve,
    DataGroup,
    Entry,
    Score,
    group_data,
    key_of,
    measured_on,
    protocols_of,
)
from yolov1_jax.comparison.run_tables import curves_on
from yolov1_jax.comparison.tables import percent, scores_on
from yolov1_jax.visualization.class_colours import class_colour
from yolov1_jax.visualization.plots import INK, LINE_COLOURS, in_house_style

_COLUMN_WIDTH, _CURVE_HEIGHT, _ROW_HEIGHT, _FRAME_HEIGHT = 6.6, 3.4, 0.27, 1.1  # inches
_MARKERS = "osD^vPX*"


class _Panel(NamedTuple):
    height: float
    draw: Callable[[Axes], None]


@in_house_style
def comparison_figure(entries: Sequence[Entry]) -> Figure | None:
    """mAP, mAP by epoch, AP by class and training loss of everything that is compared.

    Curves and points share a panel only if protocol and evaluation set are the same, training
    losses only if the settings of the loss are. An entry has one colour and one letter throughout.
    """
    panels = [*_mean_ap_panels(entries), *_curve_panels(entries)]
    panels += [*_loss_panels(entries), *_class_panels(entries)]
    if not panels:
        return None
    columns: list[list[_Panel]] = [[], []] if len(panels) > 1 else [[]]
    for panel in panels:
        min(columns, key=lambda column: sum(one.height for one in column)).append(panel)
    height = max(sum(panel.height for panel in column) for column in columns)
    figure = Figure(figsize=(_COLUMN_WIDTH * len(columns), height))
    parts = figure.subfigures(1, len(columns), squeeze=False)[0]
    for part, column in zip(parts, columns, strict=True):
        heights = [panel.height for panel in column]
        rest = height - sum(heights)
        grid = part.add_gridspec(
            len(column) + (rest > 0.1), height_ratios=heights + [rest] * (rest > 0.1)
        )
        for number, panel in enumerate(column):
            panel.draw(part.add_subplot(grid[number]))
    return figure


def _mean_ap_panels(entries: Sequence[Entry]) -> list[_Panel]:
    """Bars for each evaluation set, under a heading for each protocol."""
    panels = []
    for group in measured_on(entries):
        scores = scores_on(entries, group)
        lines: list[tuple[int, Score] | str] = []
        for protocol in protocols_of(score for _, score in scores):
            lines += [protocol, *(one for one in scores if one[1].protocol == protocol)]
        panels.append(
            _Panel(_FRAME_HEIGHT + _ROW_HEIGHT * len(lines), _bars_of(entries, group, lines))
        )
    return panels


def _bars_of(
    entries: Sequence[Entry], group: DataGroup, lines: Sequence[tuple[int, Score] | str]
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for row, line in enumerate(lines):
            if isinstance(line, str):
                axes.text(1, row, line, va="center", color=INK, weight="bold")
                continue
            index, score = line
            value = 100 * (score.mean_ap or 0.0)
            axes.barh(row, value, color=_colour(index), height=0.7)
            axes.text(value + 1, row, percent(score.mean_ap), va="center", color=INK, fontsize=9)
        names = ["" if isinstance(line, str) else _name(entries, line[0]) for line in lines]
        axes.set_yticks(range(len(lines)), names)
        axes.set(xlim=(0, 108), ylim=(len(lines) - 0.4, -0.6), xticks=range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        _title(axes, "mAP (%)", group.label)

    return draw


def _curve_panels(entries: Sequence[Entry]) -> list[_Panel]:
    panels = []
    for group in group_data(curve.data for entry in entries for curve in entry.curves):
        curves = curves_on(entries, group)
        for protocol in protocols_of(curve for _, curve in curves):
            some = [one for one in curves if one[1].protocol == protocol]
            panels.append(_Panel(_CURVE_HEIGHT, _curves_of(entries, group, protocol, some)))
    return panels


def _curves_of(
    entries: Sequence[Entry],
    group: DataGroup,
    protocol: str,
    curves: Sequence[tuple[int, Curve]],
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        highest = 5.0
        for index, curve in curves:
            epochs, values = zip(*curve.points, strict=True)
            shown = [100 * value for value in values]
            axes.plot(
                epochs,
                shown,
                "-" + _marker(index),
                color=_colour(index),
                markersize=4,
                linewidth=1.8,
                label=_name(entries, index),
            )
            highest = max(highest, *shown)
        axes.set(xlabel="epoch", ylabel="mAP (%)", ylim=(0, min(highest * 1.1, 105)))
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
        _title(axes, f"mAP by epoch, {protocol}", group.label)

    return draw


def _class_panels(entries: Sequence[Entry]) -> list[_Panel]:
    panels = []
    for group in measured_on(entries):
        scores = [one for one in scores_on(entries, group) if one[1].ap]
        for protocol in protocols_of(score for _, score in scores):
            some = [one for one in scores if one[1].protocol == protocol]
            names = list(dict.fromkeys(name for _, score in some for name in score.ap))
            height = _FRAME_HEIGHT + _ROW_HEIGHT * (len(names) + 1 + 0.8 * len(some))
            panels.append(_Panel(height, _classes_of(entries, group, protocol, some, names)))
    return panels


def _classes_of(
    entries: Sequence[Entry],
    group: DataGroup,
    protocol: str,
    scores: Sequence[tuple[int, Score]],
    names: Sequence[str],
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for index, score in scores:
            values = [score.ap.get(name) for name in names]
            points = [(100 * v, row) for row, v in enumerate(values) if v is not None]
            axes.plot(
                *zip(*points, strict=True),
                _marker(index),
                color=_colour(index),
                markersize=6,
                alpha=0.85,
                clip_on=False,
                label=f"{_name(entries, index)}, mAP {percent(score.mean_ap)}",
            )
        axes.set_yticks(range(len(names)), names)
        axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xticks=range(0, 101, 20))
        axes.tick_params(axis="y", length=0, pad=8)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.3 / max(len(names) * _ROW_HEIGHT, 1)))
        _title(axes, f"AP by class (%), {protocol}", group.label)

    return draw


def _loss_panels(entries: Sequence[Entry]) -> list[_Panel]:
    """One for each loss: other weights, or a sum instead of a mean, give other numbers."""
    alike: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.losses:
            settings = {k: v for k, v in entry.settings.items() if k.startswith("loss.")}
            if settings.get("loss.reduction") == "sum":
                settings["train.batch_size"] = entry.settings.get("train.batch_size")
            settings["model.grid_size"] = entry.settings.get("model.grid_size")
            settings["data"] = entry.trained_on
            alike.setdefault(str(sorted(settings.items())), []).append(index)
    apart = "; losses of other settings or data in panels of their own" * (len(alike) > 1)
    return [
        _Panel(_CURVE_HEIGHT, _losses_of(entries, indices, apart)) for indices in alike.values()
    ]


def _losses_of(
    entries: Sequence[Entry], indices: Sequence[int], apart: str
) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        positive = True
        for index in indices:
            epochs, losses = zip(*entries[index].losses, strict=True)
            axes.plot(
                epochs,
                losses,
                "o" if len(epochs) == 1 else "-",  # of one point there is no line
                color=_colour(index),
                markersize=4,
                linewidth=1.6,
                label=_name(entries, index),
            )
            positive &= min(losses) > 0
        if positive:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(LogFormatter())
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_xlim(left=0)
        axes.legend(loc="upper right")
        _title(axes, "Training loss", f"trained on {entries[indices[0]].trained_on}{apart}")

    return draw


def _title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(f"{title}\n", fontsize=12)
    axes.text(0, 1.015, below, transform=axes.transAxes, fontsize=8.5, color="#666666", va="bottom")


def _name(entries: Sequence[Entry], index: int) -> str:
    return f"{key_of(index)} {entries[index].name}"


def _colour(index: int) -> str | tuple[float, ...]:
    if index < len(LINE_COLOURS):
        return LINE_COLOURS[index]
    return tuple(channel / 255 for channel in class_colour(index))


def _marker(index: int) -> str:
    return _MARKERS[index % len(_MARKERS)]
