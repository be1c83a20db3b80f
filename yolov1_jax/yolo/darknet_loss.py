"""Darknet's own YOLOv1 loss, in which the network predicts the roots of width and height.

Source: src/detection_layer.c of pjreddie/darknet (f6afaab), `forward_detection_layer`. Beside
`yolo_loss`:

  - The outputs w' and h' are the square roots themselves: their error is that of the roots, and
    they are squared to compute the IoU and to decode (`finish_predictions`). Their sign is lost.
  - Where no box of a cell meets its object, the nearest one is responsible, not the first.
  - Every squared error is halved. Darknet has no loss, but writes the gradient down:
    weight * (target - output), which is that of -1/2 weight * (target - output)^2.

Axes: B batch, S grid side, K boxes per cell, C classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from yolov1_jax.yolo.grid import GridTargets, Predictions, boxes_around_cell, finish_predictions
from yolov1_jax.yolo.loss import (
    Loss,
    Match,
    cross_entropy,
    match_boxes,
    softmax_class_error,
    sum_where,
    targets_by_box,
    weighted_loss,
)


def darknet_loss(
    outputs: Predictions[jax.Array],
    targets: GridTargets,
    *,
    coordinate_weight: float = 5.0,
    object_weight: float = 1.0,
    no_object_weight: float = 0.5,
    class_weight: float = 1.0,
    objectness_target: str = "iou",
    class_loss: str = "squared",
    xy_unit: str = "cell",
    reduction: str = "sum",
) -> Loss:
    """The loss whose gradient is Darknet's; the defaults are those of cfg/yolov1.cfg.

    Args:
      outputs: of the network, [B, S, S, ...]; the boxes are x, y, w', h'.
      targets: ground truth by cell, with the same `xy_unit`. Darknet's are encoded with collision
        "first" and class_target "winner".
      coordinate_weight, object_weight, no_object_weight, class_weight: coord_scale, object_scale,
        noobject_scale and class_scale.
      objectness_target: "iou" (rescore=1) or "one" (rescore=0).
      class_loss: "squared" (softmax=0); "softmax" (softmax=1), because Darknet's
        `target - softmax` is the gradient of the cross-entropy; or "bernoulli", which it has not.
      xy_unit: "cell", or "image", which Darknet does not have.
      reduction: "sum" over the batch, or its "mean", which is what Darknet's update divides by.
    """
    match = match_or_nearest(outputs, targets, xy_unit=xy_unit)
    target = targets_by_box(outputs, targets)  # [B, S, S, K, 4]
    (xy, target_xy), (wh, target_wh) = (
        (outputs.boxes[..., axes], target[..., axes]) for axes in (slice(0, 2), slice(2, 4))
    )
    object_target = match.iou if objectness_target == "iou" else jnp.ones_like(match.iou)
    class_errors: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
        "squared": half_square,
        "softmax": softmax_class_error,
        "bernoulli": cross_entropy,
    }
    class_error = class_errors[class_loss](outputs.class_scores, targets.classes)
    responsible = match.responsible
    parts = {  # weight, error, where it counts
        "xy": (coordinate_weight, half_square(xy, target_xy), responsible[..., None]),
        "wh": (coordinate_weight, half_square(wh, jnp.sqrt(target_wh)), responsible[..., None]),
        "object": (object_weight, half_square(outputs.confidence, object_target), responsible),
        "no_object": (no_object_weight, half_square(outputs.confidence, 0.0), ~responsible),
        "class": (class_weight, class_error, targets.object_mask[..., None]),
    }
    return weighted_loss(
        {name: sum_where(error, mask) for name, (_, error, mask) in parts.items()},
        {name: weight for name, (weight, _, _) in parts.items()},
        reduction=reduction,
        batch_size=len(outputs.boxes),
    )


def match_or_nearest(
    outputs: Predictions[jax.Array], targets: GridTargets, *, xy_unit: str
) -> Match:
    """The box of the largest IoU in each cell with an object; if all are 0, the nearest box.

    The nearest has the smallest RMSE of x, y, w'^2 and h'^2, relative to the image. The first of
    equals wins. Darknet looks no further than an RMSE of 20, and fails where no box is within it.
    """
    predictions = finish_predictions(outputs, prediction="darknet", xy_unit=xy_unit)
    match = match_boxes(predictions, targets, xy_unit=xy_unit)
    predicted, target = (
        boxes_around_cell(boxes, xy_unit=xy_unit)
        for boxes in (predictions.boxes, targets_by_box(predictions, targets))
    )
    square_error = jnp.sum(jnp.square(predicted - target), axis=-1)  # [B, S, S, K]
    nearest = jnp.argmin(square_error, axis=-1, keepdims=True)  # [B, S, S, 1]
    nearest = nearest == jnp.arange(square_error.shape[-1])[None, None, None, :]
    meets = jnp.any(match.iou > 0, axis=-1, keepdims=True)
    responsible = jnp.where(meets, match.responsible, nearest & targets.object_mask[..., None])
    return match._replace(responsible=responsible)


def half_square(output: jax.Array, target: jax.Array | float) -> jax.Array:
    """1/2 (output - target)^2: its gradient is `output - target`, which Darknet calls -delta."""
    return jnp.square(output - target) / 2
