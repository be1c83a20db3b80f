"""Geometry against boxes drawn into images, colours against plain float formulas."""

import colorsys
import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from yolov1_jax.data import transforms
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.errors import UserError


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


# --- Geometry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (97, 60), (900, 1400)])
def test_warp_without_augmentation_is_opencvs_resize(height, width):
    image = noise(height, width)
    resized = transforms.resize_image(image, 224)
    warped = transforms.warp_image(image, transforms.IDENTITY, 224)
    # Where the image grows, a border row lies outside the outermost pixel centres: mirrored there.
    border = int(np.ceil(112 / min(height, width))) + 1
    inside = slice(border, -border)
    assert difference(resized, warped)[inside, inside].max() <= 1


def test_flip_mirrors_the_resized_image():
    image = noise(60, 90)
    flipped = transforms.warp_image(image, transforms.flip_scale_shift(True, 1.0, (0, 0)), 90)
    resized = transforms.warp_image(image, transforms.IDENTITY, 90)
    assert difference(flipped, resized[:, ::-1]).max() <= 1


def drawn_rectangles(rng: np.random.Generator, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """A black image with a red, a green and a blue rectangle, one per channel; their boxes."""
    height, width = rng.integers(150, 700, size=2)
    image = np.zeros((height, width, 3), np.uint8)
    boxes = np.empty((3, 4))
    for channel in range(3):
        low = rng.uniform(margin, 0.5, size=2)
        high = rng.uniform(low + 0.1, 1 - margin)
        left, top = np.round(low * (width, height)).astype(int)
        right, bottom = np.round(high * (width, height)).astype(int)
        image[top:bottom, left:right, channel] = 255
        boxes[channel] = left / width, top / height, right / width, bottom / height
    return image, boxes


def extent(channel: np.ndarray) -> np.ndarray:
    """The box, in pixels, around what is bright."""
    rows, columns = np.nonzero(channel > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("zoomed_in", [False, True])
def test_boxes_follow_the_pixels(zoomed_in):
    size = 224
    rng = np.random.default_rng(1)
    num_whole = 0
    for _ in range(60):
        # Away from the border nothing is mirrored into view; zoomed in, boxes are cut by the frame.
        image, boxes = drawn_rectangles(rng, margin=0.0 if zoomed_in else 0.2)
        scale = rng.uniform(1.3, 1.6) if zoomed_in else rng.uniform(0.9, 1.1)
        shift = rng.uniform(-0.12, 0.12, size=2) if zoomed_in else rng.uniform(-0.06, 0.06, size=2)
        affine = transforms.flip_scale_shift(bool(rng.integers(2)), scale, tuple(shift))
        warped = transforms.warp_image(image, affine, size)
        moved, _ = transforms.filter_boxes(
            transforms.warp_boxes(boxes, affine), size, min_area=0, min_visibility=0
        )
        for channel in range(3):
            if (moved[channel, 2:] - moved[channel, :2]).min() * size < 2:
                continue  # hardly anything of it is in view
            num_whole += bool(((moved[channel] > 0) & (moved[channel] < 1)).all())
            assert difference(extent(warped[..., channel]), moved[channel] * size).max() <= 1
    assert num_whole == 180 if not zoomed_in else 20 < num_whole < 160


def test_flip_scale_shift_by_hand():
    boxes = np.array([[0.1, 0.2, 0.3, 0.6]])
    affine = transforms.flip_scale_shift(True, 1.1, (0.05, -0.02))
    # Mirrored x is 0.7..0.9; about the centre times 1.1: 0.72..0.94, 0.17..0.61; then shifted.
    np.testing.assert_allclose(transforms.warp_boxes(boxes, affine), [[0.77, 0.15, 0.99, 0.59]])
    assert transforms.warp_boxes(np.zeros((0, 4)), affine).shape == (0, 4)


def test_border_is_mirrored():
    image = np.arange(100, dtype=np.uint8)[None, :, None].repeat(100, 0).repeat(3, 2)
    shifted = transforms.warp_image(image, transforms.flip_scale_shift(False, 1, (0.05, 0)), 100)
    np.testing.assert_array_equal(shifted[50, :8, 0], [5, 4, 3, 2, 1, 0, 1, 2])


# --- Box filter -------------------------------------------------------------------------------


def kept(box: list[float], min_area: float, min_visibility: float) -> bool:
    _, keep = transforms.filter_boxes(
        np.array([box]), 64, min_area=min_area, min_visibility=min_visibility
    )
    return bool(keep[0])


def test_area_counts_in_pixels_of_the_input_and_equal_is_too_small():
    quarter = [0.25, 0.25, 0.75, 0.75]  # 32 x 32 pixels of 64 x 64
    assert not kept(quarter, 1024, 0)
    assert kept(quarter, 1023.9, 0)
    outside = [-0.5, 0.0, 0.5, 0.5]  # 64 x 32, half of it inside
    assert not kept(outside, 1024, 0)
    assert kept(outside, 1023.9, 0)


def test_visibility_is_a_fraction_of_the_box_and_equal_is_too_little():
    box = [-0.75, 0.0, 0.25, 1.0]
    assert not kept(box, 0, 0.25)
    assert kept(box, 0, 0.2499)


def test_empty_or_invisible_boxes_go_even_without_limits():
    assert not kept([0.5, 0.5, 0.5, 0.9], 0, 0)
    assert not kept([1.1, 0.1, 1.5, 0.9], 0, 0)
    assert not kept([1.1, 1.1, 1.5, 1.5], 0, 0)


def test_boxes_are_clipped():
    clipped, keep = transforms.filter_boxes(
        np.array([[-0.1, 0.2, 0.5, 1.3]]), 448, min_area=0, min_visibility=0
    )
    np.testing.assert_array_equal(clipped, [[0.0, 0.2, 0.5, 1.0]])
    assert keep.tolist() == [True]
    clipped, keep = transforms.filter_boxes(np.zeros((0, 4)), 448, min_area=0, min_visibility=0)
    assert clipped.shape == (0, 4)
    assert keep.shape == (0,)


def test_augment_drops_what_the_shift_pushes_out():
    boxes = np.array([[0.0, 0.4, 0.1, 0.6], [0.4, 0.4, 0.6, 0.6], [0.9, 0.4, 1.0, 0.6]])
    drawn = transforms.Draw(transforms.flip_scale_shift(False, 1.0, (-0.08, 0.0)), ())
    limits = Augmentation(min_area=100)
    image, moved, keep = transforms.augment(noise(50, 80), boxes, drawn, 100, limits)
    assert image.shape == (100, 100, 3)
    assert image.dtype == np.uint8
    # 2 % of the first object's 10 % are left, a fifth: less than 0.3. The third is 200 pixels.
    assert keep.tolist() == [False, True, True]
    np.testing.assert_allclose(moved[1:], [[0.32, 0.4, 0.52, 0.6], [0.82, 0.4, 0.92, 0.6]])


# --- Random choices ---------------------------------------------------------------------------


def test_defaults_are_the_references():
    assert dataclasses.asdict(Augmentation()) == {
        "enabled": True,
        "flip_probability": 0.5,
        "color_probability": 0.5,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 0.2,
        "affine_probability": 0.5,
        "shift": 0.0625,
        "scale": 0.1,
        "min_area": 1024.0,
        "min_visibility": 0.3,
    }


def test_probabilities_and_ranges_are_what_they_say():
    rng = np.random.default_rng(0)
    settings = Augmentation(flip_probability=0.3, color_probability=0.6, affine_probability=0.8)
    n = 5000
    draws = [transforms.draw(rng, settings) for _ in range(n)]
    flipped = np.array([d.affine.scale[0] < 0 for d in draws])
    scales = np.array([d.affine.scale[1] for d in draws])
    moved = scales != 1
    colored = np.array([bool(d.color) for d in draws])

    def assert_frequency(events: np.ndarray, probability: float) -> None:
        deviation = np.sqrt(probability * (1 - probability) / n)
        assert abs(events.mean() - probability) < 4 * deviation

    assert_frequency(flipped, 0.3)
    assert_frequency(colored, 0.6)
    assert_frequency(moved, 0.8)
    assert_frequency(flipped & moved, 0.3 * 0.8)  # independent of each other
    assert_frequency(colored & moved, 0.6 * 0.8)

    def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        counts, _ = np.histogram(values, bins=4, range=(low, high))
        assert np.abs(counts / len(values) - 0.25).max() < 0.04

    assert_uniform(scales[moved], 0.9, 1.1)
    # The centre goes to 0.5 + shift, whatever the flip and the scale.
    centres = np.array([d.affine.offset for d in draws]) + 0.5 * np.array(
        [d.affine.scale for d in draws]
    )
    assert_uniform(centres[moved, 0] - 0.5, -0.0625, 0.0625)
    assert_uniform(centres[moved, 1] - 0.5, -0.0625, 0.0625)
    np.testing.assert_allclose(centres[~moved], 0.5)
    amounts = {name: [] for name in ("brightness", "contrast", "saturation", "hue")}
    for name, amount in itertools.chain.from_iterable(d.color for d in draws):
        amounts[name].append(amount)
    for name in ("brightness", "contrast", "saturation"):
        assert_uniform(np.array(amounts[name]), 0.8, 1.2)
    assert_uniform(np.array(amounts["hue"]), -0.2, 0.2)
    orders = [tuple(name for name, _ in d.color) for d in draws if d.color]
    assert len(set(orders)) == 24
    assert max(map(orders.count, set(orders))) < 2 * len(orders) / 24


def test_one_setting_leaves_the_other_choices_as_they_were():
    never = Augmentation(flip_probability=0, affine_probability=0)
    always = Augmentation(flip_probability=1, affine_probability=1)
    for seed in range(20):
        first = transforms.draw(np.random.default_rng(seed), never)
        second = transforms.draw(np.random.default_rng(seed), always)
        assert first.color == second.color
        assert first.affine == transforms.IDENTITY
        assert second.affine.scale[0] < 0


def test_disabled_is_a_resize_alone():
    always = Augmentation(
        enabled=False, flip_probability=1, color_probability=1, affine_probability=1
    )
    drawn = transforms.draw(np.random.default_rng(0), always)
    assert drawn == transforms.Draw(transforms.IDENTITY, ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip_probability": 1.5},
        {"brightness": -0.1},
        {"hue": 0.6},
        {"scale": 1.0},
        {"min_area": -1},
        {"shift": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"augmentation.{next(iter(wrong))}: expected a number"):
        Augmentation(**wrong)


# --- Colour -----------------------------------------------------------------------------------


def float_adjust(image: np.ndarray, steps: tuple[tuple[str, float], ...]) -> np.ndarray:
    """The definitions, in floating point; only the clipping to [0, 255] between steps is kept."""
    image = image.astype(np.float64)
    for name, amount in steps:
        grey = image @ [0.299, 0.587, 0.114]
        if name == "brightness":
            image = amount * image
        elif name == "contrast":
            image = amount * image + (1 - amount) * grey.mean()
        elif name == "saturation":
            image = amount * image + (1 - amount) * grey[..., None]
        else:
            for pixel in image.reshape(-1, 3):
                hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
                pixel[:] = np.multiply(
                    colorsys.hsv_to_rgb((hue + amount) % 1, saturation, value), 255
                )
        image = np.clip(image, 0, 255)
    return image


def test_brightness_contrast_and_saturation_are_within_two_levels_of_the_definition():
    rng = np.random.default_rng(0)
    image = noise(40, 40)
    for order in itertools.permutations(("brightness", "contrast", "saturation")):
        for _ in range(5):
            steps = tuple((name, rng.uniform(0.8, 1.2)) for name in order)
            adjusted = transforms.adjust_color(image, steps)
            assert adjusted.dtype == np.uint8
            assert difference(adjusted, float_adjust(image, steps)).max() <= 2


@pytest.mark.parametrize("steps_of_two_degrees", [-36, -7, 5, 36])
def test_hue_is_as_near_to_the_definition_as_eight_bits_allow(steps_of_two_degrees):
    image = noise(40, 40)
    turn = steps_of_two_degrees / 180
    error = difference(transforms.adjust_hue(image, turn), float_adjust(image, (("hue", turn),)))
    assert error.max() <= 6  # 1 degree of a full colour is 4.25 levels; saturation is rounded too
    assert error.mean() < 0.6


def test_hue_turns_the_colour_circle():
    red_green_grey = np.array([[[255, 0, 0], [0, 200, 0], [90, 90, 90]]], np.uint8)
    turned = transforms.adjust_hue(red_green_grey, 1 / 3)
    assert turned.tolist() == [[[0, 255, 0], [0, 0, 200], [90, 90, 90]]]
    back = transforms.adjust_hue(turned, -1 / 3)
    np.testing.assert_array_equal(back, red_green_grey)
    np.testing.assert_array_equal(transforms.adjust_hue(red_green_grey, 0.001), red_green_grey)


def test_colours_clip_between_the_steps():
    image = np.full((4, 4, 3), 250, np.uint8)
    brighter = transforms.adjust_brightness(image, 1.2)
    assert (brighter == 255).all()
    steps = (("brightness", 1.2), ("brightness", 0.8))
    assert (transforms.adjust_color(image, steps) == 204).all()  # not 240


def test_contrast_keeps_the_mean_and_saturation_the_greys():
    image = np.tile(np.array([100, 140], np.uint8)[:, None], (8, 1, 3))
    np.testing.assert_array_equal(transforms.adjust_contrast(image, 0.5)[0], [[110] * 3, [130] * 3])
    np.testing.assert_array_equal(transforms.adjust_saturation(image, 1.2), image)


def test_input_is_left_alone():
    image = noise(30, 30)
    before = image.copy()
    drawn = transforms.draw(
        np.random.default_rng(0), Augmentation(color_probability=1, affine_probability=1)
    )
    transforms.augment(image, np.zeros((0, 4)), drawn, 30, Augmentation())
    for name, _ in drawn.color:
        transforms.adjust_color(image, ((name, 0.9),))
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False  # as an array from a decoder's or a source's buffer may be
    assert cv2.mean(transforms.warp_image(image, drawn.affine, 16))[0] > 0
