"""The YOLO loss: responsible-box mask and named terms (Redmon et al. 2016, equation 3).

Axes: B batch, S grid side, K boxes per cell, C classes. Boxes are relative to the network input;
x and y are offsets in the cell, in the unit that `xy_unit` names (see grid.py).
"""

import jax
import jax.numpy as jnp

from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy
from yolov1_jax.yolo.grid import GridTargets, Predictions, boxes_around_cell, encode_boxes


def signed_sqrt(x: jax.Array, epsilon: float) -> jax.Array:
    """sign(x) * sqrt(|x| + epsilon): a square root for widths that the network made negative.

    epsilon > 0 bounds the slope, 1 / (2 sqrt(|x| + epsilon)). At x = 0 value and gradient are 0.
    """
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x) + epsilon)


def responsible_boxes(iou: jax.Array, object_mask: jax.Array) -> jax.Array:
    """One box of each object cell: that of the largest IoU, the first one where several tie.

    Args:
      iou: [B, S, S, K] of the predicted boxes with the cell's ground truth.
      object_mask: bool [B, S, S].

    Returns:
      bool [B, S, S, K], the paper's 1_ij^obj.
    """
    best = jnp.argmax(iou, axis=-1)[..., None]  # [B, S, S, 1]
    boxes = jnp.arange(iou.shape[-1])[None, None, None, :]
    return (boxes == best) & object_mask[..., None]


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
) -> dict[str, jax.Array]:
    """The five terms of the YOLO loss; the loss is their sum.

    The defaults are the PyTorch reference's (notebook yolov1-v2 of 2021-09).

    Args:
      predictions: what the network predicts, [B, S, S, ...].
      targets: ground truth by cell, [B, S, S, ...].
      coordinate_weight, object_weight, no_object_weight, class_weight: the paper's lambda_coord,
        1, lambda_noobj, 1.
      objectness_target: "iou" asks a responsible box to predict its own IoU with the ground truth
        (taken as a constant: no gradient), "one" asks it for 1.
      no_object_boxes: which boxes are pushed to confidence 0: "all" that are not responsible, or
        only those of "empty_cells" (leaving out the other boxes of object cells).
      xy_unit: "image" or "cell", the unit of x and y in both prediction and error. In image units
        the error of x and y weighs 1 / S^2 of the paper's.
      class_loss: "squared" error against 0 and 1, or "softmax" cross-entropy. Where a cell has
        several classes, softmax takes them as equally likely.
      sqrt_epsilon: see `signed_sqrt`; the ground truth's root has none.
      reduction: "sum" over the batch, or its "mean" (sum / B). Cells and boxes are always summed.

    Returns:
      {"xy", "wh", "object", "no_object", "class"}: weighted scalars.

    Raises:
      ValueError: an unknown choice, or shapes that do not belong together.
    """
    _check_shapes(predictions, targets)
    in_object_cell = targets.object_mask[..., None]  # [B, S, S, 1]
    target_boxes = encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit=xy_unit)
    target_boxes = jnp.broadcast_to(target_boxes, predictions.boxes.shape)  # [B, S, S, K, 4]

    iou = iou_xyxy(
        cxcywh_to_xyxy(boxes_around_cell(predictions.boxes, xy_unit=xy_unit)),
        cxcywh_to_xyxy(boxes_around_cell(target_boxes, xy_unit=xy_unit)),
    )
    iou = jax.lax.stop_gradient(iou)  # [B, S, S, K]
    responsible = responsible_boxes(iou, targets.object_mask)

    match objectness_target:
        case "iou":
            confidence_target = iou
        case "one":
            confidence_target = jnp.ones_like(iou)
        case _:
            raise ValueError(f"objectness_target must be 'iou' or 'one', got {objectness_target!r}")

    match no_object_boxes:
        case "all":
            no_object = ~responsible
        case "empty_cells":
            no_object = jnp.broadcast_to(~in_object_cell, responsible.shape)
        case _:
            raise ValueError(
                f"no_object_boxes must be 'all' or 'empty_cells', got {no_object_boxes!r}"
            )

    xy_error = jnp.square(predictions.boxes[..., :2] - target_boxes[..., :2])
    predicted_root = signed_sqrt(predictions.boxes[..., 2:], sqrt_epsilon)
    # Empty cells hold zeros, whose root has an infinite slope; they carry no gradient to mask,
    # because nothing upstream of a target is trained.
    wh_error = jnp.square(predicted_root - jnp.sqrt(target_boxes[..., 2:]))
    match class_loss:
        case "squared":
            class_error = jnp.square(predictions.class_scores - targets.classes)
        case "softmax":
            num_objects = jnp.maximum(targets.classes.sum(axis=-1, keepdims=True), 1)
            log_probability = jax.nn.log_softmax(predictions.class_scores, axis=-1)
            class_error = -(targets.classes / num_objects) * log_probability  # [B, S, S, C]
        case _:
            raise ValueError(f"class_loss must be 'squared' or 'softmax', got {class_loss!r}")

    terms = {
        "xy": coordinate_weight * _sum_where(xy_error, responsible[..., None]),
        "wh": coordinate_weight * _sum_where(wh_error, responsible[..., None]),
        "object": object_weight
        * _sum_where(jnp.square(predictions.confidence - confidence_target), responsible),
        "no_object": no_object_weight * _sum_where(jnp.square(predictions.confidence), no_object),
        "class": class_weight * _sum_where(class_error, in_object_cell),
    }
    match reduction:
        case "sum":
            return terms
        case "mean":
            return {name: term / iou.shape[0] for name, term in terms.items()}
        case _:
            raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")


def _sum_where(error: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum of the errors where the mask holds. A select, so that NaN or inf elsewhere stays out."""
    return jnp.sum(jnp.where(mask, error, 0))


def _check_shapes(predictions: Predictions[jax.Array], targets: GridTargets) -> None:
    grid = targets.object_mask.shape
    expected = {
        "predictions.boxes": (predictions.boxes, (*grid, predictions.confidence.shape[-1], 4)),
        "predictions.confidence": (predictions.confidence, (*grid, predictions.boxes.shape[-2])),
        "predictions.class_scores": (predictions.class_scores, targets.classes.shape),
        "targets.boxes_cxcywh": (targets.boxes_cxcywh, (*grid, 4)),
        "targets.classes": (targets.classes, (*grid, targets.classes.shape[-1])),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
