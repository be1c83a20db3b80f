"""Box formats and IoU, one code for NumPy and JAX arrays.

A box is the last axis of an array, 4 numbers: `xyxy` is (left, top, right, bottom), `cxcywh` is
(centre x, centre y, width, height). The functions are free of units: any frame will do (pixels of
the original image, pixels of the network input, [0, 1]), as long as both operands share it.
"""

from typing import Any, TypeVar

# A NumPy or a JAX array: both carry their namespace (Python array API), so this file needs no JAX.
Array = TypeVar("Array", bound=Any)


def cxcywh_to_xyxy(boxes_cxcywh: Array) -> Array:
    """Centre and size -> corners. [..., 4] -> [..., 4]."""
    xp = boxes_cxcywh.__array_namespace__()
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return xp.concat([centre - size / 2, centre + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes_xyxy: Array) -> Array:
    """Corners -> centre and size. [..., 4] -> [..., 4]."""
    xp = boxes_xyxy.__array_namespace__()
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return xp.concat([(low + high) / 2, high - low], axis=-1)


def iou_xyxy(a: Array, b: Array) -> Array:
    """Intersection over union of boxes paired by broadcasting.

    Args:
      a, b: boxes_xyxy of the same rank, [..., 4]; for all pairs of [N, 4] and [M, 4], pass
        `a[:, None]` and `b[None]`.

    Returns:
      [...]: I / (|w_a h_a| + |w_b h_b| - I) where the intersection I is positive, else 0. The area
      is taken as an absolute value because a network may predict a negative width: such a box has
      no intersection with anything along that axis. No epsilon: where I > 0 the union is positive.
    """
    xp = a.__array_namespace__()
    low = xp.maximum(a[..., :2], b[..., :2])
    high = xp.minimum(a[..., 2:], b[..., 2:])
    overlap = xp.maximum(high - low, xp.asarray(0, dtype=low.dtype))
    intersection = overlap[..., 0] * overlap[..., 1]
    size_a = a[..., 2:] - a[..., :2]
    size_b = b[..., 2:] - b[..., :2]
    union = xp.abs(size_a[..., 0] * size_a[..., 1]) + xp.abs(size_b[..., 0] * size_b[..., 1])
    union = union - intersection
    meet = intersection > 0
    # The inner `where` keeps the division, and so its gradient, finite where boxes do not meet.
    return xp.where(meet, intersection / xp.where(meet, union, xp.ones_like(union)), 0.0)
