"""The evaluation of the PyTorch reference, its faults included, so that one row compares like with
like.

The numbers published for the reference (gitE0Z9/pytorch-implementations, notebook yolov1-v2 of
2021-09: mAP 52.4 with ResNet-18, 57.3 with ResNet-34) came from its own measure, which is not that
of PASCAL VOC. What it does, in its order:

  1. The ground truth is read back from the S x S grid of the loss: of several objects of a cell
     only the last one's box is left, once for every class in the cell. Difficult objects do not
     exist.
  2. A box belongs to the class of its largest product confidence * class score, its score.
  3. NMS of each class in an image goes through its boxes by descending score. It passes over boxes
     whose score is below 0.3, or not within (0, 1), or whose width or height is not positive; these
     suppress nobody. It stops before the last box, which is therefore never detected, whatever its
     score. IoU > 0.5 suppresses.
  4. A detection goes to the object of its class that it overlaps most. Of those that go to the same
     object, the one with the highest IoU counts, not the one with the highest score. It is a true
     positive if that IoU > 0.5.
  5. Average precision is a trapezoid rule over the points (recall r, best precision at a recall
     beyond r), which start at (0, best precision) and lack the last recall. It is 0 where there is
     nothing to find, and such classes count in the mean.

Collisions and the trapezoid raise the result, the rest lowers it: never set it beside official
numbers.

Frame: [0, 1] of the network input, scaled to its pixels. Axes: N images, S grid side, K boxes per
cell, C classes, A detections of all images.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.evaluation.average_precision import (
    ClassEvaluation,
    Evaluation,
    most_overlapped,
    recall_and_precision,
)
from yolov1_jax.evaluation.grid_objects import grid_objects
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy
from yolov1_jax.yolo.detections import Detections, GroundTruth
from yolov1_jax.yolo.nms import suppress


@dataclasses.dataclass(frozen=True)
class SeedEvaluation(Evaluation):
    """The result, and what the faults took away."""

    num_objects_counted: int  # as ground truth, of all classes
    num_objects_vanished: int  # not difficult, but without a place in the grid of their own
    num_lost_as_last: int  # NMS would have kept them, were they not the last box of their class
    num_lost_to_high_score: int  # boxes that take no part in NMS because their score is >= 1


def evaluate_seed(
    boxes_cxcywh: np.ndarray,
    confidence: np.ndarray,
    class_scores: np.ndarray,
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
    *,
    image_size: int = 448,
    score_threshold: float = 0.3,
    nms_iou_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> SeedEvaluation:
    """Evaluates the network's output by the rule above.

    Args:
      boxes_cxcywh: [N, S, S, K, 4], decoded, in [0, 1]; not clipped.
      confidence: [N, S, S, K].
      class_scores: [N, S, S, C].
      ground_truth: N of them, boxes_xyxy in [0, 1].
      class_names: C distinct names.
      image_size: side of the network input, pixels.
      score_threshold, nms_iou_threshold, iou_threshold: those of steps 3, 3 and 4.
    """
    grid_size, num_classes = class_scores.shape[1], len(class_names)
    if len(ground_truth) != len(class_scores) or num_classes != class_scores.shape[-1]:
        raise ValueError(
            f"expected {len(ground_truth)} images and {num_classes} classes, got class scores of "
            f"shape {class_scores.shape}"
        )
    image, found, num_last, num_high = seed_detections(
        boxes_cxcywh,
        confidence,
        class_scores,
        image_size=image_size,
        score_threshold=score_threshold,
        iou_threshold=nms_iou_threshold,
    )
    truth_image, truth_boxes, truth_labels, *_ = grid_objects(ground_truth, grid_size, num_classes)
    truth_boxes = truth_boxes * image_size
    num_not_difficult = sum(int(np.sum(~np.asarray(one.difficult, bool))) for one in ground_truth)

    classes = {}
    for label, name in enumerate(class_names):
        detected, true = found.labels == label, truth_labels == label
        true_positive = match_class_by_iou(
            found.boxes_xyxy[detected],
            found.scores[detected],
            image[detected],
            truth_boxes[true],
            truth_image[true],
            iou_threshold=iou_threshold,
        )
        num_objects = int(np.sum(true))
        recall, precision = recall_and_precision(true_positive, ~true_positive, num_objects)
        ap = average_precision_trapezoid(recall, precision) if num_objects else 0.0
        classes[name] = ClassEvaluation(ap, recall, precision, num_objects, len(recall))
    return SeedEvaluation(
        protocol="seed",
        num_images=len(ground_truth),
        classes=classes,
        mean_ap=float(np.mean([one.ap for one in classes.values()])),
        classes_without_objects=tuple(
            name for name, one in classes.items() if one.num_objects == 0
        ),
        num_objects_counted=len(truth_labels),
        num_objects_vanished=num_not_difficult - len(truth_labels),
        num_lost_as_last=num_last,
        num_lost_to_high_score=num_high,
    )


class SeedBoxes(NamedTuple):
    """Step 2: the boxes of N images in the order in which equal scores rank.

    M = N * K * S * S boxes: of an image all cells of the first box, then all of the second.
    """

    image: np.ndarray  # int [M], ascending
    boxes_cxcywh: np.ndarray  # [M, 4], pixels of the network input
    labels: np.ndarray  # int [M]
    scores: np.ndarray  # [M]
    has_size: np.ndarray  # bool [M], width and height are positive
    is_last: np.ndarray  # bool [M], the lowest of its class in its image, the last among equals


def seed_boxes(
    boxes_cxcywh: np.ndarray,
    confidence: np.ndarray,
    class_scores: np.ndarray,
    *,
    image_size: int,
) -> SeedBoxes:
    """Arguments as in `evaluate_seed`."""
    num_images, num_classes = len(class_scores), class_scores.shape[-1]
    products = confidence[..., None] * class_scores[..., None, :]  # [N, S, S, K, C]
    products = np.moveaxis(products, 3, 1).reshape(-1, num_classes)  # [M, C]
    boxes_cxcywh = np.moveaxis(boxes_cxcywh, 3, 1).reshape(-1, 4) * image_size
    image = np.repeat(np.arange(num_images), len(products) // max(num_images, 1))
    labels = np.argmax(products, axis=-1)
    scores = np.take_along_axis(products, labels[:, None], axis=-1)[:, 0]

    by_score = np.lexsort((-scores, labels, image))  # stable
    group = image[by_score] * num_classes + labels[by_score]
    is_last = np.zeros(len(scores), bool)
    is_last[by_score[np.diff(group, append=-1) != 0]] = True
    has_size = np.asarray((boxes_cxcywh[:, 2:] > 0).all(axis=-1))
    return SeedBoxes(image, boxes_cxcywh, labels, scores, has_size, is_last)


def seed_detections(
    boxes_cxcywh: np.ndarray,
    confidence: np.ndarray,
    class_scores: np.ndarray,
    *,
    image_size: int,
    score_threshold: float,
    iou_threshold: float,
) -> tuple[np.ndarray, Detections, int, int]:
    """Steps 2 and 3. Arguments as in `evaluate_seed`.

    Returns:
      Index of the image, int [A], ascending; the detections in pixels of the network input, those
      of an image in the order of the boxes: all cells of the first box, then all of the second;
      the number lost as last; the number lost to a high score.
    """
    num_classes = class_scores.shape[-1]
    boxes = seed_boxes(boxes_cxcywh, confidence, class_scores, image_size=image_size)
    score = boxes.scores
    in_range = (score > 0) & (score < 1)
    rows = np.flatnonzero((score >= score_threshold) & in_range & boxes.has_size)
    # The last box has nobody left to suppress, so it may take part and be struck off afterwards.
    kept = seed_nms(boxes, rows, num_classes, iou_threshold)
    num_lost_as_last = int(np.sum(kept & boxes.is_last[rows]))
    rows = rows[kept & ~boxes.is_last[rows]]
    num_lost_to_high_score = int(np.sum((score >= 1) & boxes.has_size))
    found = Detections(cxcywh_to_xyxy(boxes.boxes_cxcywh[rows]), score[rows], boxes.labels[rows])
    return boxes.image[rows], found, num_lost_as_last, num_lost_to_high_score


def seed_nms(
    boxes: SeedBoxes, rows: np.ndarray, num_classes: int, iou_threshold: float
) -> np.ndarray:
    """Which of these rows, ascending, are not suppressed by another of them. bool [A]."""
    candidate = boxes.labels[rows, None] == np.arange(num_classes)  # [A, C]
    kept = suppress(
        cxcywh_to_xyxy(boxes.boxes_cxcywh[rows]),
        np.broadcast_to(boxes.scores[rows, None], candidate.shape),
        candidate,
        boxes.image[rows],
        iou_threshold,
    )
    return np.asarray(kept.any(axis=-1))


def match_class_by_iou(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    image: np.ndarray,
    truth_boxes_xyxy: np.ndarray,
    truth_image: np.ndarray,
    *,
    iou_threshold: float,
) -> np.ndarray:
    """Step 4 for one class.

    Args:
      boxes_xyxy, scores, image: [D, 4], [D] and [D], the detections of all images.
      truth_boxes_xyxy, truth_image: [T, 4] and [T]; `truth_image` is ascending.

    Returns:
      bool [D] true positive, by descending score. Equal scores stand by image and, within one, by
      descending IoU, then in the given order.
    """
    truth, iou = most_overlapped(boxes_xyxy, image, truth_boxes_xyxy, truth_image, iou_xyxy)
    by_iou = np.lexsort((-scores, -iou))  # of equal IoU, NMS lists the higher score first
    over = by_iou[iou[by_iou] > iou_threshold]
    _, first = np.unique(truth[over], return_index=True)
    true_positive = np.zeros(len(boxes_xyxy), bool)
    true_positive[over[first]] = True
    return true_positive[np.lexsort((-iou, image, -scores))]


def average_precision_trapezoid(recall: np.ndarray, precision: np.ndarray) -> float:
    """Step 5. recall, precision [D] -> area; 0 where fewer than two objects were found."""
    if len(recall) == 0:
        return 0.0
    beyond = np.searchsorted(recall, recall, side="right")  # first detection of a higher recall
    has_beyond = beyond < len(recall)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    points_recall = np.concatenate([[0.0], recall[has_beyond]])
    points_precision = np.concatenate([best_from[:1], best_from[beyond[has_beyond]]])
    return float(np.trapezoid(points_precision, points_recall))
