"""The plots of a run, as matplotlib figures: training, precision, errors, the data in the grid.

Figures are made without pyplot, which would keep them, and whatever the user's own settings are.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from yolov1_jax.data.dataset import Annotations, GroundTruth, shortened
from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.visualization.draw import COLOURS, class_colour, printable
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import cell_of

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
in_house_style = matplotlib.style.context(["default", STYLE])  # decorates a function
_NUM_BINS = 40  # of the smooth loss curve
# With more than MANY classes, a plot by class shows FEW of them, and says so.
MANY, FEW = 100, 30


@in_house_style
def loss_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The loss and its terms in metrics.jsonl by epoch, smoothed; None if there are no losses.

    Those on the evaluation set are dashed. Below is the learning rate.
    """
    keys = dict.fromkeys(key for row in history for key in row if key.split("/")[0] == "loss")
    lines = {key: line for key in keys if (line := _by_epoch(history, "train", key)).size}
    if not lines:
        return None
    figure = Figure(figsize=(8, 5.6))
    axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.set_title("Loss in training, and dashed on the evaluation set")
    terms = sorted(key for key in keys if key != "loss")
    colours = {"loss": INK, **dict(zip(terms, itertools.cycle(COLOURS), strict=False))}
    smooth = {key: _binned(line) for key, line in lines.items()}
    # In the order of the last values, which is the order of the lines at the right edge.
    for key, (epochs, values) in sorted(smooth.items(), key=lambda item: -item[1][1][-1]):
        label = "total" if key == "loss" else key.removeprefix("loss/").replace("_", " ")
        width, marker = 2.5 if key == "loss" else 1.8, "o" if len(epochs) == 1 else ""
        axes.plot(epochs, values, marker, color=colours[key], linewidth=width, label=label)
        evaluated = _by_epoch(history, "eval", key)
        axes.plot(*evaluated, "--o", color=colours[key], linewidth=0.7 * width, markersize=3)
    rate_axes.plot(*_by_epoch(history, "train", "learning_rate"), color=INK)
    rate_axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    if terms:  # of different sizes
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(0, max(epochs[-1] for epochs, _ in lines.values()))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@in_house_style
def score_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """mAP, or top-1 and top-5, by epoch; the best is marked. None without an evaluation."""
    # A run that was continued with another protocol shows the last one only.
    protocol = [row.get("protocol") for row in history if row["split"] == "eval"][-1:]
    history = [row for row in history if [row.get("protocol")] == protocol]
    lines = {key: _by_epoch(history, "eval", key) for key in ("mAP", "top1", "top5")}
    lines = {key: line for key, line in lines.items() if line.size}
    if not lines:
        return None
    title = f"mAP (%), {protocol[0]}" if "mAP" in lines else "Accuracy (%)"
    figure = curves_figure(title, {key: line.T for key, line in lines.items()})
    epochs, values = next(iter(lines.values()))
    best = epochs[values.argmax()], 100 * values.max()
    colour = INK if len(lines) > 1 else COLOURS[1]
    figure.axes[0].plot(*best, "o", color=colour, markersize=9)
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "color": colour}
    figure.axes[0].annotate(f"{best[1]:.1f}", best, (0, 9), **style)
    return figure


@in_house_style
def curves_figure(title: str, curves: Mapping[str, Any]) -> Figure:
    """Curves in percent by their names; a point is (epoch, fraction)."""
    lines = {name: np.transpose(points) * [[1], [100]] for name, points in curves.items()}
    figure, shown = Figure(figsize=(8, 4)), use_fonts_of(curves)
    axes = figure.add_subplot(title=title, xlabel="epoch")
    for (name, line), colour in zip(lines.items(), itertools.cycle(COLOURS), strict=False):
        axes.plot(*line, "-o", color=colour, linewidth=2, markersize=4, label=shown[name])
    last, highest = np.max([line.max(axis=1) for line in lines.values()], axis=0)
    axes.set(xlim=(0, None), ylim=(0, 1.15 * max(highest, 5)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=last >= 4))
    if len(lines) > 1:
        axes.legend()
    return figure


@in_house_style
def ap_figure(
    evaluation: Evaluation, published: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """AP of each class as a bar, the best first, and the mAP as a line.

    `published`: AP by class, fractions, of others by their names: a marker on each bar.
    """
    classes = enumerate(evaluation.classes.items())
    ranked = sorted(classes, key=lambda item: -np.nan_to_num(item[1][1].ap, nan=-1))
    few = ""
    if len(ranked) > MANY:
        ranked = [item for item in ranked if item[1][1].num_objects][-FEW:]
        few = f"\nthe {len(ranked)} worst of {len(evaluation.classes):,} classes"
    figure = Figure(figsize=(8, 1.3 + 0.26 * len(ranked)))
    set_title(figure, f"AP by class (%), {evaluation.protocol}, and number of objects{few}")
    shown, mean = use_fonts_of(evaluation.classes), 100 * evaluation.mean_ap
    axes = figure.add_subplot()
    _draw_bars(
        axes,
        [f"{shown[name]} ({one.num_objects:,})" for _, (name, one) in ranked],
        [100 * one.ap for _, (_, one) in ranked],
        [f"{100 * one.ap:.1f}" if one.num_objects else "no objects" for _, (_, one) in ranked],
        [class_colour(label) for label, _ in ranked],
    )
    for (name, aps), marker in zip((published or {}).items(), "oD^s", strict=False):
        values = [100 * aps.get(class_name, np.nan) for _, (class_name, _) in ranked]
        axes.plot(
            values, range(len(ranked)), marker, color=INK, mec="white", markersize=6, label=name
        )
    if published:
        figure.legend(loc="outside lower left", ncols=4)
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20))
    if math.isfinite(mean):
        axes.axvline(mean, color=INK, linewidth=1.2, linestyle="--", zorder=0.9)
        axes.text(mean, -0.95, f"mAP {mean:.1f}", ha="center", va="bottom", color=INK)
    return figure


@in_house_style
def precision_recall_figure(
    evaluation: Evaluation, points: Mapping[str, Mapping[str, float]] | None = None
) -> Figure | None:
    """Precision against recall, a panel for each class with objects; None if there is no such.

    `points`: see `working_points`; a dot on the curve of each class, with its score threshold.
    """
    classes = [
        (label, name, one)
        for label, (name, one) in enumerate(evaluation.classes.items())
        if one.num_objects
    ]
    if not classes:
        return None
    few = ""
    if len(classes) > MANY:
        few = f"\nthe {FEW} of {len(classes):,} classes that have the most objects"
        classes = sorted(classes, key=lambda item: -item[2].num_objects)[:FEW]
    num_rows = math.ceil(len(classes) / 5)
    num_columns = math.ceil(len(classes) / num_rows)
    side = 2.6 if len(classes) <= 3 else 1.85  # inches
    figure = Figure(figsize=(max(4.5, side * num_columns), 0.9 + side * num_rows))
    dots = "\ndot: the best F1, at this score" if points else ""
    set_title(figure, f"Precision against recall, and AP (%), {evaluation.protocol}{dots}{few}")
    shown = use_fonts_of(evaluation.classes)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for place, (axes, (label, name, one)) in enumerate(zip(panels, classes, strict=False)):
        # From recall 0, with the precision of the first detection.
        recall = np.append(0.0, one.recall)
        precision = np.append(one.precision[0] if len(one.precision) else 0.0, one.precision)
        axes.fill_between(recall, precision, color=class_colour(label), alpha=0.25, linewidth=0)
        axes.plot(recall, precision, color=class_colour(label), linewidth=1.6, clip_on=False)
        if point := (points or {}).get(name):
            x, y, text = point["recall"], point["precision"], f"{point['threshold']:.2f}"
            axes.plot(x, y, "o", color=INK, mec="white", zorder=3)
            # The text goes where there is room.
            x, ha = (x + 0.06, "left") if x < 0.4 else (x - 0.06, "right")
            y, va = (y + 0.05, "bottom") if ha == "left" and y < 0.8 else (y - 0.05, "top")
            axes.text(x, y, text, ha=ha, va=va, fontsize=8)
        title = f"{shortened(shown[name], 16)}  {100 * one.ap:.1f}"
        axes.set_title(title, fontsize=9 if len(title) < 24 else 7.5)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        # Numbers at the left edge, and below the last panel of every column.
        lowest, leftmost = place + num_columns >= len(classes), place % num_columns == 0
        axes.tick_params(labelsize=8, labelbottom=lowest, labelleft=leftmost)
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=10, color=INK)
    figure.supylabel("precision", fontsize=10, color=INK)
    return figure


@in_house_style
def kinds_figure(errors: Mapping[str, Any]) -> Figure:
    """What mending each kind of error alone would add to AP50; `errors`: see `find_errors`."""
    figure = Figure(figsize=(5.8, 2.9))
    set_title(figure, f"Points of AP50 ({100 * errors['ap50']:.1f}) that mending an error adds")
    axes, kinds = figure.add_subplot(), errors["kinds"]
    gains = [100 * one["gain"] for one in kinds.values()]
    texts = [f"{100 * one['gain']:.1f}, {one['share']:.0%} of the lost" for one in kinds.values()]
    names = [f"{name} ({one['count']:,})" for name, one in kinds.items()]
    _draw_bars(axes, names, gains, texts, COLOURS[0])
    axes.set_xlim(0, 1.7 * max(gains) or 1)
    return figure


@in_house_style
def confusion_figure(
    confusion: Sequence[Sequence[int]] | np.ndarray, class_names: Sequence[str]
) -> Figure:
    """How often each class, by row, was taken for each, by column: images to classify, [C, C].

    Or objects to detect, [C + 1, C + 1]; the last row is background, the last column missed.
    """
    counts, size = np.array(confusion), len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # of the row
    shown, few = list(range(len(counts))), ""
    if size > MANY:
        wrong = counts[:size, :size] * (1 - np.eye(size, dtype=int))
        most = np.argsort(-wrong.sum(axis=0) - wrong.sum(axis=1), kind="stable")[:FEW]
        shown = [*np.sort(most).tolist(), *shown[size:]]
        few = f"\nthe {FEW} most confused of {size:,} classes"
    counts, shares = (values[np.ix_(shown, shown)] for values in (counts, shares))
    number = len(shown)
    side = max(4.2, 1.8 + min(0.36, 14 / number) * number)  # inches
    figure = Figure(figsize=(side, side))
    has_background = shown[-1] == size
    what = "Objects by row, detections" if has_background else "Classes by row, predictions"
    set_title(figure, f"{what} by column{few}")
    axes, is_large = figure.add_subplot(), number > FEW + 1
    texts = [[f"{n / 1000:.0f}k" if n > 9999 else str(n or "") for n in row] for row in counts]
    _draw_matrix(axes, shares, () if is_large else texts)
    printed = use_fonts_of([class_names[i] for i in shown if i < size]).values()
    names, font = [shortened(name, 18) for name in printed], 5.5 if is_large else 8
    axes.set_xticks(range(number), [*names, "missed"][:number], rotation=90, fontsize=font)
    axes.set_yticks(range(number), [*names, "background"][:number], fontsize=font)
    if has_background:
        axes.axhline(number - 1.5, color=INK, linewidth=0.8)
        axes.axvline(number - 1.5, color=INK, linewidth=0.8)
    return figure


@in_house_style
def calibration_figure(errors: Mapping[str, Any]) -> Figure:
    """How many of the detections of a score are right; the area of a dot is their number."""
    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.add_subplot(xlabel="mean score", ylabel="share that is right (precision)")
    axes.set_title(f"Score and precision; error {errors['calibration_error']:.3f}")
    axes.plot([0, 1], [0, 1], "--", color="#999999")
    keys = "avg_confidence", "avg_accuracy", "count"
    if rows := [[one[key] for key in keys] for one in errors["calibration"]]:
        scores, precision, counts = np.array(rows).T
        axes.plot(scores, precision, color=COLOURS[0])
        axes.scatter(scores, precision, 12 + 200 * counts / counts.max(), COLOURS[0], clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


@in_house_style
def grid_figure(annotations: Annotations, grid_size: int) -> Figure:
    """Where the centres of the objects are, how large they are, and how many lose their cell.

    Counts the objects that are to be found: those not difficult.
    """
    objects = np.flatnonzero(~annotations.difficult)
    image = annotations.image_index[objects]
    boxes = annotations.boxes_xyxy[objects] / annotations.sizes[image][:, [1, 0, 1, 0]]  # [A, 4]
    cells = cell_of((boxes[:, :2] + boxes[:, 2:]) / 2, grid_size)  # [A, 2]
    in_cell = np.bincount(cells @ [1, grid_size], minlength=grid_size**2)
    num_cells = len(np.unique(np.column_stack([image, cells]), axis=0))
    sides = 100 * np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))

    lost = 1 - num_cells / max(len(objects), 1)
    figure = Figure(figsize=(6.6, 3.6))
    set_title(
        figure,
        f"{len(objects):,} objects on the {grid_size} x {grid_size} grid: {lost:.1%} lose their "
        f"cell to another,\nwhich caps recall at {1 - lost:.1%}",
    )
    places, extents = figure.subplots(1, 2)
    places.set_title("share of centres (%)", fontsize=10)
    shares = 100 * in_cell.reshape(grid_size, -1) / max(len(objects), 1)
    texts = [[f"{share:.1f}" for share in row] for row in shares]
    _draw_matrix(places, shares, texts if grid_size <= 9 else ())
    places.set(xticks=[], yticks=[])
    extents.set_title("root of the area (% of image)\ndashed: one cell", fontsize=10)
    extents.hist(sides, bins=np.linspace(0, 100, 26), color=COLOURS[0])
    extents.axvline(100 / grid_size, color=INK, linestyle="--", linewidth=1.2)
    extents.set_ylabel("objects")
    return figure


@in_house_style
def boxes_figure(
    image: np.ndarray, grid_size: int, truth: GroundTruth, panels: Mapping[str, Detections]
) -> Figure:
    """Boxes on an image with the S x S grid, a panel each; a stronger line for a higher score.

    `image`: uint8 RGB [H, W, 3]; `truth`: whose cells are filled; `panels`: boxes in pixels, by the
    words after their number in the title.
    """
    height, width = image.shape[:2]
    cell = np.array([width, height]) / grid_size
    centres = (truth.boxes_xyxy[:, :2] + truth.boxes_xyxy[:, 2:]) / 2 / [width, height]
    figure = Figure(figsize=(12, 12 / len(panels) * height / width + 0.3))
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, boxes) in zip(all_axes, panels.items(), strict=True):
        axes.imshow(image, extent=(0, width, height, 0), alpha=0.75)
        axes.set_title(f"{len(boxes.labels):,} {title}", fontsize=10)
        axes.set_xticks(cell[0] * np.arange(grid_size + 1), [])
        axes.set_yticks(cell[1] * np.arange(grid_size + 1), [])
        axes.tick_params(length=0)
        axes.grid(color="white", linewidth=0.6, alpha=0.8)
        for place, label in zip(cell_of(centres, grid_size), truth.labels, strict=True):
            filled = Rectangle(place * cell, *cell, color=class_colour(label))
            axes.add_patch(filled).set(alpha=0.3, linewidth=0)
        for i in np.argsort(boxes.scores, kind="stable"):
            box, strength = boxes.boxes_xyxy[i], float(np.clip(boxes.scores[i], 0.02, 1))
            outline = Rectangle(box[:2], *(box[2:] - box[:2]), fill=False)
            axes.add_patch(outline).set(edgecolor=class_colour(boxes.labels[i]))
            outline.set(linewidth=0.6 + 2.9 * strength, alpha=min(1.0, 0.2 + 1.6 * strength))
        axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    colours: str | Sequence[str],
) -> None:
    """Horizontal bars from the top, with a text behind each."""
    bars = axes.barh(range(len(names)), np.nan_to_num(values), color=colours, height=0.72)
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # hides lines
    axes.bar_label(bars, texts, padding=3, color=INK, fontsize=9, bbox=on_white)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.9))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _draw_matrix(axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    axes.imshow(values, cmap="Blues", vmin=0)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values if texts else np.zeros((0, 0))):
        ink = "white" if value > 0.55 * values.max() else INK
        axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, fontsize=7)


def set_title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK)


def use_fonts_of(names: Iterable[str]) -> dict[str, str]:
    """What to write for each name; `in_house_style` takes the fonts for it back at its end."""
    shown = {name: printable(name) for name in names}
    families = ["DejaVu Sans", *(one.family for one in shown.values())]
    matplotlib.rcParams["font.family"] = list(dict.fromkeys(families))
    return {name: one.text for name, one in shown.items()}


def _binned(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centres of bins of equal length, and the mean loss of the steps in each.

    A value is the mean of the steps since the one before; the last may be of fewer than the others.
    """
    epochs, values = line
    length = np.diff(epochs, prepend=0)
    num_bins = max(1, min(_NUM_BINS, round(epochs[-1] / np.median(length))))
    edges = np.linspace(0, epochs[-1], num_bins + 1)
    sums = np.interp(edges, np.append(0, epochs), np.append(0, np.cumsum(values * length)))
    return (edges[1:] + edges[:-1]) / 2, np.diff(sums) / np.diff(edges)


def _by_epoch(history: Sequence[Mapping[str, Any]], split: str, key: str) -> np.ndarray:
    """Epochs and values of the rows that have a value, the last row of each step. [2, N]"""
    rows = {row["step"]: (row["epoch"], row.get(key)) for row in history if row["split"] == split}
    points = [rows[step] for step in sorted(rows) if rows[step][1] is not None]
    return np.array(points, np.float64).reshape(-1, 2).T
