"""The picture of a comparison: mAP by epoch and AP by class of several runs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from yolov1_jax.visualization.plots import LINE_COLOURS, in_house_style, set_title, use_fonts_of


@in_house_style
def comparison_figure(
    title: str,
    names: Sequence[str],
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]],
    protocol: str,
) -> Figure:
    """Curves on the left, a panel for each protocol that has any; AP by class on the right.

    Args:
      title: of the evaluation set.
      names: everything that is compared; their order is that of the colours.
      scores: by protocol and name: "mAP", "ap" by class, "by_epoch" with (epoch, mAP); fractions.
      protocol: whose AP by class is drawn.
    """
    curves = {
        one: {name: score["by_epoch"] for name, score in by_name.items() if "by_epoch" in score}
        for one, by_name in scores.items()
    }
    curves = {one: by_name for one, by_name in curves.items() if by_name}
    drawn = set(scores[protocol]).union(*curves.values())
    names = [name for name in names if name in drawn]
    cycles = zip(itertools.cycle(LINE_COLOURS), itertools.cycle("os^DvPX*"), strict=False)
    styles: dict[str, dict[str, Any]] = {
        name: {"color": colour, "marker": marker, "markersize": 8, "mec": "white", "mew": 0.6}
        for name, (colour, marker) in zip(names, cycles, strict=False)
    }
    values: dict[str, dict[str, float]] = {"mAP": {}}  # percent by class and name
    for name, score in scores[protocol].items():
        for label, value in {"mAP": score["mAP"], **score.get("ap", {})}.items():
            if value is not None:
                values.setdefault(label, {})[name] = 100 * value
    mean, *rows = values.items()
    rows = [mean, *sorted(rows, key=lambda row: -sum(row[1].values()) / len(row[1]))]

    figure = Figure(figsize=(12 if curves else 7, max(3.9 * len(curves), 2.2 + 0.29 * len(rows))))
    set_title(figure, title)
    shown = use_fonts_of([*names, *values])
    handles = [Line2D([], [], label=shown[name], **styles[name]) for name in names]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    grid = figure.add_gridspec(1, 2 if curves else 1)
    if curves:
        panels = grid[0].subgridspec(len(curves), 1)
        for place, (rule, by_name) in enumerate(curves.items()):
            axes = figure.add_subplot(panels[place], title=f"mAP (%) by epoch, {rule}")
            for name, points in by_name.items():
                epochs, mean_aps = zip(*points, strict=True)
                axes.plot(epochs, 100 * np.array(mean_aps), clip_on=False, **styles[name])
            axes.set(xlabel="epoch", xlim=(0, None), ylim=(0, None))
    axes = figure.add_subplot(grid[-1], title=f"AP (%) by class, {protocol}")
    for place, (_, by_name) in enumerate(rows):
        ordered = sorted(by_name.values()) or [0.0]
        axes.hlines(place, ordered[0], ordered[-1], color="#c4c4c4")
        for name, value in by_name.items():
            axes.plot(value, place, linestyle="", clip_on=False, **styles[name])
    axes.set_yticks(range(len(rows)), [shown[label] for label, _ in rows])
    # A font of the system may not have it in bold.
    axes.get_yticklabels()[0].set(fontweight="bold", fontfamily="DejaVu Sans")
    axes.axhline(0.5, color="#999999", linewidth=0.8)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    return figure
