"""Offsets in the cell and back: by hand, for NumPy and JAX, and decode(encode(x)) = x."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grid_scenes import UNITS, cell_of, encode_targets, occupied, padded
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov1_jax.yolo import grid

# -------------------------------------------------------------------- encode_boxes, decode_boxes


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
@pytest.mark.parametrize(("side", "num_boxes"), [(1, 2), (4, 3), (7, 2), (14, 1)])
def test_decode_and_encode_are_inverse_for_numpy_and_jax(unit, side, num_boxes):
    boxes = np.random.default_rng(0).normal(size=(2, side, side, num_boxes, 4)).astype(np.float32)
    results = {}
    for xp, array_type in ((np, np.ndarray), (jnp, jax.Array)):
        decoded = grid.decode_boxes(xp.asarray(boxes), xy_unit=unit)
        encoded = grid.encode_boxes(xp.asarray(boxes), xy_unit=unit)
        for result in (decoded, encoded):
            assert isinstance(result, array_type)
            assert result.shape == boxes.shape
            assert result.dtype == np.float32
        # Adding and taking away up to S cells costs a few ulps of S.
        tolerance = 1e-6 * (side if unit == "cell" else 1)
        np.testing.assert_allclose(grid.encode_boxes(decoded, xy_unit=unit), boxes, atol=tolerance)
        np.testing.assert_allclose(grid.decode_boxes(encoded, xy_unit=unit), boxes, atol=tolerance)
        results[xp] = np.asarray(decoded)
    np.testing.assert_allclose(results[np], results[jnp], rtol=1e-6, atol=1e-6)


def test_float64_keeps_its_precision():
    boxes = np.random.default_rng(0).normal(size=(7, 7, 2, 4))
    for unit in UNITS:
        decoded = grid.decode_boxes(boxes, xy_unit=unit)
        assert decoded.dtype == np.float64
        encoded = grid.encode_boxes(decoded, xy_unit=unit)
        np.testing.assert_allclose(encoded, boxes, rtol=0, atol=1e-14)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_leading_axes(leading):
    boxes = np.random.default_rng(0).normal(size=(*leading, 4, 4, 2, 4)).astype(np.float32)
    decoded = grid.decode_boxes(boxes, xy_unit="cell")
    flat = grid.decode_boxes(boxes.reshape(-1, 4, 4, 2, 4), xy_unit="cell")
    np.testing.assert_array_equal(decoded, flat.reshape(boxes.shape))


@pytest.mark.parametrize("function", [grid.decode_boxes, grid.encode_boxes])
def test_unknown_unit_is_refused(function):
    with pytest.raises(ValueError, match="pixel"):
        function(np.zeros((7, 7, 2, 4), np.float32), xy_unit="pixel")


# -------------------------------------------------------------------------- decode(encode(x)) = x

ROWS = 12
fraction = st.integers(0, 2**12).map(lambda n: n / 2**12)  # exact in float32, borders included


@st.composite
def scenes(draw):
    """A grid and objects of which no two share a cell: (side, [(cx, cy, w, h, label), ...])."""
    side = draw(st.sampled_from([1, 4, 7, 14]))
    # Sizes are multiples of 2^-11 so that the corners are exact as well.
    size = st.integers(0, 2**11).map(lambda n: n / 2**11)
    entries = st.tuples(fraction, fraction, size, size, st.integers(0, 2))
    unique_by = functools.partial(cell_of, side=side)
    return side, draw(st.lists(entries, max_size=ROWS, unique_by=unique_by))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(scenes(), st.sampled_from([("last", "all"), ("first", "winner")]))
def test_decode_inverts_encode_for_objects_in_cells_of_their_own(scene, switches):
    side, objects = scene
    collision, class_target = switches
    targets = encode_targets(
        *padded(objects, ROWS),
        grid_size=side,
        num_classes=3,
        collision=collision,
        class_target=class_target,
    )
    assert occupied(targets) == {(0, *cell_of(entry, side)) for entry in objects}
    for unit in UNITS:
        encoded = grid.encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit=unit)
        decoded = grid.decode_boxes(encoded, xy_unit=unit)[..., 0, :]  # [1, S, S, 4]
        for *box, label in objects:
            at = (0, *cell_of(box, side))
            np.testing.assert_allclose(decoded[at], box, atol=1e-6)
            np.testing.assert_array_equal(targets.classes[at], np.arange(3) == label)
