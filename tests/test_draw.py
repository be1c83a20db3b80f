import numpy as np
import pytest

from yolov1_jax.visualization import draw as drawing
from yolov1_jax.visualization.class_colours import class_colour
from yolov1_jax.visualization.draw import draw_objects
from yolov1_jax.yolo.detections import Detections, GroundTruth

NAMES = [f"class {i}" for i in range(25)]
GREY = np.full((400, 600, 3), 128, np.uint8)


def detections(*rows):
    """Rows of (left, top, right, bottom, score, label)."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int))


def ground_truth(*rows):
    """Rows of (left, top, right, bottom, label, difficult)."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return GroundTruth(rows[:, :4], rows[:, 4].astype(int), rows[:, 5].astype(bool))


def is_colour(image, colour):
    return (image == np.array(colour, np.uint8)).all(axis=-1)


@pytest.fixture
def captions(monkeypatch):
    """Collects (caption, where it was placed) of what is drawn."""
    seen = []
    place = drawing._place

    def record(*args):
        spot = place(*args)
        seen.append(spot)
        return spot

    monkeypatch.setattr(drawing, "_place", record)
    return seen


@pytest.fixture
def texts(monkeypatch):
    seen = []
    shorten = drawing._shortened

    def record(text, *args):
        seen.append(text)
        return shorten(text, *args)

    monkeypatch.setattr(drawing, "_shortened", record)
    return seen


def test_box_is_drawn_where_it_lies_and_the_input_is_left_alone():
    image = GREY.copy()
    drawn = draw_objects(image, NAMES, detections=detections([100, 150, 300, 350, 0.9, 4]))
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    rows, columns = np.nonzero(is_colour(drawn, class_colour(4)))
    below_caption = rows > 160
    assert abs(columns[below_caption].min() - 100) <= 2
    assert abs(columns[below_caption].max() - 300) <= 2
    assert abs(rows.max() - 350) <= 2
    # Nothing inside the box, nothing far outside.
    assert (drawn[180:340, 110:290] == 128).all()
    assert (drawn[360:] == 128).all()
    assert (drawn[:, 310:] == 128).all()


def test_nothing_to_draw():
    empty = draw_objects(GREY, NAMES, detections=detections(), ground_truth=ground_truth())
    np.testing.assert_array_equal(empty, GREY)
    np.testing.assert_array_equal(draw_objects(GREY, NAMES), GREY)


def test_boxes_that_reach_beyond_the_image_are_closed_at_its_edge():
    drawn = draw_objects(GREY, NAMES, detections=detections([-50, -80, 900, 700, 0.5, 1]))
    line = is_colour(drawn, class_colour(1))
    for side in (line[:3], line[-3:], line[:, :3], line[:, -3:]):
        assert side.any(axis=0 if side.shape[0] == 3 else 1).mean() > 0.95


@pytest.mark.parametrize(
    "box",
    [
        [700, 100, 800, 200],
        [-100, -100, -1, -1],
        [np.nan, 0, 10, 10],
        [0, 0, np.inf, 10],
        [300, 300, 100, 100],
    ],
)
def test_boxes_out_of_sight_are_left_out(box):
    drawn = draw_objects(GREY, NAMES, detections=detections([*box, 0.9, 0]))
    np.testing.assert_array_equal(drawn, GREY)


def test_a_small_image_is_enlarged_by_a_whole_factor():
    image = np.zeros((30, 40, 3), np.uint8)
    drawn = draw_objects(image, NAMES, detections=detections([10, 10, 30, 20, 0.9, 0]))
    factor = drawn.shape[0] // 30
    assert drawn.shape == (30 * factor, 40 * factor, 3)
    assert factor == 12  # ceil(400 / sqrt(30 * 40))
    columns = np.nonzero(is_colour(drawn, class_colour(0)).sum(axis=0) > 3 * factor)[0]
    assert abs(columns.min() - 10 * factor) <= drawing.MIN_MEAN_SIDE / 100
    assert abs(columns.max() - 30 * factor) <= drawing.MIN_MEAN_SIDE / 100


def test_size_scales_boxes_with_the_image():
    found = detections([100, 100, 500, 300, 0.9, 0])
    drawn = draw_objects(GREY, NAMES, detections=found, size=(300, 400))
    assert drawn.shape == (400, 300, 3)
    columns = np.nonzero(is_colour(drawn, class_colour(0)).sum(axis=0) > 150)[0]
    assert abs(columns.min() - 50) <= 2
    assert abs(columns.max() - 250) <= 2


@pytest.mark.parametrize("size", [(600, 400), (60, 40), (2000, 1500), (35, 900)])
def test_captions_stay_inside_the_image_and_beside_each_other(captions, size):
    rng = np.random.default_rng(0)
    width, height = size
    corner = rng.uniform(-0.1, 1.0, (40, 2)) * [width, height]
    extent = rng.uniform(0.02, 0.5, (40, 2)) * [width, height]
    found = Detections(
        np.concatenate([corner, corner + extent], axis=1), rng.random(40), np.arange(40) % 25
    )
    drawn = draw_objects(np.zeros((height, width, 3), np.uint8), NAMES, detections=found)
    placed = [spot for spot in captions if spot is not None]
    assert len(placed) >= 3
    for left, top, right, bottom in placed:
        assert left >= 0
        assert top >= 0
        assert right <= drawn.shape[1]
        assert bottom <= drawn.shape[0]
    for i, spot in enumerate(placed):
        area = (spot[2] - spot[0]) * (spot[3] - spot[1])
        covered = sum(drawing._overlap(spot, other) for other in placed[:i])
        assert covered <= 0.15 * area


def test_eight_boxes_in_one_place_are_all_captioned(captions):
    found = detections(*[[100, 100, 500, 300, 0.1 * i, i] for i in range(1, 9)])
    draw_objects(GREY, NAMES, detections=found)
    assert len(captions) == 8
    assert None not in captions


def test_the_best_detection_is_captioned_first_and_drawn_last(texts):
    found = detections([100, 100, 300, 300, 0.25, 3], [100, 100, 300, 300, 0.875, 7])
    drawn = draw_objects(GREY, NAMES, detections=found)
    assert texts == ["class 7 0.88", "class 3 0.25"]
    assert tuple(drawn[200, 300]) == class_colour(7)


def test_long_names_are_shortened_to_the_image():
    font = drawing.text_font(20)
    name = "a class whose name is longer than its image is wide 0.87"
    short = drawing._shortened(name, font, 200)
    assert font.getlength(short) <= 200
    assert short.startswith("a class")
    assert short.endswith("… 0.87")
    assert drawing._shortened("dog 0.87", font, 200) == "dog 0.87"
    assert drawing._shortened("dog 0.87", font, 50) == "0.87"
    assert drawing._shortened("dog 0.87", font, 20) == "…"


def test_ground_truth_is_white_dashed_and_leaves_the_detection_visible():
    box = [100, 100, 500, 300]
    drawn = draw_objects(
        GREY,
        NAMES,
        detections=detections([*box, 0.9, 4]),
        ground_truth=ground_truth([*box, 4, 0]),
    )
    bottom = drawn[300, 110:490]
    white = is_colour(bottom, (255, 255, 255))
    assert 0.25 < white.mean() < 0.6
    assert is_colour(bottom, class_colour(4)).mean() > 0.2
    # Several dashes, not one stroke.
    assert np.diff(white.astype(int)).clip(0).sum() > 10


def test_difficult_objects_are_dotted():
    def strokes(difficult):
        drawn = draw_objects(GREY, NAMES, ground_truth=ground_truth([100, 100, 500, 300, 0, 1]))
        if not difficult:
            drawn = draw_objects(GREY, NAMES, ground_truth=ground_truth([100, 100, 500, 300, 0, 0]))
        white = is_colour(drawn[300, 110:490], (255, 255, 255))
        return np.diff(white.astype(int)).clip(0).sum()

    assert strokes(difficult=True) > 1.5 * strokes(difficult=False)


def test_only_missed_objects_are_named(texts):
    truth = ground_truth(
        [0, 0, 100, 100, 1, 0],  # found
        [200, 0, 300, 100, 2, 0],  # a box in its place, of another class
        [400, 0, 500, 100, 3, 0],  # a box of its class, too far off: IoU 1/3
        [200, 200, 300, 300, 4, 1],  # difficult: need not be found
        [400, 200, 500, 300, 5, 0],  # IoU exactly 0.5
    )
    found = detections(
        [5, 5, 100, 100, 0.9, 1],
        [200, 0, 300, 100, 0.8, 9],
        [450, 0, 550, 100, 0.7, 3],
        [400, 200, 500, 250, 0.6, 5],
    )
    draw_objects(GREY, NAMES, detections=found, ground_truth=truth)
    assert texts[4:] == ["class 2", "class 3"]
    texts.clear()
    draw_objects(GREY, NAMES, ground_truth=truth)
    assert texts == ["class 1", "class 2", "class 3", "class 5"]


def test_captions_of_a_crowd_leave_the_image_in_sight(captions, texts):
    grid = [[60 * x, 40 * y, 60 * x + 50, 40 * y + 38] for x in range(10) for y in range(10)]
    found = detections(*[[*box, 0.5 + i / 300, i % 3] for i, box in enumerate(grid)])
    missed = ground_truth(*[[*box, 9, 0] for box in grid])
    draw_objects(GREY, NAMES, detections=found, ground_truth=missed)
    names = [text for text in texts if text.startswith("class 9")]
    assert texts[0] == "class 0 0.83"  # the best
    assert 4 <= len(names) <= 40
    assert 4 <= len(texts) - len(names) <= 40
    area = sum(
        (right - left) * (bottom - top) for left, top, right, bottom in filter(None, captions)
    )
    assert 0.1 < area / (400 * 600) <= 2 * drawing._MAX_CAPTIONED
