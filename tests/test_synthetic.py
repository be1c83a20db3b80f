"""The synthetic data: contract, determinism, geometry against hand-worked cases."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.data import synthetic_painting, synthetic_shapes
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.data.synthetic_shapes import CLASS_NAMES, OUTLINES, Shape, visible_parts


def rectangle(left: float, top: float, right: float, bottom: float) -> Shape:
    return Shape(0, (np.array([[left, top], [right, top], [right, bottom], [left, bottom]]),))


def outline_at(name: str, side: float, x: float, y: float) -> Shape:
    """The outline of a class, `side` wide or high, with its bounding box around (x, y)."""
    outer = OUTLINES[name][0]
    scale = side / np.ptp(outer, axis=0).max()
    shift = np.array([x, y]) - scale * (outer.min(axis=0) + outer.max(axis=0)) / 2
    return Shape(CLASS_NAMES.index(name), tuple(scale * c + shift for c in OUTLINES[name]))


def sampled(count: int) -> list[Shape]:
    sample = synthetic_shapes.sample_shapes
    return [shape for i in range(count) for shape in sample(np.random.default_rng([1, i]))]


def test_records_have_the_contract_and_the_objects_of_the_annotations():
    source = SyntheticSource("eval", num_images=30, image_size=96)
    annotations, larger = source.annotations(), SyntheticSource("eval").annotations(30)
    assert annotations.class_names == source.class_names
    assert (annotations.sizes == 96).all()
    np.testing.assert_array_equal(2 * annotations.boxes_xyxy, larger.boxes_xyxy)
    for i, record in enumerate(source):
        assert (record.image.shape, record.image.dtype) == ((96, 96, 3), np.uint8)
        assert record.image_id == annotations.image_ids[i] == f"synthetic/eval/{i:06d}"
        np.testing.assert_equal(tuple(record[2:]), tuple(annotations[i]), strict=True)
    with pytest.raises(UserError, match="found 'validation'"):
        SyntheticSource("validation")


def test_an_image_does_not_depend_on_threads_order_copies_or_the_length():
    source = SyntheticSource("train", image_size=64, seed=3)
    images = {i: source[i].image for i in (5, 2, 700, 11)}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(3 if threads == 1 else 1)
    other = pickle.loads(pickle.dumps(dataclasses.replace(source, num_images=701)))
    for i in sorted(images):
        np.testing.assert_array_equal(other[i].image, images[i])
    cv2.setNumThreads(threads)


def test_splits_seeds_and_indices_are_different_images_and_only_train_has_a_seed():
    boxes = set()
    for split, seed in (*(("train", seed) for seed in range(4)), ("eval", 0), ("test", 0)):
        annotations = SyntheticSource(split, seed=seed).annotations(99)
        boxes |= {one.boxes_xyxy.tobytes() for one in annotations}
    assert len(boxes) == 6 * 99
    for split in ("eval", "test"):
        one, other = (SyntheticSource(split, image_size=32, seed=seed)[5] for seed in (0, 9))
        np.testing.assert_equal(tuple(one), tuple(other))


def test_box_is_tight_around_the_part_inside_the_image():
    # A triangle that points to the right: at x = 0 it is 0.25 <= y <= 0.75, half of its height.
    triangle = Shape(0, (np.array([[-0.5, 0.0], [0.5, 0.5], [-0.5, 1.0]]),))
    for shape, box_xyxy in (
        (outline_at("disc", 0.4, 0.5, 0.3), [0.3, 0.1, 0.7, 0.5]),
        (triangle, [0, 0.25, 0.5, 0.75]),
        (outline_at("square", 0.4, 1.0, 1.0), [0.8, 0.8, 1, 1]),  # a diamond, a quarter inside
        (rectangle(0, 0, 1, 1), [0, 0, 1, 1]),
    ):
        np.testing.assert_allclose(shape.box_xyxy, box_xyxy, atol=1e-12)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_painted_extent_is_the_box(name):
    """On black there are no shadows: what is not black is the shape."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        shape = outline_at(name, rng.uniform(0.2, 0.6), *rng.uniform(0.1, 0.9, 2))
        image = np.zeros((256, 256, 3), np.uint8)
        synthetic_painting.paint_shape(rng, image, shape, np.array([0.6, 0.8]))
        rows, columns = np.nonzero(image.max(axis=2) > 10)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(shape.box_xyxy * 256, extent, atol=1.1)


def test_visible_part_of_covered_and_cut_shapes():
    lower, cover = rectangle(0.2, 0.2, 0.6, 0.6), rectangle(0.4, 0.1, 0.7, 0.7)
    small = outline_at("disc", 0.2, 0.5, 0.5)
    for shapes, visible in (
        ([lower, cover], [0.5, 1]),
        ([cover, lower], [1 - 0.08 / 0.18, 1]),  # the order of painting decides
        ([rectangle(-0.1, 0.4, 0.2, 0.7)], [2 / 3]),  # a third lies outside the image
        ([small, outline_at("ring", 0.6, 0.5, 0.5)], [1, 1]),  # through its hole
        ([small, outline_at("disc", 0.6, 0.5, 0.5)], [0, 1]),
    ):
        np.testing.assert_allclose(visible_parts(shapes), visible, atol=0.03)


def test_shapes_are_within_their_bounds_and_neither_too_hard_nor_too_easy():
    shapes = sampled(1500)
    boxes = np.array([shape.box_xyxy for shape in shapes])
    sides, visible = boxes[:, 2:] - boxes[:, :2], np.array([shape.visible for shape in shapes])
    assert {shape.label for shape in shapes} == set(range(6))
    assert 0 <= boxes.min() <= boxes.max() <= 1
    assert 0.03 < sides.min() < 0.59 < sides.max() < 0.6001
    assert 0.1 <= visible.min() <= visible.max() <= 1
    assert 0.001 < np.mean(visible < 0.4) < 0.02
    assert 0.15 < np.mean(visible < 0.9) < 0.3


def test_a_hidden_shape_is_left_out(monkeypatch):
    """With room for complete covers, what cannot be seen is neither painted nor annotated."""
    monkeypatch.setattr(synthetic_shapes, "MAX_OVERLAP", 1.0)
    after = [shape.visible for shape in sampled(300)]
    monkeypatch.setattr(synthetic_shapes, "HIDDEN_BELOW", 0.0)
    before = [shape.visible for shape in sampled(300)]
    assert len(before) - len(after) == sum(visible < 0.1 for visible in before) >= 10
    assert min(after) >= 0.1
