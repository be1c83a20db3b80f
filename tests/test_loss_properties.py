"""What must hold for every loss of the family, whatever its value: tried on random cells."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import (
    COMBINATIONS,
    boxes_near,
    cast,
    losses_and_gradients,
    random_targets,
    without_close_calls,
)
from slow_loss import TERMS

from yolov1_jax.yolo import grid
from yolov1_jax.yolo.grid import Predictions

SIDE, BOXES, CLASSES, BATCH = 4, 2, 3, 3
# Any two switches meet in all four ways; the rest is the business of the slow loops.
IMAGE_UNITS = [COMBINATIONS[number] for number in (0, 5, 9, 12)]
CELL_UNITS = [COMBINATIONS[number] for number in (3, 6, 10, 15)]
units = st.sampled_from([IMAGE_UNITS, CELL_UNITS])
seeds = st.integers(0, 2**32 - 1)
properties = settings(derandomize=True, deadline=None, max_examples=30)


def random_case(seed, unit):
    """Predictions and targets [B, ...] in float32, some boxes near their objects, some far off."""
    rng = np.random.default_rng(seed)
    shape = (BATCH, SIDE, SIDE, BOXES, CLASSES)
    targets = random_targets(rng, shape)
    predictions = Predictions(
        boxes_near(rng, targets, shape, unit, noise=rng.choice([0.1, 1.0, 10.0])),
        rng.normal(size=shape[:-1]),
        rng.normal(size=(*shape[:3], CLASSES)),
    )
    return cast((predictions, targets), np.float32)


def terms_by_case(cases, switch_sets):
    """The terms of some cases (predictions, targets): [set of switches][case][name]."""
    return [
        [{name: term[index] for name, term in terms.items()} for index in range(len(cases))]
        for terms, _ in losses_and_gradients(cases, switch_sets)
    ]


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
    predictions, targets = random_case(seed, "image")
    share = targets.classes[targets.object_mask].astype(np.float64)
    share = share / share.sum(axis=-1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum()
    best = np.where(targets.classes > 0, 0.0, -200.0).astype(np.float32)
    cases = [(predictions, targets), (predictions._replace(class_scores=best), targets)]
    for (terms, best_terms), switches in zip(
        terms_by_case(cases, IMAGE_UNITS), IMAGE_UNITS, strict=True
    ):
        if switches["class_loss"] == "softmax":
            assert terms["class"] > entropy
            np.testing.assert_allclose(best_terms["class"], entropy, rtol=1e-5)


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
@given(seeds, units, st.permutations(range(BATCH)), st.permutations(range(SIDE)))
def test_images_and_cells_do_not_see_each_other(seed, switch_sets, images, columns):
    """Moving images and whole columns of cells, each with its object, changes nothing."""
    case = random_case(seed, switch_sets[0]["xy_unit"])
    moved, targets = jax.tree.map(lambda array: array[list(images)][:, :, list(columns)], case)
    targets.boxes_cxcywh[..., 0] += ((np.arange(SIDE) - columns) / SIDE).astype(np.float32)
    for terms, moved_terms in terms_by_case([case, (moved, targets)], switch_sets):
        assert_same_terms(moved_terms, terms, tolerance=1e-4)  # centres were rounded again
