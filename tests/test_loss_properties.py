"""What must hold for every loss of the family, whatever its value: tried on random cells."""

import functools

import jax
import numpy as np
import pytest
from grid_scenes import encode_targets
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import (
    BATCH,
    BOXES,
    CLASSES,
    COMBINATIONS,
    SIDE,
    WEIGHTS,
    losses_and_gradients,
    random_case,
    terms_by_case,
    without_close_calls,
)
from slow_loss import TERMS, SlowTargets, slow_loss

from yolov1_jax.yolo import grid
from yolov1_jax.yolo.grid import Predictions
from yolov1_jax.yolo.loss import yolo_loss

# Any two switches meet in all four ways; the rest is the business of the slow loops.
IMAGE_UNITS = [COMBINATIONS[number] for number in (0, 5, 9, 12)]
CELL_UNITS = [COMBINATIONS[number] for number in (3, 6, 10, 15)]
units = st.sampled_from([IMAGE_UNITS, CELL_UNITS])
seeds = st.integers(0, 2**32 - 1)
properties = settings(derandomize=True, deadline=None, max_examples=30)


def assert_same_terms(actual, expected, tolerance=1e-5):
    for name in TERMS:
        np.testing.assert_allclose(actual[name], expected[name], rtol=tolerance, err_msg=name)


@properties
@given(seeds, units)
def test_zero_at_the_target(seed, switch_sets):
    """Predictions equal to the targets: nothing is left but what the epsilon of the root leaves.

    That is sqrt(w + e) - sqrt(w) = e / (sqrt(w + e) + sqrt(w)) < e / (2 sqrt(w)) for each size.
    """
    unit = switch_sets[0]["xy_unit"]
    _, targets = random_case(seed, unit)
    boxes = np.repeat(targets.boxes_cxcywh[..., None, :], BOXES, axis=-2)
    confidence = np.where(targets.object_mask[..., None], [1.0, 0.0], 0.0).astype(np.float32)
    predictions = Predictions(grid.encode_boxes(boxes, xy_unit=unit), confidence, targets.classes)
    sizes = targets.boxes_cxcywh[targets.object_mask][:, 2:].astype(np.float64)
    rounding = np.finfo(np.float32).eps  # of roots that are at most 1
    bound = 5 * ((1e-5 / (2 * np.sqrt(sizes)) + rounding) ** 2).sum()
    case = (predictions, targets)
    for switches, (terms, _) in zip(
        switch_sets, terms_by_case([case, case], switch_sets), strict=True
    ):
        assert 0 <= terms["wh"] <= bound
        assert terms["no_object"] == 0
        if switches["class_loss"] == "squared":
            assert terms["class"] == 0
        # The IoU of a box with itself is 1 up to rounding; so is an offset its own inverse.
        assert 0 <= terms["object"] <= sizes.size * 1e-11
        assert 0 <= terms["xy"] <= 5 * sizes.size * 1e-12


@properties
@given(seeds)
def test_softmax_is_least_at_the_target(seed):
    """Cross-entropy >= entropy of the normalised target, reached at scores log(target)."""
    case = predictions, targets = random_case(seed, "image")
    share = targets.classes[targets.object_mask].astype(np.float64)
    share = share / share.sum(axis=-1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum()
    best = np.where(targets.classes > 0, 0.0, -200.0).astype(np.float32)
    best_case = (predictions._replace(class_scores=best), targets)
    softmax = {"class_loss": "softmax"}
    ((terms, best_terms),) = terms_by_case([case, best_case], [softmax])
    assert terms["class"] > entropy
    np.testing.assert_allclose(best_terms["class"], entropy, rtol=1e-5)
    # Adding a number to all scores of a cell changes nothing.
    shifted = (predictions._replace(class_scores=predictions.class_scores + 8), targets)
    ((terms, shifted_terms),) = terms_by_case([case, shifted], [softmax])
    assert_same_terms(shifted_terms, terms)


@properties
@given(seeds, units)
def test_boxes_of_a_cell_may_change_places(seed, switch_sets):
    predictions, targets = random_case(seed, switch_sets[0]["xy_unit"])
    targets = without_close_calls(predictions, targets, switch_sets[0]["xy_unit"], ties=True)
    swapped = predictions._replace(
        boxes=predictions.boxes[..., ::-1, :], confidence=predictions.confidence[..., ::-1]
    )
    cases = [(predictions, targets), (swapped, targets)]
    for terms, swapped_terms in terms_by_case(cases, switch_sets):
        assert_same_terms(swapped_terms, terms)


@properties
@given(seeds, units, st.permutations(range(SIDE)))
def test_cells_do_not_see_each_other(seed, switch_sets, columns):
    """Moving whole columns of cells, each with its object, changes nothing."""
    case = random_case(seed, switch_sets[0]["xy_unit"])
    moved, moved_targets = jax.tree.map(lambda array: array[:, :, list(columns)], case)
    boxes_cxcywh = moved_targets.boxes_cxcywh.copy()
    boxes_cxcywh[..., 0] += ((np.arange(SIDE) - columns) / SIDE).astype(np.float32)
    moved_targets = moved_targets._replace(boxes_cxcywh=boxes_cxcywh)
    for terms, moved_terms in terms_by_case([case, (moved, moved_targets)], switch_sets):
        assert_same_terms(moved_terms, terms, tolerance=1e-4)  # centres were rounded again


@properties
@given(seeds, units)
def test_sum_over_the_batch_is_that_of_its_images(seed, switch_sets):
    """An image alone is the batch in which the other images are empty, and score 0."""
    predictions, targets = random_case(seed, switch_sets[0]["xy_unit"])
    cases = [(predictions, targets)]
    for image in range(BATCH):
        others = np.arange(BATCH) != image
        alone = jax.tree.map(np.copy, (predictions, targets))
        for array in jax.tree.leaves(alone):
            array[others] = 0
        cases.append(alone)
    whole_and_parts = [terms_by_case(cases[i : i + 2], switch_sets) for i in (0, 2)]
    for (whole, first), (second, third) in zip(*whole_and_parts, strict=True):
        assert_same_terms(whole, {name: first[name] + second[name] + third[name] for name in TERMS})


def test_mean_divides_by_the_number_of_images():
    """Not by cells, boxes or objects; gradients likewise."""
    case = random_case(0, "image")
    batch = jax.tree.map(lambda array: np.stack([array, array]), case)
    (total, gradient), (mean, mean_gradient) = losses_and_gradients(
        *batch, [{"reduction": "sum"}, {"reduction": "mean"}]
    )
    assert_same_terms(mean, {name: term / BATCH for name, term in total.items()}, 1e-6)
    for actual, expected in zip(mean_gradient, gradient, strict=True):
        np.testing.assert_allclose(actual, expected / BATCH, rtol=1e-6)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_linear_in_each_coefficient(weight):
    """And in no other: a coefficient scales its own terms only."""
    case = random_case(0, "cell")
    base = CELL_UNITS[-1]
    ones = dict.fromkeys(WEIGHTS, 1.0)
    sets = [base | ones, base | dict.fromkeys(WEIGHTS, 0.0)]
    sets += [base | ones | {name: 3.0} for name in WEIGHTS]
    (one,), (zero,), *tripled = terms_by_case([case], sets)
    (three,) = tripled[list(WEIGHTS).index(weight)]
    for name in TERMS:
        assert one[name] > 0
        assert zero[name] == 0
        factor = 3 if name in WEIGHTS[weight] else 1
        np.testing.assert_allclose(three[name], factor * one[name], rtol=1e-6)


@functools.cache
def weighted_loss(unit):
    """Terms of the loss as a function of the coefficients too: compiled once for all of them."""
    switches = (IMAGE_UNITS if unit == "image" else CELL_UNITS)[-1]
    return jax.jit(
        lambda predictions, targets, weights: yolo_loss(
            predictions, targets, **{**switches, **weights}
        )
    )


weights = st.fixed_dictionaries({name: st.integers(0, 32).map(lambda n: n / 4) for name in WEIGHTS})


@properties
@given(seeds, st.sampled_from(["image", "cell"]), weights, st.sampled_from([*WEIGHTS]))
def test_monotone_in_its_coefficients(seed, unit, before, raised):
    """Raising one raises its own terms, unless they are zero, and leaves the others as they are."""
    case = random_case(seed, unit)
    after = before | {raised: before[raised] + 0.5}
    one, two = (weighted_loss(unit)(*case, chosen) for chosen in (before, after))
    ones = weighted_loss(unit)(*case, dict.fromkeys(WEIGHTS, 1.0))
    for name in TERMS:
        if name in WEIGHTS[raised]:
            assert two[name] > one[name] or ones[name] == 0
        else:
            assert two[name] == one[name]
    assert sum(two.values()) >= sum(one.values()) >= 0


@properties
@given(seeds, st.permutations(range(8)), st.sampled_from(["last", "first"]))
def test_objects_may_change_places(seed, order, collision):
    """Where no two share a cell, their order in the annotation is of no matter to the loss."""
    rng = np.random.default_rng(seed)
    predictions, _ = random_case(seed, "cell")
    boxes_xyxy, labels, valid = [], [], []
    for _ in range(BATCH):  # eight cells of sixteen, some of the rows padding
        cells = rng.choice(SIDE**2, 8, replace=False)
        centres = (np.stack(divmod(cells, SIDE), axis=-1) + rng.uniform(0.1, 0.9, (8, 2))) / SIDE
        half = rng.uniform(0.01, 0.2, (8, 2))
        boxes_xyxy.append(np.concatenate([centres - half, centres + half], axis=-1))
        labels.append(rng.integers(0, CLASSES, 8))
        valid.append(rng.random(8) < 0.8)
    objects = np.array(boxes_xyxy, np.float32), np.array(labels, np.int32), np.array(valid)
    terms = {}
    for name, rows in (("given", slice(None)), ("permuted", list(order))):
        targets = encode_targets(
            *(array[:, rows] for array in objects),
            grid_size=SIDE,
            num_classes=CLASSES,
            collision=collision,
            class_target="winner",
        )
        assert targets.object_mask.sum() == objects[2].sum()
        terms[name] = weighted_loss("cell")(predictions, targets, dict.fromkeys(WEIGHTS, 1.0))
    for name in TERMS:
        np.testing.assert_array_equal(terms["given"][name], terms["permuted"][name])


def test_defaults_are_the_references():
    predictions, targets = random_case(0, "image")
    expected = slow_loss(*predictions, SlowTargets(*targets))
    ((terms,),) = terms_by_case([(predictions, targets)], [{}])
    assert_same_terms(terms, expected.terms)


def test_nothing_but_confidence_matters_without_objects():
    for switch_sets in (IMAGE_UNITS, CELL_UNITS):
        predictions, targets = random_case(0, "image")
        case = (predictions, jax.tree.map(np.zeros_like, targets))
        expected = 0.5 * (predictions.confidence.astype(np.float64) ** 2).sum()
        for terms, _ in terms_by_case([case, case], switch_sets):
            np.testing.assert_allclose(terms["no_object"], expected, rtol=1e-6)
            assert [terms[name] for name in ("xy", "wh", "object", "class")] == [0, 0, 0, 0]
