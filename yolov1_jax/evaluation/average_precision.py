"""Mean average precision by the rules of the PASCAL VOC development kit (VOCevaldet.m, VOCap.m).

The official rules, kept to the letter because a looser version gives other numbers:

  - Boxes are inclusive pixels: from 3 to 5 is 3 pixels wide. The overlap of two boxes counts that
    +1 and is compared in doubles; 0.5 is enough.
  - Detections of a class are taken from all images by descending score; the order of the images,
    then that of the detections in an image, decides between equal scores.
  - A detection goes to the object of its image and class that it overlaps most, the first of
    equals, even if that one is already taken or difficult.
  - The first detection of an object is a true positive, each further one a false positive. What
    goes to a difficult object is neither, and difficult objects need not be found.

Boxes are expected in the 1-based pixels of the original image, as the annotations have them. For
boxes that are anything else (0-based, fractional) the same rule, +1 included, is applied to the
numbers as they are.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.yolo.detections import (
    Detections,
    GroundTruth,
    join_detections,
    join_ground_truth,
)


class ClassEvaluation(NamedTuple):
    """One class over all images. The arrays follow the detections by descending score."""

    ap: float  # average precision, NaN where there is no object to find
    recall: np.ndarray  # float64 [num_detections], found objects / objects up to here
    precision: np.ndarray  # float64 [num_detections], found objects / counted detections up to here
    num_objects: int  # that must be found: those not difficult
    num_detections: int  # ignored ones included


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All classes, in the order of the class names."""

    protocol: str
    num_images: int
    classes: dict[str, ClassEvaluation]
    mean_ap: float  # over the classes that have objects; NaN where none has
    classes_without_objects: tuple[str, ...]


def evaluate_detections(
    detections: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
    protocol: str = "voc07",
    iou_threshold: float = 0.5,
    file_order: Sequence[np.ndarray] | None = None,
) -> Evaluation:
    """The official evaluation.

    Args:
      detections, ground_truth: one element an image, in the same order.
      class_names: distinct names; labels are indices into it.
      protocol: "voc07" (11 points) or "voc10" (area under the curve; the rule since VOC2010).
      iou_threshold: the overlap from which (>=) a detection finds an object.
      file_order: int [D] an image, where each detection stands in a file; decides between equal
        scores of all images, as the development kit has it. None: as they are given.

    A class without an object that is not difficult has no average precision (the development kit
    gives NaN or 0): it is left out of the mean and named in `classes_without_objects`.
    """
    if protocol not in AVERAGE_PRECISION:
        raise ValueError(f"protocol must be one of {sorted(AVERAGE_PRECISION)}, got {protocol!r}")
    if len(detections) != len(ground_truth):
        raise ValueError(
            f"expected one Detections and one GroundTruth an image, got {len(detections)} and "
            f"{len(ground_truth)}"
        )
    image, found = join_detections(detections)
    truth_image, truth = join_ground_truth(ground_truth)
    check_labels(found.labels, len(class_names))
    check_labels(truth.labels, len(class_names))
    place = np.arange(len(image)) if file_order is None else np.concatenate([[], *file_order])
    by_score = np.lexsort((place, -found.scores))

    classes = {}
    for label, name in enumerate(class_names):
        detected = by_score[found.labels[by_score] == label]
        true = truth.labels == label
        difficult = truth.difficult[true]
        true_positive, false_positive = match_class(
            found.boxes_xyxy[detected],
            image[detected],
            truth.boxes_xyxy[true],
            truth_image[true],
            difficult,
            iou_threshold=iou_threshold,
        )
        num_objects = int(np.sum(~difficult))
        recall, precision = recall_and_precision(true_positive, false_positive, num_objects)
        ap = AVERAGE_PRECISION[protocol](recall, precision) if num_objects else np.nan
        classes[name] = ClassEvaluation(ap, recall, precision, num_objects, len(recall))

    without = tuple(name for name, one in classes.items() if one.num_objects == 0)
    aps = [one.ap for one in classes.values() if one.num_objects > 0]
    mean_ap = float(np.mean(aps)) if aps else np.nan
    return Evaluation(protocol, len(ground_truth), classes, mean_ap, without)


def by_protocol(evaluation: Evaluation, protocol: str) -> Evaluation:
    """The same detections by another of AVERAGE_PRECISION, which share everything but the area."""
    classes = {
        name: one._replace(ap=AVERAGE_PRECISION[protocol](one.recall, one.precision))
        if one.num_objects
        else one
        for name, one in evaluation.classes.items()
    }
    aps = [one.ap for one in classes.values() if one.num_objects]
    mean_ap = float(np.mean(aps)) if aps else np.nan
    return dataclasses.replace(evaluation, protocol=protocol, classes=classes, mean_ap=mean_ap)


def match_class(
    boxes_xyxy: np.ndarray,
    image: np.ndarray,
    truth_boxes_xyxy: np.ndarray,
    truth_image: np.ndarray,
    difficult: np.ndarray,
    *,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Decides what each detection of one class is.

    Args:
      boxes_xyxy, image: [D, 4] and [D], the detections of all images by descending score.
      truth_boxes_xyxy, truth_image, difficult: [T, 4], [T] and bool [T], the objects of all images;
        `truth_image` is ascending.
      iou_threshold: overlap that is enough.

    Returns:
      bool [D] true positive and bool [D] false positive; where both are False, it is ignored.
    """
    truth, overlap = most_overlapped(
        boxes_xyxy, image, truth_boxes_xyxy, truth_image, inclusive_overlap
    )
    enough = overlap >= iou_threshold
    ignored = np.zeros(len(boxes_xyxy), bool)
    ignored[enough] = difficult[truth[enough]]
    finds = np.flatnonzero(enough & ~ignored)
    _, first = np.unique(truth[finds], return_index=True)  # of the detections of each object
    true_positive = np.zeros(len(boxes_xyxy), bool)
    true_positive[finds[first]] = True
    return true_positive, ~true_positive & ~ignored


def inclusive_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes in inclusive pixels, paired: [P, 4], [P, 4] -> [P]."""
    size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1  # [P, 2]
    meet = (size > 0).all(axis=-1)
    intersection = size[:, 0] * size[:, 1]
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=-1) for boxes in (a, b))
    union = area_a + area_b - intersection  # positive where they meet
    return np.where(meet, intersection / np.where(meet, union, 1), 0.0)


def most_overlapped(
    boxes_xyxy: np.ndarray,
    image: np.ndarray,
    truth_boxes_xyxy: np.ndarray,
    truth_image: np.ndarray,
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The object of its image that each detection overlaps most, the first of equals.

    Args:
      boxes_xyxy, image: [D, 4] and [D], in any order.
      truth_boxes_xyxy, truth_image: [T, 4] and [T]; `truth_image` is ascending.
      overlap: paired boxes [P, 4], [P, 4] -> [P].

    Returns:
      int [D], index of the object, -1 where the image has none; float [D], the overlap, 0 there.
    """
    start = np.searchsorted(truth_image, image, side="left")
    count = np.searchsorted(truth_image, image, side="right") - start
    # All pairs of a detection with an object of its image, those of a detection in a row.
    detection = np.repeat(np.arange(len(image)), count)  # [P]
    first_pair = np.cumsum(count) - count
    truth = np.arange(len(detection)) + np.repeat(start - first_pair, count)
    overlaps = overlap(boxes_xyxy[detection], truth_boxes_xyxy[truth])

    best_truth, best_overlap = np.full(len(image), -1), np.zeros(len(image))
    some = count > 0
    if some.any():
        best_overlap[some] = np.maximum.reduceat(overlaps, first_pair[some])
    is_best = np.flatnonzero(overlaps == best_overlap[detection])
    having_best, first_best = np.unique(detection[is_best], return_index=True)
    best_truth[having_best] = truth[is_best[first_best]]
    return best_truth, best_overlap


def recall_and_precision(
    true_positive: np.ndarray, false_positive: np.ndarray, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both after each detection. bool [D], bool [D] -> float64 [D], float64 [D].

    Precision is 0 as long as all detections were ignored; recall is NaN if there are no objects.
    """
    found, counted = np.cumsum(true_positive), np.cumsum(true_positive | false_positive)
    recall = found / num_objects if num_objects else np.full(len(found), np.nan)
    return recall, found / np.maximum(counted, 1)


def average_precision_11_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2007: the mean, over recall levels 0, 0.1 ... 1, of the best precision from there on.

    The levels are the doubles k * 0.1, so 3 objects found of 10 do not reach the fourth level,
    0.30000000000000004.
    """
    levels = np.arange(11) * 0.1
    reached = recall >= levels[:, None]  # [11, D]
    return float(np.mean(np.max(np.where(reached, precision, 0.0), axis=-1, initial=0.0)))


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Since VOC2010: the area under the curve, after precision was made to fall monotonically."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


AVERAGE_PRECISION = {"voc07": average_precision_11_point, "voc10": average_precision_area}


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError where a label is not the index of a class."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"expected labels from 0 to {num_classes - 1}, got {wrong[0]}")
