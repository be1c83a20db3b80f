"""The YOLO loss: responsible-box mask and named terms (Redmon et al. 2016, equation 3).

Axes: B batch, S grid side, K boxes per cell, C classes. x and y are offsets in the cell, in the
unit that `xy_unit` names (see grid.py); w and h are relative to the network input.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy
from yolov1_jax.yolo.grid import GridTargets, Predictions, boxes_around_cell


class Match(NamedTuple):
    """How the predicted boxes of each cell relate to its ground truth."""

    iou: jax.Array  # [B, S, S, K]; without gradient, meaningless in empty cells
    responsible: jax.Array  # bool [B, S, S, K], the paper's 1_ij^obj


class Loss(NamedTuple):
    """Scalars; the terms are "xy", "wh", "object", "no_object" and "class"."""

    total: jax.Array  # the sum of the weighted terms
    terms: dict[str, jax.Array]  # weighted
    unweighted: dict[str, jax.Array]


def match_boxes(
    predictions: Predictions[jax.Array], targets: GridTargets, *, xy_unit: str
) -> Match:
    """IoU with the ground truth, and the responsible box: that of the largest IoU, the first of
    equals, in each cell with an object.
    """
    iou = iou_xyxy(
        cxcywh_to_xyxy(boxes_around_cell(predictions.boxes, xy_unit=xy_unit)),
        cxcywh_to_xyxy(boxes_around_cell(_target_boxes(predictions, targets), xy_unit=xy_unit)),
    )
    iou = jax.lax.stop_gradient(iou)  # [B, S, S, K]
    best = jnp.argmax(iou, axis=-1, keepdims=True)  # [B, S, S, 1]
    boxes = jnp.arange(iou.shape[-1])[None, None, None, :]
    return Match(iou, (boxes == best) & targets.object_mask[..., None])


def yolo_loss(
    predictions: Predictions[jax.Array],
    targets: GridTargets,
    *,
    coordinate_weight: float = 5.0,
    object_weight: float = 1.0,
    no_object_weight: float = 0.5,
    class_weight: float = 1.0,
    objectness_target: str = "iou",
    no_object_boxes: str = "all",
    xy_unit: str = "image",
    class_loss: str = "squared",
    sqrt_epsilon: float = 1e-5,
    reduction: str = "sum",
) -> Loss:
    """The YOLO loss; the defaults are the PyTorch reference's (notebook yolov1-v2 of 2021-09).

    Args:
      predictions: what the network predicts, [B, S, S, ...].
      targets: ground truth by cell, [B, S, S, ...], with the same `xy_unit`.
      coordinate_weight, object_weight, no_object_weight, class_weight: the paper's lambda_coord,
        1, lambda_noobj, 1.
      objectness_target: what a responsible box must predict as its confidence: "iou", its own IoU
        with the ground truth (a constant: no gradient), or "one".
      no_object_boxes: which boxes must predict confidence 0: "all" that are not responsible, or
        only those of "empty_cells".
      xy_unit: "image" or "cell", the unit of x and y in both prediction and error. In image units
        the error of x and y weighs 1 / S^2 of the paper's.
      class_loss: "squared" error against 0 and 1, or "softmax" cross-entropy.
      sqrt_epsilon: see `signed_sqrt`; the ground truth's root has none.
      reduction: "sum" over the batch, or its "mean" (sum / B). Cells and boxes are always summed.
    """
    match = match_boxes(predictions, targets, xy_unit=xy_unit)
    target_boxes = _target_boxes(predictions, targets)  # [B, S, S, K, 4]
    in_object_cell = targets.object_mask[..., None]  # [B, S, S, 1]
    confidence_target = match.iou if objectness_target == "iou" else jnp.ones_like(match.iou)
    no_object = ~(match.responsible if no_object_boxes == "all" else in_object_cell)
    class_error = {"squared": squared_class_error, "softmax": softmax_class_error}[class_loss]
    unweighted = {
        "xy": _sum_where(
            jnp.square(predictions.boxes[..., :2] - target_boxes[..., :2]),
            match.responsible[..., None],
        ),
        "wh": _sum_where(
            root_error(predictions.boxes[..., 2:], target_boxes[..., 2:], sqrt_epsilon),
            match.responsible[..., None],
        ),
        "object": _sum_where(
            jnp.square(predictions.confidence - confidence_target), match.responsible
        ),
        "no_object": _sum_where(jnp.square(predictions.confidence), no_object),
        "class": _sum_where(class_error(predictions.class_scores, targets.classes), in_object_cell),
    }
    if reduction == "mean":
        batch_size = targets.object_mask.shape[0]
        unweighted = {name: term / batch_size for name, term in unweighted.items()}
    weights = {
        "xy": coordinate_weight,
        "wh": coordinate_weight,
        "object": object_weight,
        "no_object": no_object_weight,
        "class": class_weight,
    }
    terms = {name: weight * unweighted[name] for name, weight in weights.items()}
    total = terms["xy"] + terms["wh"] + terms["object"] + terms["no_object"] + terms["class"]
    return Loss(total, terms, unweighted)


def signed_sqrt(x: jax.Array, epsilon: float) -> jax.Array:
    """sign(x) * sqrt(|x| + epsilon): a square root for widths that the network made negative.

    epsilon > 0 bounds the slope, 1 / (2 sqrt(|x| + epsilon)). At x = 0 value and gradient are 0.
    """
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x) + epsilon)


def root_error(predicted: jax.Array, target: jax.Array, epsilon: float) -> jax.Array:
    """Squared difference of the roots of widths and heights, elementwise.

    The target's root has an infinite slope at 0, in empty cells, but no gradient goes there.
    """
    return jnp.square(signed_sqrt(predicted, epsilon) - jnp.sqrt(target))


def squared_class_error(scores: jax.Array, classes: jax.Array) -> jax.Array:
    """Squared error of each class against 0 and 1. [..., C], [..., C] -> [..., C]."""
    return jnp.square(scores - classes)


def softmax_class_error(scores: jax.Array, classes: jax.Array) -> jax.Array:
    """Cross-entropy of softmax, class by class; several classes of a cell are equally likely."""
    num_objects = jnp.maximum(classes.sum(axis=-1, keepdims=True), 1)
    return -(classes / num_objects) * jax.nn.log_softmax(scores, axis=-1)  # [..., C]


def _target_boxes(predictions: Predictions[jax.Array], targets: GridTargets) -> jax.Array:
    """The cell's target for each of its boxes: [B, S, S, 4] -> [B, S, S, K, 4]."""
    return jnp.broadcast_to(targets.boxes[..., None, :], predictions.boxes.shape)


def _sum_where(error: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of the errors where the mask holds. A select, so that NaN or inf elsewhere stays out."""
    return jnp.sum(jnp.where(mask, error, 0))
