"""What must hold for average precision by the official rules: tried on random images.

Objects of a class and image have distinct boxes with whole corners, so that a detection with the
very box of an object overlaps it most. All objects lie within 100 pixels: FAR is none of theirs.
"""

import numpy as np
import pytest
from annotated_sets import found
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov1_jax.evaluation.average_precision import (
    AVERAGE_PRECISION,
    by_protocol,
    evaluate_detections,
)
from yolov1_jax.evaluation.coco import evaluate_coco
from yolov1_jax.yolo.detections import Detections, GroundTruth

properties = settings(derandomize=True, deadline=None, max_examples=120)
NAMES = ("a", "b", "c")
FAR = (1001.0, 1001, 1010, 1010)
PROTOCOLS = tuple(AVERAGE_PRECISION)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def truths(draw, difficult=0.3):
    """Ground truth of a few images."""
    rng = np.random.default_rng(draw(seeds))
    images = []
    for _ in range(draw(st.integers(1, 5))):
        num_objects = rng.integers(0, 7)
        corner, size = rng.integers(1, 12, (num_objects, 2)), rng.integers(0, 12, (num_objects, 2))
        boxes = np.unique(np.concatenate([corner, corner + size], axis=-1), axis=0)
        images.append(
            GroundTruth(
                boxes.astype(np.float64),
                rng.integers(0, len(NAMES), len(boxes)),
                rng.random(len(boxes)) < difficult,
            )
        )
    return images


@st.composite
def scenes(draw, difficult=0.3):
    """Ground truth, and detections near it, all of distinct scores in (0, 1)."""
    images = draw(truths(difficult))
    rng = np.random.default_rng(draw(seeds))
    numbers = [rng.integers(0, 8) for _ in images]
    scores = rng.permutation(np.arange(1, sum(numbers) + 1)) / (sum(numbers) + 1)
    detections = []
    for truth, number, of_image in zip(
        images, numbers, np.split(scores, np.cumsum(numbers)[:-1]), strict=True
    ):
        if len(truth.labels):
            pick = rng.integers(0, len(truth.labels), number)
            boxes, labels = truth.boxes_xyxy[pick], truth.labels[pick]
        else:
            boxes, labels = np.tile(FAR, (number, 1)), rng.integers(0, len(NAMES), number)
        shift = rng.integers(-2, 3, (number, 4)) * rng.integers(0, 2, (number, 1))
        detections.append(Detections(boxes + shift, of_image, labels))
    return detections, images


def evaluate(detections, images, **options):
    """{protocol: Evaluation}."""
    return {
        protocol: evaluate_detections(detections, images, NAMES, protocol, **options)
        for protocol in PROTOCOLS
    }


def aps(evaluation):
    return np.array([one.ap for one in evaluation.classes.values()])


def assert_same_aps(one, other):
    for protocol in PROTOCOLS:
        np.testing.assert_allclose(
            aps(one[protocol]), aps(other[protocol]), rtol=0, atol=1e-12, err_msg=protocol
        )


def assert_not_less(one, other):
    for protocol in PROTOCOLS:
        a, b = aps(one[protocol]), aps(other[protocol])
        assert (np.isnan(a) == np.isnan(b)).all()
        assert (np.nan_to_num(a) >= np.nan_to_num(b) - 1e-12).all(), protocol


def with_more(detections, image, *rows):
    """More detections, (box, score, label), at the end of an image."""
    more = found(*rows)
    joined = Detections(
        *(np.concatenate([a, b]) for a, b in zip(detections[image], more, strict=True))
    )
    return [*detections[:image], joined, *detections[image + 1 :]]


def true_objects(images):
    """(image, box, label) of those that are not difficult."""
    return [
        (index, box, label)
        for index, truth in enumerate(images)
        for box, label, difficult in zip(*truth, strict=True)
        if not difficult
    ]


# ------------------------------------------------------------------------------------- ap is 1


@properties
@given(truths(), seeds, st.booleans())
def test_perfect_detections_have_ap_1(images, seed, detect_difficult):
    """Whatever they score, and whether or not difficult objects are detected too."""
    rng = np.random.default_rng(seed)
    detections = []
    for truth in images:
        wanted = np.ones(len(truth.labels), bool) if detect_difficult else ~truth.difficult
        scores = rng.integers(1, 4, len(truth.labels)) / 4  # ties
        detections.append(
            Detections(truth.boxes_xyxy[wanted], scores[wanted], truth.labels[wanted])
        )
    for evaluation in evaluate(detections, images).values():
        for one in evaluation.classes.values():
            if one.num_objects:
                assert one.ap == pytest.approx(1, rel=0, abs=1e-12)
            else:
                assert np.isnan(one.ap)


@settings(properties, max_examples=20)
@given(truths(difficult=0.0), seeds)
def test_perfect_detections_have_coco_ap_1(images, seed):
    rng = np.random.default_rng(seed)
    detections = [
        Detections(truth.boxes_xyxy, rng.random(len(truth.labels)), truth.labels)
        for truth in images
    ]
    evaluation = evaluate_coco(detections, images, NAMES)
    for one in evaluation.classes.values():
        assert np.isnan(one.ap) if one.num_objects == 0 else one.ap == pytest.approx(1)


@properties
@given(scenes())
def test_bounds(scene):
    detections, images = scene
    for protocol, evaluation in evaluate(detections, images).items():
        for one in evaluation.classes.values():
            if one.num_objects:
                assert 0 <= one.ap <= 1 + 1e-12
                if protocol == "voc10":  # no area beyond what was found
                    assert one.ap <= one.recall.max(initial=0) + 1e-12


# -------------------------------------------------------------------------- false positives


@properties
@given(scenes(), st.integers(0, 2), st.integers(1, 4))
def test_false_positives_below_all_others_change_nothing(scene, label, number):
    """Neither rule looks at precision beyond the last object found, full recall or not."""
    detections, images = scene
    rows = [(FAR, -index, label) for index in range(number)]
    assert_same_aps(evaluate(with_more(detections, 0, *rows), images), evaluate(detections, images))


@properties
@given(scenes(), st.integers(0, 2), st.floats(0, 1))
def test_a_false_positive_never_helps(scene, label, score):
    detections, images = scene
    more = with_more(detections, 0, (FAR, score, label))
    assert_not_less(evaluate(detections, images), evaluate(more, images))


@properties
@given(truths(difficult=0.0), st.integers(1, 5))
def test_false_positives_above_all_others_cost_what_they_must(images, number):
    """All n objects are found after k false positives: precision ends at n / (n + k), its best."""
    detections = [
        Detections(truth.boxes_xyxy, np.full(len(truth.labels), 0.5), truth.labels)
        for truth in images
    ]
    rows = [(FAR, 0.9, label) for label in range(len(NAMES)) for _ in range(number)]
    for evaluation in evaluate(with_more(detections, 0, *rows), images).values():
        for one in evaluation.classes.values():
            if one.num_objects:
                expected = one.num_objects / (one.num_objects + number)
                assert one.ap == pytest.approx(expected, rel=0, abs=1e-12)


@properties
@given(scenes())
def test_repeats_below_all_others_change_nothing(scene):
    detections, images = scene
    repeated = detections
    for index, one in enumerate(detections):
        rows = [(box, score - 1, label) for box, score, label in zip(*one, strict=True)]
        repeated = with_more(repeated, index, *rows)
    assert_same_aps(evaluate(repeated, images), evaluate(detections, images))


@properties
@given(scenes(difficult=0.5), st.floats(0, 1))
def test_finding_difficult_objects_changes_nothing(scene, score):
    detections, images = scene
    more = detections
    for index, truth in enumerate(images):
        rows = [
            (box, score, label) for box, label, difficult in zip(*truth, strict=True) if difficult
        ]
        more = with_more(more, index, *rows)
    assert_same_aps(evaluate(more, images), evaluate(detections, images))


# -------------------------------------------------------------------------------- monotone


@properties
@given(scenes(), st.data())
def test_finding_one_more_object_at_the_end_never_harms(scene, data):
    detections, images = scene
    objects = true_objects(images)
    if objects:
        index, box, label = data.draw(st.sampled_from(objects))
        more = with_more(detections, index, (box, -1.0, label))
        assert_not_less(evaluate(more, images), evaluate(detections, images))


@properties
@given(scenes(), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_lower_overlap_threshold_never_harms(scene, one, other):
    """Which object a detection goes to is the same for every threshold; more of them find it."""
    detections, images = scene
    low, high = sorted([one, other])
    assert_not_less(
        evaluate(detections, images, iou_threshold=low),
        evaluate(detections, images, iou_threshold=high),
    )


# ------------------------------------------------------------------------------- invariances


@properties
@given(scenes(), seeds)
def test_no_order_matters_where_scores_differ(scene, seed):
    """Of images, and of detections in an image."""
    detections, images = scene
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    shuffled = []
    for index in order:
        within = rng.permutation(len(detections[index].scores))
        shuffled.append(Detections(*(field[within] for field in detections[index])))
    expected = evaluate(detections, images)
    assert_same_aps(evaluate(shuffled, [images[index] for index in order]), expected)
    # Among equals the order is that of the file: here the scores are equal, the places distinct.
    tied = [one._replace(scores=np.zeros(len(one.scores))) for one in detections]
    places = [-one.scores for one in detections]
    assert_same_aps(evaluate(tied, images, file_order=places), expected)


@properties
@given(scenes(), st.sampled_from([np.exp, np.arctan, lambda x: 8 * x - 3]))
def test_only_the_ranks_of_scores_matter(scene, rescale):
    detections, images = scene
    rescaled = [one._replace(scores=rescale(one.scores)) for one in detections]
    assert_same_aps(evaluate(rescaled, images), evaluate(detections, images))


@properties
@given(scenes())
def test_each_class_is_as_if_alone(scene):
    detections, images = scene
    together = evaluate(detections, images)
    for label, name in enumerate(NAMES):
        alone = evaluate(
            [Detections(*(f[one.labels == label] for f in one)) for one in detections],
            [GroundTruth(*(f[one.labels == label] for f in one)) for one in images],
        )
        for protocol in PROTOCOLS:
            np.testing.assert_equal(
                alone[protocol].classes[name].ap, together[protocol].classes[name].ap
            )


@properties
@given(scenes())
def test_one_protocol_gives_the_other(scene):
    evaluations = evaluate(*scene)
    for protocol in PROTOCOLS:
        for other in PROTOCOLS:
            converted = by_protocol(evaluations[other], protocol)
            assert converted.protocol == protocol
            np.testing.assert_equal(converted.mean_ap, evaluations[protocol].mean_ap)
            np.testing.assert_equal(aps(converted), aps(evaluations[protocol]))
