"""The PyTorch reference's evaluation by hand, and against a slow loop that follows its description.

Images have 64 x 64 pixels, so that with whole pixels ties and an IoU of 0.5 are exact.
"""

import numpy as np
import pytest
from annotated_sets import images_of, truth
from slow_reference_protocol import random_output, slow_evaluation

from yolov1_jax.evaluation.reference_protocol import (
    average_precision_trapezoid,
    detect,
    evaluate_reference,
    grid_objects,
)
from yolov1_jax.yolo.boxes import xyxy_to_cxcywh
from yolov1_jax.yolo.grid import Predictions

# Places that do not overlap, each in its own cell of a 2 x 2 grid; INNER is in the cell of UPPER.
UPPER, LOWER, RIGHT, INNER = (0, 0, 20, 20), (0, 32, 20, 52), (32, 0, 52, 20), (4, 4, 16, 16)
HALF, MORE = (0, 0, 20, 10), (0, 0, 20, 11)  # of UPPER


def annotate(*truths, class_names=("a", "b")):
    return images_of(truths=list(truths), class_names=class_names, sizes=(64, 64))


def objects(*rows):
    """The objects of an image from (box, label) or (box, label, difficult)."""
    return truth(*((*row, False)[:3] for row in rows))


def network(*boxes):
    """The output for an image: nothing but boxes, (row, column, k, xyxy, confidence, label).

    The class score of the label is 1 in the cell.
    """
    output = Predictions(np.zeros((2, 2, 2, 4)), np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    for row, column, k, xyxy, confidence, label in boxes:
        output.boxes[row, column, k] = xyxy_to_cxcywh(np.array(xyxy) / 64)
        output.confidence[row, column, k] = confidence
        output.class_scores[row, column, label] = 1
    return output


def evaluate(output, truths):
    """One image."""
    return evaluate_reference(*(part[None] for part in output), annotate(truths))


def detected(output):
    """[(score, label)] of the detections of one image, in the order of the boxes."""
    image, found = detect(*(part[None] for part in output))
    assert not image.any()
    return [*zip(found.scores.tolist(), found.labels.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("given", "left"),  # left in the order of row, column and class
    [
        # The last object of a cell replaces the others of its class, for other classes its box.
        ([(UPPER, 1), (LOWER, 0), (INNER, 1)], [(INNER, 1), (LOWER, 0)]),
        ([(INNER, 1), (UPPER, 0)], [(UPPER, 0), (UPPER, 1)]),
        ([(LOWER, 0), (RIGHT, 0), (UPPER, 0)], [(UPPER, 0), (RIGHT, 0), (LOWER, 0)]),
        ([(UPPER, 1), (INNER, 0, True)], [(UPPER, 1)]),  # difficult objects do not exist
        ([((60, 60, 68, 68), 0), ((58, 58, 62, 62), 0)], [((58, 58, 62, 62), 0)]),  # at the edge
    ],
)
def test_what_the_grid_leaves(given, left):
    image, boxes, labels = grid_objects(annotate(objects(), objects(*given)), grid_size=2)
    assert set(image) == {1}
    rows = zip((boxes * 64).tolist(), labels.tolist(), strict=True)
    assert [(tuple(box), label) for box, label in rows] == left


def test_the_last_box_of_a_class_is_never_detected():
    output = network((0, 0, 0, UPPER, 0.75, 0), (1, 0, 0, LOWER, 0.5, 0))
    # All other boxes have two products of 0 and belong to "a", the first of equals.
    assert detected(output) == [(0.75, 0), (0.5, 0)]
    output.class_scores[:, 1] = [-1, 0]  # products -0.125 and 0: these belong to "b"
    output.confidence[:, 1] = 0.125
    output.confidence[:, 0, 1] = -1  # products -1 and 0: "b"
    assert detected(output) == [(0.75, 0)]
    assert detected(network((0, 0, 0, UPPER, 0.75, 1))) == []  # the only box of "b"
    _, found = detect(*(part[None] for part in output))
    np.testing.assert_allclose(found.boxes_xyxy, [np.array(UPPER) * 448 / 64])


@pytest.mark.parametrize(
    ("boxes", "expected"),  # row, column, k, corners and score; class 1 in column 1, else 0
    [
        # A score of 1 or more, or a size that is not positive: skipped, and suppresses no box.
        ([(0, 0, 0, UPPER, 1.5), (0, 0, 1, UPPER, 0.75), (1, 0, 0, LOWER, 1.0)], [(0.75, 0)]),
        ([(0, 0, 0, (20, 0, 0, 20), 0.75), (1, 0, 0, (0, 32, 20, 32), 0.75)], []),
        ([(0, 0, 0, UPPER, 0.3), (1, 0, 0, LOWER, 0.299)], [(0.3, 0)]),  # 0.3 is enough
        ([(0, 0, 0, UPPER, 0.75), (0, 0, 1, HALF, 0.5)], [(0.75, 0), (0.5, 0)]),  # IoU 0.5
        ([(0, 0, 0, UPPER, 0.75), (0, 0, 1, MORE, 0.5)], [(0.75, 0)]),
        # Suppression is within the class, whose second box is the last.
        (
            [(0, 0, 0, UPPER, 0.75), (0, 1, 0, UPPER, 0.5), (0, 1, 1, UPPER, 0.25)],
            [(0.75, 0), (0.5, 1)],
        ),
    ],
)
def test_which_boxes_are_detected(boxes, expected):
    assert detected(network(*((*box, box[1]) for box in boxes))) == expected


def test_average_precision_by_hand():
    # Found at the 1st, 3rd and 4th of 4 detections, of 4 objects.
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([1, 1 / 2, 2 / 3, 3 / 4])
    # Points: (0, 1), then beyond 0.25 the best is 3/4, twice the same point, beyond 0.5 it is 3/4,
    # beyond 0.75 there is nothing. Trapezoids: 0.25 * (1 + 3/4) / 2 + 0.25 * 3/4.
    expected = 0.25 * 0.875 + 0.25 * 0.75
    assert average_precision_trapezoid(recall, precision) == pytest.approx(expected, abs=1e-15)
    # No detection, false positives only, and one true positive, whose recall step is the lost one.
    for recall, precision in ([], []), ([0.0, 0.0], [0.0, 0.0]), ([0.5, 0.5], [1.0, 0.5]):
        assert average_precision_trapezoid(np.array(recall), np.array(precision)) == 0


@pytest.mark.parametrize(
    ("boxes", "recall"),
    [
        # Rows 0 to 12 of 20 (IoU 0.6) at 0.75, rows 5 to 20 (0.75) at 0.5; both share 7 of 20. Of
        # repeats the highest IoU counts: the higher score is the false positive.
        ([(0, 0, 0, (0, 0, 20, 12), 0.75, 0), (0, 0, 1, (0, 5, 20, 20), 0.5, 0)], [0, 1]),
        ([(0, 0, 0, HALF, 0.75, 0)], [0]),  # an IoU of exactly one half finds nothing
        ([(0, 0, 0, MORE, 0.75, 0)], [1]),
    ],
)
def test_an_object_is_found(boxes, recall):
    one = evaluate(network(*boxes), objects((UPPER, 0))).classes["a"]
    assert one.recall.tolist() == recall
    assert one.precision.tolist() == (np.array(recall) / np.arange(1, len(recall) + 1)).tolist()
    assert (one.num_objects, one.num_detections) == (1, len(recall))


def test_all_classes_count_in_the_mean():
    output = network(
        (0, 0, 0, UPPER, 0.75, 0), (1, 0, 0, LOWER, 0.5, 0), (0, 1, 0, RIGHT, 2.0, 0)  # too high
    )  # fmt: skip
    truths = objects((INNER, 0), (UPPER, 0), (LOWER, 0), (RIGHT, 0), (UPPER, 1, True))
    evaluation = evaluate(output, truths)
    # "a": 3 objects, 2 found at once: points (0, 1) and (1/3, 1), area 1/3. "b": none, AP 0.
    assert [one.ap for one in evaluation.classes.values()] == [pytest.approx(1 / 3), 0]
    assert evaluation.mean_ap == pytest.approx(1 / 6)
    assert evaluation.classes_without_objects == ("b",)
    assert evaluate(network(), objects()).mean_ap == 0


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_equals_a_slow_loop(size):
    rng = np.random.default_rng(size)
    names = ("0", "1", "2", "3")
    for num_images in [1, 5, 30] * 2:
        *output, truths = random_output(rng, num_images, size, len(names))
        evaluation = evaluate_reference(*output, annotate(*truths, class_names=names))
        expected = slow_evaluation(*output, truths, len(names))
        for one, (ap, recall, precision, num_objects) in zip(
            evaluation.classes.values(), expected, strict=True
        ):
            assert one.num_objects == num_objects
            if num_objects:
                np.testing.assert_array_equal(one.recall, recall)
            np.testing.assert_array_equal(one.precision, precision)
            np.testing.assert_allclose(one.ap, ap, rtol=0, atol=1e-12)
        mean = np.mean([ap for ap, *_ in expected])
        np.testing.assert_allclose(evaluation.mean_ap, mean, rtol=0, atol=1e-12)
    assert mean > 0
