"""Score threshold and per-class non-maximum suppression (NMS) of many images at once.

Greedy NMS visits the boxes of a class by descending score, keeps a box unless a kept one overlaps
it too much, and so removes the repeats of an object. Here the same result comes without visiting:
only pairs of boxes that overlap too much matter, and in each pair the higher score can remove the
lower. All images and classes of a chunk are settled together, in as many rounds as the longest
chain "A removes B, so B cannot remove C, so C is kept" needs.

Any frame of boxes_xyxy will do. Axes: N images, D boxes of an image, C classes, A boxes of all
images that are a candidate for some class.
"""

import itertools

import numpy as np

from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.detections import Detections

# Bounds the memory of a chunk: its arrays have up to this many rows, or those of a single image.
_PAIRS_PER_CHUNK = 2**18


def select_detections(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    *,
    score_threshold: float,
    iou_threshold: float,
    classes_per_box: str = "best",
    max_detections: int | None = None,
) -> list[Detections]:
    """Keeps the boxes that score enough and are not repeats of a better one of their class.

    Args:
      boxes_xyxy: [N, D, 4].
      scores: [N, D, C], a score of each box for each class. NaN is never detected.
      score_threshold: a box is a candidate for a class where its score >= score_threshold.
      iou_threshold: a kept box suppresses a lower one of its class where their IoU > iou_threshold.
      classes_per_box: "best": a box is a candidate for the class of its largest score only (the
        first of equals); "all": for every class.
      max_detections: keep at most that many of an image, the best; None keeps all.

    Returns:
      N Detections, each by descending score; equal scores in the order of the boxes, then of the
      classes. Among equal scores NMS too prefers the first box.
    """
    if boxes_xyxy.shape != (*scores.shape[:2], 4) or scores.ndim != 3:
        raise ValueError(
            f"expected boxes [N, D, 4] and scores [N, D, C], got {boxes_xyxy.shape} and "
            f"{scores.shape}"
        )
    num_images, _, num_classes = scores.shape
    candidate = scores >= score_threshold  # [N, D, C]
    if classes_per_box == "best":
        best = np.argmax(scores, axis=-1)  # [N, D]
        candidate &= best[..., None] == np.arange(num_classes)
    elif classes_per_box != "all":
        raise ValueError(f"classes_per_box must be 'best' or 'all', got {classes_per_box!r}")

    image, box = np.nonzero(candidate.any(axis=-1))  # [A]
    boxes_xyxy, scores = boxes_xyxy[image, box], scores[image, box]  # [A, 4], [A, C]
    kept = suppress(boxes_xyxy, scores, candidate[image, box], image, iou_threshold)

    row, label = np.nonzero(kept)
    image, score = image[row], scores[row, label]
    order = np.lexsort((-score, image))  # stable
    first_of_image = np.searchsorted(image, np.arange(num_images + 1))
    if max_detections is not None:
        rank = np.arange(len(image)) - first_of_image[image]  # `image` is sorted already
        order = order[rank < max_detections]
        first_of_image = np.searchsorted(image[order], np.arange(num_images + 1))
    boxes_xyxy, score, label = boxes_xyxy[row[order]], score[order], label[order]
    return [
        Detections(boxes_xyxy[start:stop], score[start:stop], label[start:stop])
        for start, stop in itertools.pairwise(first_of_image)
    ]


def suppress(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    candidate: np.ndarray,
    image: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """Greedy NMS within every (image, class).

    Args:
      boxes_xyxy: [A, 4], those of an image one after the other.
      scores: [A, C]. Of equal scores, the earlier row comes first.
      candidate: bool [A, C], the pairs of box and class that take part.
      image: int [A], ascending.
      iou_threshold: a kept box suppresses those below it where IoU > iou_threshold.

    Returns:
      bool [A, C], the candidates that are kept.
    """
    kept = candidate.copy()
    _, first_row, sizes = np.unique(image, return_index=True, return_counts=True)
    pairs = sizes * (sizes - 1) // 2
    chunk = np.cumsum(pairs) // _PAIRS_PER_CHUNK
    starts = first_row[np.flatnonzero(np.diff(chunk, prepend=-1))]
    for start, stop in itertools.pairwise([*starts, len(image)]):
        rows = slice(start, stop)
        kept[rows] &= ~_suppressed(
            boxes_xyxy[rows], scores[rows], candidate[rows], image[rows], iou_threshold
        )
    return kept


def _suppressed(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    candidate: np.ndarray,
    image: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """The candidates that greedy NMS removes. bool [A, C]."""
    first, second = _pairs_within(image)  # [P]
    boxes_xyxy = boxes_xyxy.astype(np.float64)
    overlapping = iou_xyxy(boxes_xyxy[first], boxes_xyxy[second]) > iou_threshold
    first, second = first[overlapping], second[overlapping]

    # The pairs once for each class in which both take part. first < second, so >= lets the earlier
    # row win among equals.
    pair, label = np.nonzero(candidate[first] & candidate[second])  # [E]
    first, second = first[pair], second[pair]
    first_wins = scores[first, label] >= scores[second, label]
    num_classes = candidate.shape[1]
    winner = np.where(first_wins, first, second) * num_classes + label
    loser = np.where(first_wins, second, first) * num_classes + label

    removed = np.zeros(candidate.size, bool)
    while len(winner):
        # Whoever loses to nobody left is kept and removes all it beats; the removed beat nobody.
        # The best candidate left is always such a winner, so every round settles some pairs.
        beaten = np.zeros(candidate.size, bool)
        beaten[loser] = True
        removed[loser[~beaten[winner]]] = True
        unsettled = ~(removed[winner] | removed[loser])
        winner, loser = winner[unsettled], loser[unsettled]
    return removed.reshape(candidate.shape)


def _pairs_within(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows i < j of the same group. Ascending [A] -> indices [P], [P]."""
    row = np.arange(len(group))
    later = np.searchsorted(group, group, side="right") - row - 1  # rows after this, in its group
    first = np.repeat(row, later)
    pairs_before = np.cumsum(later) - later
    second = first + 1 + np.arange(len(first)) - np.repeat(pairs_before, later)
    return first, second
