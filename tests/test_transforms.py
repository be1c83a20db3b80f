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
WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])


def only(affine=IDENTITY, windows=WHOLE, erased=WHOLE[:0]):
    return transforms.Parameters(windows, affine, (), erased)


def noise(height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.setflags(write=False)  # as an array of a source or a decoder may be
    return image


def assert_uniform(values, low: float, high: float):
    counts, _ = np.histogram(values, bins=20, range=(low, high))
    assert counts.sum() == len(values)
    assert np.abs(counts / len(values) - 0.05).max() < 0.02


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
    assert np.abs(transforms.warp_image(image, affine, (32, 32)) - slow).max() <= 1
    if affine == IDENTITY:
        assert np.abs(transforms.resize_image(image, 32) - slow).max() <= 1


def test_resize_of_darknet_by_hand():
    """Corner pixels coincide; the last row is not interpolated. The C program's: golden/."""
    columns = np.repeat(np.uint8([[[0], [100]]]), 3, axis=2)  # [1, 2, 3]
    found = transforms.resize_as_darknet(columns, (2, 5))
    assert found.dtype == np.float32
    assert found[0, :, 0].tolist() == [0, 25, 50, 75, 100]
    rows = transforms.resize_as_darknet(columns.transpose(1, 0, 2), (5, 2))
    assert rows[:, 0, 0].tolist() == [0, 25, 50, 75, 100]
    image = noise(32, 32)
    np.testing.assert_array_equal(transforms.resize_image(image, 32, "darknet"), image)
    # In float32, the place of the last row can fall just above the image's: it is almost black.
    last = {n: transforms.resize_as_darknet(noise(n, 2) | 128, (448, 2))[-1] for n in (226, 375)}
    assert last[226].max() < 0.1 < 128 <= last[375].min()


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
        warped, moved, _ = transforms.augment(image, boxes, only(affine), (224, 224), ALL_BOXES)
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
    assert transforms.filter_boxes(boxes, (64, 64), limits)[1].tolist() == [kept] * 3


def test_augment_by_hand():
    boxes = np.array([[0, 20, 8, 30], [32, 20, 48, 30], [72, 20, 80, 30], [32, 20, 36, 24]])
    shifted, limits = flip_scale_shift(False, 1.0, (-0.08, 0.0)), Augmentation(min_area=100)
    image, moved, keep = transforms.augment(noise(50, 80), boxes, only(shifted), (100, 100), limits)
    assert image.shape == (100, 100, 3)
    # 2 % of the first object's 10 % are left, a fifth: less than 0.3. The third has 200 pixels of
    # the network input, the last one 40.
    assert keep.tolist() == [False, True, True, False]
    expected = [[0, 0.4, 0.02, 0.6], [0.32, 0.4, 0.52, 0.6], [0.82, 0.4, 0.92, 0.6]]
    np.testing.assert_allclose(moved[:3], expected, atol=1e-12)
    # Before the augmentation an object must be large enough too: 256 pixels, scaled by 1.1 309.
    grown, limits = flip_scale_shift(False, 1.1, (0, 0)), Augmentation(min_area=256)
    box = np.array([[8, 8, 24, 24]])
    assert not transforms.augment(noise(32, 32), box, only(grown), (32, 32), limits)[2].any()
    nothing = np.array([[0.5, 0.5, 0.5, 0.9], [1.1, 0.1, 1.5, 0.9], [1.1, 1.1, 1.5, 1.5]])
    assert not transforms.filter_boxes(nothing, (32, 32), ALL_BOXES)[1].any()


def test_probabilities_and_ranges_are_what_they_say():
    rng = np.random.default_rng(0)
    settings = Augmentation(flip_probability=0.3, color_probability=0.6, affine_probability=0.8)
    samples = [transforms.sample_parameters(rng, settings) for _ in range(4000)]
    scales = np.array([sample.affine.scale for sample in samples])
    flipped, moved = scales[:, 0] < 0, scales[:, 1] != 1
    colored = np.array([bool(sample.color) for sample in samples])
    both = (flipped & moved, 0.3 * 0.8), (colored & moved, 0.6 * 0.8)  # are independent
    for events, p in ((flipped, 0.3), (colored, 0.6), (moved, 0.8), *both):
        assert abs(events.mean() - p) < 4 * np.sqrt(p * (1 - p) / len(samples))

    # The centre goes to 0.5 + shift, whatever the flip and the scale.
    shifts = np.array([sample.affine.offset for sample in samples]) + 0.5 * scales - 0.5
    np.testing.assert_allclose(shifts[~moved], 0, atol=1e-12)
    amounts = [dict(sample.color) for sample in samples if sample.color]
    for values, centre, spread in (
        (scales[moved, 1], 1, 0.1),
        *((shifts[moved, axis], 0, 0.0625) for axis in (0, 1)),
        *(([a[name] for a in amounts], name != "hue", 0.2) for name in amounts[0]),
    ):
        assert_uniform(values, centre - spread, centre + spread)
    orders = [tuple(color) for color in amounts]
    assert len(set(orders)) == 24
    assert max(map(orders.count, set(orders))) < 2 * len(orders) / 24


def test_one_setting_leaves_the_other_choices_as_they_were():
    more = {f"{name}_probability": 1.0 for name in ("color", "expand", "crop", "erase")}
    settings = [Augmentation(flip_probability=p, affine_probability=p, **more) for p in (0, 1)]
    settings.append(Augmentation(enabled=False, flip_probability=1, **more))
    for seed in range(20):
        never, always, off = (
            transforms.sample_parameters(np.random.default_rng(seed), one) for one in settings
        )
        assert never[1:3] == (IDENTITY, always.color)
        assert always.affine.scale[0] < 0
        assert off[1:3] == (IDENTITY, ())
        np.testing.assert_array_equal(never.windows, always.windows)
        assert (off.windows.tolist(), len(off.erased)) == (WHOLE.tolist(), 0)


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


@pytest.mark.parametrize("amounts", [(0.1, 1.5, 1.5), (-0.1, 1 / 1.5, 0.8), (0.05, 1.4, 0.7)])
def test_hsv_is_darknets_distort_image(amounts):
    """Added to the hue, multiplied into saturation and value; only the result is clipped."""
    turn, saturation_scale, value_scale = amounts
    image, expected = noise(20, 20), []
    for pixel in image.reshape(-1, 3) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        changed = (hue + turn) % 1, saturation * saturation_scale, value * value_scale
        expected.append(np.clip(np.multiply(colorsys.hsv_to_rgb(*changed), 255), 0, 255))
    found = transforms.adjust_color(image, (("hsv", amounts),)).reshape(-1, 3)
    assert np.abs(found - expected).max() < 0.51


@pytest.mark.parametrize("degrees", [-72, -14, 10, 72])
def test_hue_is_as_near_to_the_definition_as_eight_bits_allow(degrees):
    image, steps = noise(40, 40), (("hue", degrees / 360),)
    error = np.abs(transforms.adjust_color(image, steps) - float_adjust(image, steps))
    assert error.max() <= 6  # 1 degree of a full colour is 4.25 levels; saturation is rounded too
    assert error.mean() < 0.6


# --- Expand, crop, erasing and mosaic


def test_a_window_is_stretched_to_the_whole_and_its_boxes_with_it():
    image, window = noise(64, 64), np.array([[0.25, 0.5, 0.75, 1.0]])
    boxes = np.array([[16, 32, 32, 64], [0, 0, 20, 40], [32, 40, 60, 56]])
    shown, moved, keep = transforms.augment(image, boxes, only(windows=window), (32, 32), ALL_BOXES)
    np.testing.assert_array_equal(shown, image[32:, 16:48])
    np.testing.assert_allclose(moved, [[0, 0, 0.5, 1], [0, 0, 0.125, 0.25], [0.5, 0.25, 1, 0.75]])
    assert keep.tolist() == [True, True, True]
    # With a limit, the second object, of which 1/25 is left, and the third, of which 4/7 is.
    limits = Augmentation(min_area=0, min_visibility=0.5)
    keep = transforms.augment(image, boxes, only(windows=window), (32, 32), limits)[2]
    assert keep.tolist() == [True, False, True]


def test_an_expanded_image_lies_on_grey():
    image = noise(32, 32)
    canvas = only(windows=np.array([[-0.5, 0.0, 1.5, 2.0]]))
    shown, moved, _ = transforms.augment(
        image, np.array([[0, 0, 32, 16]]), canvas, (64, 64), ALL_BOXES
    )
    np.testing.assert_array_equal(shown[:32, 16:48], image)
    assert (shown[33:] == [124, 116, 104]).all()
    np.testing.assert_allclose(moved, [[0.25, 0, 0.75, 0.25]])


def test_the_window_shows_an_object():
    windows = np.array(
        [[0, 0, 0.4, 0.4], [0.35, 0.35, 0.6, 0.6], [0.4, 0.4, 0.9, 0.9], [0, 0, 1, 1]]
    )
    box = np.array([[0.5, 0.5, 0.7, 0.7]])  # a quarter of it is in the second, its centre is not
    for boxes, limit, expected in ((box, 0.2, 2), (box[:0], 0.2, 3), (box - 0.2, 0.2, 0)):
        chosen = transforms.choose_window(windows, boxes, limit)
        assert chosen.tolist() == windows[expected].tolist()
    wide = np.array([[0.1, 0.4, 0.9, 0.6]])  # its centre is in the second, a third of it
    for limit, expected in ((0.3, 1), (0.32, 2), (0.63, 3)):
        chosen = transforms.choose_window(windows, wide, limit)
        assert chosen.tolist() == windows[expected].tolist()


def test_windows_and_rectangles_are_drawn_from_their_ranges():
    probabilities = {f"{name}_probability": 0.5 for name in ("expand", "crop", "erase")}
    settings = Augmentation(expand=3.0, crop=0.3, erase=0.1, **probabilities)
    rng = np.random.default_rng(0)
    samples = [transforms.sample_parameters(rng, settings) for _ in range(2000)]
    canvases = np.array([sample.windows[-1] for sample in samples])
    expanded = (canvases != WHOLE).any(axis=1)
    cropped = np.array([len(sample.windows) > 1 for sample in samples])
    erased = np.array([len(sample.erased) > 0 for sample in samples])
    for events, p in ((expanded, 0.5), (cropped, 0.5), (erased, 0.5), (expanded & cropped, 0.25)):
        assert abs(events.mean() - p) < 0.05
    sides = canvases[expanded, 2:] - canvases[expanded, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    assert_uniform(sides[:, 0], 1, 3)
    assert (canvases[:, :2] <= 0).all()  # the image is on its canvas
    assert (canvases[:, 2:] >= 1 - 1e-9).all()

    whole = (sample for sample, larger in zip(samples, expanded, strict=True) if not larger)
    crops = np.concatenate([sample.windows[:-1] for sample in whole])
    sides = crops[:, 2:] - crops[:, :2]
    assert 0.3 <= sides.min() < 0.31
    ratios = sides[:, 1] / sides[:, 0]
    assert ratios.min() >= 0.5 - 1e-9
    assert ratios.max() <= 2 + 1e-9
    rectangles = np.concatenate([sample.erased for sample in samples])
    width, height = (rectangles[:, 2:] - rectangles[:, :2]).T
    assert (width * height).min() >= 0.02 - 1e-9
    assert 0.095 < (width * height).max() <= 0.1 + 1e-9
    assert 3 < (height / width).max() < 3.34
    for rectangle in (crops, rectangles):
        assert (rectangle >= -1e-9).all()
        assert (rectangle <= 1 + 1e-9).all()


def darknet(**settings):
    """cfg/yolov1.cfg: jitter .2, saturation and exposure 1.5, hue .1."""
    off = {"color_probability": 0.0, "affine_probability": 0.0}
    scales = {"jitter": 0.2, "saturation_scale": 1.5, "value_scale": 1.5, "hue": 0.1}
    limits = {"min_area": 0.0, "min_visibility": 0.0, "min_side": 0.005}
    return Augmentation(**{**off, **scales, **limits, **settings})


def test_darknets_choices_are_drawn_from_their_ranges():
    rng = np.random.default_rng(0)
    samples = [transforms.sample_parameters(rng, darknet()) for _ in range(4000)]
    sides = np.concatenate([sample.windows for sample in samples]) - WHOLE
    assert sides.shape == (4000, 4)
    amounts = np.array([dict(sample.color)["hsv"] for sample in samples])
    # rand_scale: uniform from 1 to 1.5, or 1 over that.
    larger = amounts[:, 1:] > 1
    assert np.abs(larger.mean(axis=0) - 0.5).max() < 0.04
    factors = np.where(larger, amounts[:, 1:], 1 / amounts[:, 1:])
    assert_uniform(amounts[:, 0], -0.1, 0.1)
    for side, factor in zip([*sides.T], [*factors.T] * 2, strict=True):
        assert_uniform(side, -0.2, 0.2)
        assert_uniform(factor, 1.0, 1.5)
    off = transforms.sample_parameters(rng, darknet(enabled=False))
    assert (off.windows.tolist(), off.color) == (WHOLE.tolist(), ())


def test_a_jittered_crop_repeats_the_edges_and_moves_the_boxes():
    """load_data_detection of src/data.c: crop by pleft, ptop, pright, pbot; boxes in its sides."""
    image = noise(40, 40)
    pleft, ptop, pright, pbot = -8, 4, 4, -4  # 44 x 40 pixels
    window = np.array([[pleft, ptop, 40 - pright, 40 - pbot]]) / 40
    boxes = np.array([[0, 4, 22, 24], [35.9, 10, 40, 20], [35.7, 10, 40, 20]])
    shown, moved, keep = transforms.augment(image, boxes, only(windows=window), (40, 44), darknet())
    expected = np.pad(image, [(0, 4), (8, 0), (0, 0)], "edge")[4:, :44]
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_allclose(moved[0], [8 / 44, 0, 30 / 44, 0.5])
    # 0.1 of 44 pixels of the second are in view, less than 0.005; 0.3 of the third.
    assert keep.tolist() == [True, False, True]


def test_an_erased_rectangle_is_one_colour():
    rectangle = np.array([[0.25, 0.5, 0.5, 1.0]])
    image = noise(32, 32)
    erased = transforms.augment(image, WHOLE, only(erased=rectangle), (32, 32), ALL_BOXES)[0]
    expected = image.copy()
    expected[16:, 8:16] = 124, 116, 104
    np.testing.assert_array_equal(erased, expected)


@pytest.mark.parametrize("aspect", [1.0, 3.0, 0.25])
def test_the_parts_of_a_window_have_the_area_and_the_ratio(aspect):
    """Of a window of `aspect` by 1: area and ratio of the part in pixels, and its place."""
    numbers = np.random.default_rng(0).random((300, 10, 4))
    parts = np.array([transforms.resized_crop(each, 0.08, 4 / 3, aspect) for each in numbers])
    width, height = (parts[:, 2:] - parts[:, :2]).T
    assert parts.min() >= 0
    assert parts.max() <= 1 + 1e-12
    area, ratio = width * height, width * aspect / height
    cut = area < 1 - 1e-9
    assert cut.mean() > 0.9
    largest = min(1, 4 / 3 * min(aspect, 1 / aspect))  # that fits
    assert 0.08 <= area.min() < 0.09
    assert 0.9 * largest < area[cut].max() <= largest
    assert 0.75 - 1e-9 <= ratio[cut].min() < 0.8 < 1.25 < ratio[cut].max() <= 4 / 3 + 1e-9


def test_the_first_part_that_fits_is_taken_or_the_whole():
    wide, narrow = [0.95, 1.0, 0.5, 0.5], [0.2, 0.5, 1.0, 0.0]  # area, ratio, place
    part = transforms.resized_crop(np.array([wide, narrow]), 0.0, 4 / 3, 1.0)
    side = 0.2**0.5
    np.testing.assert_allclose(part, [1 - side, 0, 1, side])
    assert transforms.resized_crop(np.array([wide]), 0.0, 4 / 3, 1.0).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_is_cut_out_by_the_warp(flip):
    """At its own size, no pixel is interpolated."""
    image, window = noise(40, 60), np.array([8.0, 2.0, 40.0, 34.0])
    expected = image[2:34, 8:40]
    np.testing.assert_array_equal(transforms.resize_window(image, window, 32), expected)
    parameters = only(flip_scale_shift(flip, 1.0, (0.0, 0.0)))
    none = Augmentation(enabled=False)
    shown = transforms.augment_window(image, window, parameters, np.zeros((1, 4)), 32, none)
    np.testing.assert_array_equal(shown, expected[:, ::-1] if flip else expected)
    # A quarter of the window, in its lower right corner, enlarged twice.
    corner, quarter = np.array([[0.25, 0.5, 1.0, 1.0]]), Augmentation(window_area=0.0)
    shown = transforms.augment_window(image, window, only(), corner, 32, quarter)
    corner_window = np.array([24.0, 18.0, 40.0, 34.0])
    np.testing.assert_array_equal(shown, transforms.resize_window(image, corner_window, 32))
