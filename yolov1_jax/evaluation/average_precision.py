"""Mean average precision by the rules of the PASCAL VOC development kit (VOCevaldet.m, VOCap.m).

The details below change the numbers, so they follow the kit exactly:

  - Boxes are inclusive pixels: from 3 to 5 is 3 pixels wide. The overlap of two boxes counts that
    +1 and is compared in float64; an overlap of 0.5 is enough.
  - The detections of a class are taken from all images by descending score; equal scores keep the
    order of the images, then the order within the image.
  - A detection is assigned to the object of its image and class that it overlaps most, the first of
    equals, even if that object is already found or difficult.
  - The first detection of an object is a true positive, each further one a false positive. A
    detection of a difficult object is ignored, and difficult objects need not be found.

The same rule, +1 included, applies to boxes whose numbers are not whole.

Axes: D detections of a class, T objects of a class, P pairs of both in the same image.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.data.dataset import Annotations
from yolov1_jax.yolo.detections import Detections, join_detections


class ClassEvaluation(NamedTuple):
    """One class over all images. The arrays follow its detections by descending score."""

    ap: float  # average precision; NaN where there is no object to find
    recall: np.ndarray  # float64 [D], found objects / objects
    precision: np.ndarray  # float64 [D], found objects / detections that are not ignored
    num_objects: int  # that are to be found: those not difficult
    num_detections: int  # D, ignored ones included


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All classes by one protocol, in the order of the class names."""

    protocol: str
    classes: dict[str, ClassEvaluation]
    mean_ap: float  # NaN where no class has an object
    # Further numbers of COCO's protocol by their names there, for all classes and by class.
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    parts_by_class: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def classes_without_objects(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.classes.items() if one.num_objects == 0)


def evaluate_voc(
    detections: Sequence[Detections],
    annotations: Annotations,
    *,
    file_order: Sequence[np.ndarray] | None = None,
) -> dict[str, Evaluation]:
    """The official evaluation, by both rules: "voc07" (11 points) and "voc10" (area, since 2010).

    A class without an object to find has no AP (NaN) and is left out of the mean; the development
    kit gives NaN or 0 there.

    Args:
      detections: of each image, in the order of the annotations.
      file_order: int [d] of each image, the line of each detection in its file; it decides between
        equal scores of all images, as in the development kit. None: the given order.
    """
    image, found = join_detections(detections)
    place = np.arange(len(image)) if file_order is None else np.concatenate([[], *file_order])
    by_score = np.lexsort((place, -found.scores))

    classes: dict[str, dict[str, ClassEvaluation]] = {rule: {} for rule in _AVERAGE_PRECISION}
    for label, name in enumerate(annotations.class_names):
        rows = by_score[found.labels[by_score] == label]
        objects = np.flatnonzero(annotations.labels == label)
        difficult, object_boxes = annotations.difficult[objects], annotations.boxes_xyxy[objects]
        object_image = annotations.image_index[objects]
        best, overlap = most_overlapped(
            found.boxes_xyxy[rows], image[rows], object_boxes, object_image, inclusive_overlap
        )
        enough = overlap >= 0.5
        ignored = enough & np.append(difficult, False)[best]  # `best` may be -1
        finds = np.flatnonzero(enough & ~ignored)
        _, first = np.unique(best[finds], return_index=True)  # detection of each object
        true_positive = np.zeros(len(rows), bool)
        true_positive[finds[first]] = True

        num_objects = int(np.sum(~difficult))
        recall, precision = recall_and_precision(true_positive, ~ignored, num_objects)
        for rule, average_precision in _AVERAGE_PRECISION.items():
            ap = average_precision(recall, precision) if num_objects else np.nan
            classes[rule][name] = ClassEvaluation(ap, recall, precision, num_objects, len(rows))
    evaluations = {}
    for rule, by_name in classes.items():
        aps = [one.ap for one in by_name.values() if one.num_objects]
        mean_ap = float(np.mean(aps)) if aps else np.nan
        evaluations[rule] = Evaluation(protocol=rule, classes=by_name, mean_ap=mean_ap)
    return evaluations


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
    object_boxes_xyxy: np.ndarray,
    object_image: np.ndarray,
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The object of its image that each detection overlaps most, the first of equals.

    `object_image` [T] is ascending, `image` [D] need not be. `overlap` takes paired boxes.

    Returns:
      int [D], index of the object, -1 where the image has none; float [D], the overlap, 0 there.
    """
    start = np.searchsorted(object_image, image, side="left")
    count = np.searchsorted(object_image, image, side="right") - start
    # All pairs of a detection with an object of its image; those of a detection are consecutive.
    detection = np.repeat(np.arange(len(image)), count)  # [P]
    first_pair = np.cumsum(count) - count
    candidate = np.arange(len(detection)) + np.repeat(start - first_pair, count)
    overlaps = overlap(boxes_xyxy[detection], object_boxes_xyxy[candidate])

    by_overlap = np.lexsort((-overlaps, detection))  # stable
    having, first = np.unique(detection[by_overlap], return_index=True)
    pair = by_overlap[first]
    best, best_overlap = np.full(len(image), -1), np.zeros(len(image))
    best[having], best_overlap[having] = candidate[pair], overlaps[pair]
    return best, best_overlap


def recall_and_precision(
    true_positive: np.ndarray, counted: np.ndarray, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both after each detection [D]; `counted`: not ignored.

    Precision is 0 as long as all detections were ignored; recall is NaN if there are no objects.
    """
    found, num_counted = np.cumsum(true_positive), np.cumsum(counted)
    recall = found / num_objects if num_objects else np.full(len(found), np.nan)
    return recall, found / np.maximum(num_counted, 1)


def average_precision_11_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC2007: the mean, over recall levels 0, 0.1 ... 1, of the best precision from there on."""
    levels = np.arange(11) * 0.1  # 3 of 10 objects do not reach the fourth, 0.30000000000000004
    reached = recall >= levels[:, None]  # [11, D]
    return float(np.mean(np.max(np.where(reached, precision, 0.0), axis=-1, initial=0.0)))


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Since VOC2010: the area under the curve, with precision made to fall monotonically."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


_AVERAGE_PRECISION = {"voc07": average_precision_11_point, "voc10": average_precision_area}
