"""The pictures of a run and its tables for the terminal.

report/losses.png            loss and its terms by epoch
report/map.png               mAP by epoch
report/ap_by_class.png       AP of each class, and their mean
report/precision_recall.png  precision against recall, class by class
report/detections.jpg        a few evaluation images with ground truth and detections

A picture without numbers to show is not written.
"""

import functools
import math
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.table import Table

from yolov1_jax.data.dataset import Source
from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.training.run_folder import replacing
from yolov1_jax.visualization import plots
from yolov1_jax.visualization.draw import draw_page


def report_result(
    folder: pathlib.Path, result: Result, source: Source, history_path: pathlib.Path
) -> list[pathlib.Path]:
    """Draws everything into <folder>/report, with twelve images spread over the source.

    Args:
      folder: the run folder, or that of a single evaluation.
      source: that the result is of.
      history_path: the metrics.jsonl of the run; may be missing.

    Returns:
      The pictures written.
    """
    folder = folder / "report"
    history = read_metrics(history_path)
    figures = {
        "losses.png": plots.loss_figure(history),
        "map.png": plots.mean_ap_figure(history),
        "ap_by_class.png": plots.ap_figure(result.evaluation),
        "precision_recall.png": plots.precision_recall_figure(result.evaluation),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    for name, figure in drawn.items():
        with replacing(folder / name) as temporary:
            figure.savefig(temporary)
    shown = np.unique(np.linspace(0, len(source) - 1, 12).round().astype(int)).tolist()
    page = draw_page(
        [source[i].image for i in shown],
        [result.detections[i] for i in shown],
        [result.annotations[i] for i in shown],
        result.annotations.class_names,
    )
    with replacing(folder / "detections.jpg") as temporary:
        Image.fromarray(page).save(temporary, quality=80)
    return [folder / name for name in (*drawn, "detections.jpg")]


def ap_table(evaluation: Evaluation, *, step: int | None = None) -> Table:
    """AP of each class in percent, for a terminal. `step`: of the run; None for no run's."""
    title = evaluation.protocol + ("" if step is None else f", step {step:,}")
    table = Table(title=title, title_justify="left", show_footer=True)
    classes = evaluation.classes.values()
    table.add_column("class", footer="mAP", overflow="fold")
    add_column = functools.partial(table.add_column, justify="right", no_wrap=True)
    add_column("AP", footer=_percent(evaluation.mean_ap))
    add_column("objects", footer=f"{sum(one.num_objects for one in classes):,}")
    add_column("detections", footer=f"{sum(one.num_detections for one in classes):,}")
    for name, one in evaluation.classes.items():
        counts = f"{one.num_objects:,}", f"{one.num_detections:,}"
        table.add_row(escape(name), _percent(one.ap), *counts)
    return table


def protocol_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """The mAP by every protocol, and the other APs of COCO's, in percent, for a terminal."""
    table = Table(show_edge=False)
    numbers = []
    for protocol, evaluation in evaluations.items():
        aps = {name: value for name, value in evaluation.parts.items() if name.startswith("AP")}
        for name, value in {protocol: evaluation.mean_ap, **aps}.items():
            table.add_column(name.removeprefix("AP_"), justify="right", no_wrap=True)
            numbers.append(_percent(value))
    table.add_row(*numbers)
    return table


def _percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"
