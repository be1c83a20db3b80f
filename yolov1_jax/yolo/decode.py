"""From predictions to detections: the score of every box, original pixels, NMS.

The network predicts boxes relative to its input, [0, 1]; detections are in pixels of the original
image. Images are stretched to the network's square input, so x and y scale separately.

Axes: N images, S grid side, K boxes per cell, C classes.
"""

import numpy as np

from yolov1_jax.yolo.boxes import Array, cxcywh_to_xyxy
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes
from yolov1_jax.yolo.nms import select_detections


def detections_from_predictions(
    predictions: Predictions[np.ndarray],
    sizes: np.ndarray,
    *,
    xy_unit: str,
    score_threshold: float,
    nms_iou_threshold: float,
    classes_per_box: str,
    clip: str = "before_nms",
) -> list[Detections]:
    """Decodes, maps to the original images and removes repeats, see `select_detections`.

    Args:
      predictions: of N images, NumPy.
      sizes: int [N, 2], height and width of the original images in pixels.
      xy_unit: as in the loss that the network was trained with.
      clip: boxes to the image "before_nms", which leaves out those without area in it; or
        "after_nms", as Darknet's `yolo valid` does when it writes a box: left and top from below,
        right and bottom from above, so that a box beside the image stays there.
    """
    boxes, scores = scored_boxes(predictions, sizes, xy_unit=xy_unit, clip=clip == "before_nms")
    return detections_from_boxes(
        boxes,
        scores,
        sizes,
        score_threshold=score_threshold,
        nms_iou_threshold=nms_iou_threshold,
        classes_per_box=classes_per_box,
        clip=clip,
    )


def detections_from_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    sizes: np.ndarray,
    *,
    score_threshold: float,
    nms_iou_threshold: float,
    classes_per_box: str,
    clip: str = "before_nms",
) -> list[Detections]:
    """`detections_from_predictions` behind `scored_boxes`."""
    found = select_detections(
        boxes,
        scores,
        score_threshold=score_threshold,
        iou_threshold=nms_iou_threshold,
        classes_per_box=classes_per_box,
    )
    if clip == "before_nms":
        return found
    return [
        one._replace(boxes_xyxy=clip_one_sided(one.boxes_xyxy, size))
        for one, size in zip(found, sizes, strict=True)
    ]


def clip_one_sided(boxes_xyxy: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Left and top not below 0, right and bottom not over the size (height, width)."""
    low, high = np.maximum(boxes_xyxy[:, :2], 0), np.minimum(boxes_xyxy[:, 2:], size[::-1])
    return np.concatenate([low, high], axis=1)


def scored_boxes(
    predictions: Predictions[Array], sizes: np.ndarray, *, xy_unit: str, clip: bool = True
) -> tuple[Array, Array]:
    """Every box of the network, by default clipped to the image, and its score for every class.

    The score is confidence * class score (Redmon et al. 2016, equation 1). Arguments as in
    `detections_from_predictions`.

    Returns (NumPy or JAX, as the predictions):
      boxes_xyxy [N, K*S*S, 4] in pixels of the original images, in the order of `box_order`;
      scores [N, K*S*S, C], -inf for a clipped box without area in the image.
    """
    xp = predictions.boxes.__array_namespace__()
    boxes = box_order(cxcywh_to_xyxy(decode_boxes(predictions.boxes, xy_unit=xy_unit)))
    scores = predictions.confidence[..., None] * predictions.class_scores[..., None, :]
    scores = box_order(scores)  # [N, K*S*S, C]
    if clip:
        boxes = xp.clip(boxes, 0, 1)  # [N, K*S*S, 4]
        # The network may predict a negative width.
        has_area = xp.all(boxes[..., 2:] > boxes[..., :2], axis=-1)  # [N, K*S*S]
        scores = xp.where(has_area[..., None], scores, -np.inf)
    scale = sizes[:, None, [1, 0, 1, 0]]  # [N, 1, 4]: width, height, width, height
    return boxes * scale, scores


def box_order(values: Array) -> Array:
    """[N, S, S, K, ...] -> [N, K*S*S, ...]: all cells of the first box, then of the second.

    It is the order in which equal scores rank, that of the PyTorch reference.
    """
    num_images, rows, columns, num_boxes, *rest = values.shape
    values = values.__array_namespace__().moveaxis(values, 3, 1)
    return values.reshape(num_images, num_boxes * rows * columns, *rest)
