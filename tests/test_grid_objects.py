"""What the grid of the loss leaves of the ground truth, by hand. Coordinates are in 64ths."""

import numpy as np
import pytest

from yolov1_jax.evaluation.grid_objects import grid_objects
from yolov1_jax.yolo.detections import GroundTruth

# Places that do not overlap, each in its own cell of a 2 x 2 grid.
UPPER, LOWER, RIGHT = (0, 0, 20, 20), (0, 32, 20, 52), (32, 0, 52, 20)


def truth(*rows):
    """Ground truth of an image from (xyxy in 64ths, label) or (xyxy, label, difficult)."""
    rows = [(*row, False)[:3] for row in rows]
    return GroundTruth(
        np.reshape([row[0] for row in rows], (-1, 4)) / 64.0,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
    )


def test_the_last_object_of_a_cell_replaces_the_others():
    first, last, other = (0, 0, 20, 20), (0, 0, 24, 24), (40, 40, 50, 50)
    image, boxes, labels, *_ = grid_objects(
        [truth(), truth((first, 1), (other, 0), (last, 1))], grid_size=2, num_classes=2
    )
    np.testing.assert_array_equal(image, [1, 1])
    np.testing.assert_array_equal(boxes * 64, [last, other])
    np.testing.assert_array_equal(labels, [1, 0])


def test_a_cell_of_two_classes_counts_its_last_box_for_both():
    first, last = (0, 0, 20, 20), (0, 0, 24, 24)
    _, boxes, labels, *_ = grid_objects([truth((first, 1), (last, 0))], 2, 2)
    np.testing.assert_array_equal(boxes * 64, [last, last])
    np.testing.assert_array_equal(labels, [0, 1])


def test_what_is_left_stands_by_image_row_and_column():
    # The order decides which of two equally overlapped objects a detection goes to.
    _, boxes, *_ = grid_objects([truth((LOWER, 0), (RIGHT, 0), (UPPER, 0))], 2, 1)
    np.testing.assert_array_equal(boxes * 64, [UPPER, RIGHT, LOWER])


def test_difficult_objects_do_not_exist():
    first, last = (0, 0, 20, 20), (0, 0, 24, 24)
    _, boxes, labels, *_ = grid_objects([truth((first, 1), (last, 0, True))], 2, 2)
    np.testing.assert_array_equal(boxes * 64, [first])
    np.testing.assert_array_equal(labels, [1])


def test_a_centre_on_the_edge_belongs_to_the_last_cell():
    # Centres (1, 1) and (60/64, 60/64): one cell, so the second replaces the first.
    objects = truth(((60, 60, 68, 68), 0), ((58, 58, 62, 62), 0))
    _, boxes, *_ = grid_objects([objects], 2, 1)
    np.testing.assert_array_equal(boxes * 64, [(58, 58, 62, 62)])


def test_a_centre_on_a_border_does_not_miss_its_cell_by_a_rounding():
    """5/7 of 105 pixels, by two boxes: neither pair of quotients adds up to it exactly."""
    pixels = np.array([[50, 0, 100, 7], [74, 0, 76, 7], [0, 98, 7, 105]])
    objects = GroundTruth(pixels / 105, np.zeros(3, int), np.zeros(3, bool))
    _, boxes, *_ = grid_objects([objects], 7, 1)
    np.testing.assert_allclose(boxes * 105, pixels[1:], atol=1e-9)  # the second replaced the first


def test_objects_know_what_became_of_them():
    # Image 1: objects 1 (difficult) to 5; 2, 3 and 4 are in one cell, 2 and 4 of one class.
    inner = (4, 4, 16, 16)
    objects = truth((UPPER, 1, True), (UPPER, 0), (inner, 1), (inner, 0), (RIGHT, 1))
    grid = grid_objects([truth((LOWER, 1)), objects], 2, 2)
    np.testing.assert_array_equal(grid.labels, [1, 0, 1, 1])  # image 0; the cell's two; RIGHT
    np.testing.assert_array_equal(grid.stands_for, [0, 4, 3, 5])
    np.testing.assert_array_equal(grid.box_of, [0, 4, 4, 5])
    np.testing.assert_array_equal(grid.place_of, [0, -1, 1, 2, 1, 3])


def test_nothing_at_all():
    grid = grid_objects([truth()] * 2, 2, 2)
    assert [len(part) for part in grid] == [0] * 6


def test_refuses_labels_that_are_no_class():
    with pytest.raises(ValueError, match="labels from 0 to 1, got 2"):
        grid_objects([truth((UPPER, 2))], 2, 2)
