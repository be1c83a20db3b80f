"""What must hold for non-maximum suppression, whatever the boxes: tried on random ones.

The boxes have whole corners in a small square, so that equal and nested ones, and IoUs exactly at
the threshold, are common.
"""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.nms import select_detections

properties = settings(derandomize=True, deadline=None, max_examples=150)
NUM_CLASSES = 3
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0])
rules = st.sampled_from(["best", "all"])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def scenes(draw, distinct=False):
    """Boxes [D, 4] and scores [D, C] of an image; scores are distinct or come from a few levels."""
    num_boxes = draw(st.integers(0, 14))
    rng = np.random.default_rng(draw(seeds))
    low = rng.integers(0, 5, (num_boxes, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 5, (num_boxes, 2))], axis=-1)
    shape = (num_boxes, NUM_CLASSES)
    if distinct:
        scores = rng.permutation(np.arange(1, num_boxes * NUM_CLASSES + 1)).reshape(shape) / 64
    else:
        scores = rng.integers(0, 5, shape) / 4
    return boxes.astype(np.float64), scores.astype(np.float64)


def select(boxes, scores, iou_threshold=0.5, score_threshold=0.25, classes_per_box="all"):
    (detections,) = select_detections(
        boxes[None],
        scores[None],
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        classes_per_box=classes_per_box,
    )
    return detections


def assert_same(one, other):
    for field, other_field in zip(one, other, strict=True):
        np.testing.assert_array_equal(field, other_field)


def as_input(detections):
    """Detections as boxes and scores again, each of its own class only."""
    scores = np.full((len(detections.scores), NUM_CLASSES), -np.inf)
    scores[np.arange(len(scores)), detections.labels] = detections.scores
    return detections.boxes_xyxy, scores


@properties
@given(scenes(), thresholds, rules)
def test_idempotent(scene, iou_threshold, rule):
    once = select(*scene, iou_threshold, classes_per_box=rule)
    assert_same(select(*as_input(once), iou_threshold, classes_per_box=rule), once)


@properties
@given(scenes(distinct=True), thresholds, rules, seeds)
def test_the_order_of_boxes_is_no_matter_where_scores_differ(scene, iou_threshold, rule, seed):
    boxes, scores = scene
    order = np.random.default_rng(seed).permutation(len(boxes))
    shuffled = select(boxes[order], scores[order], iou_threshold, classes_per_box=rule)
    assert_same(shuffled, select(boxes, scores, iou_threshold, classes_per_box=rule))


@properties
@given(scenes(), thresholds)
def test_each_class_is_as_if_alone(scene, iou_threshold):
    boxes, scores = scene
    together = select(boxes, scores, iou_threshold)
    for label in range(NUM_CLASSES):
        alone = select(boxes, scores[:, label : label + 1], iou_threshold)
        of_class = together.labels == label
        np.testing.assert_array_equal(together.boxes_xyxy[of_class], alone.boxes_xyxy)
        np.testing.assert_array_equal(together.scores[of_class], alone.scores)


@properties
@given(scenes(), thresholds)
def test_boxes_of_another_class_change_nothing(scene, iou_threshold):
    """Where a box belongs to its best class only: leave out those of a class."""
    boxes, scores = scene
    best = np.argmax(scores, axis=-1)
    together = select(boxes, scores, iou_threshold, classes_per_box="best")
    for label in range(NUM_CLASSES):
        without = select(
            boxes[best != label], scores[best != label], iou_threshold, classes_per_box="best"
        )
        others = together.labels != label
        assert_same(without, type(without)(*(field[others] for field in together)))


@properties
@given(scenes(distinct=True), thresholds)
def test_what_greedy_suppression_is(scene, iou_threshold):
    """Of the kept no two overlap too much; each of the removed has a better one that is kept."""
    boxes, scores = scene
    kept = select(boxes, scores, iou_threshold)
    for label in range(NUM_CLASSES):
        of_class = kept.labels == label
        kept_boxes, kept_scores = kept.boxes_xyxy[of_class], kept.scores[of_class]
        overlap = iou_xyxy(kept_boxes[:, None], kept_boxes[None])
        np.fill_diagonal(overlap, 0)
        assert (overlap <= iou_threshold).all()
        for box, score in zip(boxes, scores[:, label], strict=True):
            if score >= 0.25 and score not in kept_scores:
                suppresses = iou_xyxy(kept_boxes, box[None]) > iou_threshold
                assert (kept_scores[suppresses] > score).any()
            if score < 0.25:
                assert score not in kept_scores


@properties
@given(scenes(), thresholds, rules, st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_a_higher_score_threshold_only_cuts_the_list(scene, iou_threshold, rule, threshold):
    """What scores less never removes what scores more."""
    low = select(*scene, iou_threshold, 0.0, rule)
    high = select(*scene, iou_threshold, threshold, rule)
    enough = low.scores >= threshold
    assert_same(high, type(low)(*(field[enough] for field in low)))


@properties
@given(scenes(), thresholds)
def test_another_box_below_all_others_removes_none(scene, iou_threshold):
    boxes, scores = scene
    assume(len(boxes))
    before = select(boxes, scores, iou_threshold)
    more_boxes = np.concatenate([boxes, boxes[:1]])
    more_scores = np.concatenate([scores, np.full((1, NUM_CLASSES), 0.25)])
    after = select(more_boxes, more_scores, iou_threshold)
    rows = {(*box, score, label) for box, score, label in zip(*after, strict=True)}
    assert rows >= {(*box, score, label) for box, score, label in zip(*before, strict=True)}
    assert len(after.scores) <= len(before.scores) + NUM_CLASSES


@properties
@given(scenes(), thresholds, rules)
def test_an_overlap_of_1_is_never_too_much_and_every_box_stays(scene, iou_threshold, rule):
    boxes, scores = scene
    all_kept = select(boxes, scores, 1.0, classes_per_box=rule)
    candidates = scores >= 0.25
    if rule == "best":
        candidates &= np.argmax(scores, axis=-1)[:, None] == np.arange(NUM_CLASSES)
    assert len(all_kept.scores) == candidates.sum()
    assert len(select(boxes, scores, iou_threshold, classes_per_box=rule).scores) <= len(
        all_kept.scores
    )


@properties
@given(st.lists(scenes(), min_size=2, max_size=4), thresholds, rules)
def test_images_do_not_see_each_other(images, iou_threshold, rule):
    num_boxes = max(len(boxes) for boxes, _ in images)
    boxes = np.zeros((len(images), num_boxes, 4))
    scores = np.full((len(images), num_boxes, NUM_CLASSES), -np.inf)
    for index, (of_image, of_image_scores) in enumerate(images):
        boxes[index, : len(of_image)] = of_image
        scores[index, : len(of_image)] = of_image_scores
    together = select_detections(
        boxes,
        scores,
        score_threshold=0.25,
        iou_threshold=iou_threshold,
        classes_per_box=rule,
    )
    for scene, one in zip(images, together, strict=True):
        assert_same(one, select(*scene, iou_threshold, classes_per_box=rule))
