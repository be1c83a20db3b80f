"""COCO's average precision, by COCO's own program (pycocotools).

AP is the mean over the overlaps 0.50, 0.55 ... 0.95 of the mean precision at 101 levels of recall;
AP50 and AP75 are those of one overlap; small, medium and large are of objects of up to 32 x 32, up
to 96 x 96, and more pixels of the original image. Of an image, the 100 best detections of a class
count. A matched object is one that is still free, unlike in PASCAL VOC's rule.

Difficult objects are COCO's crowds: they need not be found, and a detection that lies in one
(overlap over the detection's area) counts as neither.

Boxes come in the numbers of a VOC annotation; see `evaluation/coco_files.py` for COCO's.
"""

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov1_jax.evaluation.average_precision import ClassEvaluation, Evaluation
from yolov1_jax.evaluation.coco_files import coco_annotations, coco_results
from yolov1_jax.evaluation.ground_truth import AnnotatedImages
from yolov1_jax.yolo.detections import Detections, GroundTruth


@dataclasses.dataclass(frozen=True)
class CocoEvaluation(Evaluation):
    """`mean_ap` is AP; NaN where there is no such object. Curves are means over the overlaps."""

    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float


def evaluate_coco(
    detections: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
    areas: Sequence[np.ndarray] | None = None,
) -> CocoEvaluation:
    """COCO's evaluation.

    Args:
      detections, ground_truth: one element an image, in the same order; equal scores are ordered by
        image, then as they stand in it.
      class_names: distinct names; labels are indices into it.
      areas: of the objects, float [N] an image, square pixels; None for those of the boxes.
    """
    if len(detections) != len(ground_truth):
        raise ValueError(
            f"expected one Detections and one GroundTruth an image, got {len(detections)} and "
            f"{len(ground_truth)}"
        )
    numbers = tuple(range(1, len(ground_truth) + 1))
    images = AnnotatedImages(
        image_ids=tuple(map(str, numbers)),
        sizes=np.zeros((len(numbers), 2), np.int64),
        class_names=tuple(class_names),
        ground_truth=list(ground_truth),
        image_numbers=numbers,
        category_ids=tuple(range(1, len(class_names) + 1)),
        areas=None if areas is None else list(areas),
    )
    precision = _precision(images, coco_results(detections, images))  # [T, R, C, A]
    mean = {name: _mean(precision[index]) for name, index in _PARTS.items()}
    classes = {}
    for label, name in enumerate(class_names):
        num_objects = sum(
            int(np.sum((truth.labels == label) & ~np.asarray(truth.difficult, bool)))
            for truth in ground_truth
        )
        curve = precision[:, :, label, 0].mean(axis=0)  # [R]
        has_curve = num_objects > 0
        classes[name] = ClassEvaluation(
            ap=_mean(precision[:, :, label, 0]),
            recall=np.linspace(0, 1, len(curve)) if has_curve else np.zeros(0),
            precision=curve if has_curve else np.zeros(0),
            num_objects=num_objects,
            num_detections=sum(int(np.sum(found.labels == label)) for found in detections),
        )
    return CocoEvaluation(
        protocol="coco",
        num_images=len(ground_truth),
        classes=classes,
        mean_ap=mean["AP"],
        classes_without_objects=tuple(
            name for name, one in classes.items() if one.num_objects == 0
        ),
        ap50=mean["AP50"],
        ap75=mean["AP75"],
        ap_small=mean["AP_small"],
        ap_medium=mean["AP_medium"],
        ap_large=mean["AP_large"],
    )


# Overlaps are 0.50, 0.55, ... 0.95; areas are all, small, medium and large.
_PARTS: dict[str, tuple[Any, ...]] = {
    "AP": (slice(None), ..., 0),
    "AP50": (0, ..., 0),
    "AP75": (5, ..., 0),
    "AP_small": (slice(None), ..., 1),
    "AP_medium": (slice(None), ..., 2),
    "AP_large": (slice(None), ..., 3),
}


def _precision(images: AnnotatedImages, results: list[dict[str, Any]]) -> np.ndarray:
    """Precision by overlap, recall level, class and range of areas; -1 without objects."""
    for number, row in enumerate(results, start=1):
        width, height = row["bbox"][2:]
        row.update(id=number, area=width * height, iscrowd=0)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth, found = COCO(), COCO()
        truth.dataset = coco_annotations(images)
        found.dataset = {**truth.dataset, "annotations": results}
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]  # of at most 100 detections: [T, R, C, A]


def _mean(precision: np.ndarray) -> float:
    """Over the classes that have objects, NaN where none has."""
    there = precision[precision > -1]
    return float(np.mean(there)) if there.size else np.nan
