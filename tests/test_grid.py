"""Channels, cells and offsets of the grid: by hand, against a slow loop, decode(encode(x)) = x."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_loss import slow_encode

from yolov1_jax.yolo import grid

UNITS = ("image", "cell")
RULES = [  # who owns a shared cell, and which classes it has
    {"collision": collision, "class_target": class_target}
    for collision, class_target in itertools.product(("last", "first"), ("all", "winner"))
]
jitted = jax.jit(
    grid.encode_targets,
    static_argnames=("grid_size", "num_classes", "xy_unit", "collision", "class_target"),
)


def encode_targets(*arrays, **switches):
    """On the device, as a training step does it; back as NumPy arrays."""
    return jax.tree.map(np.asarray, jitted(*arrays, **switches))


def padded(objects, num_rows=4):
    """[(cx, cy, w, h, label), ...] -> boxes_xyxy [1, M, 4], labels [1, M], valid [1, M]."""
    boxes_xyxy = np.zeros((1, num_rows, 4), np.float32)
    labels = np.zeros((1, num_rows), np.int32)
    for row, (cx, cy, w, h, label) in enumerate(objects):
        boxes_xyxy[0, row] = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        labels[0, row] = label
    return boxes_xyxy, labels, np.arange(num_rows)[None] < len(objects)


def decoded(targets, xy_unit="image"):
    """boxes_cxcywh [B, S, S, 4] in [0, 1] of the image."""
    return grid.decode_boxes(targets.boxes[..., None, :], xy_unit=xy_unit)[..., 0, :]


def occupied(targets):
    """The cells with an object as (image, row, column)."""
    return {tuple(map(int, cell)) for cell in np.argwhere(targets.object_mask)}


def cell_of(entry, side):
    """Row and column of a centre, in exact arithmetic: the coordinates have few binary digits."""
    cx, cy, *_ = entry
    return min(int(cy * side), side - 1), min(int(cx * side), side - 1)


# --- split_predictions


@pytest.mark.parametrize(
    ("layout", "boxes", "confidence"),
    [
        ("reference", [[1, 2, 3, 4], [6, 7, 8, 9]], [0, 5]),
        ("torchlake", [[0, 1, 2, 3], [5, 6, 7, 8]], [4, 9]),
    ],
)
def test_channels_of_each_layout(layout, boxes, confidence):
    """Two boxes and three classes: 13 channels, each holding its own number in every cell."""
    cells = 100 * np.arange(2 * 3 * 3).reshape(2, 3, 3, 1)
    raw = jnp.asarray(np.arange(13, dtype=np.float32) + cells)
    found = grid.split_predictions(raw, boxes_per_cell=2, num_classes=3, layout=layout)
    np.testing.assert_array_equal(found.boxes, np.array(boxes) + cells[..., None])
    np.testing.assert_array_equal(found.confidence, np.array(confidence) + cells)
    np.testing.assert_array_equal(found.class_scores, np.array([10, 11, 12]) + cells)


def test_wrong_channel_count_is_refused():
    with pytest.raises(ValueError, match=r"\b30\b.*\b29\b"):
        grid.split_predictions(np.zeros((1, 7, 7, 29)), boxes_per_cell=2, num_classes=20)


# --- encode_targets


def test_targets_on_a_3x3_grid():
    """Two objects, the first in the middle row's last column, the second in the top left cell.

    Centre (0.75, 0.5): 0.75 * 3 = 2.25 -> column 2; 0.5 * 3 = 1.5 -> row 1.
    Centre (0.25, 0.125): 0.75 -> column 0; 0.375 -> row 0.
    """
    objects = [(0.75, 0.5, 0.25, 0.5, 1), (0.25, 0.125, 0.5, 0.25, 2)]
    targets = encode_targets(*padded(objects), grid_size=3, num_classes=3)
    assert [field.dtype for field in targets] == [bool, np.float32, np.float32]
    np.testing.assert_array_equal(targets.object_mask, [[[1, 0, 0], [0, 0, 1], [0, 0, 0]]])
    np.testing.assert_allclose(decoded(targets)[0, 1, 2], [0.75, 0.5, 0.25, 0.5], rtol=1e-6)
    np.testing.assert_allclose(decoded(targets)[0, 0, 0], [0.25, 0.125, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(targets.classes[0, 1, 2], [0, 1, 0])
    np.testing.assert_array_equal(targets.classes[0, 0, 0], [0, 0, 1])
    assert targets.classes.sum() == 2


# Three objects in the centre cell of a 3x3 grid: labels 2, 0, 2, told apart by their widths.
CROWD = [(0.5, 0.5, 0.5, 0.5, 2), (0.5, 0.5, 0.25, 0.5, 0), (0.375, 0.5, 0.125, 0.5, 2)]
TWINS = [(0.5, 0.5, 0.5, 0.5, 0), (0.5, 0.5, 0.5, 0.5, 1)]


@pytest.mark.parametrize(
    ("collision", "class_target", "width", "crowd_classes", "twin_classes"),
    [
        # Label 2 comes twice and is still 1: a class is there or it is not.
        ("last", "all", 0.125, [1, 0, 1], [1, 1, 0]),
        ("last", "winner", 0.125, [0, 0, 1], [0, 1, 0]),
        ("first", "all", 0.5, [1, 0, 1], [1, 1, 0]),
        ("first", "winner", 0.5, [0, 0, 1], [1, 0, 0]),
    ],
)
def test_collision(collision, class_target, width, crowd_classes, twin_classes):
    batch = [np.concatenate(arrays) for arrays in zip(padded(CROWD), padded(TWINS), strict=True)]
    targets = encode_targets(
        *batch, grid_size=3, num_classes=3, collision=collision, class_target=class_target
    )
    assert occupied(targets) == {(0, 1, 1), (1, 1, 1)}
    assert targets.boxes[0, 1, 1, 2] == width
    np.testing.assert_array_equal(targets.classes[:, 1, 1], [crowd_classes, twin_classes])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("side", [1, 7, 28])
def test_a_centre_on_a_border_is_in_the_cell_that_begins_there(side, unit):
    """On the right or lower edge of the image: in the last cell. j/S is not exact in binary."""
    corners = np.array([*np.ndindex(side + 1, side + 1)])  # row and column, an image for each
    centres = (corners[:, None, ::-1] / side).astype(np.float32)  # [B, 1, 2]
    label = np.zeros(centres.shape[:2], np.int32)
    targets = encode_targets(
        np.concatenate([centres, centres], axis=-1),
        label,
        label == 0,
        grid_size=side,
        num_classes=1,
        xy_unit=unit,
    )
    expected = np.minimum(corners, side - 1)
    np.testing.assert_array_equal(np.argwhere(targets.object_mask)[:, 1:], expected)
    offsets = targets.boxes[targets.object_mask][:, 1::-1] * (side if unit == "image" else 1)
    np.testing.assert_allclose(offsets, corners - expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_centre_misses_its_cell_by_the_rounding_of_pixels(dtype):
    """Every pair of whole pixels of many widths, against whole numbers."""
    side = 7
    for width in (105, 112, 333):
        left, right = np.triu_indices(width + 1, 1)
        corners = np.zeros((len(left), 1, 4), dtype)
        corners[:, 0, 0], corners[:, 0, 2], corners[:, 0, 3] = left / width, right / width, 0.01
        one = np.zeros(corners.shape[:2], np.int32)
        with jax.enable_x64(dtype == np.float64):
            targets = encode_targets(corners, one, one == 0, grid_size=side, num_classes=1)
        expected = np.minimum((left + right) * side // (2 * width), side - 1)
        np.testing.assert_array_equal(targets.object_mask[:, 0].argmax(axis=-1), expected)


@pytest.mark.parametrize("rule", RULES)
def test_padded_rows_are_ignored(rule):
    """Whatever padding holds: boxes of real objects, labels of no class, NaN."""
    boxes_xyxy, labels, valid = padded([(0.75, 0.5, 0.25, 0.5, 1)], num_rows=6)
    expected = encode_targets(boxes_xyxy, labels, valid, grid_size=3, num_classes=3, **rule)
    boxes_xyxy[0, 1] = boxes_xyxy[0, 0]  # the same cell, later in the list
    boxes_xyxy[0, 2:] = [[0, 0, 0.1, 0.1], [0, 0, 0.1, 0.1], [np.nan] * 4, [-5, -5, -4, -4]]
    labels[0, 1:] = 2, -1, 1_000_000, 0, 0
    for order in (slice(None), slice(None, None, -1)):  # padding behind and before the object
        arrays = (array[:, order] for array in (boxes_xyxy, labels, valid))
        targets = encode_targets(*arrays, grid_size=3, num_classes=3, **rule)
        jax.tree.map(np.testing.assert_array_equal, targets, expected)


@pytest.mark.parametrize(
    ("side", "rule"), [*((7, rule) for rule in RULES), (1, RULES[3]), (14, RULES[0])]
)
def test_crowded_scenes_equal_the_slow_loop(side, rule):
    """Up to 24 objects in few places, so that most cells are fought over by several classes."""
    rng = np.random.default_rng(side)
    centres = rng.choice(rng.uniform(0.05, 0.95, (9, 2)), (6, 24))
    centres += rng.uniform(-0.03, 0.03, centres.shape)
    half = rng.uniform(0.01, 0.04, centres.shape)
    boxes_xyxy = np.concatenate([centres - half, centres + half], axis=-1).astype(np.float32)
    labels = rng.integers(0, 5, (6, 24)).astype(np.int32)
    valid = rng.random((6, 24)) < np.array([0.0, 0.2, 0.5, 0.8, 1.0, 1.0])[:, None]
    switches = {"grid_size": side, "num_classes": 5, **rule}
    expected = slow_encode(boxes_xyxy, labels, valid, **switches)
    targets = encode_targets(boxes_xyxy, labels, valid, **switches)
    owned = expected.object_mask
    np.testing.assert_array_equal(targets.object_mask, owned)
    np.testing.assert_array_equal(targets.classes, expected.classes)
    found = decoded(targets)[owned]
    np.testing.assert_allclose(found, expected.boxes_cxcywh[owned], rtol=1e-6, atol=2e-7)
    assert np.isfinite(targets.boxes).all()  # in empty cells, too


# --- encode_boxes and decode_boxes


def test_decode_on_a_3x3_grid():
    """Row 2, column 1 begins at x = 1/3, y = 2/3 of the image."""
    boxes = np.zeros((1, 3, 3, 2, 4), np.float32)
    boxes[0, 2, 1, 1] = 0.25, 0.125, 0.5, -0.25
    decoded = grid.decode_boxes(boxes, xy_unit="image")
    expected = [1 / 3 + 0.25, 2 / 3 + 0.125, 0.5, -0.25]
    np.testing.assert_allclose(decoded[0, 2, 1, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(decoded[0, 2, 1, 0], [1 / 3, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(decoded[0, 0, 2, 0], [2 / 3, 0, 0, 0], rtol=1e-6)
    # In cell units the offset counts thirds of the image; width and height are unaffected.
    decoded = grid.decode_boxes(boxes, xy_unit="cell")
    expected = [(1 + 0.25) / 3, (2 + 0.125) / 3, 0.5, -0.25]
    np.testing.assert_allclose(decoded[0, 2, 1, 1], expected, rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    ("xp", "dtype", "tolerance"),
    [(np, "float32", 1e-6), (np, "float64", 1e-14), (jnp, "float32", 1e-6)],
)
def test_decode_and_encode_are_inverse(xp, dtype, tolerance, unit):
    boxes = xp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 2, 4)), dtype=dtype)
    decode, encode = (
        functools.partial(function, xy_unit=unit)
        for function in (grid.decode_boxes, grid.encode_boxes)
    )
    # Adding and taking away up to S cells costs a few ulps of S.
    tolerance *= 7 if unit == "cell" else 1
    for first, second in ((decode, encode), (encode, decode)):
        result = first(boxes)
        assert isinstance(result, np.ndarray if xp is np else jax.Array)
        assert (result.shape, result.dtype) == (boxes.shape, dtype)
        np.testing.assert_allclose(second(result), boxes, rtol=0, atol=tolerance)


fraction = st.integers(0, 2**12).map(lambda n: n / 2**12)  # exact in float32, borders included
size = st.integers(0, 2**11).map(lambda n: n / 2**11)  # so that the corners are exact as well
entry = st.tuples(fraction, fraction, size, size, st.integers(0, 2))


@pytest.mark.parametrize(("side", "unit", "rule"), [(4, "image", RULES[0]), (7, "cell", RULES[3])])
@settings(derandomize=True, deadline=None, max_examples=50)
@given(data=st.data())
def test_decode_inverts_encode_for_objects_in_cells_of_their_own(data, side, unit, rule):
    unique_by = functools.partial(cell_of, side=side)
    objects = data.draw(st.lists(entry, max_size=12, unique_by=unique_by))
    options = {"grid_size": side, "num_classes": 3, "xy_unit": unit}
    targets = encode_targets(*padded(objects, 12), **options, **rule)
    assert occupied(targets) == {(0, *cell_of(entry, side)) for entry in objects}
    for *box, label in objects:
        at = (0, *cell_of(box, side))
        np.testing.assert_allclose(decoded(targets, unit)[at], box, atol=1e-6)
        np.testing.assert_array_equal(targets.classes[at], np.arange(3) == label)


# --- finish_predictions


def test_sigmoid_predictions_by_hand():
    """In a 2x2 grid, x and y are in halves of the image, or in cells."""
    zeros = np.zeros((1, 2, 2, 1, 4), np.float32)
    zeros[..., 3] = np.log(3)  # sigmoid 3/4
    scores = np.full((1, 2, 2, 3), 7.0)
    outputs = grid.Predictions(zeros, -zeros[..., 3], scores)
    for unit, xy in (("image", 0.25), ("cell", 0.5)):
        boxes, confidence, classes = grid.finish_predictions(
            outputs, prediction="sigmoid", xy_unit=unit
        )
        np.testing.assert_allclose(boxes[0, 1, 0, 0], [xy, xy, 0.5, 0.75], rtol=1e-6)
        np.testing.assert_allclose(confidence, 0.25, rtol=1e-6)
        assert classes is scores
        centres = grid.decode_boxes(boxes, xy_unit=unit)[0, :, :, 0, :2]
        np.testing.assert_allclose(centres[1, 0], [0.25, 0.75], rtol=1e-6)
    assert grid.finish_predictions(outputs, prediction="raw", xy_unit="cell") is outputs


def test_initial_outputs_are_unsure_boxes_in_the_middle_of_their_cell():
    outputs = np.array(grid.initial_outputs(2, 3))
    split = grid.split_predictions(outputs[None, None, None], boxes_per_cell=2, num_classes=3)
    first = grid.finish_predictions(split, prediction="sigmoid", xy_unit="cell")
    np.testing.assert_allclose(first.boxes, np.tile([0.5, 0.5, 0.2, 0.2], (1, 1, 1, 2, 1)), 1e-6)
    np.testing.assert_allclose(first.confidence, np.full((1, 1, 1, 2), 0.02), rtol=1e-6)
    assert not first.class_scores.any()
