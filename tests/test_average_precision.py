"""The VOC rules by hand, and against a slow loop. Frame: 1-based inclusive pixels.

Most hand-worked cases use BOX, which is 10 x 10 = 100 pixels, and HALF, its upper 5 rows = 50
pixels: their overlap is 50 / (100 + 50 - 50) = 0.5 exactly.
"""

import math
import time

import numpy as np
import pytest
from slow_mean_ap import random_images, slow_evaluation

from yolov1_jax.evaluation.average_precision import (
    average_precision_11_point,
    average_precision_area,
    evaluate_detections,
    inclusive_overlap,
    match_class,
)
from yolov1_jax.yolo.detections import Detections, GroundTruth

BOX, HALF, ELSEWHERE = (1, 1, 10, 10), (1, 1, 10, 5), (101, 101, 110, 110)


def found(*rows):
    """Detections of an image from (box, score) or (box, score, label)."""
    rows = [(*row, 0)[:3] for row in rows]
    return Detections(
        np.reshape([row[0] for row in rows], (-1, 4)).astype(np.float64),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.int64),
    )


def true(*rows):
    """Ground truth of an image from box, (box, "difficult") or (box, "", label)."""
    rows = [(*row, 0)[:3] if isinstance(row[0], tuple) else (row, "", 0) for row in rows]
    return GroundTruth(
        np.reshape([row[0] for row in rows], (-1, 4)).astype(np.float64),
        np.array([row[2] for row in rows], np.int32),
        np.array([row[1] == "difficult" for row in rows], bool),
    )


def evaluate(*images, protocol="voc10", class_names=("a",)):
    """Images given as (found(...), true(...))."""
    return evaluate_detections(
        [detections for detections, _ in images],
        [truth for _, truth in images],
        class_names,
        protocol,
    )


def curve(*images):
    """Recall and precision of the only class, as lists."""
    one = evaluate(*images).classes["a"]
    return one.recall.tolist(), one.precision.tolist()


# ---- Overlap and the threshold


def test_overlap_counts_both_end_pixels():
    a = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [5, 5, 5, 5], [1, 1, 10, 10]], np.float64)
    b = np.array([[2, 2, 3, 3], [3, 1, 4, 2], [5, 5, 5, 5], [1, 1, 10, 5]], np.float64)
    # 2x2 and 2x2 share one pixel of 7; side by side they share none; one pixel is itself; 50/100.
    np.testing.assert_array_equal(inclusive_overlap(a, b), [1 / 7, 0, 1, 0.5])


def test_overlap_of_fractional_boxes_uses_the_same_rule():
    # 0.5 to 2.0 is 2.5 wide, 1.0 to 2.0 is 2.0 wide, in common 2.0; both 1 high (0 + 1).
    a, b = np.array([[0.5, 0, 2, 0]]), np.array([[1.0, 0, 2, 0]])
    np.testing.assert_allclose(inclusive_overlap(a, b), [2 / 2.5], rtol=1e-15)


def test_overlap_of_exactly_one_half_is_enough():
    assert curve((found((HALF, 0.9)), true(BOX))) == ([1.0], [1.0])
    # 11 rows against 5: 50 / 110. Without the +1, BOX and HALF would have 36 / 81 < 0.5 already.
    assert curve((found(((1, 1, 10, 11), 0.9)), true(HALF))) == ([0.0], [0.0])


# ---- Matching


def test_a_second_detection_of_an_object_is_a_false_positive():
    # By score: finds the first, repeats it, finds the second.
    image = (
        found((BOX, 0.9), (BOX, 0.8), (ELSEWHERE, 0.7)),
        true(BOX, ELSEWHERE),
    )
    assert curve(image) == ([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3])
    # 11 points: recall levels 0 to 0.5 (6 of them) see 1, the other 5 see 2/3.
    assert evaluate(image, protocol="voc07").mean_ap == pytest.approx((6 + 5 * 2 / 3) / 11)
    # Area: half at 1, half at 2/3.
    assert evaluate(image, protocol="voc10").mean_ap == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_higher_score_keeps_the_object_even_if_it_overlaps_less():
    # HALF comes first in score and last in the list; BOX fits perfectly and is a repeat.
    assert curve((found((BOX, 0.8), (HALF, 0.9)), true(BOX))) == ([1.0, 1.0], [1.0, 0.5])


def test_a_detection_does_not_fall_back_to_its_second_best_object():
    # Both detections overlap BOX by 1 and the smaller object by 80/100: the second one is a repeat
    # of BOX although the other object is free and overlapped enough.
    image = (found((BOX, 0.9), (BOX, 0.8)), true(BOX, (1, 1, 10, 8)))
    assert curve(image) == ([0.5, 0.5], [1.0, 0.5])


def test_of_equally_overlapped_objects_the_first_is_taken():
    first_difficult = (found((BOX, 0.9)), true((BOX, "difficult"), BOX))
    assert curve(first_difficult) == ([0.0], [0.0])  # ignored
    last_difficult = (found((BOX, 0.9)), true(BOX, (BOX, "difficult")))
    assert curve(last_difficult) == ([1.0], [1.0])


def test_a_detection_without_any_overlap_is_a_false_positive():
    assert curve((found((ELSEWHERE, 0.9)), true((BOX, "difficult"), HALF))) == ([0.0], [0.0])


def test_objects_of_other_images_and_classes_are_not_found():
    other_image = [(found((BOX, 0.9)), true()), (found(), true(BOX))]
    assert curve(*other_image) == ([0.0], [0.0])
    other_class = (found((BOX, 0.9, 1)), true((BOX, "", 0)))
    evaluation = evaluate(other_class, class_names=("a", "b"))
    assert evaluation.classes["a"].num_detections == 0
    assert evaluation.classes["b"].num_detections == 1
    assert evaluation.mean_ap == 0


# ---- Difficult objects


def test_detections_of_a_difficult_object_are_ignored_all_of_them():
    # 0.9 and 0.8 count as neither, the object to find is ELSEWHERE only.
    image = (
        found((BOX, 0.9), (BOX, 0.8), (ELSEWHERE, 0.7)),
        true((BOX, "difficult"), ELSEWHERE),
    )
    assert curve(image) == ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0])
    one = evaluate(image).classes["a"]
    assert (one.ap, one.num_objects, one.num_detections) == (1.0, 1, 3)


def test_an_ignored_detection_does_not_take_an_object_it_overlaps_less():
    # Overlap with the difficult object 1, with the other 0.5: ignored, and HALF stays unfound.
    image = (found((BOX, 0.9)), true(HALF, (BOX, "difficult")))
    assert curve(image) == ([0.0], [0.0])
    # A further detection finds it.
    image = (found((BOX, 0.9), (HALF, 0.8)), true(HALF, (BOX, "difficult")))
    assert curve(image) == ([0.0, 1.0], [0.0, 1.0])


def test_below_the_threshold_a_difficult_object_excuses_nothing():
    # 50 / 110 with the difficult object.
    assert curve((found(((1, 1, 10, 11), 0.9)), true((HALF, "difficult"), ELSEWHERE))) == (
        [0.0],
        [0.0],
    )
    image = (
        found(((1, 1, 10, 11), 0.9), (ELSEWHERE, 0.8)),
        true((HALF, "difficult"), ELSEWHERE),
    )
    assert curve(image) == ([0.0, 1.0], [0.0, 0.5])


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
def test_a_class_whose_detections_are_all_ignored_has_ap_0(protocol):
    image = (found((BOX, 0.9)), true((BOX, "difficult"), ELSEWHERE))
    evaluation = evaluate(image, protocol=protocol)
    assert evaluation.mean_ap == 0
    assert evaluation.classes_without_objects == ()


# ---- Order


def test_equal_scores_stand_in_the_order_of_the_images():
    wrong, right = (found((ELSEWHERE, 0.5)), true()), (found((BOX, 0.5)), true(BOX))
    assert curve(wrong, right) == ([0.0, 1.0], [0.0, 0.5])
    assert curve(right, wrong) == ([1.0, 1.0], [1.0, 0.5])


def test_equal_scores_of_an_image_stand_in_their_order():
    assert curve((found((ELSEWHERE, 0.5), (BOX, 0.5)), true(BOX))) == ([0.0, 1.0], [0.0, 0.5])
    assert curve((found((BOX, 0.5), (ELSEWHERE, 0.5)), true(BOX))) == ([1.0, 1.0], [1.0, 0.5])


def test_scores_are_compared_as_doubles():
    # Equal in single precision.
    image = (found((ELSEWHERE, 0.5), (BOX, 0.5 + 1e-12)), true(BOX))
    assert curve(image) == ([1.0, 1.0], [1.0, 0.5])


def test_images_are_ranked_together_not_one_after_the_other():
    images = [
        (found((ELSEWHERE, 0.3), (BOX, 0.9)), true(BOX)),
        (found((ELSEWHERE, 0.8), (BOX, 0.7)), true(BOX)),
    ]
    # 0.9 right, 0.8 wrong, 0.7 right, 0.3 wrong.
    assert curve(*images) == ([0.5, 0.5, 1.0, 1.0], [1.0, 0.5, 2 / 3, 0.5])


# ---- What is absent


def test_a_class_without_objects_is_left_out_of_the_mean_and_named():
    # "b" has detections but no object, "c" only a difficult one, "d" nothing, "e" is missed.
    image = (
        found((BOX, 0.9, 0), (BOX, 0.9, 1), (ELSEWHERE, 0.8, 2)),
        true((BOX, "", 0), (BOX, "difficult", 2), (BOX, "", 4)),
    )
    evaluation = evaluate(image, class_names=("a", "b", "c", "d", "e"))
    aps = [one.ap for one in evaluation.classes.values()]
    np.testing.assert_array_equal(aps, [1, math.nan, math.nan, math.nan, 0])
    assert evaluation.mean_ap == 0.5  # of "a" and "e"
    assert evaluation.classes_without_objects == ("b", "c", "d")
    assert [one.num_objects for one in evaluation.classes.values()] == [1, 0, 0, 0, 1]
    assert np.isnan(evaluation.classes["b"].recall).all()


def test_an_image_without_detections_still_has_objects_to_find():
    images = [(found(), true(BOX)), (found((BOX, 0.9)), true(BOX)), (found(), true())]
    assert curve(*images) == ([0.5], [1.0])
    assert evaluate(*images).num_images == 3


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
def test_nothing_found(protocol):
    evaluation = evaluate((found(), true(BOX)), protocol=protocol)
    assert evaluation.mean_ap == 0
    assert evaluation.classes["a"].recall.shape == (0,)


@pytest.mark.parametrize("images", [[], [(found(), true())]])
def test_nothing_at_all(images):
    evaluation = evaluate(*images, class_names=("a", "b"))
    assert math.isnan(evaluation.mean_ap)
    assert evaluation.classes_without_objects == ("a", "b")


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="voc12"):
        evaluate(protocol="voc12")
    with pytest.raises(ValueError, match="one GroundTruth an image, got 1 and 0"):
        evaluate_detections([found()], [], ("a",))
    with pytest.raises(ValueError, match="labels from 0 to 0, got 1"):
        evaluate((found((BOX, 0.9, 1)), true()))
    with pytest.raises(ValueError, match="labels from 0 to 0, got -1"):
        evaluate((found(), true((BOX, "", -1))))
    short = found((BOX, 0.9))._replace(scores=np.zeros(2))
    with pytest.raises(ValueError, match=r"image 1: .* \[1, 2, 1\]"):
        evaluate((found(), true()), (short, true()))


# ---- Average precision


@pytest.mark.parametrize(
    ("num_found", "levels"),
    # Of 10 objects. The 4th, 7th and 8th levels are the doubles just above 0.3, 0.6 and 0.7, which
    # 3, 6 and 7 objects therefore do not reach; 10 reach all 11.
    [(0, 0), (1, 2), (2, 3), (3, 3), (4, 5), (5, 6), (6, 6), (7, 7), (8, 9), (9, 10), (10, 11)],
)
def test_11_points_at_their_edges(num_found, levels):
    images = [(found((BOX, 0.9)) if i < num_found else found(), true(BOX)) for i in range(10)]
    assert evaluate(*images, protocol="voc07").mean_ap == pytest.approx(levels / 11, abs=1e-15)


def test_11_points_take_the_best_precision_from_there_on():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([0.5, 0.4, 0.7, 0.6])
    # Levels 0 to 0.5: 0.7 lies ahead; 0.6000000000000001 and 0.7000000000000001: 0.6; then none.
    expected = (6 * 0.7 + 2 * 0.6) / 11
    assert average_precision_11_point(recall, precision) == pytest.approx(expected, abs=1e-15)


def test_area_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([0.5, 0.4, 0.7, 0.6])
    # The envelope from the right: 0.7, 0.7, 0.7, 0.6; recall beyond 0.75 has precision 0.
    expected = 0.25 * 0.7 + 0.25 * 0.7 + 0.25 * 0.6
    assert average_precision_area(recall, precision) == pytest.approx(expected, abs=1e-15)


def test_no_detection_has_no_area():
    assert average_precision_area(np.array([]), np.array([])) == 0
    assert average_precision_11_point(np.array([]), np.array([])) == 0


# ---- The slow loop


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
@pytest.mark.parametrize("fraction", [1, 4, 10])  # whole, quarter and inexact tenths of a pixel
def test_equals_a_slow_loop(protocol, fraction):
    rng = np.random.default_rng(fraction)
    names = ("a", "b", "c", "never")
    for num_images in [0, 1, 2, 5, 30] * 8:
        detections, ground_truth = random_images(rng, num_images, 3, fraction)
        evaluation = evaluate_detections(detections, ground_truth, names, protocol)
        aps = []
        for label, name in enumerate(names):
            ap, recall, precision = slow_evaluation(detections, ground_truth, label, protocol)
            one = evaluation.classes[name]
            np.testing.assert_allclose(one.ap, ap, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(one.recall, recall)
            np.testing.assert_array_equal(one.precision, precision)
            aps.append(ap)
        expected = math.nan if np.isnan(aps).all() else np.nanmean(aps)
        np.testing.assert_allclose(evaluation.mean_ap, expected, rtol=0, atol=1e-9)
        assert evaluation.classes_without_objects == tuple(
            name for name, ap in zip(names, aps, strict=True) if math.isnan(ap)
        )


def test_the_random_images_are_hard():
    # Of the cases the slow loop is there for, each must occur.
    detections, ground_truth = random_images(np.random.default_rng(1), 200, 3, 1)
    overlaps = [
        inclusive_overlap(
            np.repeat(one.boxes_xyxy, len(truth.labels), 0),
            np.tile(truth.boxes_xyxy, (len(one.labels), 1)),
        )
        for one, truth in zip(detections, ground_truth, strict=True)
    ]
    assert np.sum(np.concatenate(overlaps) == 0.5) > 50
    assert sum(len(truth.labels) == 0 for truth in ground_truth) > 10
    assert sum(len(one.labels) == 0 for one in detections) > 5


def test_match_class_on_its_own():
    true_positive, false_positive = match_class(
        np.array([BOX, BOX, ELSEWHERE], np.float64),
        np.array([1, 1, 0]),
        np.array([BOX, HALF], np.float64),
        np.array([0, 1]),
        np.array([False, True]),
        iou_threshold=0.5,
    )
    # Both BOX find the difficult HALF of image 1; the third misses BOX in image 0.
    np.testing.assert_array_equal(true_positive, [False, False, False])
    np.testing.assert_array_equal(false_positive, [False, False, True])


def test_a_whole_test_set_takes_seconds():
    # VOC2007 test has 4,952 images with 14,976 objects, YOLOv1 predicts 98 boxes for each.
    rng = np.random.default_rng(0)
    detections, ground_truth = [], []
    for _ in range(4952):
        corner, size = rng.uniform(1, 300, (98, 2)), rng.uniform(20, 200, (98, 2))
        boxes = np.concatenate([corner, corner + size], axis=-1)
        labels = rng.integers(0, 20, 98)
        detections.append(Detections(boxes, rng.random(98), labels))
        ground_truth.append(GroundTruth(boxes[:3] + 5, labels[:3], rng.random(3) < 0.2))
    start = time.process_time()
    evaluation = evaluate_detections(detections, ground_truth, [str(c) for c in range(20)])
    seconds = time.process_time() - start
    assert 0 < evaluation.mean_ap < 0.2
    assert seconds < 5, f"{seconds:.1f} s of CPU time"
