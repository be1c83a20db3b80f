"""The one place that knows the cell encoding: boxes -> S x S targets, raw grid -> boxes.

The image is divided into S x S cells; the cell that contains the centre of an object is the one
that must predict it (Redmon et al. 2016, section 2). Boxes here are relative to the network input,
[0, 1]; inside a cell, x and y are offsets from the cell's top left corner, in one of two units:

  "image"  offset / image size, in [0, 1/S): the PyTorch reference
  "cell"   offset / cell size,  in [0, 1):   the paper

Axes: B batch, M padded objects of an image, S grid side (first rows = y, then columns = x), K boxes
per cell, C classes.
"""

import math
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from yolov1_jax.yolo.boxes import Array, xyxy_to_cxcywh

# Where a box stands among the channels: the order of (confidence, x, y, w, h). K boxes, one after
# the other, are followed by the C class scores.
CHANNEL_LAYOUTS = {
    "reference": (0, 1, 2, 3, 4),  # conf, x, y, w, h: the notebook behind the published numbers
    "torchlake": (4, 0, 1, 2, 3),  # x, y, w, h, conf: the library that came after it
}


class Predictions(NamedTuple, Generic[Array]):
    """The network's output, split by meaning; `finish_predictions` gives the values their range."""

    boxes: Array  # [B, S, S, K, 4] x, y (offsets in the cell), w, h (relative to the image)
    confidence: Array  # [B, S, S, K]
    class_scores: Array  # [B, S, S, C]


class GridTargets(NamedTuple):
    """Ground truth, cell by cell."""

    object_mask: jax.Array  # bool [B, S, S], whether a cell contains the centre of an object
    boxes: jax.Array  # [B, S, S, 4] x, y (offsets in the cell), w, h; meaningless in empty cells
    classes: jax.Array  # float32 [B, S, S, C], 0 or 1


def split_predictions(
    raw: Array, *, boxes_per_cell: int, num_classes: int, layout: str = "reference"
) -> Predictions[Array]:
    """Splits the channels of the network's output. [B, S, S, K*5+C] -> Predictions.

    Raises:
      ValueError: the number of channels is not K*5+C.
    """
    num_channels = boxes_per_cell * 5 + num_classes
    if raw.shape[-1] != num_channels:
        raise ValueError(
            f"expected {num_channels} channels ({boxes_per_cell} boxes x 5 + {num_classes} "
            f"classes), got an array of shape {raw.shape}"
        )
    confidence, *xywh = CHANNEL_LAYOUTS[layout]
    per_box = raw[..., : boxes_per_cell * 5]
    per_box = per_box.reshape(*raw.shape[:-1], boxes_per_cell, 5)  # [B, S, S, K, 5]
    return Predictions(
        boxes=per_box[..., min(xywh) : max(xywh) + 1],
        confidence=per_box[..., confidence],
        class_scores=raw[..., boxes_per_cell * 5 :],
    )


def finish_predictions(
    outputs: Predictions[jax.Array], *, prediction: str, xy_unit: str
) -> Predictions[jax.Array]:
    """Boxes and confidence as the network means them; class scores stay as they are.

    "raw" outputs are the values themselves (the PyTorch reference). "sigmoid" outputs are their
    logits: the centre cannot leave its cell, width and height lie between 0 and the image's
    (x, y and confidence as in YOLO9000, Redmon & Farhadi 2017, section 2). "darknet" outputs are
    the values, but the square roots of width and height, of either sign.
    """
    if prediction == "raw":
        return outputs
    if prediction == "darknet":
        wh = jnp.square(outputs.boxes[..., 2:])
        return outputs._replace(boxes=jnp.concat([outputs.boxes[..., :2], wh], axis=-1))
    boxes = jax.nn.sigmoid(outputs.boxes)  # x and y in cells
    cell = 1 / boxes.shape[-3] / _xy_scale(boxes, xy_unit)  # side of a cell in the unit of x and y
    confidence = jax.nn.sigmoid(outputs.confidence)
    return outputs._replace(boxes=_with_xy(boxes, boxes[..., :2] * cell), confidence=confidence)


def initial_outputs(boxes_per_cell: int, num_classes: int) -> tuple[float, ...]:
    """Outputs to start "sigmoid" predictions from: K*5+C, in the reference's order.

    A small confidence, because hardly any box has an object and the first steps would do nothing
    but learn that (Lin et al. 2017, Focal loss, section 3.3); boxes in the middle of their cell, a
    fifth of the image wide and high.
    """
    confidence, size = 0.02, 0.2
    logits = math.log(confidence / (1 - confidence)), math.log(size / (1 - size))
    return (logits[0], 0.0, 0.0, logits[1], logits[1]) * boxes_per_cell + (0.0,) * num_classes


def cell_of(centres_xy: Array, grid_size: int) -> Array:
    """The cell that contains each centre: its column and row. [..., 2] in [0, 1] -> int [..., 2].

    A centre on a border belongs to the cell that begins there, even if the division of pixels by
    sizes has rounded it down (50 and 100 of 105 pixels have their centre at 5 / 7); a centre on the
    right or bottom edge of the image belongs to the last cell. NumPy or JAX.
    """
    xp = centres_xy.__array_namespace__()
    rounding = 2 * grid_size * xp.finfo(centres_xy.dtype).eps
    cells = xp.astype(xp.floor(centres_xy * grid_size + rounding), xp.int32)
    return xp.clip(cells, 0, grid_size - 1)


def encode_targets(
    boxes_xyxy: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    grid_size: int,
    num_classes: int,
    xy_unit: str = "image",
    collision: str = "last",
    class_target: str = "all",
) -> GridTargets:
    """Assigns every object to the cell that contains its centre.

    Args:
      boxes_xyxy: [B, M, 4] in [0, 1]; M is at least 1.
      labels: int [B, M].
      valid: bool [B, M]; False marks padding.
      grid_size: S.
      num_classes: C.
      xy_unit: of the offsets, "image" or "cell".
      collision: which of several objects of a cell owns its box: "last" in the order of M (the
        PyTorch reference) or "first" (Darknet).
      class_target: "all" marks the class of every object of the cell (the PyTorch reference, whose
        target is then multi-hot), "winner" only that of the owner (Darknet).
    """
    boxes_cxcywh = xyxy_to_cxcywh(boxes_xyxy)
    cells = cell_of(boxes_cxcywh[..., :2], grid_size)  # [B, M, 2]
    cell = cells[..., 1] * grid_size + cells[..., 0]  # [B, M]
    every_cell = jnp.arange(grid_size**2)[None, None, :]
    in_cell = (cell[..., None] == every_cell) & valid[..., None]  # [B, M, S*S]

    # The owner is found by comparison, not by a scatter: XLA leaves the order of a scatter with
    # duplicate indices undefined. argmax returns the first True.
    if collision == "first":
        owner = jnp.argmax(in_cell, axis=1)  # [B, S*S]
    else:
        owner = in_cell.shape[1] - 1 - jnp.argmax(in_cell[:, ::-1], axis=1)
    occupied = jnp.any(in_cell, axis=1)
    owner_box = jnp.take_along_axis(boxes_cxcywh, owner[..., None], axis=1)  # [B, S*S, 4]
    if class_target == "winner":
        owns = owner[:, None, :] == jnp.arange(in_cell.shape[1])[None, :, None]
        in_cell = in_cell & owns
    one_hot = jax.nn.one_hot(labels, num_classes)  # [B, M, C]
    counts = jnp.einsum("bml,bmc->blc", in_cell.astype(one_hot.dtype), one_hot)
    classes = (counts > 0).astype(jnp.float32)  # [B, S*S, C]

    grid = (boxes_xyxy.shape[0], grid_size, grid_size)
    boxes = jnp.where(occupied[..., None], owner_box, 0).reshape(*grid, 1, 4)
    return GridTargets(
        object_mask=occupied.reshape(grid),
        boxes=encode_boxes(boxes, xy_unit=xy_unit)[..., 0, :],
        classes=classes.reshape(*grid, num_classes),
    )


def encode_boxes(boxes_cxcywh: Array, *, xy_unit: str) -> Array:
    """The inverse of `decode_boxes`."""
    offset = boxes_cxcywh[..., :2] - _cell_origins(boxes_cxcywh)
    return _with_xy(boxes_cxcywh, offset / _xy_scale(boxes_cxcywh, xy_unit))


def decode_boxes(boxes: Array, *, xy_unit: str) -> Array:
    """Offsets in the cell -> image-relative centres. [..., S, S, K, 4] -> the same shape.

    The result is boxes_cxcywh in [0, 1], not clipped. NumPy or JAX.
    """
    origin = _cell_origins(boxes)
    return _with_xy(boxes, boxes[..., :2] * _xy_scale(boxes, xy_unit) + origin)


def boxes_around_cell(boxes: Array, *, xy_unit: str) -> Array:
    """cxcywh relative to the image, with the origin at the cell. [..., S, S, K, 4] -> the same.

    For the IoU of boxes of one cell: in float32 it keeps digits that image coordinates round away.
    """
    return _with_xy(boxes, boxes[..., :2] * _xy_scale(boxes, xy_unit))


def _with_xy(boxes: Array, xy: Array) -> Array:
    return boxes.__array_namespace__().concat([xy, boxes[..., 2:]], axis=-1)


def _xy_scale(boxes: Array, xy_unit: str) -> float:
    """Size of the unit of x and y, relative to the image."""
    return {"image": 1.0, "cell": 1.0 / boxes.shape[-3]}[xy_unit]


def _cell_origins(boxes: Array) -> Array:
    """Top left corners (x, y) of the cells in [0, 1], shaped to add to boxes[..., :2]."""
    xp = boxes.__array_namespace__()
    rows, columns = boxes.shape[-4:-2]
    x = xp.arange(columns, dtype=boxes.dtype) / columns
    y = xp.arange(rows, dtype=boxes.dtype) / rows
    y, x = xp.meshgrid(y, x, indexing="ij")
    origins = xp.stack([x, y], axis=-1)  # [S, S, 2]
    return origins.reshape((1,) * (boxes.ndim - 4) + (rows, columns, 1, 2))
