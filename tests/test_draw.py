"""Drawings are checked by their pixels: the images are grey, and no class is."""

import cv2
import numpy as np
import pytest
from annotated_sets import found, truth
from PIL import ImageColor

from yolov1_jax.visualization.draw import class_colour, draw_grid, draw_objects, draw_page

NAMES = [f"class {i}" for i in range(25)]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SQUARE, WIDE = (100, 100, 300, 300), (100, 100, 500, 300)


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


GREY = grey(400, 600)


def draw(*rows, image=GREY, **others):
    """Draws detections, (box, score, label)."""
    return np.asarray(draw_objects(image, NAMES, detections=found(*rows), **others))


def rgb(label):
    return ImageColor.getrgb(class_colour(label))


def is_colour(image, colour):
    return (image == np.array(colour, np.uint8)).all(axis=-1)


def test_a_box_is_drawn_where_it_lies_and_the_input_is_left_alone():
    image = GREY.copy()
    drawn = draw(((100, 150, 300, 350), 0.9, 4), image=image)
    assert (image == 128).all()
    rows, columns = np.nonzero(is_colour(drawn, rgb(4))[150:])  # below the caption
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (100, 299, 0, 199)
    assert (np.argwhere((drawn != 128).any(axis=-1)).max(axis=0) <= [351, 301]).all()
    assert (drawn[160:340, 110:290] == 128).all()


def test_boxes_that_reach_beyond_the_image_are_closed_at_its_border():
    line = is_colour(draw(((-50, -80, 900, 700), 0.5, 1)), rgb(1))
    for side in (line[0], line[-1], line[:, 0], line[:, -1]):
        assert side.all()


@pytest.mark.parametrize(
    "box", [(700, 100, 800, 200), (-100, -100, -1, -1), (np.nan, 0, 9, 9), (300, 300, 100, 100)]
)
def test_boxes_without_area_in_the_image_are_left_out(box):
    drawn = draw((box, 0.9, 0), ground_truth=truth((box, 0, False)))
    np.testing.assert_array_equal(drawn, GREY)


@pytest.mark.parametrize(("scale", "factor"), [(None, 12), (2.5, 2.5)])
def test_a_small_image_is_enlarged_with_its_boxes(scale, factor):
    drawn = draw(((8, 12, 28, 20), 0.9, 0), image=grey(30, 40), scale=scale)
    assert drawn.shape == (30 * factor, 40 * factor, 3)  # None: up to a mean side of 400
    columns = np.nonzero(is_colour(drawn[int(14 * factor)], rgb(0)))[0]
    assert (columns.min(), columns.max()) == (8 * factor, 28 * factor - 1)


@pytest.mark.parametrize(
    "names", [("直剪", "狗猫"), ("\ud800", "\ud801"), ("a\nb", "ab"), ("\U0001d400", "\U0001d401")]
)
def test_names_in_any_script_are_drawn_and_told_apart(names):
    drawn = [draw_objects(GREY, [name], detections=found((SQUARE, 0.9, 0))) for name in names]
    assert (np.asarray(drawn[0]) != np.asarray(drawn[1])).any()


def test_twenty_classes_differ_and_their_captions_have_contrast():
    def luminance(colour):  # WCAG 2.1
        srgb = np.array(colour) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    assert len({class_colour(label) for label in range(20)}) == 20
    for label in range(20):
        drawn = draw((SQUARE, 0.9, label))
        text = next(colour for colour in (BLACK, WHITE) if is_colour(drawn, colour).any())
        dark, light = sorted([luminance(text), luminance(rgb(label))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def caption_of(drawn, top):
    """The pixels of the caption above a box of class 0 whose upper edge is at `top`."""
    rows, columns = np.nonzero(is_colour(drawn[: top - 1], rgb(0)))
    return drawn[rows.min() : top - 1, columns.min() : columns.max() + 1]


def places(drawn, caption):
    """How often the caption is in the image, whole."""
    return (cv2.matchTemplate(drawn, caption, cv2.TM_SQDIFF_NORMED) < 1e-4).sum()


@pytest.mark.parametrize("size", [(400, 600), (60, 40), (500, 800), (900, 120)])
def test_captions_are_inside_the_image_wherever_the_box_is(size):
    def draw_at(left, top):
        box = np.array([left, top, left + 0.2, top + 0.2]) * np.tile(size[::-1], 2)
        return draw((box, 0.87, 0), image=grey(*size))

    middle = draw_at(0.4, 0.4)
    caption = caption_of(middle, round(0.4 * len(middle)))
    assert min(caption.shape[:2]) >= 12
    for left in (-0.1, 0.45, 0.9):
        for top in (-0.1, 0.45, 0.9):
            assert places(draw_at(left, top), caption) == 1


def test_captions_do_not_cover_each_other():
    rows = [(box, 0.87, 0) for box in (SQUARE, (110, 105, 310, 310), (390, 290, 590, 390))]
    assert places(draw(*rows), caption_of(draw(rows[0]), 100)) == 3


def test_in_a_crowd_the_best_is_captioned_and_on_top():
    best = (WIDE, 0.9, 7)
    drawn, alone = draw(*((WIDE, i / 50, i % 7) for i in range(40)), best), draw(best)
    np.testing.assert_array_equal(drawn[70:100, 100:180], alone[70:100, 100:180])
    assert tuple(drawn[200, 499]) == rgb(7)
    assert (drawn[130:290, 110:490] == 128).all()  # captions without a place are left out


def test_ground_truth_is_dashed_and_dotted_if_difficult_and_the_detection_shows():
    strokes = []
    for difficult in (False, True):
        drawn = draw((WIDE, 0.9, 4), ground_truth=truth((WIDE, 4, difficult)))
        edge = drawn[298, 100:500]  # lower edge
        strokes.append(np.diff(is_colour(edge, WHITE).astype(int)).clip(0).sum())
        assert is_colour(edge, rgb(4)).mean() > 0.2
    assert 10 < strokes[0] < 0.8 * strokes[1]


@pytest.mark.parametrize(
    ("box", "label", "difficult", "named"),
    [
        ((105, 105, 300, 300), 0, False, False),
        ((100, 100, 300, 200), 0, False, False),  # IoU exactly 0.5
        ((100, 100, 300, 190), 0, False, True),
        (SQUARE, 10, False, True),  # of another class
        ((400, 100, 500, 200), 0, True, False),  # difficult ones need not be found
    ],
)
def test_only_missed_objects_are_named(box, label, difficult, named):
    drawn = draw((box, 0.9, label), ground_truth=truth((SQUARE, 0, difficult)))
    # In black on white; captions of the classes 0 and 10 are white.
    assert is_colour(drawn, BLACK).any() == named


VOC_SIZES = [(500, 334), (375, 500), (500, 500)]


@pytest.mark.parametrize("sizes", [VOC_SIZES * 4, [(20, 2000), (2000, 20), (375, 500)], [(1, 1)]])
def test_every_image_is_on_the_page_and_none_is_cut(sizes):
    images = [grey(*size, 60 + 10 * i) for i, size in enumerate(sizes)]
    page = draw_page(images, [found()] * len(sizes), [truth()] * len(sizes), NAMES)
    for (height, width), image in zip(sizes, images, strict=True):
        mine = is_colour(page[32:], image[0, 0])  # below the key
        shown = np.ptp(np.argwhere(mine), axis=0) + 1
        assert mine.sum() == shown.prod()  # one rectangle
        assert abs(shown[1] - shown[0] * width / height) <= 1 + width / height
        assert (page[:, -3:] == 255).all()


@pytest.mark.parametrize(
    ("x", "y", "column", "row"),
    # Inside a cell; on a border, where a cell begins; the last corner of the image.
    [(350, 150, 3, 1), (100, 0, 1, 0), (700, 700, 6, 6)],
)
def test_the_cell_of_an_object_is_tinted(x, y, column, row):
    objects = truth(((x - 190, y - 190, x + 190, y + 190), 2, False))
    drawn, plain = (draw_grid(grey(700, 700), one, NAMES, 7) for one in (objects, truth()))
    cells = (drawn != plain).any(axis=-1).reshape(7, 100, 7, 100)  # [row, y, column, x]
    tinted = cells[:, 30:70, :, 30:70].mean(axis=(1, 3)) > 0.9
    np.testing.assert_array_equal(np.argwhere(tinted), [[row, column]])
    assert is_colour(plain[100], WHITE).mean() > 0.9  # the line between the first rows
