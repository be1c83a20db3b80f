"""Score threshold and greedy non-maximum suppression (NMS), class by class.

Any frame of boxes_xyxy will do. Axes: N images, D boxes of an image, C classes.
"""

import numpy as np

from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.detections import Detections


def greedy_nms(boxes_xyxy: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Visits boxes by descending score and keeps one unless a kept one overlaps it too much.

    Args:
      boxes_xyxy: [D, 4].
      scores: [D]; equal scores are visited in the order given.
      iou_threshold: a kept box removes those after it where their IoU > iou_threshold.

    Returns:
      int [kept], indices of the boxes that are kept, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes_xyxy[order].astype(np.float64)
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= iou_xyxy(boxes[i], boxes[i + 1 :]) <= iou_threshold
    return order[alive]


def select_detections(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    *,
    score_threshold: float,
    iou_threshold: float,
    classes_per_box: str = "best",
) -> list[Detections]:
    """Keeps the boxes that score enough and do not repeat a better one of their class.

    Args:
      boxes_xyxy: [N, D, 4].
      scores: [N, D, C], of each box for each class. NaN is never detected.
      score_threshold: a box is a candidate for a class where its score >= score_threshold.
      iou_threshold: see `greedy_nms`.
      classes_per_box: "best": a box is a candidate for the class of its largest score only (the
        first of equals); "all": for every class.

    Returns:
      N Detections, each by descending score; equal scores in the order of the boxes, then of the
      classes.
    """
    candidate = scores >= score_threshold  # [N, D, C]
    if classes_per_box == "best":
        best = np.argmax(scores, axis=-1)  # [N, D]
        candidate &= best[..., None] == np.arange(scores.shape[-1])
    return [
        _select(*image, iou_threshold) for image in zip(boxes_xyxy, scores, candidate, strict=True)
    ]


def _select(
    boxes_xyxy: np.ndarray, scores: np.ndarray, candidate: np.ndarray, iou_threshold: float
) -> Detections:
    """One image: [D, 4], [D, C], bool [D, C]."""
    kept = np.zeros_like(candidate)
    for label in np.flatnonzero(candidate.any(axis=0)):
        rows = np.flatnonzero(candidate[:, label])
        kept[rows[greedy_nms(boxes_xyxy[rows], scores[rows, label], iou_threshold)], label] = True
    box, labels = np.nonzero(kept)
    order = np.argsort(-scores[box, labels], kind="stable")
    box, labels = box[order], labels[order]
    return Detections(boxes_xyxy[box], scores[box, labels], labels)
