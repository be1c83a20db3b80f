"""The VOC rules by hand, and against a slow loop. Frame: 1-based inclusive pixels."""

import math

import numpy as np
import pytest
from annotated_sets import found, images_of, truth
from slow_mean_ap import CLASSES, random_images, slow_class

from yolov1_jax.evaluation.average_precision import (
    average_precision_11_point,
    average_precision_area,
    evaluate_voc,
    inclusive_overlap,
)
from yolov1_jax.evaluation.evaluator import evaluate_detections
from yolov1_jax.evaluation.results_files import read_results

# 100 pixels; the upper half of them; 11 rows, which overlap HALF by 50 / 110.
BOX, HALF, TALL, ELSEWHERE = (1, 1, 10, 10), (1, 1, 10, 5), (1, 1, 10, 11), (101, 101, 110, 110)


def annotate(truths, class_names=("a",)):
    return images_of(truths=truths, class_names=class_names)


def image(boxes, objects, difficult=(), scores=None):
    """Detections, by default of descending scores, and objects; the difficult ones come last."""
    scores = scores or [0.9 - 0.1 * rank for rank in range(len(boxes))]
    rows = [(box, False) for box in objects] + [(box, True) for box in difficult]
    return (
        found(*((box, score, 0) for box, score in zip(boxes, scores, strict=True))),
        truth(*((box, 0, is_difficult) for box, is_difficult in rows)),
    )


def test_overlap_counts_both_end_pixels():
    a = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [5, 5, 5, 5], BOX, [0.5, 0, 2, 0]])
    b = np.array([[2, 2, 3, 3], [3, 1, 4, 2], [5, 5, 5, 5], HALF, [1.0, 0, 2, 0]])
    # 2x2 and 2x2 share one pixel of 7; side by side they share none; one pixel is itself; 50/100;
    # 2.5 and 2.0 wide, in common 2.0.
    np.testing.assert_allclose(inclusive_overlap(a, b), [1 / 7, 0, 1, 0.5, 0.8], rtol=1e-15)


@pytest.mark.parametrize(
    ("outcome", "images"),
    # By descending score: T a true positive, F a false one, - ignored.
    [
        ("T", [image([HALF], [BOX])]),  # an overlap of one half is enough
        ("F", [image([TALL], [HALF])]),
        ("TFT", [image([BOX, BOX, ELSEWHERE], [BOX, ELSEWHERE])]),  # a repeat
        ("TF", [image([HALF, BOX], [BOX])]),  # the score decides, not the overlap
        ("TF", [image([BOX, HALF], [BOX], scores=[0.8, 0.9])]),
        # Both go to BOX, although the other object is free and overlapped by 80/100.
        ("TF", [image([BOX, BOX], [BOX, (1, 1, 10, 8)])]),
        ("T", [image([BOX], [BOX], difficult=[BOX])]),  # the first of equals
        ("F", [image([ELSEWHERE], [HALF], difficult=[BOX])]),
        ("F", [image([BOX], []), image([], [BOX]), image([], [])]),  # objects of other images
        ("--T", [image([BOX, BOX, ELSEWHERE], [ELSEWHERE], difficult=[BOX])]),
        # Overlap with the difficult object 1, with the other one 0.5, which is left to be found.
        ("-T", [image([BOX, HALF], [HALF], difficult=[BOX])]),
        ("FT", [image([TALL, ELSEWHERE], [ELSEWHERE], difficult=[HALF])]),
        ("FT", [image([ELSEWHERE], [], scores=[1]), image([BOX], [BOX], scores=[1])]),  # ties
        ("TF", [image([BOX], [BOX], scores=[1]), image([ELSEWHERE], [], scores=[1])]),
        ("FT", [image([ELSEWHERE, BOX], [BOX], scores=[0.5, 0.5])]),
        ("TF", [image([ELSEWHERE, BOX], [BOX], scores=[0.5, 0.5 + 1e-12])]),  # as doubles
        (  # images are ranked together
            "TFTF",
            [
                image([ELSEWHERE, BOX], [BOX], scores=[0.3, 0.9]),
                image([ELSEWHERE, BOX], [BOX], scores=[0.8, 0.7]),
            ],
        ),
        ("", [image([], [BOX])]),
    ],
)
def test_outcomes_by_hand(outcome, images):
    detections, truths = zip(*images, strict=True)
    for evaluation in evaluate_voc(detections, annotate(truths)).values():
        one = evaluation.classes["a"]
        hits = np.cumsum([mark == "T" for mark in outcome])
        counted = np.cumsum([mark != "-" for mark in outcome])
        assert one.num_detections == len(outcome)
        np.testing.assert_array_equal(one.recall, hits / one.num_objects)
        np.testing.assert_array_equal(one.precision, hits / np.maximum(counted, 1))
        assert evaluation.mean_ap == one.ap


def test_average_precision_by_hand():
    recall, precision = np.array([0.25, 0.25, 0.5, 0.75]), np.array([0.5, 0.4, 0.7, 0.6])
    # Levels 0 to 0.5: 0.7 lies ahead; 0.6000000000000001 and 0.7000000000000001: 0.6; then none.
    expected = (6 * 0.7 + 2 * 0.6) / 11
    assert average_precision_11_point(recall, precision) == pytest.approx(expected, abs=1e-15)
    # The envelope from the right: 0.7, 0.7, 0.7, 0.6; recall beyond 0.75 has precision 0.
    expected = 0.25 * 0.7 + 0.25 * 0.7 + 0.25 * 0.6
    assert average_precision_area(recall, precision) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("num_found", "levels"),
    # There are 10 objects. The 4th, 7th and 8th levels are the doubles just above 0.3, 0.6 and 0.7,
    # which 3, 6 and 7 objects therefore do not reach; 10 reach all 11.
    [(0, 0), (1, 2), (2, 3), (3, 3), (4, 5), (5, 6), (6, 6), (7, 7), (8, 9), (9, 10), (10, 11)],
)
def test_11_points_at_their_edges(num_found, levels):
    recall = np.arange(1, num_found + 1) / 10
    ap = average_precision_11_point(recall, np.ones(num_found))
    assert ap == pytest.approx(levels / 11, abs=1e-15)


def test_classes_without_objects_are_left_out_of_the_mean():
    # "a" is found; "b" has detections but no object, "c" only a difficult one, "d" nothing, and
    # the object of "e" is missed.
    detections = found((BOX, 0.9, 0), (BOX, 0.9, 1), (ELSEWHERE, 0.8, 2))
    annotations = annotate([truth((BOX, 0, False), (BOX, 2, True), (BOX, 4, False))], "abcde")
    for evaluation in evaluate_voc([detections], annotations).values():
        aps = [one.ap for one in evaluation.classes.values()]
        np.testing.assert_array_equal(aps, [1, math.nan, math.nan, math.nan, 0])
        assert evaluation.mean_ap == 0.5
        assert evaluation.classes_without_objects == ("b", "c", "d")
    for evaluation in evaluate_voc([found()], annotate([truth()])).values():
        assert math.isnan(evaluation.mean_ap)


def assert_equals_slow_loop(evaluations, queues, truths):
    for protocol in ("voc07", "voc10"):
        aps = []
        for label, name in enumerate(CLASSES):
            ap, recall, precision = slow_class(queues[label], truths, label, protocol)
            one = evaluations[protocol].classes[name]
            np.testing.assert_allclose(one.ap, ap, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(one.recall, recall)
            np.testing.assert_array_equal(one.precision, precision)
            aps.append(ap)
        expected = math.nan if np.isnan(aps).all() else np.nanmean(aps)
        np.testing.assert_allclose(evaluations[protocol].mean_ap, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fraction", [1, 4, 10])  # whole, quarter and inexact tenths of a pixel
@pytest.mark.parametrize("num_images", [1, 2, 5, 30, 60, 61])
def test_equals_a_slow_loop(tmp_path, fraction, num_images):
    """In the order of the images, and in that of the devkit's files, which have any order."""
    rng = np.random.default_rng(fraction)
    detections, truths = random_images(rng, num_images, fraction)
    annotations = annotate(truths, CLASSES)
    rows = [
        (float(score), index, box, label)
        for index, one in enumerate(detections)
        for box, score, label in zip(*one, strict=True)
    ]
    queues = [[row[:3] for row in rows if row[3] == label] for label in range(len(CLASSES))]
    assert_equals_slow_loop(evaluate_voc(detections, annotations), queues, truths)

    for name, queue in zip(CLASSES, queues, strict=True):
        rng.shuffle(queue)
        lines = [
            f"{index} {score!r} {' '.join(map(repr, box.tolist()))}\n"
            for score, index, box in queue
        ]
        if lines or name == "lost":
            (tmp_path / f"comp4_det_test_{name}.txt").write_text("".join(lines))
    results = read_results(tmp_path, annotations)
    result = evaluate_detections(
        results.detections, annotations, protocol="voc07", file_order=results.file_order
    )
    assert_equals_slow_loop(result.evaluations, queues, truths)
