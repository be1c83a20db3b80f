"""The loss on cells worked by hand: terms, gradients, the responsible box, wrong input.

`test_loss_slow.py` compares it with slow loops, `test_loss_properties.py` tries its properties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    BATCH,
    BOXES,
    CLASSES,
    SIDE,
    SWITCHES,
    losses_and_gradients,
    random_case,
    terms_by_case,
)
from slow_loss import SlowTargets, slow_loss

from yolov1_jax.yolo.grid import GridTargets, Predictions
from yolov1_jax.yolo.loss import yolo_loss

# ------------------------------------------------------------------------------- one cell by hand


def hand_worked(unit="image"):
    """A 2x2 grid, an object in row 0, column 1 at centre (0.75, 0.25), w = h = 0.25, class 1 of 2.

    Box 0 has a negative width: IoU 0. Box 1 is a quarter of a cell to the right and a quarter as
    high: I = 1/8 * 1/16, areas 1/64 and 1/16, so IoU = (1/128) / (1/64 + 1/16 - 1/128) = 1/9, and
    it is responsible.
    """
    targets = GridTargets(
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
    return predictions, targets


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


HAND_SWITCHES = [{"sqrt_epsilon": 0.0} | switches for switches, _ in HAND_CHANGES]


@pytest.mark.parametrize("number", range(len(HAND_CHANGES)), ids=lambda i: str(HAND_CHANGES[i][0]))
def test_terms_of_a_hand_worked_cell(number):
    switches, expected = HAND_SWITCHES[number], HAND_TERMS | HAND_CHANGES[number][1]
    case = hand_worked(switches.get("xy_unit", "image"))
    terms = terms_by_case([case], HAND_SWITCHES)[number][0]
    assert set(terms) == set(expected)
    slow = slow_loss(*case[0], SlowTargets(*case[1]), **switches)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(slow.terms[name], value, rtol=1e-5, err_msg=f"slow {name}")
        assert terms[name].shape == ()
        assert terms[name].dtype == np.float32


def test_gradient_of_a_hand_worked_cell():
    batch = jax.tree.map(lambda array: array[None], hand_worked())
    (_, gradient), *_ = losses_and_gradients(*batch, HAND_SWITCHES)
    boxes, confidence, class_scores = (array[0, 0] for array in gradient)
    # Of box 1: 2*5*(1/8) in x, and 2*5*(sqrt(1/16) - sqrt(1/4)) / (2 sqrt(1/16)) in h.
    np.testing.assert_allclose(boxes[0, 1], [[0, 0, 0, 0], [1.25, 0, 0, -5]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(confidence[0, 1], [0.5, 2 * (1 / 2 - 1 / 9)], rtol=1e-5)
    np.testing.assert_allclose(class_scores[0, 1], [0, 2 * (np.log(3) - 1)], rtol=1e-5)
    # A cell without object: only its confidences, pushed to 0.
    np.testing.assert_allclose(confidence[1, 0], [0.1, 0.1], rtol=1e-5)
    assert not boxes[1, 0].any()
    assert not class_scores[1, 0].any()


# ---------------------------------------------------------------------- the responsible box, signs


def one_cell(boxes, target=(0.5, 0.5, 0.5, 0.5), confidence=(0.0, 0.0, 0.0)):
    """A 1x1 grid with an object and three boxes, those not given far away and behind the others."""
    boxes = [*boxes, *[[9, 9, 0.5, 0.5]] * (3 - len(boxes))]
    prediction = Predictions(
        np.array(boxes, np.float32).reshape(1, 1, 1, 3, 4),
        np.array(confidence, np.float32).reshape(1, 1, 1, 3),
        np.zeros((1, 1, 1, 1), np.float32),
    )
    targets = GridTargets(
        np.ones((1, 1, 1), bool),
        np.array(target, np.float32).reshape(1, 1, 1, 4),
        np.ones((1, 1, 1, 1), np.float32),
    )
    return jax.tree.map(jnp.asarray, (prediction, targets))


def one_cell_loss(predictions, targets, **switches):
    """Terms and gradient of a single case."""
    batch = jax.tree.map(lambda array: array[None], (predictions, targets))
    (result,) = losses_and_gradients(*batch, [switches])
    return jax.tree.map(lambda array: array[0], result)


def responsible_box(boxes, **kwargs):
    """Which box the loss pulls: the only one whose x, y, w, h have a gradient."""
    _, gradient = one_cell_loss(*one_cell(boxes, **kwargs))
    assert np.isfinite(gradient.boxes).all()
    (index,) = np.flatnonzero(gradient.boxes[0, 0, 0].any(axis=-1))
    return index


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[0.6, 0.5, 0.5, 0.5], [0.55, 0.5, 0.5, 0.5]], 1),
        ([[0.55, 0.5, 0.5, 0.5], [0.6, 0.5, 0.5, 0.5]], 0),
        ([[9, 9, 0.5, 0.5], [0.6, 0.5, 0.5, 0.5], [0.55, 0.5, 0.5, 0.5]], 2),
        # Equal boxes, and different ones with equal IoU: the first.
        ([[0.625, 0.5, 0.5, 0.5]] * 3, 0),
        ([[0.375, 0.5, 0.5, 0.5], [0.625, 0.5, 0.5, 0.5]], 0),
        ([[9, 9, 1, 1], [0.5, 0.625, 0.5, 0.5], [0.625, 0.5, 0.5, 0.5]], 1),
        # All IoU 0: the first, even where the other is nearer.
        ([[9, 9, 0.5, 0.5], [1.1, 0.5, 0.5, 0.5]], 0),
        # A negative size has no overlap, however near the box; a negative area is no help.
        ([[0.5, 0.5, -0.4, 0.5], [0.5, 0.9, 0.5, 0.4]], 1),
        ([[0.5, 0.5, -0.4, -0.4], [0.5, 0.9, 0.5, 0.4]], 1),
        ([[0.6, 0.6, -0.5, -0.5], [9, 9, 0.5, 0.5]], 0),
        ([[0.6, 0.6, 0.0, 0.0], [0.5, 0.9, 0.5, 0.4]], 1),
    ],
)
def test_responsible_box(boxes, expected):
    assert responsible_box(boxes) == expected


def test_confidence_does_not_choose_the_responsible_box():
    boxes = [[0.6, 0.5, 0.5, 0.5], [0.55, 0.5, 0.5, 0.5]]
    for confidence in ([0.0, 9.0, 0.0], [9.0, 0.0, 9.0], [-9.0, 9.0, -9.0]):
        assert responsible_box(boxes, confidence=confidence) == 1


def test_each_term_moves_only_what_it_names():
    """Above all: the objectness target is a constant, so `object` does not move the boxes."""
    predictions, targets = hand_worked()
    jacobian = jax.jit(jax.jacrev(functools.partial(yolo_loss, targets=targets)))(predictions)
    for name, gradient in jacobian.items():
        moved = {
            "x, y": gradient.boxes[..., :2],
            "w, h": gradient.boxes[..., 2:],
            "confidence": gradient.confidence,
            "class scores": gradient.class_scores,
        }
        moved = {part for part, array in moved.items() if np.asarray(array).any()}
        expected = {"xy": "x, y", "wh": "w, h", "class": "class scores"}.get(name, "confidence")
        assert moved == {expected}, name


def test_signed_square_root():
    """S(z) = sign(z) sqrt(|z| + 1/4) above, below and at 0, where its slope is finite."""
    for width, root, slope in ((0.0, 0, 0), (-0.0, 0, 0), (1e-12, 0.5, 1), (-1e-12, -0.5, 1)):
        prediction, targets = one_cell([[0.5, 0.5, width, 0.5]], target=(0.5, 0.5, 1.0, 0.75))
        terms, gradient = one_cell_loss(
            prediction, targets, sqrt_epsilon=0.25, coordinate_weight=1.0
        )
        # The height's root is sqrt(0.5 + 0.25), which is the target's: only the width counts.
        np.testing.assert_allclose(terms["wh"], (root - 1) ** 2, rtol=1e-5, err_msg=str(width))
        expected = 2 * (root - 1) * slope
        np.testing.assert_allclose(gradient.boxes[0, 0, 0, 0, 2], expected, rtol=1e-5)


def test_enormous_boxes_give_finite_numbers():
    """Areas that overflow float32 must not become NaN: IoU 0, the first box, finite gradients."""
    sizes = [[0.5, 0.5, 1e30, 1e30], [0.5, 0.5, 1e30, 1e30]]
    terms, gradient = one_cell_loss(*one_cell(sizes))
    assert np.isfinite(list(terms.values())).all()
    assert all(np.isfinite(array).all() for array in gradient)


# ------------------------------------------------------------------------------------ wrong input


@pytest.mark.parametrize("switch", [*SWITCHES, "reduction"])
def test_unknown_switch_is_refused(switch):
    with pytest.raises(ValueError, match=rf"{switch}.*half"):
        yolo_loss(*random_case(0, "image"), **{switch: "half"})


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("object_mask", (1, SIDE, SIDE)),
        ("object_mask", (BATCH, 1, 1)),
        ("boxes_cxcywh", (1, SIDE, SIDE, 4)),
        ("boxes_cxcywh", (BATCH, 1, 1, 4)),
        ("boxes_cxcywh", (BATCH, SIDE, SIDE, 1)),
        ("classes", (BATCH, SIDE, SIDE, 1)),
        ("classes", (1, SIDE, SIDE, CLASSES)),
        ("boxes", (BATCH, SIDE, SIDE, 1, 4)),
        ("boxes", (BATCH, SIDE, SIDE, BOXES, 1)),
        ("confidence", (BATCH, SIDE, SIDE, 1)),
        ("confidence", (1, SIDE, SIDE, BOXES)),
        ("class_scores", (BATCH, SIDE, SIDE, 1)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(field, shape):
    """An axis of length 1 would broadcast without a word: the loss of another grid or batch."""
    predictions, targets = random_case(0, "image")
    array = np.zeros(shape, bool if field == "object_mask" else np.float32)
    if field in Predictions._fields:
        predictions = predictions._replace(**{field: array})
    else:
        targets = targets._replace(**{field: array})
    with pytest.raises(ValueError, match="shape"):
        yolo_loss(predictions, targets)
