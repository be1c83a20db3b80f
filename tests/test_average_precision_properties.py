"""What must hold for average precision by the official rules: tried on random images.

Objects of an image have distinct boxes with whole corners, so a detection with the very box of an
object overlaps it most. All objects lie within 100 pixels, so FAR overlaps none.
"""

import numpy as np
import pytest
from annotated_sets import found, images_of
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov1_jax.data.dataset import GroundTruth
from yolov1_jax.evaluation.average_precision import evaluate_voc
from yolov1_jax.yolo.detections import Detections

properties = settings(derandomize=True, deadline=None, max_examples=60)
NAMES = ("a", "b", "c")
FAR = (1001.0, 1001, 1010, 1010)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def truths(draw):
    """The objects of a few images."""
    rng = np.random.default_rng(draw(seeds))
    images = []
    for _ in range(draw(st.integers(1, 5))):
        num_objects = rng.integers(0, 7)
        corner, size = rng.integers(1, 12, (num_objects, 2)), rng.integers(0, 12, (num_objects, 2))
        boxes = np.unique(np.concatenate([corner, corner + size], axis=-1), axis=0)
        labels = rng.integers(0, len(NAMES), len(boxes))
        images.append(GroundTruth(boxes * 1.0, labels, rng.random(len(boxes)) < 0.3))
    return images


@st.composite
def scenes(draw):
    """Detections, all of distinct scores in (0, 1), and objects near them."""
    images = draw(truths())
    rng = np.random.default_rng(draw(seeds))
    scores = np.split((rng.permutation(7 * len(images)) + 1) / 50, len(images))
    detections = []
    for one, scores_of_image in zip(images, scores, strict=True):
        number = rng.integers(0, 8)
        pick = rng.integers(0, len(one.labels) + 1, number)
        boxes = np.concatenate([one.boxes_xyxy, [FAR]])[pick]
        shift = rng.integers(-2, 3, (number, 4)) * rng.integers(0, 2, (number, 1))
        labels = np.append(one.labels, rng.integers(0, len(NAMES)))[pick]
        detections.append(Detections(boxes + shift, scores_of_image[:number], labels))
    return detections, images


def evaluate(detections, images, **options):
    return evaluate_voc(detections, images_of(truths=images, class_names=NAMES), **options)


def aps(*scene, **options):
    """[protocol, class]."""
    evaluations = evaluate(*scene, **options).values()
    return np.array([[one.ap for one in by_rule.classes.values()] for by_rule in evaluations])


def num_objects(images):
    """[class]: that are to be found; NaN for none."""
    labels = np.concatenate([one.labels[~one.difficult] for one in images])
    count = np.bincount(labels, minlength=len(NAMES))
    return np.where(count > 0, count, np.nan)


def assert_equal(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def assert_not_less(one, other):
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    assert (np.nan_to_num(one) >= np.nan_to_num(other) - 1e-12).all()


def with_more(detections, image, *rows):
    """More detections, (box, score, label), at the end of an image."""
    joined = map(np.concatenate, zip(detections[image], found(*rows), strict=True))
    return [*detections[:image], Detections(*joined), *detections[image + 1 :]]


@properties
@given(truths(), seeds, st.booleans())
def test_perfect_detections_have_ap_1(images, seed, detect_difficult):
    """Whatever they score, and whether or not difficult objects are detected too."""
    rng = np.random.default_rng(seed)
    detections = []
    for boxes, labels, difficult in images:
        wanted = ~difficult | detect_difficult
        scores = rng.integers(1, 4, len(labels)) / 4  # ties
        detections.append(Detections(boxes[wanted], scores[wanted], labels[wanted]))
    assert_equal(aps(detections, images), [num_objects(images) / num_objects(images)] * 2)


@properties
@given(scenes(), st.integers(0, 2), st.floats(0, 1))
def test_a_false_positive_never_helps(scene, label, score):
    detections, images = scene
    assert_not_less(aps(*scene), aps(with_more(detections, 0, (FAR, score, label)), images))


@pytest.mark.parametrize(
    "rows",
    [
        # False positives below all others: no rule looks beyond the last object found.
        lambda *_: [(FAR, -index, label) for index in range(3) for label in range(len(NAMES))],
        # Repeats below all others.
        lambda found, _: [
            (box, score - 1, label) for box, score, label in zip(*found, strict=True)
        ],
        # Detections of difficult objects.
        lambda _, truth: [
            (box, 0.5, label) for box, label, hard in zip(*truth, strict=True) if hard
        ],
    ],
)
@properties
@given(scene=scenes())
def test_what_changes_nothing(rows, scene):
    detections, images = scene
    more = detections
    for index, image in enumerate(zip(detections, images, strict=True)):
        more = with_more(more, index, *rows(*image))
    assert_equal(aps(more, images), aps(*scene))


@properties
@given(scenes(), seeds)
def test_no_order_matters_where_scores_differ(scene, seed):
    """Neither that of images, nor that of detections in an image."""
    detections, images = scene
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    shuffled = []
    for index in order:
        within = rng.permutation(len(detections[index].scores))
        shuffled.append(Detections(*(field[within] for field in detections[index])))
    assert_equal(aps(shuffled, [images[index] for index in order]), aps(*scene))
    # Equal scores follow the file: here all scores are equal, and the lines are in their order.
    tied = [one._replace(scores=np.zeros(len(one.scores))) for one in detections]
    assert_equal(aps(tied, images, file_order=[-one.scores for one in detections]), aps(*scene))
