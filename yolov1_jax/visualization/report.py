"""The pictures and the table that a run ends with.

<workdir>/report/losses.png            loss and its terms by epoch
<workdir>/report/map.png               mAP by epoch
<workdir>/report/ap_by_class.png       AP of each class, and their mean
<workdir>/report/precision_recall.png  precision against recall, class by class
<workdir>/report/detections.jpg        evaluation images with ground truth and detections

A picture for which there are no numbers yet is not written.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from rich.markup import escape
from rich.table import Table

from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.evaluation.coco import CocoEvaluation
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.visualization import plots as figures
from yolov1_jax.visualization.class_colours import class_colour
from yolov1_jax.visualization.draw import DRAWN_SCORE
from yolov1_jax.visualization.gallery import draw_gallery
from yolov1_jax.yolo.detections import Detections, GroundTruth


def write_report(
    workdir: str | os.PathLike[str],
    *,
    evaluation: Evaluation,
    history_path: str | os.PathLike[str],
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
    score_threshold: float = DRAWN_SCORE,
) -> list[pathlib.Path]:
    """Draws everything into <workdir>/report.

    Args:
      workdir: the run folder.
      evaluation: of all images.
      history_path: the metrics.jsonl of the run; may be missing.
      images: a few of the evaluation's images, uint8 RGB [H, W, 3], of any size.
      detections, ground_truth: of those images.
      class_names: the name of each label.
      score_threshold: detections below it are not drawn; the curves and numbers have them all.

    Returns:
      The pictures written.
    """
    folder = pathlib.Path(workdir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    history = read_metrics(history_path)
    colours = {name: class_colour(label) for label, name in enumerate(class_names)}
    written = []
    drawn = {
        "losses.png": figures.loss_figure(history),
        "map.png": figures.mean_ap_figure(history),
        "ap_by_class.png": figures.ap_figure(evaluation, colours),
        "precision_recall.png": figures.precision_recall_figure(evaluation, colours),
    }
    for name, figure in drawn.items():
        if figure is not None:
            figure.savefig(folder / name)
            written.append(folder / name)
    if len(images):
        path = folder / "detections.jpg"
        gallery = draw_gallery(
            images, detections, ground_truth, class_names, score_threshold=score_threshold
        )
        Image.fromarray(gallery).save(path, quality=80)
        written.append(path)
    return written


def ap_table(evaluation: Evaluation, *, step: int | None = None) -> Table:
    """The result by class, for a terminal. AP in percent. `step`: None for no run's."""
    title = evaluation.protocol + ("" if step is None else f", step {step:,}")
    table = Table(title=title, title_justify="left", show_footer=True)
    classes = evaluation.classes.values()
    num_objects = sum(one.num_objects for one in classes)
    num_detections = sum(one.num_detections for one in classes)
    table.add_column("class", footer="mAP", overflow="fold")
    table.add_column("AP", footer=_percent(evaluation.mean_ap), justify="right", no_wrap=True)
    table.add_column("objects", footer=f"{num_objects:,}", justify="right", no_wrap=True)
    table.add_column("detections", footer=f"{num_detections:,}", justify="right", no_wrap=True)
    for name, one in evaluation.classes.items():
        table.add_row(
            escape(name), _percent(one.ap), f"{one.num_objects:,}", f"{one.num_detections:,}"
        )
    return table


def protocol_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """The means by every protocol, for a terminal, in percent. They do not compare."""
    table = Table(show_edge=False)
    numbers = []
    for protocol, evaluation in evaluations.items():
        table.add_column(protocol, justify="right", no_wrap=True)
        numbers.append(_percent(evaluation.mean_ap))
        if isinstance(evaluation, CocoEvaluation):
            parts = {
                "AP50": evaluation.ap50,
                "AP75": evaluation.ap75,
                "small": evaluation.ap_small,
                "medium": evaluation.ap_medium,
                "large": evaluation.ap_large,
            }
            for name, value in parts.items():
                table.add_column(name, justify="right", no_wrap=True)
                numbers.append(_percent(value))
    table.add_row(*numbers)
    return table


def _percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"
