"""The channel layouts and the targets of a grid: worked by hand and against a slow loop.

`test_grid_offsets.py` has the way from targets to offsets and back.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grid_scenes import CLASS_TARGETS, COLLISIONS, UNITS, encode_targets, occupied, padded
from slow_loss import slow_encode

from yolov1_jax.yolo import grid

# ---------------------------------------------------------------------------- split_predictions


@pytest.mark.parametrize(
    ("layout", "boxes", "confidence"),
    [
        ("reference", [[1, 2, 3, 4], [6, 7, 8, 9]], [0, 5]),
        ("torchlake", [[0, 1, 2, 3], [5, 6, 7, 8]], [4, 9]),
    ],
)
def test_channels_of_each_layout(layout, boxes, confidence):
    """Two boxes and three classes: 13 channels, each holding its own number in every cell."""
    raw = np.arange(13, dtype=np.float32) + 100 * np.arange(2 * 3 * 3).reshape(2, 3, 3, 1)
    predictions = grid.split_predictions(
        jnp.asarray(raw), boxes_per_cell=2, num_classes=3, layout=layout
    )
    predictions = jax.tree.map(np.asarray, predictions)
    assert predictions.boxes.shape == (2, 3, 3, 2, 4)
    assert predictions.confidence.shape == (2, 3, 3, 2)
    assert predictions.class_scores.shape == (2, 3, 3, 3)
    for image, row, column in np.ndindex(2, 3, 3):
        cell = 100 * ((image * 3 + row) * 3 + column)
        at = (image, row, column)
        np.testing.assert_array_equal(predictions.boxes[at], np.array(boxes) + cell)
        np.testing.assert_array_equal(predictions.confidence[at], np.array(confidence) + cell)
        np.testing.assert_array_equal(predictions.class_scores[at], np.array([10, 11, 12]) + cell)


def test_reference_is_the_default_layout():
    raw = jnp.arange(9.0).reshape(1, 1, 1, 9)
    predictions = grid.split_predictions(raw, boxes_per_cell=1, num_classes=4)
    np.testing.assert_array_equal(predictions.confidence.ravel(), [0])
    np.testing.assert_array_equal(predictions.boxes.ravel(), [1, 2, 3, 4])
    np.testing.assert_array_equal(predictions.class_scores.ravel(), [5, 6, 7, 8])


@pytest.mark.parametrize("channels", [1, 25, 29, 31, 60])
def test_wrong_channel_count_is_refused(channels):
    raw = jnp.zeros((1, 7, 7, channels))
    with pytest.raises(ValueError, match=rf"\b30\b.*\b{channels}\b|\b{channels}\b.*\b30\b"):
        grid.split_predictions(raw, boxes_per_cell=2, num_classes=20)


def test_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"darknet.*reference|reference.*darknet"):
        grid.split_predictions(
            jnp.zeros((1, 7, 7, 30)), boxes_per_cell=2, num_classes=20, layout="darknet"
        )


# ------------------------------------------------------------------------------- encode_targets


def test_targets_on_a_3x3_grid():
    """Two objects, the first in the middle row's last column, the second in the top left cell.

    Centre (0.75, 0.5): 0.75 * 3 = 2.25 -> column 2; 0.5 * 3 = 1.5 -> row 1.
    Centre (0.25, 0.125): 0.75 -> column 0; 0.375 -> row 0.
    """
    objects = [(0.75, 0.5, 0.25, 0.5, 1), (0.25, 0.125, 0.5, 0.25, 2)]
    targets = encode_targets(*padded(objects), grid_size=3, num_classes=3)
    assert targets.object_mask.shape == (1, 3, 3)
    assert targets.boxes_cxcywh.shape == (1, 3, 3, 4)
    assert targets.classes.shape == (1, 3, 3, 3)
    assert [field.dtype for field in targets] == [bool, np.float32, np.float32]
    expected_mask = [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(targets.object_mask[0], np.array(expected_mask, bool))
    np.testing.assert_array_equal(targets.boxes_cxcywh[0, 1, 2], [0.75, 0.5, 0.25, 0.5])
    np.testing.assert_array_equal(targets.boxes_cxcywh[0, 0, 0], [0.25, 0.125, 0.5, 0.25])
    np.testing.assert_array_equal(targets.classes[0, 1, 2], [0, 1, 0])
    np.testing.assert_array_equal(targets.classes[0, 0, 0], [0, 0, 1])
    assert targets.classes.sum() == 2


# Three objects in the centre cell of a 3x3 grid: labels 2, 0, 2, told apart by their widths.
CROWD = [(0.5, 0.5, 0.5, 0.5, 2), (0.5, 0.5, 0.25, 0.5, 0), (0.375, 0.5, 0.125, 0.5, 2)]


@pytest.mark.parametrize(
    ("collision", "class_target", "width", "classes"),
    [
        ("last", "all", 0.125, [1, 0, 1]),
        ("last", "winner", 0.125, [0, 0, 1]),
        ("first", "all", 0.5, [1, 0, 1]),
        ("first", "winner", 0.5, [0, 0, 1]),
    ],
)
def test_collision(collision, class_target, width, classes):
    targets = encode_targets(
        *padded(CROWD), grid_size=3, num_classes=3, collision=collision, class_target=class_target
    )
    assert occupied(targets) == {(0, 1, 1)}
    assert targets.boxes_cxcywh[0, 1, 1, 2] == width
    # Label 2 comes twice and is still 1: a class is there or it is not.
    np.testing.assert_array_equal(targets.classes[0, 1, 1], classes)


@pytest.mark.parametrize(("collision", "winner"), [("last", [0, 1, 0]), ("first", [1, 0, 0])])
def test_identical_boxes_of_different_classes(collision, winner):
    objects = [(0.5, 0.5, 0.5, 0.5, 0), (0.5, 0.5, 0.5, 0.5, 1)]
    encode = functools.partial(
        encode_targets, *padded(objects), grid_size=3, num_classes=3, collision=collision
    )
    np.testing.assert_array_equal(encode(class_target="all").classes[0, 1, 1], [1, 1, 0])
    np.testing.assert_array_equal(encode(class_target="winner").classes[0, 1, 1], winner)


def test_defaults_are_the_reference():
    explicit = encode_targets(
        *padded(CROWD), grid_size=3, num_classes=3, collision="last", class_target="all"
    )
    default = encode_targets(*padded(CROWD), grid_size=3, num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, default, explicit)


@pytest.mark.parametrize("side", [1, 4, 7, 14])
@pytest.mark.parametrize(
    ("cx", "cy", "right", "bottom"),
    [(1.0, 0.5, True, False), (0.5, 1.0, False, True), (1.0, 1.0, True, True)],
)
def test_centre_on_the_far_edge_is_in_the_last_cell(side, cx, cy, right, bottom):
    # Boxes are clipped to the image, so only an empty or rounded one has its centre on the edge.
    targets = encode_targets(*padded([(cx, cy, 0.0, 0.0, 0)]), grid_size=side, num_classes=1)
    row = side - 1 if bottom else side // 2
    column = side - 1 if right else side // 2
    assert occupied(targets) == {(0, row, column)}
    np.testing.assert_array_equal(targets.boxes_cxcywh[0, row, column], [cx, cy, 0, 0])


def test_centre_on_a_border_is_in_the_cell_that_begins_there():
    """Quarters are exact in binary, so on a 4x4 grid there is nothing to round."""
    centres = [(0.0, 0.0), (0.25, 0.5), (0.5, 0.75), (0.75, 0.25)]
    objects = [(cx, cy, 0.125, 0.125, 0) for cx, cy in centres]
    targets = encode_targets(*padded(objects), grid_size=4, num_classes=1)
    assert occupied(targets) == {(0, int(4 * cy), int(4 * cx)) for cx, cy in centres}


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


@pytest.mark.parametrize("side", [5, 7, 10, 13, 14, 20, 28])
def test_offsets_of_centres_on_borders_stay_in_the_cell(side):
    """j/S is not exact in binary; whichever neighbour gets the object, offset and cell agree."""
    borders = np.arange(side + 1) / side
    # One object per image, so that neighbours do not collide.
    rows = [padded([(border, border, 0.0, 0.0, 0)], num_rows=1) for border in borders]
    batch = [np.concatenate(arrays) for arrays in zip(*rows, strict=True)]
    targets = encode_targets(*batch, grid_size=side, num_classes=1)
    cells = np.argwhere(targets.object_mask)
    np.testing.assert_array_equal(cells[:, 0], np.arange(side + 1))
    np.testing.assert_array_equal(cells[:, 1], cells[:, 2])
    assert (np.abs(cells[:, 1] - np.minimum(borders * side, side - 1)) <= 1).all()
    for unit in UNITS:
        offsets = grid.encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit=unit)
        x, y = offsets[targets.object_mask][:, 0, :2].T * (side if unit == "image" else 1)
        np.testing.assert_array_equal(x, y)
        assert ((x >= -1e-5) & (x <= 1 + 1e-5)).all()
        np.testing.assert_allclose((cells[:, 1] + x) / side, borders, atol=1e-6)


def test_padded_rows_are_ignored():
    """Whatever padding holds: boxes of real objects, labels of no class, NaN."""
    boxes_xyxy, labels, valid = padded([(0.75, 0.5, 0.25, 0.5, 1)], num_rows=6)
    expected = encode_targets(boxes_xyxy, labels, valid, grid_size=3, num_classes=3)
    for row, (box, label) in enumerate(
        [
            (boxes_xyxy[0, 0], 2),  # the same cell, later in the list
            ([0, 0, 0.1, 0.1], -1),
            ([0, 0, 0.1, 0.1], 1_000_000),
            ([np.nan] * 4, 0),
            ([-5, -5, -4, -4], 0),
        ],
        start=1,
    ):
        boxes_xyxy[0, row], labels[0, row] = box, label
    for collision in COLLISIONS:
        for class_target in CLASS_TARGETS:
            targets = encode_targets(
                boxes_xyxy,
                labels,
                valid,
                grid_size=3,
                num_classes=3,
                collision=collision,
                class_target=class_target,
            )
            jax.tree.map(np.testing.assert_array_equal, targets, expected)
    # Padding in front of the object, too.
    reverse = (np.ascontiguousarray(array[:, ::-1]) for array in (boxes_xyxy, labels, valid))
    targets = encode_targets(*reverse, grid_size=3, num_classes=3, collision="first")
    jax.tree.map(np.testing.assert_array_equal, targets, expected)


@pytest.mark.parametrize("num_rows", [1, 4])
def test_no_object(num_rows):
    boxes_xyxy, labels, valid = padded([], num_rows=num_rows)
    targets = encode_targets(boxes_xyxy, labels, valid, grid_size=3, num_classes=2)
    assert not targets.object_mask.any()
    assert not targets.classes.any()
    assert np.isfinite(targets.boxes_cxcywh).all()


@pytest.mark.parametrize("side", [1, 4, 7, 14])
def test_crowded_scenes_equal_the_slow_loop(side):
    """Up to 24 objects in few places, so that most cells are fought over by several classes."""
    rng = np.random.default_rng(side)
    centres = rng.choice(rng.uniform(0.05, 0.95, (9, 2)), (6, 24))
    centres += rng.uniform(-0.03, 0.03, centres.shape)
    half = rng.uniform(0.01, 0.04, centres.shape)
    boxes_xyxy = np.concatenate([centres - half, centres + half], axis=-1).astype(np.float32)
    labels = rng.integers(0, 5, (6, 24)).astype(np.int32)
    valid = rng.random((6, 24)) < np.array([0.0, 0.2, 0.5, 0.8, 1.0, 1.0])[:, None]
    for collision in COLLISIONS:
        for class_target in CLASS_TARGETS:
            switches = {
                "grid_size": side,
                "num_classes": 5,
                "collision": collision,
                "class_target": class_target,
            }
            expected = slow_encode(boxes_xyxy, labels, valid, **switches)
            targets = encode_targets(boxes_xyxy, labels, valid, **switches)
            np.testing.assert_array_equal(targets.object_mask, expected.object_mask)
            np.testing.assert_array_equal(targets.classes, expected.classes)
            boxes_cxcywh = targets.boxes_cxcywh
            owned = expected.object_mask
            np.testing.assert_allclose(
                boxes_cxcywh[owned], expected.boxes_cxcywh[owned], rtol=1e-6, atol=1e-7
            )
            # Empty cells may hold anything that is a number in the frame: it is masked later.
            assert ((boxes_cxcywh >= 0) & (boxes_cxcywh <= 1)).all()


@pytest.mark.parametrize("switch", ["collision", "class_target"])
def test_unknown_switch_is_refused(switch):
    with pytest.raises(ValueError, match="largest"):
        grid.encode_targets(*padded(CROWD), grid_size=3, num_classes=3, **{switch: "largest"})
