"""The YOLO loss: responsible-box mask and named terms (Redmon et al. 2016, equation 3).

Axes: B batch, S grid side, K boxes per cell, C classes. x and y are offsets in the cell, in the
unit that `xy_unit` names (see grid.py); w and h are relative to the network input.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy
from yolov1_jax.yolo.grid import (
    GridTargets,
    Predictions,
    boxes_around_cell,
    decode_boxes,
    finish_predictions,
)


class Match(NamedTuple):
    """How the predicted boxes of each cell relate to its ground truth."""

    iou: jax.Array  # [B, S, S, K]; without gradient, meaningless in empty cells
    responsible: jax.Array  # bool [B, S, S, K], the paper's 1_ij^obj


class Loss(NamedTuple):
    """Scalars; the terms are "xy" and "wh", or "box", and "object", "no_object" and "class"."""

    total: jax.Array  # the sum of the weighted terms
    terms: dict[str, jax.Array]  # weighted


def match_boxes(
    predictions: Predictions[jax.Array], targets: GridTargets, *, xy_unit: str
) -> Match:
    """IoU with the ground truth, and the responsible box: that of the largest IoU, the first of
    equals, in each cell with an object.
    """
    iou = iou_xyxy(
        cxcywh_to_xyxy(boxes_around_cell(predictions.boxes, xy_unit=xy_unit)),
        cxcywh_to_xyxy(boxes_around_cell(targets_by_box(predictions, targets), xy_unit=xy_unit)),
    )
    iou = jax.lax.stop_gradient(iou)  # [B, S, S, K]
    best = jnp.argmax(iou, axis=-1, keepdims=True)  # [B, S, S, 1]
    boxes = jnp.arange(iou.shape[-1])[None, None, None, :]
    return Match(iou, (boxes == best) & targets.object_mask[..., None])


def yolo_loss(
    outputs: Predictions[jax.Array],
    targets: GridTargets,
    *,
    prediction: str = "raw",
    coordinate_weight: float = 5.0,
    object_weight: float = 1.0,
    no_object_weight: float = 0.5,
    class_weight: float = 1.0,
    objectness_target: str = "iou",
    no_object_boxes: str = "all",
    ignore_iou: float | None = None,
    xy_unit: str = "image",
    box: str = "squared_roots",
    confidence: str = "squared",
    class_loss: str = "squared",
    label_smoothing: float = 0.0,
    sqrt_epsilon: float = 1e-5,
    reduction: str = "sum",
) -> Loss:
    """The YOLO loss; the defaults are the PyTorch reference's (notebook yolov1-v2 of 2021-09).

    Args:
      outputs: of the network, [B, S, S, ...].
      targets: ground truth by cell, [B, S, S, ...], with the same `xy_unit`.
      prediction: what the outputs mean, "raw" or "sigmoid", see `finish_predictions`; "darknet" has
        a loss of its own, `darknet_loss`.
      coordinate_weight, object_weight, no_object_weight, class_weight: the paper's lambda_coord,
        1, lambda_noobj, 1.
      objectness_target: what a responsible box must predict as its confidence: "iou", its own IoU
        with the ground truth (a constant: no gradient), or "one".
      no_object_boxes: which boxes must predict confidence 0: "all" that are not responsible, or
        only those of "empty_cells".
      ignore_iou: boxes that overlap any object of the image by more than this IoU need not predict
        confidence 0; None: all must.
      xy_unit: "image" or "cell", the unit of x and y in both prediction and error. In image units
        the error of x and y weighs 1 / S^2 of the paper's.
      box: the error of a responsible box: "squared_roots", the paper's terms "xy" and "wh"; or
        "giou" or "ciou", one term "box" of 1 - GIoU or 1 - CIoU, for positive widths and heights.
      confidence: "squared" error, or "cross_entropy" with the output as the logit.
      class_loss: "squared" error against 0 and 1, "softmax" cross-entropy, or "bernoulli", a binary
        cross-entropy for each class; the last two take the class scores as logits.
      label_smoothing: of "softmax", the part of the target that all classes share.
      sqrt_epsilon: see `signed_sqrt`; the ground truth's root has none.
      reduction: "sum" over the batch, or its "mean" (sum / B). Cells and boxes are always summed.
    """
    predictions = finish_predictions(outputs, prediction=prediction, xy_unit=xy_unit)
    match = match_boxes(predictions, targets, xy_unit=xy_unit)
    in_object_cell = targets.object_mask[..., None]  # [B, S, S, 1]
    target_boxes = targets_by_box(predictions, targets)  # [B, S, S, K, 4]
    if box == "squared_roots":
        box_errors = {
            "xy": jnp.square(predictions.boxes[..., :2] - target_boxes[..., :2]),
            "wh": root_error(predictions.boxes[..., 2:], target_boxes[..., 2:], sqrt_epsilon),
        }
    else:
        corners = (
            cxcywh_to_xyxy(boxes_around_cell(boxes, xy_unit=xy_unit))
            for boxes in (predictions.boxes, target_boxes)
        )
        box_errors = {"box": {"giou": giou_error, "ciou": ciou_error}[box](*corners)[..., None]}

    object_target = match.iou if objectness_target == "iou" else jnp.ones_like(match.iou)
    if confidence == "squared":
        object_error = jnp.square(predictions.confidence - object_target)
        no_object_error = jnp.square(predictions.confidence)
    else:
        object_error = cross_entropy(outputs.confidence, object_target)
        no_object_error = cross_entropy(outputs.confidence, jnp.zeros_like(object_target))
    no_object = ~(match.responsible if no_object_boxes == "all" else in_object_cell)
    if ignore_iou is not None:
        no_object &= largest_iou(predictions, targets, xy_unit=xy_unit) <= ignore_iou

    class_errors: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "squared": squared_class_error,
        "softmax": functools.partial(softmax_class_error, label_smoothing=label_smoothing),
        "bernoulli": cross_entropy,
    }
    class_error = class_errors[class_loss](predictions.class_scores, targets.classes)

    unweighted = {
        **{n: sum_where(error, match.responsible[..., None]) for n, error in box_errors.items()},
        "object": sum_where(object_error, match.responsible),
        "no_object": sum_where(no_object_error, no_object),
        "class": sum_where(class_error, in_object_cell),
    }
    weights = {"object": object_weight, "no_object": no_object_weight, "class": class_weight}
    weights = {name: weights.get(name, coordinate_weight) for name in unweighted}
    return weighted_loss(
        unweighted, weights, reduction=reduction, batch_size=targets.object_mask.shape[0]
    )


def weighted_loss(
    unweighted: dict[str, jax.Array], weights: dict[str, float], *, reduction: str, batch_size: int
) -> Loss:
    """Weighs and adds the terms, which are sums over the batch; see `yolo_loss`."""
    if reduction == "mean":
        unweighted = {name: term / batch_size for name, term in unweighted.items()}
    terms = {name: weights[name] * term for name, term in unweighted.items()}
    return Loss(functools.reduce(operator.add, terms.values()), terms)


def largest_iou(
    predictions: Predictions[jax.Array], targets: GridTargets, *, xy_unit: str
) -> jax.Array:
    """The largest IoU of each box with any object of the image that owns a cell: [B, S, S, K].

    Without gradient; 0 in an image without objects.
    """
    batch = targets.object_mask.shape[0]
    # An empty cell has an empty box, which overlaps nothing.
    objects = jnp.where(targets.object_mask[..., None], targets.boxes, 0)[..., None, :]
    predicted, objects = (
        cxcywh_to_xyxy(decode_boxes(boxes, xy_unit=xy_unit)).reshape(batch, -1, 4)
        for boxes in (predictions.boxes, objects)
    )  # [B, S*S*K, 4], [B, S*S, 4]
    iou = iou_xyxy(predicted[:, :, None], objects[:, None]).max(axis=-1)  # [B, S*S*K]
    return jax.lax.stop_gradient(iou.reshape(predictions.confidence.shape))


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


def giou_error(predicted_xyxy: jax.Array, target_xyxy: jax.Array) -> jax.Array:
    """1 - GIoU (Rezatofighi et al. 2019, algorithm 1), from 0 to 2. [..., 4], [..., 4] -> [...]

    GIoU = IoU - |C without the union| / |C|, with C the smallest box around both. Where they do
    not meet, the IoU has no gradient, but C has. Widths and heights must not be negative.
    """
    iou = iou_xyxy(predicted_xyxy, target_xyxy)
    hull = jnp.prod(_hull(predicted_xyxy, target_xyxy), axis=-1)
    areas = [
        jnp.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (predicted_xyxy, target_xyxy)
    ]
    union = (areas[0] + areas[1]) / (1 + iou)  # because IoU = (areas - union) / union
    return 1 - iou + 1 - union / _nonzero(hull)


def ciou_error(predicted_xyxy: jax.Array, target_xyxy: jax.Array) -> jax.Array:
    """1 - CIoU (Zheng et al. 2020, equations 8 to 11). [..., 4], [..., 4] -> [...]

    CIoU = IoU - d^2 / c^2 - alpha v, with d the distance of the centres, c the diagonal of the
    smallest box around both, and v = (2 / pi * difference of arctan(w / h))^2 for the aspect.
    alpha = v / (1 - IoU + v) is a constant for the gradient. Widths and heights must not be
    negative.
    """
    iou = iou_xyxy(predicted_xyxy, target_xyxy)
    diagonal = jnp.sum(jnp.square(_hull(predicted_xyxy, target_xyxy)), axis=-1)
    low, high = jnp.split(predicted_xyxy - target_xyxy, 2, axis=-1)
    distance = jnp.sum(jnp.square((low + high) / 2), axis=-1)
    # Below a millionth of the image the aspect of a box is noise, and its gradient overflows.
    sides = (
        jnp.maximum(box[..., 2:] - box[..., :2], 1e-6) for box in (predicted_xyxy, target_xyxy)
    )
    angles = [jnp.arctan(side[..., 0] / side[..., 1]) for side in sides]
    aspect = jnp.square(2 / jnp.pi * (angles[0] - angles[1]))
    alpha = jax.lax.stop_gradient(aspect / _nonzero(1 - iou + aspect))
    return 1 - iou + distance / _nonzero(diagonal) + alpha * aspect


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy of sigmoid(logits) and targets in [0, 1], elementwise."""
    log_sigmoid = jax.nn.log_sigmoid
    return -targets * log_sigmoid(logits) - (1 - targets) * log_sigmoid(-logits)


def squared_class_error(scores: jax.Array, classes: jax.Array) -> jax.Array:
    """Squared error of each class against 0 and 1. [..., C], [..., C] -> [..., C]."""
    return jnp.square(scores - classes)


def softmax_class_error(
    scores: jax.Array, classes: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of softmax, class by class; several classes of a cell are equally likely.

    `label_smoothing` of the target is shared by all C classes (Szegedy et al. 2016, section 7).
    """
    num_objects = jnp.maximum(classes.sum(axis=-1, keepdims=True), 1)
    share = classes / num_objects
    if label_smoothing > 0:
        share = (1 - label_smoothing) * share + label_smoothing / classes.shape[-1]
    return -share * jax.nn.log_softmax(scores, axis=-1)  # [..., C]


def _hull(a_xyxy: jax.Array, b_xyxy: jax.Array) -> jax.Array:
    """Width and height of the smallest box around both: [..., 2]."""
    low = jnp.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    return jnp.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - low


def _nonzero(x: jax.Array) -> jax.Array:
    """A divisor, 1 where it would be 0: both boxes are empty there, and so is the dividend."""
    return jnp.where(x > 0, x, 1)


def targets_by_box(predictions: Predictions[jax.Array], targets: GridTargets) -> jax.Array:
    """The cell's target for each of its boxes: [B, S, S, 4] -> [B, S, S, K, 4]."""
    return jnp.broadcast_to(targets.boxes[..., None, :], predictions.boxes.shape)


def sum_where(error: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of the errors where the mask holds. A select, so that NaN or inf elsewhere stays out."""
    return jnp.sum(jnp.where(mask, error, 0))
