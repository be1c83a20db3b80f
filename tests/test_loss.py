"""The loss on cells worked by hand: terms, gradients, the responsible box.

`test_loss_slow.py` compares it with slow loops, `test_loss_properties.py` tries its properties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import cast, losses_and_gradients, random_targets, with_offsets
from slow_loss import SlowTargets, slow_loss

from yolov1_jax.yolo.grid import GridTargets, Predictions
from yolov1_jax.yolo.loss import ciou_error, giou_error, match_boxes, signed_sqrt, yolo_loss

match_in_image_units = jax.jit(functools.partial(match_boxes, xy_unit="image"))


def hand_worked(unit="image"):
    """A 2x2 grid, an object in row 0, column 1 at centre (0.75, 0.25), w = h = 0.25, class 1 of 2.

    Box 0 has a negative width: IoU 0. Box 1 is a quarter of a cell to the right and a quarter as
    high: I = 1/8 * 1/16, areas 1/64 and 1/16, so IoU = (1/128) / (1/64 + 1/16 - 1/128) = 1/9, and
    it is responsible.
    """
    targets = SlowTargets(
        np.zeros((1, 2, 2), bool),
        np.zeros((1, 2, 2, 4), np.float32),
        np.zeros((1, 2, 2, 2), np.float32),
    )
    predictions = Predictions(
        np.full((1, 2, 2, 2, 4), 0.1, np.float32),
        np.full((1, 2, 2, 2), 0.1, np.float32),
        np.full((1, 2, 2, 2), 0.1, np.float32),
    )
    at = (0, 0, 1)
    targets.object_mask[at] = True
    targets.boxes_cxcywh[at] = 0.75, 0.25, 0.25, 0.25
    targets.classes[at] = 0, 1
    predictions.boxes[at] = [[0.25, 0.25, -0.25, 0.25], [0.375, 0.25, 0.25, 0.0625]]
    if unit == "cell":
        predictions.boxes[at][:, :2] = [[0.5, 0.5], [0.75, 0.5]]
    predictions.confidence[at] = 0.5, 0.5
    predictions.class_scores[at] = 0, np.log(3)
    return jax.tree.map(jnp.asarray, (predictions, targets))


HAND_TERMS = {
    "xy": 5 * (1 / 8) ** 2,
    "wh": 5 * (1 / 4 - 1 / 2) ** 2,  # the width is right; sqrt(1/16) - sqrt(1/4)
    "object": (1 / 2 - 1 / 9) ** 2,
    "no_object": 0.5 * (0.5**2 + 6 * 0.1**2),  # box 0 of the cell, six boxes of empty cells
    "class": (np.log(3) - 1) ** 2,
}
HAND_CHANGES = [  # with which switch which terms change to what
    ({}, {}),
    ({"objectness_target": "one"}, {"object": 1 / 4}),
    ({"no_object_boxes": "empty_cells"}, {"no_object": 0.5 * 6 * 0.1**2}),
    ({"xy_unit": "cell"}, {"xy": 5 * (1 / 4) ** 2}),  # 1/8 of the image is 1/4 of a cell
    ({"class_loss": "softmax"}, {"class": np.log(4 / 3)}),  # softmax(0, ln 3) = (1/4, 3/4)
    ({"coordinate_weight": 2.0}, {"xy": 2 * (1 / 8) ** 2, "wh": 2 * (1 / 4) ** 2}),
    ({"object_weight": 3.0}, {"object": 3 * (1 / 2 - 1 / 9) ** 2}),
    ({"no_object_weight": 2.0}, {"no_object": 2 * (0.5**2 + 6 * 0.1**2)}),
    ({"class_weight": 0.25}, {"class": 0.25 * (np.log(3) - 1) ** 2}),
    # S(1/4) = sqrt(1/4 + 2) = 1.5, S(1/16) = sqrt(33/16); the target's root has no epsilon.
    ({"sqrt_epsilon": 2.0}, {"wh": 5 * ((1.5 - 0.5) ** 2 + (np.sqrt(33 / 16) - 0.5) ** 2)}),
]


@pytest.mark.parametrize(("switches", "changes"), HAND_CHANGES, ids=str)
def test_terms_of_a_hand_worked_cell(switches, changes):
    unit = switches.get("xy_unit", "image")
    predictions, targets = hand_worked(unit)
    switches = {"sqrt_epsilon": 0.0} | switches
    loss = yolo_loss(predictions, with_offsets(targets, unit), **switches)
    slow = slow_loss(*predictions, targets, **switches)
    expected = HAND_TERMS | changes
    assert slow.terms == pytest.approx(expected, rel=1e-5)
    assert jax.tree.map(float, loss.terms) == pytest.approx(expected, rel=1e-5)
    assert float(loss.total) == pytest.approx(sum(expected.values()), rel=1e-5)


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        # softmax(0, ln 3) = (1/4, 3/4); of the target's 1, 1/10 is split between both classes.
        (
            {"class_loss": "softmax", "label_smoothing": 0.1},
            0.95 * np.log(4 / 3) + 0.05 * np.log(4),
        ),
        ({"class_loss": "bernoulli"}, np.log(2) + np.log(4 / 3)),  # sigmoid(0, ln 3) = (1/2, 3/4)
    ],
    ids=str,
)
def test_class_terms_of_the_recipe(switches, expected):
    predictions, targets = hand_worked()
    loss = yolo_loss(predictions, with_offsets(targets, "image"), **switches)
    assert float(loss.terms["class"]) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_hand_worked_cell():
    predictions, targets = hand_worked()
    targets = with_offsets(targets, "image")
    gradient = jax.jit(jax.grad(lambda p: yolo_loss(p, targets, sqrt_epsilon=0.0).total))
    boxes, confidence, class_scores = (array[0] for array in gradient(predictions))
    # Box 1: 2*5*(1/8) in x, and 2*5*(sqrt(1/16) - sqrt(1/4)) / (2 sqrt(1/16)) in h.
    np.testing.assert_allclose(boxes[0, 1], [[0, 0, 0, 0], [1.25, 0, 0, -5]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(confidence[0, 1], [0.5, 2 * (1 / 2 - 1 / 9)], rtol=1e-5)
    np.testing.assert_allclose(class_scores[0, 1], [0, 2 * (np.log(3) - 1)], rtol=1e-5)
    # A cell without object: only its confidences, pushed to 0.
    np.testing.assert_allclose(confidence[1, 0], [0.1, 0.1], rtol=1e-5)
    assert not boxes[1, 0].any()
    assert not class_scores[1, 0].any()


def test_match_of_a_hand_worked_cell():
    predictions, targets = hand_worked()
    match = match_in_image_units(predictions, with_offsets(targets, "image"))
    np.testing.assert_allclose(match.iou[0, 0, 1], [0, 1 / 9], rtol=1e-6)
    np.testing.assert_array_equal(np.argwhere(match.responsible), [[0, 0, 1, 1]])


def one_cell(boxes):
    """A 1x1 grid with predicted boxes and an object at (0.5, 0.5, 0.5, 0.5)."""
    boxes = jnp.array(boxes)[None, None, None]  # [1, 1, 1, K, 4]
    predictions = Predictions(boxes, jnp.zeros(boxes.shape[:-1]), jnp.zeros((1, 1, 1, 1)))
    mask = jnp.ones((1, 1, 1), bool)
    return predictions, GridTargets(mask, jnp.full((1, 1, 1, 4), 0.5), jnp.ones((1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[0.6, 0.5, 0.5, 0.5], [0.55, 0.5, 0.5, 0.5]], 1),
        ([[9, 9, 0.5, 0.5], [0.6, 0.5, 0.5, 0.5], [0.55, 0.5, 0.5, 0.5]], 2),
        # Equal boxes, and different ones with equal IoU: the first.
        ([[0.625, 0.5, 0.5, 0.5]] * 3, 0),
        ([[0.375, 0.5, 0.5, 0.5], [0.625, 0.5, 0.5, 0.5]], 0),
        ([[9, 9, 1, 1], [0.5, 0.625, 0.5, 0.5], [0.625, 0.5, 0.5, 0.5]], 1),
        # All IoU 0: the first, even where the other is nearer.
        ([[9, 9, 0.5, 0.5], [1.1, 0.5, 0.5, 0.5]], 0),
        # A negative size has no overlap, however near the box; a negative area is no help.
        ([[0.5, 0.5, -0.4, 0.5], [0.5, 0.9, 0.5, 0.4]], 1),
        ([[0.6, 0.6, -0.5, -0.5], [9, 9, 0.5, 0.5]], 0),
        ([[0.6, 0.6, 0.0, 0.0], [0.5, 0.9, 0.5, 0.4]], 1),
    ],
)
def test_responsible_box(boxes, expected):
    match = match_in_image_units(*one_cell(boxes))
    np.testing.assert_array_equal(np.flatnonzero(match.responsible), [expected])


def test_signed_square_root():
    """sign(z) sqrt(|z| + 1/4) above, below and at 0, where its slope is finite."""
    value_and_slope = jax.value_and_grad(signed_sqrt)
    for z, expected in (
        (0.0, (0, 0)),
        (-0.0, (0, 0)),
        (1e-12, (0.5, 1)),
        (-1e-12, (-0.5, 1)),
        (2.0, (1.5, 1 / 3)),
        (-2.0, (-1.5, 1 / 3)),
    ):
        np.testing.assert_allclose(value_and_slope(z, 0.25), expected, rtol=1e-6)


def test_enormous_boxes_give_finite_numbers():
    """Areas that overflow float32 must not become NaN: IoU 0, the first box, finite gradients."""
    predictions, targets = one_cell([[0.5, 0.5, 1e30, 1e30], [0.5, 0.5, 1e30, 1e30]])
    value_and_gradient = jax.jit(jax.value_and_grad(lambda p: yolo_loss(p, targets).total))
    for array in jax.tree.leaves(value_and_gradient(predictions)):
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("box", "target", "iou", "around", "distance", "diagonal", "angles"),
    [
        # Side by side with a gap of 1: |C| = 3, of which the union is 2; centres 2 apart.
        ([0, 0, 1, 1], [2, 0, 3, 1], 0, 1 / 3, 4, 10, 0),
        # One across the other: 1 of 3 in common, C is 2 x 2.
        ([0, 0, 2, 1], [0.5, -0.5, 1.5, 1.5], 1 / 3, 1 / 4, 0, 8, np.arctan(2) - np.arctan(1 / 2)),
        # A quarter of the other, in its corner.
        ([0, 0, 1, 1], [0, 0, 2, 2], 1 / 4, 0, 1 / 2, 8, 0),
        ([0, 0, 1, 3], [0, 0, 1, 3], 1, 0, 0, 10, 0),
    ],
)
def test_giou_and_ciou_by_hand(box, target, iou, around, distance, diagonal, angles):
    """`around`: the part of C, the box around both, that is not of their union."""
    boxes = np.array([box, target], np.float32)
    np.testing.assert_allclose(giou_error(*boxes), 1 - iou + around, rtol=1e-6, atol=1e-6)
    v = 4 / np.pi**2 * angles**2
    penalty = distance / diagonal + (v**2 / (1 - iou + v) if v else 0)
    np.testing.assert_allclose(ciou_error(*boxes), 1 - iou + penalty, rtol=1e-6, atol=1e-6)


def test_boxes_on_an_object_need_not_be_confident_of_nothing():
    """Two cells side by side; the object is in the left one, a box of the right one is on it."""
    targets = SlowTargets(
        np.array([[[True, False], [False, False]]]),
        np.zeros((1, 2, 2, 4), np.float32),
        np.ones((1, 2, 2, 1), np.float32),
    )
    targets.boxes_cxcywh[0, 0, 0] = 0.4, 0.25, 0.4, 0.2
    boxes = np.full((1, 2, 2, 1, 4), 0.05, np.float32)
    boxes[0, 0, 0, 0] = 0.4, 0.25, 0.4, 0.2  # offsets are from the corner of each cell
    boxes[0, 0, 1, 0] = 0.0, 0.25, 0.4, 0.2  # a quarter of its width beside it: IoU 3/5
    predictions = Predictions(boxes, np.ones((1, 2, 2, 1), np.float32), targets.classes)
    switch_sets = [{"ignore_iou": limit} for limit in (None, 0.61, 0.59)]
    results = losses_and_gradients([(predictions, targets)], switch_sets)
    assert [float(terms["no_object"][0] / 0.5) for terms, _ in results] == [3, 3, 2]


def test_saturated_sigmoids_give_finite_numbers():
    """Boxes of no size or of the whole image, and certainties that are wrong, in every cell."""
    rng = np.random.default_rng(0)
    shapes = Predictions((2, 3, 3, 2, 4), (2, 3, 3, 2), (2, 3, 3, 3))
    outputs = Predictions(*(rng.choice([-1e4, -90, 0, 90, 1e4], shape) for shape in shapes))
    targets = random_targets(rng, (2, 3, 3, 2, 3))
    # An empty cell has an empty target in the corner of the image; here are two such boxes.
    targets.object_mask[0, 0, 0], outputs.boxes[0, 0, 0] = False, -1e4
    targets.boxes_cxcywh[0, 0, 0] = 0
    case = cast((outputs, targets), np.float32)
    options = {"prediction": "sigmoid", "xy_unit": "cell", "ignore_iou": 0.5}
    options |= {"confidence": "cross_entropy", "class_loss": "bernoulli"}
    switch_sets = [options | {"box": box} for box in ("squared_roots", "giou", "ciou")]
    for array in jax.tree.leaves(losses_and_gradients([case], switch_sets)):
        assert np.isfinite(array).all()
