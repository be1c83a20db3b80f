"""The evaluation of the PyTorch reference, its faults included, to compare like with like.

The numbers published for the reference (gitE0Z9/pytorch-implementations, notebook yolov1-v2 of
2021-09: mAP 52.4 with ResNet-18, 57.3 with ResNet-34) come from its own measure, which is not that
of PASCAL VOC. Its steps:

  1. The ground truth is read back from the S x S grid of the loss: where several objects share a
     cell, only the box of the last one is left, once for every class in the cell. Difficult objects
     do not exist.
  2. A box belongs to the class of its largest product confidence * class score, its score.
  3. NMS visits the boxes of a class in an image by descending score. It skips boxes whose score is
     below 0.3 or not within (0, 1), or whose width or height is not positive; these suppress no
     other box. It stops before the last box, which is therefore never detected, whatever its score.
     IoU > 0.5 suppresses.
  4. A detection is assigned to the object of its class that it overlaps most. Of the detections of
     one object, the one with the highest IoU counts, not the one with the highest score. It is a
     true positive if that IoU > 0.5.
  5. Average precision is a trapezoid rule over the points (recall r, best precision at a recall
     beyond r), which start at (0, best precision) and lack the last recall. It is 0 for a class
     without objects, and such classes count in the mean.

Collisions and the trapezoid raise the result, the rest lowers it: it does not compare with official
numbers.

Frame: pixels of the network input, 448 x 448. Axes: N images, S grid side, K boxes per cell, C
classes, D detections, T objects in the grid.
"""

import numpy as np

from yolov1_jax.data.dataset import Annotations
from yolov1_jax.evaluation.average_precision import (
    ClassEvaluation,
    Evaluation,
    most_overlapped,
    recall_and_precision,
)
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh
from yolov1_jax.yolo.decode import box_order
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import cell_of
from yolov1_jax.yolo.nms import greedy_nms

INPUT_SIZE = 448
SCORE_THRESHOLD, NMS_IOU_THRESHOLD, MATCH_IOU_THRESHOLD = 0.3, 0.5, 0.5


def evaluate_reference(
    boxes_cxcywh: np.ndarray,
    confidence: np.ndarray,
    class_scores: np.ndarray,
    annotations: Annotations,
) -> Evaluation:
    """Evaluates the network's output by the steps above.

    Args:
      boxes_cxcywh: [N, S, S, K, 4], decoded, in [0, 1] of the image; not clipped.
      confidence, class_scores: [N, S, S, K], [N, S, S, C].
    """
    images, found = detect(boxes_cxcywh, confidence, class_scores)
    object_image, object_boxes, object_labels = grid_objects(annotations, class_scores.shape[1])
    classes = {}
    for label, name in enumerate(annotations.class_names):
        rows, objects = found.labels == label, object_labels == label
        scores, image, boxes = found.scores[rows], images[rows], found.boxes_xyxy[rows]
        best, iou = most_overlapped(
            boxes, image, object_boxes[objects] * INPUT_SIZE, object_image[objects], iou_xyxy
        )
        by_iou = np.lexsort((-scores, -iou))
        over = by_iou[iou[by_iou] > MATCH_IOU_THRESHOLD]
        _, first = np.unique(best[over], return_index=True)  # detection of each object
        true_positive = np.zeros(len(scores), bool)
        true_positive[over[first]] = True
        # Equal scores stand by image and, within one, by descending IoU, then in the given order.
        true_positive = true_positive[np.lexsort((-iou, image, -scores))]
        num_objects, counted = int(np.sum(objects)), np.ones(len(scores), bool)
        recall, precision = recall_and_precision(true_positive, counted, num_objects)
        ap = average_precision_trapezoid(recall, precision) if num_objects else 0.0
        classes[name] = ClassEvaluation(ap, recall, precision, num_objects, len(scores))
    mean_ap = float(np.mean([one.ap for one in classes.values()]))
    return Evaluation(protocol="reference", classes=classes, mean_ap=mean_ap)


def grid_objects(
    annotations: Annotations, grid_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step 1: image, int [T], boxes_xyxy in [0, 1], [T, 4], and label, int [T], of each object.

    They are sorted by image, row, column and class.
    """
    num_classes = len(annotations.class_names)
    kept = ~annotations.difficult
    image, labels = annotations.image_index[kept], annotations.labels[kept]
    boxes_xyxy = annotations.boxes_xyxy[kept] / annotations.sizes[image][:, [1, 0, 1, 0]]
    column, row = cell_of(xyxy_to_cxcywh(boxes_xyxy)[:, :2], grid_size).T
    cell = (image * grid_size + row) * grid_size + column
    # The last object of each cell is the first of the reversed order.
    cells, from_end = np.unique(cell[::-1], return_index=True)
    cell, label = np.divmod(np.unique(cell * num_classes + labels), num_classes)  # [T]
    last = len(labels) - 1 - from_end[np.searchsorted(cells, cell)]
    return cell // grid_size**2, boxes_xyxy[last], label


def detect(
    boxes_cxcywh: np.ndarray, confidence: np.ndarray, class_scores: np.ndarray
) -> tuple[np.ndarray, Detections]:
    """Steps 2 and 3: the image of each detection, int [D], and all D, in pixels of the input."""
    products = box_order(confidence[..., None] * class_scores[..., None, :])  # [N, K*S*S, C]
    boxes_cxcywh = box_order(boxes_cxcywh) * INPUT_SIZE  # [N, K*S*S, 4]
    boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh)
    labels = np.argmax(products, axis=-1)  # [N, K*S*S]
    scores = np.take_along_axis(products, labels[..., None], axis=-1)[..., 0]
    candidate = (boxes_cxcywh[..., 2:] > 0).all(axis=-1)
    candidate &= (scores >= SCORE_THRESHOLD) & (scores > 0) & (scores < 1)

    detected = np.zeros_like(candidate)
    for image in np.flatnonzero(candidate.any(axis=-1)):
        for label in np.unique(labels[image, candidate[image]]):
            of_class = np.flatnonzero(labels[image] == label)  # by descending score from here on
            of_class = of_class[np.argsort(-scores[image, of_class], kind="stable")]
            rows = of_class[candidate[image, of_class]]
            kept = greedy_nms(boxes_xyxy[image, rows], scores[image, rows], NMS_IOU_THRESHOLD)
            detected[image, rows[kept]] = True
            # The last box suppresses no other, so it may take part in NMS and be removed here.
            detected[image, of_class[-1]] = False
    images, _ = np.nonzero(detected)
    return images, Detections(boxes_xyxy[detected], scores[detected], labels[detected])


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
