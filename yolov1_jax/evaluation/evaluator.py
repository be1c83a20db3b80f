"""From detections to numbers: all protocols at once, for a run's own or for a file's detections.

voc07  the official 11-point rule of PASCAL VOC
voc10  its area rule, since 2010
seed   the PyTorch reference's own rule, its faults included; it needs the network's output, and
       its numbers compare with those published for the reference only
coco   COCO's AP over the overlaps 0.5 to 0.95
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from yolov1_jax.data.dataset import Source, SourceReport
from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.average_precision import Evaluation, by_protocol, evaluate_detections
from yolov1_jax.evaluation.coco import CocoEvaluation, evaluate_coco
from yolov1_jax.evaluation.ground_truth import AnnotatedImages, number_images
from yolov1_jax.evaluation.reference_protocol import evaluate_seed
from yolov1_jax.evaluation.results import ResultsFileError
from yolov1_jax.evaluation.results_files import read_results
from yolov1_jax.yolo.detections import Detections, GroundTruth
from yolov1_jax.yolo.grid import Predictions, decode_boxes

PROTOCOLS = ("voc07", "voc10", "seed", "coco")
QUICK_PROTOCOLS = ("voc07", "voc10", "seed")  # seconds for all of VOC2007 test


class Result(NamedTuple):
    """Evaluations and what they were computed from, all of it in the order of the images."""

    protocol: str  # the one that is asked for
    evaluations: dict[str, Evaluation]  # by protocol; that one is among them
    detections: list[Detections]
    images: AnnotatedImages

    @property
    def evaluation(self) -> Evaluation:
        return self.evaluations[self.protocol]

    @property
    def ground_truth(self) -> list[GroundTruth]:
        return self.images.ground_truth


def annotated_images(source: Source) -> AnnotatedImages:
    """The images of a source, boxes in pixels of the original ones, and what it has to note."""
    records = [source.annotation(index) for index in range(len(source))]
    truths = []
    for record in records:
        size = np.array([[record["width"], record["height"]] * 2], np.float64)  # [1, 4]
        relative = record["boxes_xyxy"]
        boxes = relative * size
        # Annotations are mostly whole pixels: give back the very numbers that division has blurred,
        # by a last digit or two of the record's own precision.
        whole = np.round(boxes)
        boxes = np.where(
            np.abs(boxes - whole) <= 4 * np.finfo(relative.dtype).eps * size, whole, boxes
        )
        truths.append(GroundTruth(boxes, record["labels"], record["difficult"]))
    image_ids = tuple(record["image_id"] for record in records)
    sizes = [(record["height"], record["width"]) for record in records]
    return AnnotatedImages(
        image_ids=image_ids,
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        class_names=tuple(source.class_names),
        ground_truth=truths,
        image_numbers=number_images(image_ids),
        category_ids=tuple(range(1, len(source.class_names) + 1)),
        notes=_notes(source.report),
    )


def _notes(report: SourceReport) -> tuple[str, ...]:
    """A line for each reason why the ground truth is not what the files have."""
    groups = (
        ("images left out", report.skipped),
        ("objects left out", report.skipped_objects),
        ("corrected in the data", report.corrected),
    )
    return tuple(
        f"{len(names):,} {what}, {reason}: {names[0]}" + ", ..." * (len(names) > 1)
        for what, reasons in groups
        for reason, names in reasons.items()
    )


def evaluate_predictions(
    predictions: Predictions[np.ndarray],
    sizes: np.ndarray,
    images: AnnotatedImages,
    *,
    protocol: str,
    select_options: dict[str, Any],
    others: Sequence[str] = (),
) -> Result:
    """Scores the network's output on the host.

    Args:
      predictions: of N images, NumPy, in the order of `images`.
      sizes: int [N, 2], height and width of the original images.
      protocol: one of PROTOCOLS. "seed" has its own thresholds and ignores those of
        `select_options`; the detections of the result are those of the official rules.
      select_options: keyword arguments of `detections_from_predictions`.
      others: further protocols to evaluate by.
    """
    detections = detections_from_predictions(predictions, sizes, **select_options)
    wanted = {protocol, *others}
    evaluations = evaluate_by(wanted - {"seed"}, detections, images)
    if "seed" in wanted:
        evaluations["seed"] = evaluate_seed(
            decode_boxes(predictions.boxes, xy_unit=select_options["xy_unit"]),
            predictions.confidence,
            predictions.class_scores,
            [
                truth._replace(boxes_xyxy=truth.boxes_xyxy / size[[1, 0, 1, 0]])
                for truth, size in zip(images.ground_truth, sizes, strict=True)
            ],
            images.class_names,
        )
    return Result(protocol, evaluations, detections, images)


def evaluate_by(
    protocols: set[str],
    detections: Sequence[Detections],
    images: AnnotatedImages,
    file_order: Sequence[np.ndarray] | None = None,
) -> dict[str, Evaluation]:
    """Evaluations by protocol, of all but "seed". Arguments as in `evaluate_detections`."""
    truths, class_names = images.ground_truth, images.class_names
    evaluations: dict[str, Evaluation] = {}
    official = protocols & {"voc07", "voc10"}
    if official:
        one = evaluate_detections(detections, truths, class_names, file_order=file_order)
        evaluations |= {protocol: by_protocol(one, protocol) for protocol in sorted(official)}
    if "coco" in protocols:
        evaluations["coco"] = evaluate_coco(detections, truths, class_names, images.areas)
    return evaluations


def evaluation_summary(
    result: Result, *, source: str, splits: Sequence[str], step: int | None = None
) -> dict[str, Any]:
    """What <workdir>/eval/<step>.json holds. AP of a class without objects is null.

    So is the mAP if no class has any.

    Args:
      source, splits: where the annotations are from, as config.data has it.
      step: of the run; None for detections from a file.
    """
    classes = result.evaluation.classes
    truths = result.ground_truth
    num_difficult = int(sum(np.sum(truth.difficult) for truth in truths))
    protocols = {name: _numbers(result.evaluations[name]) for name in sorted(result.evaluations)}
    return {
        "step": step,
        "protocol": result.protocol,
        "mAP": _none_if_nan(result.evaluation.mean_ap),
        "ap": {name: _none_if_nan(one.ap) for name, one in classes.items()},
        "num_images": len(truths),
        "num_objects": sum(one.num_objects for one in classes.values()),
        "num_difficult": num_difficult,
        "num_detections": sum(len(found.scores) for found in result.detections),
        "splits": list(splits),
        "protocols": protocols,
        "evaluation_set": {
            "source": source,
            "splits": list(splits),
            "num_images": len(truths),
            "num_objects": sum(len(truth.labels) for truth in truths) - num_difficult,
            "num_difficult": num_difficult,
            "fingerprint": result.images.fingerprint(),
        },
        "notes": list(result.images.notes),
    }


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    numbers: dict[str, Any] = {"mAP": _none_if_nan(evaluation.mean_ap)}
    if isinstance(evaluation, CocoEvaluation):
        numbers |= {
            "AP50": _none_if_nan(evaluation.ap50),
            "AP75": _none_if_nan(evaluation.ap75),
            "AP_small": _none_if_nan(evaluation.ap_small),
            "AP_medium": _none_if_nan(evaluation.ap_medium),
            "AP_large": _none_if_nan(evaluation.ap_large),
        }
    numbers["ap"] = {name: _none_if_nan(one.ap) for name, one in evaluation.classes.items()}
    return numbers


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def score_results_file(
    path: str | os.PathLike[str],
    source: Source | AnnotatedImages,
    class_names: Sequence[str] | None = None,
    *,
    protocol: str = "voc07",
    source_name: str = "",
    splits: Sequence[str] = (),
    unknown_classes: str = "refuse",
    unknown_images: str = "refuse",
) -> tuple[list[Detections], list[GroundTruth], dict[str, Any]]:
    """Scores detections that any program has written.

    Args:
      path, unknown_classes, unknown_images: see `read_results`.
      source: what the detections are of.
      class_names: the order of the labels that are returned; None for that of the source.
      protocol: the one whose mAP the summary begins with; not "seed".
      source_name, splits: what the summary calls the source, as config.data does.

    Returns:
      Detections and ground truth by image, and the `evaluation_summary` with all protocols but
      "seed", and the "notes" of the data and of the reading.

    Raises:
      UserError: the file cannot be scored.
    """
    images = source if isinstance(source, AnnotatedImages) else annotated_images(source)
    if class_names is not None:
        images = with_class_names(images, class_names)
    result, notes = evaluate_results_file(
        path,
        images,
        protocol=protocol,
        unknown_classes=unknown_classes,
        unknown_images=unknown_images,
    )
    summary = evaluation_summary(result, source=source_name, splits=splits)
    return result.detections, result.ground_truth, {**summary, "notes": notes}


def evaluate_results_file(
    path: str | os.PathLike[str],
    images: AnnotatedImages,
    *,
    protocol: str = "voc07",
    unknown_classes: str = "refuse",
    unknown_images: str = "refuse",
) -> tuple[Result, list[str]]:
    """As `score_results_file`; returns the result, and the notes of the data and the reading."""
    protocols = [name for name in PROTOCOLS if name != "seed"]
    if protocol not in protocols:
        raise UserError(
            f"protocol of detections from a file must be one of {protocols}, got {protocol!r}: "
            "'seed' needs the network's output"
        )
    try:
        results = read_results(
            path, images, unknown_classes=unknown_classes, unknown_images=unknown_images
        )
    except ResultsFileError as error:
        raise UserError(str(error)) from None
    evaluations = evaluate_by(set(protocols), results.detections, images, results.file_order)
    notes = [*images.notes, *results.notes]
    return Result(protocol, evaluations, results.detections, images), notes


def with_class_names(images: AnnotatedImages, class_names: Sequence[str]) -> AnnotatedImages:
    """The same images, labelled by another list of names.

    Raises:
      UserError: there are objects of a class that is not in the list.
    """
    number = dict(zip(images.class_names, images.category_ids, strict=True))
    next_number = max(images.category_ids, default=0) + 1
    for name in class_names:
        if name not in number:
            number[name] = next_number
            next_number += 1
    label = {name: index for index, name in enumerate(class_names)}
    new_label = np.array([label.get(name, -1) for name in images.class_names], np.int64)
    truths = []
    for truth in images.ground_truth:
        labels = new_label[truth.labels]
        if (labels < 0).any():
            lost = images.class_names[truth.labels[labels < 0][0]]
            raise UserError(
                f"expected objects of the classes {', '.join(class_names)}, found {lost!r}: add "
                "it to the class names"
            )
        truths.append(truth._replace(labels=labels))
    return dataclasses.replace(
        images,
        class_names=tuple(class_names),
        ground_truth=truths,
        category_ids=tuple(number[name] for name in class_names),
    )
