"""NMS against a slow greedy loop, and by hand. Frame: pixels; scores in [0, 1]."""

import time

import numpy as np
import pytest

from yolov1_jax.yolo import nms
from yolov1_jax.yolo.nms import select_detections


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area_a = abs((a[2] - a[0]) * (a[3] - a[1]))
    area_b = abs((b[2] - b[0]) * (b[3] - b[1]))
    return width * height / (area_a + area_b - width * height)


def slow_select(boxes, scores, score_threshold, iou_threshold, classes_per_box, max_detections):
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
    return selected[:max_detections]


def random_boxes(rng, num_images, num_boxes, spread):
    """Whole numbers in a small square: many overlaps, equal IoUs and identical boxes."""
    low = rng.integers(0, spread, (num_images, num_boxes, 2))
    size = rng.integers(-1, spread, (num_images, num_boxes, 2))
    return np.concatenate([low, low + size], axis=-1).astype(np.float64)


def assert_equals_slow(boxes, scores, *, max_detections=None, **options):
    found = select_detections(boxes, scores, max_detections=max_detections, **options)
    assert len(found) == len(boxes)
    for image, detections in enumerate(found):
        expected = slow_select(
            boxes[image], scores[image], *options.values(), max_detections=max_detections
        )
        np.testing.assert_array_equal(detections.scores, [score for score, _, _ in expected])
        np.testing.assert_array_equal(detections.labels, [c for _, _, c in expected])
        boxes_expected = [boxes[image, d] for _, d, _ in expected]
        np.testing.assert_array_equal(detections.boxes_xyxy, np.reshape(boxes_expected, (-1, 4)))


@pytest.mark.parametrize("classes_per_box", ["best", "all"])
@pytest.mark.parametrize("num_levels", [2, 4, 1000])
@pytest.mark.parametrize("spread", [3, 8])
def test_equals_a_greedy_loop(classes_per_box, num_levels, spread):
    rng = np.random.default_rng(num_levels + spread)
    boxes = random_boxes(rng, 12, 24, spread)
    # With 2 or 4 levels nearly all scores are tied, and many stand exactly at the threshold.
    scores = rng.integers(0, num_levels, (12, 24, 3)) / num_levels
    for iou_threshold in (0.0, 0.3, 0.5, 1.0):
        assert_equals_slow(
            boxes,
            scores,
            score_threshold=0.25,
            iou_threshold=iou_threshold,
            classes_per_box=classes_per_box,
            max_detections=7 if iou_threshold == 0.3 else None,
        )


def test_equals_a_greedy_loop_on_long_chains():
    # A row of boxes, each overlapping its neighbours by IoU 2/3, in random order of score: whether
    # one is kept depends on its neighbour, and so on along the chain.
    rng = np.random.default_rng(0)
    left = np.arange(60.0)
    row = np.stack([left, 0 * left, left + 5, 0 * left + 1], axis=-1)  # IoU of neighbours 4/6
    boxes = np.stack([row] * 6)
    scores = rng.permuted(np.tile(np.arange(60) / 60, (6, 1)), axis=1)[..., None]
    scores[0, :, 0] = left / 60  # the longest: each is beaten by the next
    assert_equals_slow(boxes, scores, score_threshold=0.0, iou_threshold=0.6, classes_per_box="all")


@pytest.mark.parametrize("pairs_per_chunk", [1, 300])
def test_result_does_not_depend_on_the_chunks(monkeypatch, pairs_per_chunk):
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 9, 20, 8)
    scores = rng.random((9, 20, 2))
    scores[[0, 4, 8]] = 0  # images without a candidate, the first and the last among them
    options = {"score_threshold": 0.2, "iou_threshold": 0.5, "classes_per_box": "all"}
    expected = select_detections(boxes, scores, **options)
    monkeypatch.setattr(nms, "_PAIRS_PER_CHUNK", pairs_per_chunk)
    for one, other in zip(select_detections(boxes, scores, **options), expected, strict=True):
        for field, other_field in zip(one, other, strict=True):
            np.testing.assert_array_equal(field, other_field)


def select_one(boxes, scores, **options):
    """One image, given as lists."""
    options = {"score_threshold": 0.1, "iou_threshold": 0.5, **options}
    boxes, scores = np.array([boxes], np.float64), np.array([scores], np.float64)
    (detections,) = select_detections(boxes, scores, **options)
    return detections


def test_removes_the_repeat_and_keeps_the_rest_best_first():
    detections = select_one(
        [[50, 50, 60, 60], [0, 0, 10, 10], [0, 0, 10, 9]],  # the last has IoU 90/100 with the 2nd
        [[0.6], [0.9], [0.8]],
    )
    np.testing.assert_array_equal(detections.boxes_xyxy, [[0, 0, 10, 10], [50, 50, 60, 60]])
    np.testing.assert_array_equal(detections.scores, [0.9, 0.6])
    np.testing.assert_array_equal(detections.labels, [0, 0])


def test_iou_exactly_at_the_threshold_is_kept():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]  # IoU 50/100
    assert len(select_one(boxes, [[0.9], [0.8]], iou_threshold=0.5).scores) == 2
    assert len(select_one(boxes, [[0.9], [0.8]], iou_threshold=0.499).scores) == 1


def test_a_suppressed_box_suppresses_nobody():
    # Neighbours share 8 of 12 columns, IoU 2/3; the outer two share 6 of 14, IoU 0.43.
    boxes = [[0, 0, 10, 1], [2, 0, 12, 1], [4, 0, 14, 1]]
    np.testing.assert_array_equal(select_one(boxes, [[0.9], [0.8], [0.7]]).scores, [0.9, 0.7])


def test_score_exactly_at_the_threshold_is_kept():
    boxes = [[0, 0, 1, 1], [5, 5, 6, 6]]
    np.testing.assert_array_equal(
        select_one(boxes, [[0.25], [0.2499]], score_threshold=0.25).scores, [0.25]
    )


def test_of_equal_scores_the_first_box_is_kept():
    detections = select_one([[0, 0, 10, 9], [0, 0, 10, 10]], [[0.5], [0.5]])
    np.testing.assert_array_equal(detections.boxes_xyxy, [[0, 0, 10, 9]])


def test_classes_do_not_suppress_each_other():
    detections = select_one([[0, 0, 9, 9], [0, 0, 9, 9]], [[0.9, 0.1], [0.2, 0.8]])
    np.testing.assert_array_equal(detections.labels, [0, 1])


def test_best_gives_a_box_to_one_class_and_all_to_every_class():
    boxes, scores = [[0, 0, 9, 9]], [[0.4, 0.7, 0.05]]
    best = select_one(boxes, scores, classes_per_box="best")
    np.testing.assert_array_equal(best.labels, [1])
    every = select_one(boxes, scores, classes_per_box="all")
    np.testing.assert_array_equal(every.labels, [1, 0])  # 0.05 is under the threshold
    tie = select_one(boxes, [[0.1, 0.7, 0.7]], classes_per_box="best")
    np.testing.assert_array_equal(tie.labels, [1])


def test_max_detections_keeps_the_best_of_each_image():
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]] * 2, np.float64)
    scores = np.array([[[0.3], [0.9], [0.5]], [[0.0], [0.0], [0.4]]])
    first, second = select_detections(
        boxes, scores, score_threshold=0.1, iou_threshold=0.5, max_detections=2
    )
    np.testing.assert_array_equal(first.scores, [0.9, 0.5])
    np.testing.assert_array_equal(second.scores, [0.4])


def test_nan_scores_are_not_detected():
    detections = select_one([[0, 0, 9, 9], [0, 0, 9, 8]], [[np.nan, 0.9], [0.5, 0.4]])
    np.testing.assert_array_equal(detections.scores, [0.5])


@pytest.mark.parametrize("shape", [(0, 98), (3, 0), (3, 5)])
def test_nothing_to_select(shape):
    detections = select_detections(
        np.zeros((*shape, 4)), np.zeros((*shape, 2)), score_threshold=0.1, iou_threshold=0.5
    )
    assert len(detections) == shape[0]
    for one in detections:
        assert one.boxes_xyxy.shape == (0, 4)
        assert one.scores.shape == one.labels.shape == (0,)


def test_refuses_what_does_not_fit():
    options = {"score_threshold": 0.1, "iou_threshold": 0.5}
    with pytest.raises(ValueError, match=r"boxes \[N, D, 4\]"):
        select_detections(np.zeros((2, 3, 4)), np.zeros((2, 4, 5)), **options)
    with pytest.raises(ValueError, match="'best' or 'all'"):
        select_detections(
            np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), classes_per_box="most", **options
        )


def test_a_whole_test_set_takes_seconds():
    # As many boxes as YOLOv1 predicts for VOC2007 test; 56 % of the 9.7 million scores take part.
    rng = np.random.default_rng(0)
    num_images, num_boxes, num_classes = 4952, 98, 20
    centre = rng.uniform(0, 448, (num_images, num_boxes, 2))
    half = rng.uniform(8, 160, (num_images, num_boxes, 2))
    boxes = np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)
    scores = rng.random((num_images, num_boxes, num_classes), np.float32) ** 12
    start = time.process_time()
    detections = select_detections(
        boxes, scores, score_threshold=0.001, iou_threshold=0.5, classes_per_box="all"
    )
    seconds = time.process_time() - start
    assert sum(len(one.scores) for one in detections) > 3_000_000
    assert seconds < 30, f"{seconds:.1f} s of CPU time"
