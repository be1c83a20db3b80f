"""The PyTorch reference's measure by hand, and against a slow loop that follows its description.

Coordinates are multiples of 1/64: 448 times them is a whole number, so that a tie or an IoU of
exactly 0.5 is one in every order of computation.
"""

import time

import numpy as np
import pytest
from slow_seed_protocol import random_output, slow_evaluation

from yolov1_jax.evaluation.reference_protocol import (
    average_precision_trapezoid,
    evaluate_seed,
    seed_detections,
)
from yolov1_jax.yolo.detections import GroundTruth


def truth(*rows):
    """Ground truth of an image from (xyxy in 64ths, label) or (xyxy, label, difficult)."""
    rows = [(*row, False)[:3] for row in rows]
    return GroundTruth(
        np.reshape([row[0] for row in rows], (-1, 4)) / 64.0,
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
    )


class Network:
    """The output for one image: nothing, until boxes are put into it."""

    def __init__(self, grid_size=2, boxes_per_cell=2, num_classes=2):
        self.boxes = np.zeros((grid_size, grid_size, boxes_per_cell, 4))
        self.confidence = np.zeros((grid_size, grid_size, boxes_per_cell))
        self.class_scores = np.zeros((grid_size, grid_size, num_classes))

    def put(self, row, column, k, xyxy, confidence, **class_scores):
        """Box k of a cell, corners in 64ths; class_scores as c0=..., c1=..., of the cell."""
        x1, y1, x2, y2 = np.array(xyxy) / 64
        self.boxes[row, column, k] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        self.confidence[row, column, k] = confidence
        for name, score in class_scores.items():
            self.class_scores[row, column, int(name[1:])] = score
        return self


def evaluate(*images):
    """Images given as (Network, truth(...)), classes "a" and "b"."""
    networks = [network for network, _ in images]
    return evaluate_seed(
        np.stack([network.boxes for network in networks]),
        np.stack([network.confidence for network in networks]),
        np.stack([network.class_scores for network in networks]),
        [one for _, one in images],
        ("a", "b"),
    )


def detect(network):
    """[(score, label)] of one image in the order of the boxes, number lost as last, as too high."""
    _, found, num_last, num_high = seed_detections(
        network.boxes[None],
        network.confidence[None],
        network.class_scores[None],
        image_size=448,
        score_threshold=0.3,
        iou_threshold=0.5,
    )
    rows = list(zip(found.scores.tolist(), found.labels.tolist(), strict=True))
    return rows, num_last, num_high


# Places that do not overlap, each in its own cell of a 2 x 2 grid.
UPPER, LOWER, RIGHT = (0, 0, 20, 20), (0, 32, 20, 52), (32, 0, 52, 20)


# ---- Detections: steps 2 and 3


def test_the_last_box_of_a_class_is_never_detected():
    network = Network()
    network.confidence[...] = 0.125
    network.class_scores[...] = [-1, 0]  # products -0.125 and 0: all boxes belong to "b" ...
    network.put(0, 0, 0, UPPER, 0.75, c0=1).put(1, 0, 0, LOWER, 0.5, c0=1)  # ... but these two
    network.confidence[0, 0, 1] = network.confidence[1, 0, 1] = -1  # products -1 and 0: "b"
    assert detect(network) == ([(0.75, 0)], 1, 0)


def test_a_box_under_the_threshold_can_be_the_last():
    network = Network().put(0, 0, 0, UPPER, 0.75, c0=1).put(1, 0, 0, LOWER, 0.5, c0=1)
    # All other boxes have two products of 0 and belong to "a", the first of equals.
    assert detect(network) == ([(0.75, 0), (0.5, 0)], 0, 0)


def test_a_class_with_one_box_has_no_detection():
    network = Network().put(0, 0, 0, UPPER, 0.75, c1=1)  # its second box has the products 0, 0
    assert detect(network) == ([], 1, 0)


def test_of_equal_scores_the_last_in_the_order_of_the_boxes_is_lost():
    # One class, all boxes 0.5. The order is that of box 0 of all cells, then box 1 of all cells:
    # the last is box 1 of cell (1, 1), and box 1 of cell (0, 0) comes after box 0 of cell (1, 0).
    network = Network(num_classes=1)
    network.confidence[...] = 0.5
    network.class_scores[...] = 1  # the other boxes have no size, so they are passed over
    network.put(0, 0, 1, UPPER, 0.5).put(1, 0, 0, LOWER, 0.5)
    assert detect(network) == ([(0.5, 0), (0.5, 0)], 0, 0)
    network.put(1, 1, 1, RIGHT, 0.5)
    assert detect(network) == ([(0.5, 0), (0.5, 0)], 1, 0)
    network.put(1, 0, 0, (0, 1, 20, 20), 0.5)  # IoU 0.95 with UPPER, and before it
    _, found, _, _ = seed_detections(
        network.boxes[None],
        network.confidence[None],
        network.class_scores[None],
        image_size=64,
        score_threshold=0.3,
        iou_threshold=0.5,
    )
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 1, 20, 20]])


def test_a_score_of_1_or_more_is_passed_over_and_suppresses_nobody():
    network = Network()
    network.put(0, 0, 0, UPPER, 1.5, c0=1).put(0, 0, 1, UPPER, 0.75)
    network.put(1, 0, 0, LOWER, 1.0, c0=1)
    assert detect(network) == ([(0.75, 0)], 0, 2)


def test_a_score_of_exactly_the_threshold_is_enough():
    network = Network().put(0, 0, 0, UPPER, 0.3, c0=1).put(1, 0, 0, LOWER, 0.299, c0=1)
    assert detect(network) == ([(0.3, 0)], 0, 0)


def test_a_box_without_width_is_passed_over():
    network = Network().put(0, 0, 0, (20, 0, 0, 20), 0.75, c0=1)  # width -20
    network.put(1, 0, 0, (0, 32, 20, 32), 0.75, c0=1)  # height 0
    assert detect(network) == ([], 0, 0)


def test_two_negative_factors_make_a_detection():
    # The products of the cell's boxes: box 0: -0.75 * (-1, 0.5) = (0.75, -0.375) -> "a", although
    # "b" has the larger class score; box 1: 0.5 * (-1, 0.5) = (-0.5, 0.25) -> "b", too low.
    network = Network().put(0, 0, 0, UPPER, -0.75, c0=-1, c1=0.5).put(0, 0, 1, UPPER, 0.5)
    assert detect(network) == ([(0.75, 0)], 0, 0)


def test_suppression_is_strict_and_within_the_class():
    half = (0, 0, 20, 10)  # IoU with UPPER 200/400
    network = Network().put(0, 0, 0, UPPER, 0.75, c0=1).put(0, 0, 1, half, 0.5)
    assert detect(network)[0] == [(0.75, 0), (0.5, 0)]
    network.put(0, 0, 1, (0, 0, 20, 11), 0.5)  # 220/400
    assert detect(network)[0] == [(0.75, 0)]
    network.put(0, 1, 0, UPPER, 0.5, c1=1).put(0, 1, 1, UPPER, 0.25)  # "b", the second one last
    assert detect(network)[0] == [(0.75, 0), (0.5, 1)]


def test_a_suppressed_last_box_is_not_counted_as_lost():
    network = Network().put(0, 0, 0, UPPER, 0.75, c1=1).put(0, 0, 1, UPPER, 0.5)
    assert detect(network) == ([(0.75, 1)], 0, 0)


# ---- Matching and average precision: steps 4 and 5


def test_average_precision_by_hand():
    # Found at the 1st, 3rd and 4th of 4 detections, of 4 objects.
    recall = np.array([0.25, 0.25, 0.5, 0.75])
    precision = np.array([1, 1 / 2, 2 / 3, 3 / 4])
    # Points: (0, 1), then beyond 0.25 the best is 3/4, twice the same point, beyond 0.5 it is 3/4,
    # beyond 0.75 there is nothing. Trapezoids: 0.25 * (1 + 3/4) / 2 + 0.25 * 3/4.
    expected = 0.25 * 0.875 + 0.25 * 0.75
    assert average_precision_trapezoid(recall, precision) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("recall", "precision"),
    [
        ([], []),
        ([0.0, 0.0], [0.0, 0.0]),  # only false positives
        ([0.5, 0.5], [1.0, 0.5]),  # one true positive: its recall step is the lost one
        ([0.0, 0.5], [0.0, 0.5]),
    ],
)
def test_fewer_than_two_found_objects_have_no_area(recall, precision):
    assert average_precision_trapezoid(np.array(recall), np.array(precision)) == 0


def test_of_repeats_the_highest_iou_counts():
    # Object 20 x 20. Detections: 20 x 12 (IoU 0.6) at 0.75 and 20 x 20 at 0.5, whose IoU with the
    # former, 12/20, would suppress it: shift it so that each has 0.6 with the object: rows 0 to 12
    # (0.6) and 5 to 20 (0.75) share 7 of 20.
    network = Network().put(0, 0, 0, (0, 0, 20, 12), 0.75, c0=1).put(0, 0, 1, (0, 5, 20, 20), 0.5)
    evaluation = evaluate((network, truth((UPPER, 0))))
    one = evaluation.classes["a"]
    np.testing.assert_array_equal(one.recall, [0, 1])  # the higher score is the false positive
    np.testing.assert_array_equal(one.precision, [0, 0.5])
    assert (one.num_objects, one.num_detections) == (1, 2)


def test_iou_of_exactly_one_half_finds_nothing():
    network = Network().put(0, 0, 0, (0, 0, 20, 10), 0.75, c0=1)
    assert evaluate((network, truth((UPPER, 0)))).classes["a"].recall.tolist() == [0]
    network.put(0, 0, 0, (0, 0, 20, 11), 0.75)
    assert evaluate((network, truth((UPPER, 0)))).classes["a"].recall.tolist() == [1]


def test_equal_scores_of_an_image_stand_by_iou_and_images_in_order():
    # Image 0: a detection elsewhere, then one on the object, both 0.5: the better IoU goes first.
    # Image 1 has no object: its detections, 0.5 as well, come after those of image 0.
    network = Network()
    network.put(0, 0, 0, RIGHT, 0.5, c0=1).put(1, 0, 0, LOWER, 0.5, c0=1)
    images = (network, truth((LOWER, 0))), (network, truth())
    assert evaluate(*images).classes["a"].precision.tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert evaluate(*images[::-1]).classes["a"].precision.tolist() == [0, 0, 1 / 3, 1 / 4]


def test_all_classes_count_in_the_mean_and_what_is_lost_is_counted():
    network = Network()
    network.put(0, 0, 0, UPPER, 0.75, c0=1)
    network.put(1, 0, 0, LOWER, 0.5, c0=1)
    network.put(0, 1, 0, RIGHT, 2.0, c0=1)  # too high
    network.put(1, 1, 0, UPPER, 0.5, c1=1)  # "b", and its last
    collision = (4, 4, 16, 16)
    objects = truth((collision, 0), (UPPER, 0), (LOWER, 0), (RIGHT, 0), (UPPER, 1, True))
    evaluation = evaluate((network, objects))
    # "a": 3 objects, 2 found at once: points (0, 1) and (1/3, 1), area 1/3. "b": none, AP 0.
    assert evaluation.classes["a"].ap == pytest.approx(1 / 3)
    assert evaluation.classes["b"].ap == 0
    assert evaluation.mean_ap == pytest.approx(1 / 6)
    assert evaluation.protocol == "seed"
    assert evaluation.num_images == 1
    assert evaluation.classes_without_objects == ("b",)
    assert evaluation.num_objects_counted == 3
    assert evaluation.num_objects_vanished == 1
    assert evaluation.num_lost_as_last == 1
    assert evaluation.num_lost_to_high_score == 1


@pytest.mark.parametrize("num_images", [0, 2])
def test_nothing_at_all(num_images):
    evaluation = evaluate_seed(
        np.zeros((num_images, 2, 2, 2, 4)),
        np.zeros((num_images, 2, 2, 2)),
        np.zeros((num_images, 2, 2, 2)),
        [truth()] * num_images,
        ("a", "b"),
    )
    assert evaluation.mean_ap == 0
    assert evaluation.num_objects_counted == evaluation.num_lost_as_last == 0


def test_refuses_what_does_not_fit():
    network = Network()
    with pytest.raises(ValueError, match="2 images and 2 classes"):
        evaluate_seed(
            network.boxes[None],
            network.confidence[None],
            network.class_scores[None],
            [truth()] * 2,
            ("a", "b"),
        )
    with pytest.raises(ValueError, match="labels from 0 to 1, got 2"):
        evaluate((network, truth((UPPER, 2))))


# ---- The slow loop


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_equals_a_slow_loop(size):
    rng = np.random.default_rng(size)
    num_classes, aps = 4, []
    for num_images in [1, 5, 60] * 3:
        output = random_output(rng, num_images, size, num_classes)
        evaluation = evaluate_seed(*output, [str(c) for c in range(num_classes)])
        expected = slow_evaluation(*output, num_classes)
        for c, (ap, recall, precision, num_objects) in enumerate(expected):
            one = evaluation.classes[str(c)]
            assert one.num_objects == num_objects
            if num_objects:
                np.testing.assert_array_equal(one.recall, recall)
            np.testing.assert_array_equal(one.precision, precision)
            np.testing.assert_allclose(one.ap, ap, rtol=0, atol=1e-12)
            aps += [ap] * (num_images == 60 and num_objects > 0)
        mean = np.mean([ap for ap, *_ in expected])
        np.testing.assert_allclose(evaluation.mean_ap, mean, rtol=0, atol=1e-12)
        given = sum(np.sum(~one.difficult) for one in output[3])
        assert evaluation.num_objects_counted == sum(count for *_, count in expected)
        assert evaluation.num_objects_vanished == given - evaluation.num_objects_counted
    assert np.mean(np.array(aps) > 0) > 0.8  # so there is something to compare


def test_a_whole_test_set_takes_seconds():
    rng = np.random.default_rng(0)
    num_images, size, num_classes = 4952, 7, 20
    boxes = np.concatenate(
        [
            rng.random((num_images, size, size, 2, 2), np.float32),
            rng.uniform(0.05, 0.6, (num_images, size, size, 2, 2)).astype(np.float32),
        ],
        axis=-1,
    )
    confidence = rng.random((num_images, size, size, 2), np.float32)
    class_scores = rng.random((num_images, size, size, num_classes), np.float32)
    low = rng.uniform(0, 0.6, (num_images, 3, 2))
    objects = np.concatenate([low, low + 0.3], axis=-1)
    labels = rng.integers(0, num_classes, (num_images, 3))
    ground_truth = [
        GroundTruth(xyxy, label, np.zeros(3, bool))
        for xyxy, label in zip(objects, labels, strict=True)
    ]
    start = time.process_time()
    evaluation = evaluate_seed(
        boxes, confidence, class_scores, ground_truth, [str(c) for c in range(num_classes)]
    )
    seconds = time.process_time() - start
    assert sum(one.num_detections for one in evaluation.classes.values()) > 100_000
    assert seconds < 20, f"{seconds:.1f} s of CPU time"
