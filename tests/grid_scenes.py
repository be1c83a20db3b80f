"""Small scenes for the tests of the grid: objects in, occupied cells out."""

import jax
import numpy as np

from yolov1_jax.yolo import grid

COLLISIONS = ("last", "first")
CLASS_TARGETS = ("all", "winner")
UNITS = ("image", "cell")

jitted = jax.jit(
    grid.encode_targets,
    static_argnames=("grid_size", "num_classes", "collision", "class_target"),
)


def encode_targets(*arrays, **switches):
    """On the device, as a training step does it; back as NumPy arrays."""
    return jax.tree.map(np.asarray, jitted(*arrays, **switches))


def padded(objects, num_rows=4):
    """[(cx, cy, w, h, label), ...] -> boxes_xyxy [1, M, 4], labels [1, M], valid [1, M]."""
    boxes_xyxy = np.zeros((1, num_rows, 4), np.float32)
    labels = np.zeros((1, num_rows), np.int32)
    valid = np.zeros((1, num_rows), bool)
    for row, (cx, cy, w, h, label) in enumerate(objects):
        boxes_xyxy[0, row] = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        labels[0, row] = label
        valid[0, row] = True
    return boxes_xyxy, labels, valid


def occupied(targets):
    """The cells with an object as (image, row, column)."""
    return {tuple(map(int, cell)) for cell in np.argwhere(targets.object_mask)}


def cell_of(entry, side):
    """Row and column of a centre, in exact arithmetic: the coordinates have few binary digits."""
    cx, cy, *_ = entry
    return min(int(cy * side), side - 1), min(int(cx * side), side - 1)
