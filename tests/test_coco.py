"""COCO's AP on cases worked by hand. Frame: 1-based inclusive pixels."""

import math

import numpy as np
import pytest
from annotated_sets import found, truth
from slow_mean_ap import random_images

from yolov1_jax.evaluation.average_precision import evaluate_detections
from yolov1_jax.evaluation.coco import evaluate_coco

BOX = (1, 1, 10, 10)  # 100 pixels
ELSEWHERE = (51, 51, 60, 60)
LEVELS = np.linspace(0, 1, 101)


def evaluate(*images, class_names=("a",), areas=None):
    """Images given as (found(...), truth(...))."""
    detections, truths = zip(*images, strict=True)
    return evaluate_coco(detections, truths, class_names, areas)


def test_perfect_detections_have_ap_1(capfd):
    sizes = [20, 50, 200]  # small, medium, large
    truths = [truth(((1, 1, size, size), label, False)) for label, size in enumerate(sizes)]
    detections = [
        found(((1, 1, size, size), 0.1 + label / 10, label)) for label, size in enumerate(sizes)
    ]
    result = evaluate_coco(detections, truths, ("a", "b", "c"))
    means = (result.mean_ap, result.ap50, result.ap75)
    by_size = (result.ap_small, result.ap_medium, result.ap_large)
    np.testing.assert_allclose([*means, *by_size], 1, rtol=0, atol=1e-12)
    for one in result.classes.values():
        assert one.ap == pytest.approx(1)
        assert (one.num_objects, one.num_detections) == (1, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rows", "num_overlaps"),
    # Of BOX's ten rows, these: the overlap is rows / 10. 0.5 is enough for the first, and so on.
    [(4, 0), (5, 1), (6, 3), (7, 5), (8, 7), (9, 9), (10, 10)],
)
def test_each_overlap_counts_for_a_tenth(rows, num_overlaps):
    image = (found(((1, 1, 10, rows), 0.9, 0)), truth((BOX, 0, False)))
    result = evaluate(image)
    assert result.mean_ap == pytest.approx(num_overlaps / 10)
    assert result.ap50 == pytest.approx(float(rows >= 5))
    assert result.ap75 == pytest.approx(float(rows >= 8))
    # The curve is the mean over the overlaps, so that the area under it is AP.
    np.testing.assert_allclose(result.classes["a"].precision, num_overlaps / 10, atol=1e-12)


def test_precision_at_101_levels():
    """Right, wrong, right, of three objects: precision 1 up to recall 1/3, then 2/3 up to 2/3."""
    detections = found((BOX, 0.9, 0), ((80, 80, 90, 90), 0.8, 0), (ELSEWHERE, 0.7, 0))
    objects = truth((BOX, 0, False), (ELSEWHERE, 0, False), ((21, 21, 30, 30), 0, False))
    result = evaluate((detections, objects))
    expected = np.select([LEVELS <= 1 / 3, LEVELS <= 2 / 3], [1.0, 2 / 3], 0.0)
    # 34 levels (0 to 0.33) and 33 more (to 0.66).
    assert result.mean_ap == pytest.approx((34 + 33 * 2 / 3) / 101)
    np.testing.assert_allclose(result.classes["a"].precision, expected, atol=1e-12)
    np.testing.assert_allclose(result.classes["a"].recall, LEVELS)


def test_a_detection_takes_an_object_that_is_still_free():
    """Unlike by PASCAL VOC's rule, by which the second one is a repeat of the first."""
    image = (
        found((BOX, 0.9, 0), (BOX, 0.8, 0)),
        truth((BOX, 0, False), ((1, 1, 10, 8), 0, False)),
    )
    assert evaluate(image).ap50 == pytest.approx(1)
    official = evaluate_detections(*([part] for part in image), ("a",), "voc10")
    assert official.mean_ap == 0.5


def test_sizes_are_areas_in_pixels_of_the_original():
    """32 x 32 is small, and medium too: COCO's ranges share their borders."""
    at_border, above = (1, 1, 32, 32), (101, 1, 133, 32)
    image = (found((at_border, 0.9, 0)), truth((at_border, 0, False), (above, 0, False)))
    result = evaluate(image)
    assert result.ap_small == pytest.approx(1)
    assert result.ap_medium == pytest.approx(51 / 101)  # one of two: levels 0 to 0.5
    assert math.isnan(result.ap_large)
    # Given areas decide, such as those of masks.
    result = evaluate(image, areas=[np.array([5000.0, 10000.0])])
    assert math.isnan(result.ap_small)
    assert result.ap_large == pytest.approx(0)


def test_a_difficult_object_is_a_crowd():
    inside = (2, 2, 3, 3)  # wholly inside of BOX, with an overlap of 4 %
    objects = truth((BOX, 0, True), (ELSEWHERE, 0, False))
    detections = found((BOX, 0.9, 0), (inside, 0.8, 0), (ELSEWHERE, 0.7, 0))
    result = evaluate((detections, objects))
    assert result.mean_ap == pytest.approx(1)  # neither counts
    one = result.classes["a"]
    assert (one.num_objects, one.num_detections) == (1, 3)
    only_difficult = evaluate((found((BOX, 0.9, 0)), truth((BOX, 0, True))))
    assert math.isnan(only_difficult.mean_ap)
    assert only_difficult.classes_without_objects == ("a",)


def test_the_100_best_of_an_image_count():
    wrong = [((200, 200, 210, 210), 0.9 - 0.001 * i, 0) for i in range(100)]
    objects = truth((BOX, 0, False))
    assert evaluate((found(*wrong, (BOX, 0.1, 0)), objects)).mean_ap == 0
    assert evaluate((found(*wrong[1:], (BOX, 0.1, 0)), objects)).mean_ap == pytest.approx(0.01)


def test_classes_without_objects_are_left_out():
    image = (found((BOX, 0.9, 0), (BOX, 0.9, 1)), truth((BOX, 0, False)))
    result = evaluate(image, class_names=("a", "b"))
    assert result.mean_ap == pytest.approx(1)
    assert math.isnan(result.classes["b"].ap)
    assert result.classes["b"].num_detections == 1
    assert result.classes_without_objects == ("b",)


def test_nothing_found_and_nothing_there():
    nothing = (found(), truth())
    assert evaluate((found(), truth((BOX, 0, False)))).mean_ap == 0
    for images in ([nothing], [nothing, nothing], [(found((BOX, 0.9, 0)), truth())]):
        assert math.isnan(evaluate(*images).mean_ap)
    assert math.isnan(evaluate_coco([], [], ("a",)).mean_ap)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="one GroundTruth an image, got 1 and 0"):
        evaluate_coco([found()], [], ("a",))


def slow_ap50(detections, ground_truth, label):
    """COCO's rule at overlap 0.5, object by object; crowds take no part here."""
    queue = sorted(
        (
            (-float(score), image, place, box)
            for image, one in enumerate(detections)
            for place, (box, score, c) in enumerate(zip(*one, strict=True))
            if c == label
        ),
        key=lambda row: row[:3],
    )
    free = [[box for box, c, _ in zip(*one, strict=True) if c == label] for one in ground_truth]
    num_objects = sum(map(len, free))
    if not num_objects:
        return math.nan
    right, recall, precision = 0, [], []
    for number, (_, image, _, (x1, y1, x2, y2)) in enumerate(queue, 1):
        best, best_overlap = None, 0.5
        for index, (u1, v1, u2, v2) in enumerate(free[image]):
            width, height = min(x2, u2) - max(x1, u1) + 1, min(y2, v2) - max(y1, v1) + 1
            both = max(width, 0) * max(height, 0)
            areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1)
            if both / (areas - both) >= best_overlap:  # the last of equals
                best, best_overlap = index, both / (areas - both)
        if best is not None:
            free[image].pop(best)
            right += 1
        recall.append(right / num_objects)
        precision.append(right / number)
    total = 0.0
    for level in LEVELS:
        total += max([p for p, r in zip(precision, recall, strict=True) if r >= level], default=0.0)
    return total / 101


def test_ap50_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    for num_images in [1, 3, 10] * 5:
        detections, ground_truth = random_images(rng, num_images, 3, 1)
        ground_truth = [
            one._replace(difficult=np.zeros(len(one.labels), bool)) for one in ground_truth
        ]
        result = evaluate_coco(detections, ground_truth, ("a", "b", "c"))
        aps = [slow_ap50(detections, ground_truth, label) for label in range(3)]
        expected = math.nan if np.isnan(aps).all() else np.nanmean(aps)
        np.testing.assert_allclose(result.ap50, expected, rtol=0, atol=1e-9)
