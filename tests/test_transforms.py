"""Geometry against slow loops and boxes drawn into images, colours against plain float formulas."""

import colorsys
import itertools
import math

import numpy as np
import pytest

from yolov1_jax.data import transforms
from yolov1_jax.data.transforms import Augmentation, flip_scale_shift

IDENTITY = flip_scale_shift(False, 1.0, (0.0, 0.0))
ALL_BOXES = Augmentation(min_area=0, min_visibility=0)


def noise(height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.setflags(write=False)  # as an array of a source or a decoder may be
    return image


def slow_warp(image, flip, scale, shift, size):
    """Bilinear interpolation at the place in the image that each output pixel comes from."""
    warped = np.zeros((size, size, 3))
    height, width = image.shape[:2]
    padded = np.pad(image, [(20, 20), (20, 20), (0, 0)], "reflect")  # about its edge pixels
    for row, column in np.ndindex(size, size):
        x = ((column + 0.5) / size - shift[0] - 0.5) / scale + 0.5
        y = ((row + 0.5) / size - shift[1] - 0.5) / scale + 0.5
        x, y = width * (1 - x if flip else x) - 0.5, height * y - 0.5
        left, top = math.floor(x), math.floor(y)
        for i, j in itertools.product((left, left + 1), (top, top + 1)):
            weight = (1 - abs(x - i)) * (1 - abs(y - j))
            warped[row, column] += weight * padded[20 + j, 20 + i]
    return warped


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("scale", "shift"), [(1, (0, 0)), (0.85, (0.06, -0.05)), (1.2, (0.1, 0))])
def test_warp_and_resize_are_the_slow_loop(flip, scale, shift):
    image = noise(39, 51)
    slow = slow_warp(image, flip, scale, shift, 32)
    affine = flip_scale_shift(flip, scale, shift)
    assert np.abs(transforms.warp_image(image, affine, 32) - slow).max() <= 1
    if affine == IDENTITY:
        assert np.abs(transforms.resize_image(image, 32) - slow).max() <= 1


@pytest.mark.parametrize("zoomed_in", [False, True])
def test_boxes_follow_the_pixels(zoomed_in):
    rng, num_whole = np.random.default_rng(1), 0
    for _ in range(40):
        # Away from the border nothing is mirrored into view; zoomed in, boxes are cut by the frame.
        margin = 0.0 if zoomed_in else 0.2
        width, height = sides = rng.integers(150, 700, size=2)
        low = rng.uniform(margin, 0.5, size=(3, 2))
        corners = np.round(np.stack([low, rng.uniform(low + 0.1, 1 - margin)], axis=1) * sides)
        boxes = corners.reshape(3, 4).astype(int)
        image = np.zeros((height, width, 3), np.uint8)
        for channel, (left, top, right, bottom) in enumerate(boxes):
            image[top:bottom, left:right, channel] = 255
        scale = rng.uniform(1.3, 1.6) if zoomed_in else rng.uniform(0.9, 1.1)
        shift = rng.uniform(-1, 1, size=2) * (0.12 if zoomed_in else 0.06)
        affine = flip_scale_shift(bool(rng.integers(2)), scale, tuple(shift))
        warped, moved, _ = transforms.augment(image, boxes, affine, (), 224, ALL_BOXES)
        for channel, box in enumerate(moved):
            if (box[2:] - box[:2]).min() * 224 < 2:
                continue  # hardly anything of it is in view
            num_whole += bool(((box > 0) & (box < 1)).all())
            rows, columns = np.nonzero(warped[..., channel] > 127)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box * 224, extent, atol=1)
    assert num_whole == 120 if not zoomed_in else 13 < num_whole < 110


@pytest.mark.parametrize(("factor", "kept"), [(1, False), (0.9999, True)])
def test_an_object_exactly_at_a_limit_is_left_out(factor, kept):
    limits = Augmentation(min_area=factor * 1024, min_visibility=factor * 0.25)
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [-0.5, 0.0, 0.5, 0.5], [-1.5, 0.0, 0.5, 1.0]])
    # 32 x 32 pixels of 64 x 64; 64 x 32, half of it inside; a quarter of it inside
    assert transforms.filter_boxes(boxes, 64, limits)[1].tolist() == [kept] * 3


def test_augment_by_hand():
    boxes = np.array([[0, 20, 8, 30], [32, 20, 48, 30], [72, 20, 80, 30], [32, 20, 36, 24]])
    shifted, limits = flip_scale_shift(False, 1.0, (-0.08, 0.0)), Augmentation(min_area=100)
    image, moved, keep = transforms.augment(noise(50, 80), boxes, shifted, (), 100, limits)
    assert image.shape == (100, 100, 3)
    # 2 % of the first object's 10 % are left, a fifth: less than 0.3. The third has 200 pixels of
    # the network input, the last one 40.
    assert keep.tolist() == [False, True, True, False]
    expected = [[0, 0.4, 0.02, 0.6], [0.32, 0.4, 0.52, 0.6], [0.82, 0.4, 0.92, 0.6]]
    np.testing.assert_allclose(moved[:3], expected, atol=1e-12)
    # Before the augmentation an object must be large enough too: 256 pixels, scaled by 1.1 309.
    grown, limits = flip_scale_shift(False, 1.1, (0, 0)), Augmentation(min_area=256)
    box = np.array([[8, 8, 24, 24]])
    assert not transforms.augment(noise(32, 32), box, grown, (), 32, limits)[2].any()
    nothing = np.array([[0.5, 0.5, 0.5, 0.9], [1.1, 0.1, 1.5, 0.9], [1.1, 1.1, 1.5, 1.5]])
    assert not transforms.filter_boxes(nothing, 32, ALL_BOXES)[1].any()


def test_probabilities_and_ranges_are_what_they_say():
    rng = np.random.default_rng(0)
    settings = Augmentation(flip_probability=0.3, color_probability=0.6, affine_probability=0.8)
    samples = [transforms.sample_parameters(rng, settings) for _ in range(4000)]
    scales = np.array([affine.scale for affine, _ in samples])
    flipped, moved = scales[:, 0] < 0, scales[:, 1] != 1
    colored = np.array([bool(color) for _, color in samples])
    both = (flipped & moved, 0.3 * 0.8), (colored & moved, 0.6 * 0.8)  # are independent
    for events, p in ((flipped, 0.3), (colored, 0.6), (moved, 0.8), *both):
        assert abs(events.mean() - p) < 4 * np.sqrt(p * (1 - p) / len(samples))

    # The centre goes to 0.5 + shift, whatever the flip and the scale.
    shifts = np.array([affine.offset for affine, _ in samples]) + 0.5 * scales - 0.5
    np.testing.assert_allclose(shifts[~moved], 0, atol=1e-12)
    amounts = [dict(color) for _, color in samples if color]
    for values, centre, spread in (
        (scales[moved, 1], 1, 0.1),
        *((shifts[moved, axis], 0, 0.0625) for axis in (0, 1)),
        *(([a[name] for a in amounts], name != "hue", 0.2) for name in amounts[0]),
    ):
        counts, _ = np.histogram(values, bins=20, range=(centre - spread, centre + spread))
        assert counts.sum() == len(values)
        assert np.abs(counts / len(values) - 0.05).max() < 0.02
    orders = [tuple(color) for color in amounts]
    assert len(set(orders)) == 24
    assert max(map(orders.count, set(orders))) < 2 * len(orders) / 24


def test_one_setting_leaves_the_other_choices_as_they_were():
    settings = [Augmentation(flip_probability=p, affine_probability=p) for p in (0, 1)]
    settings.append(Augmentation(enabled=False, flip_probability=1, color_probability=1))
    for seed in range(20):
        never, always, off = (
            transforms.sample_parameters(np.random.default_rng(seed), one) for one in settings
        )
        assert never == (IDENTITY, always[1])
        assert always[0].scale[0] < 0
        assert off == (IDENTITY, ())


def float_adjust(image: np.ndarray, steps: tuple[tuple[str, float], ...]) -> np.ndarray:
    """The definitions, in floating point; only the clipping to [0, 255] between steps is kept."""
    image = image.astype(np.float64)
    for name, amount in steps:
        grey = image @ [0.299, 0.587, 0.114]
        if name == "hue":
            for pixel in image.reshape(-1, 3):
                hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
                turned = colorsys.hsv_to_rgb((hue + amount) % 1, saturation, value)
                pixel[:] = np.multiply(turned, 255)
        else:
            other = {"brightness": 0, "contrast": grey.mean(), "saturation": grey[..., None]}[name]
            image = amount * image + (1 - amount) * other
        image = np.clip(image, 0, 255)
    return image


def test_brightness_contrast_and_saturation_are_within_two_levels_of_the_definition():
    rng, image = np.random.default_rng(0), noise(40, 40)
    for order in 5 * [*itertools.permutations(("brightness", "contrast", "saturation"))]:
        steps = tuple((name, rng.uniform(0.8, 1.2)) for name in order)
        adjusted = transforms.adjust_color(image, steps)
        assert adjusted.dtype == np.uint8
        assert np.abs(adjusted - float_adjust(image, steps)).max() <= 2


@pytest.mark.parametrize("degrees", [-72, -14, 10, 72])
def test_hue_is_as_near_to_the_definition_as_eight_bits_allow(degrees):
    image, steps = noise(40, 40), (("hue", degrees / 360),)
    error = np.abs(transforms.adjust_color(image, steps) - float_adjust(image, steps))
    assert error.max() <= 6  # 1 degree of a full colour is 4.25 levels; saturation is rounded too
    assert error.mean() < 0.6
