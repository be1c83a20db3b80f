"""NMS by hand, and against greedy suppression written as a slow loop."""

import numpy as np
import pytest
from slow_reference_protocol import slow_iou

from yolov1_jax.yolo.nms import select_detections


def slow_select(boxes, scores, score_threshold, iou_threshold, classes_per_box):
    """Greedy NMS as everyone writes it. One image: [(score, box index, class)], best first."""
    selected = []
    for c in range(scores.shape[1]):
        queue = []
        for d in range(len(boxes)):
            is_best = all(scores[d, c] > scores[d, e] for e in range(c)) and all(
                scores[d, c] >= scores[d, e] for e in range(c, scores.shape[1])
            )
            if scores[d, c] >= score_threshold and (is_best or classes_per_box == "all"):
                queue.append(d)
        queue.sort(key=lambda d: -scores[d, c])  # stable
        kept = []
        for d in queue:
            if all(slow_iou(boxes[d], boxes[e]) <= iou_threshold for e in kept):
                kept.append(d)
        selected += [(float(scores[d, c]), d, c) for d in kept]
    selected.sort(key=lambda one: (-one[0], one[1], one[2]))
    return selected


@pytest.mark.parametrize("rule", ["best", "all"])
@pytest.mark.parametrize("num_levels", [2, 4, 1000])
@pytest.mark.parametrize("spread", [3, 8])
def test_equals_a_greedy_loop(rule, num_levels, spread):
    """Whole numbers in a small square: many overlaps, equal IoUs and identical boxes."""
    rng = np.random.default_rng(num_levels + spread)
    low = rng.integers(0, spread, (12, 24, 2))
    size = rng.integers(-1, spread, (12, 24, 2))
    boxes = np.concatenate([low, low + size], axis=-1).astype(np.float64)
    # With 2 or 4 levels nearly all scores are tied, and many stand exactly at the threshold.
    scores = rng.integers(0, num_levels, (12, 24, 3)) / num_levels
    for threshold in (0.0, 0.3, 0.5, 1.0):
        options = {"score_threshold": 0.25, "iou_threshold": threshold, "classes_per_box": rule}
        found = select_detections(boxes, scores, **options)
        for detections, image_boxes, image_scores in zip(found, boxes, scores, strict=True):
            expected = slow_select(image_boxes, image_scores, **options)
            assert detections.scores.tolist() == [score for score, _, _ in expected]
            assert detections.boxes_xyxy.tolist() == [
                image_boxes[d].tolist() for _, d, _ in expected
            ]
            assert detections.labels.tolist() == [c for _, _, c in expected]


SAME = [[0, 0, 9, 9], [0, 0, 9, 9]]
HALF = [[0, 0, 10, 10], [0, 0, 10, 5]]  # IoU 50/100
REPEAT = [[50, 50, 60, 60], [0, 0, 10, 10], [0, 0, 10, 9]]  # the last has IoU 90/100 with the 2nd
# Neighbours share 8 of 12 columns, IoU 2/3; the outer two share 6 of 14, IoU 0.43.
CHAIN = [[0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1]]
# name: (boxes, scores, options, [(index of a kept box, its class), ...])
HAND_CASES = {
    "the repeat goes, best first": (REPEAT, [[0.6], [0.9], [0.8]], {}, [(1, 0), (0, 0)]),
    "IoU at the threshold": (HALF, [[0.9], [0.8]], {"iou_threshold": 0.5}, [(0, 0), (1, 0)]),
    "IoU above the threshold": (HALF, [[0.9], [0.8]], {"iou_threshold": 0.499}, [(0, 0)]),
    "a suppressed box suppresses nobody": (CHAIN, [[0.9], [0.8], [0.7]], {}, [(0, 0), (2, 0)]),
    "score at the threshold": (HALF, [[0.25], [0.2499]], {"score_threshold": 0.25}, [(0, 0)]),
    "the first of equal scores": (REPEAT[1:], [[0.5], [0.5]], {}, [(0, 0)]),
    "classes do not see each other": (SAME, [[0.9, 0.1], [0.2, 0.8]], {}, [(0, 0), (1, 1)]),
    "best": (SAME[:1], [[0.4, 0.7, 0.05]], {}, [(0, 1)]),
    "best of equals": (SAME[:1], [[0.1, 0.7, 0.7]], {}, [(0, 1)]),
    # 0.05 is under the threshold.
    "all": (SAME[:1], [[0.4, 0.7, 0.05]], {"classes_per_box": "all"}, [(0, 1), (0, 0)]),
    "NaN": (SAME, [[np.nan, 0.9], [0.5, 0.4]], {}, [(1, 0)]),
}


@pytest.mark.parametrize("name", HAND_CASES)
def test_hand_worked_images(name):
    boxes, scores, options, expected = HAND_CASES[name]
    options = {"score_threshold": 0.1, "iou_threshold": 0.5, **options}
    (found,) = select_detections(np.array([boxes], np.float64), np.array([scores]), **options)
    np.testing.assert_array_equal(found.boxes_xyxy, [boxes[box] for box, _ in expected])
    np.testing.assert_array_equal(found.scores, [scores[box][label] for box, label in expected])
    np.testing.assert_array_equal(found.labels, [label for _, label in expected])


@pytest.mark.parametrize("shape", [(0, 98), (3, 0), (3, 5)])
def test_nothing_to_select(shape):
    detections = select_detections(
        np.zeros((*shape, 4)), np.zeros((*shape, 2)), score_threshold=0.1, iou_threshold=0.5
    )
    assert len(detections) == shape[0]
    for one in detections:
        assert one.boxes_xyxy.shape == (0, 4)
        assert one.scores.shape == one.labels.shape == (0,)
