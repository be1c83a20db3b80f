"""The synthetic data set: contract, determinism, geometry against hand-worked cases."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from yolov1_jax.data import synthetic_painting, synthetic_shapes
from yolov1_jax.data.synthetic import NUM_IMAGES, SyntheticSource
from yolov1_jax.data.synthetic_shapes import (
    CLASS_NAMES,
    DIFFICULT_BELOW,
    HIDDEN_BELOW,
    MAX_OBJECTS,
    MAX_SIDE,
    OUTLINES,
    Shape,
    sample_shapes,
    visible_parts,
)
from yolov1_jax.errors import UserError

_HASH_SCRIPT = """
import hashlib, sys
import cv2
from yolov1_jax.data.synthetic import SyntheticSource
cv2.setNumThreads(int(sys.argv[1]))
source = SyntheticSource("train", image_size=96, seed=3)
records = {i: source[i] for i in map(int, sys.argv[2].split(","))}
digest = hashlib.sha256()
for _, record in sorted(records.items()):
    for name in ("image", "boxes_xyxy", "labels", "difficult"):
        digest.update(record[name].tobytes())
print(digest.hexdigest())
"""


def rectangle(left: float, top: float, right: float, bottom: float) -> Shape:
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return Shape(0, (np.array(corners),))


def outline_at(name: str, side: float, x: float, y: float) -> Shape:
    """The outline of a class, `side` wide or high, with its bounding box around (x, y)."""
    outer = OUTLINES[name][0]
    scale = side / np.ptp(outer, axis=0).max()
    shift = np.array([x, y]) - scale * (outer.min(axis=0) + outer.max(axis=0)) / 2
    return Shape(CLASS_NAMES.index(name), tuple(scale * c + shift for c in OUTLINES[name]))


@pytest.fixture(scope="module")
def scenes() -> list[list[Shape]]:
    return [sample_shapes(np.random.default_rng([1, i])) for i in range(2000)]


def test_record_fulfils_the_contract():
    source = SyntheticSource("eval", image_size=96)
    assert len(source) == NUM_IMAGES["eval"] == source.report.num_images
    assert len(source.class_names) == 6
    for i in (0, 123, len(source) - 1):
        record = source[i]
        n = len(record["labels"])
        assert record["image"].shape == (96, 96, 3)
        assert record["image"].dtype == np.uint8
        assert record["image"].flags.c_contiguous
        assert record["boxes_xyxy"].shape == (n, 4)
        assert record["boxes_xyxy"].dtype == np.float64
        assert record["labels"].dtype == np.int32
        assert record["difficult"].shape == (n,)
        assert record["difficult"].dtype == bool
        assert record["image_id"] == f"synthetic/eval/{i:06d}"
        assert (record["height"], record["width"]) == (96, 96)


def test_annotation_is_the_record_without_its_image(monkeypatch):
    source = SyntheticSource("train", image_size=64)
    records = [source[i] for i in range(20)]

    def refuse(*args):
        raise AssertionError("an annotation was painted")

    monkeypatch.setattr(synthetic_painting, "paint_background", refuse)
    for i, record in enumerate(records):
        annotation = source.annotation(i)
        assert annotation.keys() == record.keys()
        assert annotation["image"] == b""
        for name in annotation.keys() - {"image"}:
            np.testing.assert_array_equal(annotation[name], record[name], strict=True)


@pytest.mark.parametrize(("threads", "order"), [("0", "5,2,700,11"), ("4", "11,700,2,5")])
def test_same_bits_in_another_process_with_any_thread_count_and_order(threads, order):
    source = SyntheticSource("train", image_size=96, seed=3)
    digest = hashlib.sha256()
    for i in (2, 5, 11, 700):
        record = source[i]
        for name in ("image", "boxes_xyxy", "labels", "difficult"):
            digest.update(record[name].tobytes())
    run = subprocess.run(
        [sys.executable, "-c", _HASH_SCRIPT, threads, order],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest.hexdigest()


def test_a_copy_and_a_shorter_source_give_the_same_scenes():
    source = SyntheticSource("train", image_size=64, seed=1)
    copy = pickle.loads(pickle.dumps(source))
    short = SyntheticSource("train", num_images=8, image_size=64, seed=1)
    for other in (copy, short):
        np.testing.assert_array_equal(source[7]["image"], other[np.int64(7)]["image"])
    assert len(copy) == NUM_IMAGES["train"]
    assert len(short) == 8


def test_splits_seeds_and_indices_are_different_scenes_and_only_train_has_a_seed():
    def boxes(split, seed, index):
        return SyntheticSource(split, seed=seed).annotation(index)["boxes_xyxy"].tobytes()

    train = [boxes("train", seed, i) for seed in range(4) for i in range(100)]
    evaluation, test = ([boxes(split, 0, i) for i in range(100)] for split in ("eval", "test"))
    assert len({*train, *evaluation, *test}) == 400 + 100 + 100
    for split in ("eval", "test"):
        assert boxes(split, 0, 5) == boxes(split, 9, 5)
        one, other = (SyntheticSource(split, image_size=32, seed=seed)[5] for seed in (0, 9))
        np.testing.assert_array_equal(one["image"], other["image"])


def test_annotations_do_not_depend_on_the_image_size():
    small, large = (SyntheticSource("train", image_size=s).annotation(3) for s in (32, 448))
    np.testing.assert_array_equal(small["boxes_xyxy"], large["boxes_xyxy"])
    assert (small["width"], large["width"]) == (32, 448)


def test_index_outside_is_an_index_error():
    source = SyntheticSource("train", num_images=3)
    for index in (3, -1):
        with pytest.raises(IndexError):
            source[index]
        with pytest.raises(IndexError):
            source.annotation(index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "expected one of .*found 'validation'"),
        ({"num_images": 0}, "number of images .*at least 1, found 0"),
        ({"image_size": 8}, "image size .*at least 32, found 8"),
        ({"seed": -1}, "seed .*at least 0, found -1"),
    ],
)
def test_mistakes_get_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        SyntheticSource(**arguments)
    assert "\n" not in str(caught.value)


def test_box_of_a_shape_inside_the_image_is_its_extent():
    box = outline_at("disc", 0.4, 0.5, 0.3).box_xyxy
    np.testing.assert_allclose(box, [0.3, 0.1, 0.7, 0.5], atol=1e-12)


def test_box_is_tight_around_the_part_inside_the_image():
    # A triangle that points to the right. At x = 0 it is 0.25 <= y <= 0.75, half of its height.
    triangle = Shape(0, (np.array([[-0.5, 0.0], [0.5, 0.5], [-0.5, 1.0]]),))
    np.testing.assert_allclose(triangle.box_xyxy, [0, 0.25, 0.5, 0.75], atol=1e-12)
    # A diamond around the image's lower right corner: a quarter of it is inside.
    diamond = outline_at("square", 0.4, 1.0, 1.0)
    np.testing.assert_allclose(diamond.box_xyxy, [0.8, 0.8, 1, 1], atol=1e-12)
    # Edges on the border of the image are inside.
    np.testing.assert_array_equal(rectangle(0, 0, 1, 1).box_xyxy, [0, 0, 1, 1])


def test_painted_extent_is_the_box():
    """On black there are no shadows: what is not black is the shape."""
    size = 256
    rng = np.random.default_rng(0)
    light = np.array([0.6, 0.8])
    for name in CLASS_NAMES:
        for _ in range(8):
            side, x, y = rng.uniform(0.2, 0.6), *rng.uniform(0.1, 0.9, 2)
            shape = outline_at(name, side, x, y)
            image = np.zeros((size, size, 3), np.uint8)
            synthetic_painting.paint_shape(rng, image, shape.contours, light, 0.3)
            rows, columns = np.nonzero(image.max(axis=2) > 10)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(shape.box_xyxy * size, extent, atol=1.0)


def test_visible_part_of_covered_and_cut_shapes():
    lower = rectangle(0.2, 0.2, 0.6, 0.6)
    half_cover = rectangle(0.4, 0.1, 0.7, 0.7)
    np.testing.assert_allclose(visible_parts([lower, half_cover]), [0.5, 1], atol=0.03)
    # The order of painting decides.
    np.testing.assert_allclose(visible_parts([half_cover, lower]), [1 - 0.08 / 0.18, 1], atol=0.03)
    # A third lies outside the image.
    np.testing.assert_allclose(visible_parts([rectangle(-0.1, 0.4, 0.2, 0.7)]), [2 / 3], atol=0.03)


def test_a_ring_covers_nothing_through_its_hole():
    small = outline_at("disc", 0.2, 0.5, 0.5)
    assert visible_parts([small, outline_at("ring", 0.6, 0.5, 0.5)]) == [1.0, 1.0]
    assert visible_parts([small, outline_at("disc", 0.6, 0.5, 0.5)]) == [0.0, 1.0]


def test_scenes_are_within_their_bounds(scenes):
    shapes = [shape for scene in scenes for shape in scene]
    boxes = np.array([shape.box_xyxy for shape in shapes])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert {len(scene) for scene in scenes} == set(range(1, MAX_OBJECTS + 1))
    assert {shape.label for shape in shapes} == set(range(len(CLASS_NAMES)))
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert sides.min() > 0.03
    assert 0.59 < sides.max() <= MAX_SIDE + 1e-9
    assert all(HIDDEN_BELOW <= shape.visible <= 1 for shape in shapes)
    assert all(shape.difficult == (shape.visible < DIFFICULT_BELOW) for shape in shapes)


def test_scenes_are_hard_enough_and_not_too_hard(scenes):
    visible = np.array([shape.visible for scene in scenes for shape in scene])
    assert 0.001 < np.mean(visible < DIFFICULT_BELOW) < 0.02
    assert 0.15 < np.mean(visible < 0.9) < 0.3
    collisions = 0
    for scene in scenes:
        boxes = np.array([shape.box_xyxy for shape in scene])
        cells = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 * 7)
        collisions += len(cells) - len(np.unique(cells, axis=0))
    assert 0 < collisions / len(visible) < 0.03


def test_a_hidden_shape_is_left_out_of_the_scene(monkeypatch):
    """With room for complete covers, what cannot be seen is neither painted nor annotated."""
    monkeypatch.setattr(synthetic_shapes, "MAX_OVERLAP", 1.0)
    monkeypatch.setattr(synthetic_shapes, "HIDDEN_BELOW", 0.0)
    before = [sample_shapes(np.random.default_rng(i)) for i in range(300)]
    monkeypatch.setattr(synthetic_shapes, "HIDDEN_BELOW", 0.1)
    after = [sample_shapes(np.random.default_rng(i)) for i in range(300)]
    hidden = sum(shape.visible < 0.1 for scene in before for shape in scene)
    assert hidden > 10
    assert sum(map(len, before)) - sum(map(len, after)) == hidden
    assert all(shape.visible >= 0.1 for scene in after for shape in scene)


def test_pictures_vary():
    """Neighbouring scenes share neither brightness nor colours, and none is blank."""
    images = [SyntheticSource("train", image_size=64)[i]["image"] for i in range(12)]
    assert np.std([image.mean() for image in images]) > 15
    assert min(image.std() for image in images) > 8
