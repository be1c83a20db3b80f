"""The ground truth as the grid of the loss holds it, and what of it is lost there.

Step 1 of the seed protocol, see seed_protocol.py. Frame: [0, 1] of the image. Axes: N images, T
objects in the grid, A objects of all images, joined (`join_ground_truth`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.evaluation.average_precision import check_labels
from yolov1_jax.yolo.boxes import xyxy_to_cxcywh
from yolov1_jax.yolo.detections import GroundTruth, join_ground_truth


class GridObjects(NamedTuple):
    """T objects by image, row, column and class."""

    image: np.ndarray  # int [T]
    boxes_xyxy: np.ndarray  # [T, 4], of `box_of`
    labels: np.ndarray  # int [T]
    stands_for: np.ndarray  # int [T] of A, the last object of this class in the cell
    box_of: np.ndarray  # int [T] of A, the last object in the cell, whose box this is
    place_of: np.ndarray  # int [A] of T, where an object's cell and class are; -1 if difficult


def grid_objects(
    ground_truth: Sequence[GroundTruth], grid_size: int, num_classes: int
) -> GridObjects:
    """Encodes and reads back. A centre on the right or bottom edge belongs to the last cell."""
    image, truth = join_ground_truth(ground_truth)
    check_labels(truth.labels, num_classes)
    counted = np.flatnonzero(~truth.difficult)
    place_of = np.full(len(image), -1)
    image, boxes_xyxy, labels = (
        array[counted] for array in (image, truth.boxes_xyxy, truth.labels)
    )
    centre = xyxy_to_cxcywh(boxes_xyxy)[:, :2]
    rounding = 2 * grid_size * np.finfo(np.float64).eps  # as in `encode_targets`
    column, row = np.clip((centre * grid_size + rounding).astype(int), 0, grid_size - 1).T
    cell = (image * grid_size + row) * grid_size + column
    cells, last_of_cell = _last_of_each(cell)
    places, last_of_class = _last_of_each(cell * num_classes + labels)  # [T]
    place_of[counted] = np.searchsorted(places, cell * num_classes + labels)
    cell, label = np.divmod(places, num_classes)
    box_of = last_of_cell[np.searchsorted(cells, cell)]
    return GridObjects(
        cell // grid_size**2,
        boxes_xyxy[box_of],
        label,
        counted[last_of_class],
        counted[box_of],
        place_of,
    )


def _last_of_each(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, ascending, and where each of them stands last."""
    # The last is found as the first of the reversed order.
    distinct, first_reversed = np.unique(values[::-1], return_index=True)
    return distinct, len(values) - 1 - first_reversed
