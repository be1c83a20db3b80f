import numpy as np
import pytest

from yolov1_jax.visualization import gallery
from yolov1_jax.visualization.gallery import draw_gallery
from yolov1_jax.yolo.detections import Detections, GroundTruth

NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
NO_TRUTH = GroundTruth(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))


@pytest.mark.parametrize(
    "sizes",
    [
        [(375, 500)],
        [(375, 500)] * 12,
        [(20, 2000), (2000, 20), (375, 500)],
        [(500, 334), (375, 500), (500, 500)] * 3,
        [(1, 1)],
    ],
)
def test_every_image_is_on_the_page_and_none_is_cut(sizes):
    # Each image in a grey of its own, none of which the key above has.
    greys = 40 + 10 * np.arange(len(sizes))
    images = [np.full((*size, 3), grey, np.uint8) for size, grey in zip(sizes, greys, strict=True)]
    page = draw_gallery(
        images, [NOTHING] * len(sizes), [NO_TRUTH] * len(sizes), ["dog"], score_threshold=0.2
    )
    assert page.shape[1:] == (1200, 3)
    below_key = page[2 * gallery._TEXT_SIZE + gallery._GAP :]
    for (height, width), grey in zip(sizes, greys, strict=True):
        mine = (below_key == grey).all(axis=-1)
        rows, columns = np.nonzero(mine)
        assert mine.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one rectangle
        assert np.ptp(columns) + 1 == max(1, round((np.ptp(rows) + 1) * width / height))
        assert columns.max() < 1200 - gallery._GAP / 2


def test_twelve_voc_images_make_even_rows():
    rows = gallery._rows_of_equal_height([4 / 3] * 12)
    assert [i for indices, _ in rows for i in indices] == list(range(12))
    assert {len(indices) for indices, _ in rows} == {4}


def test_the_key_names_difficult_objects_only_where_there_are_some():
    image = np.zeros((375, 500, 3), np.uint8)
    difficult = GroundTruth(np.array([[50, 50, 200, 200.0]]), np.array([0]), np.array([True]))
    plain = draw_gallery([image], [NOTHING], [NO_TRUTH], ["dog"], score_threshold=0.2)
    with_difficult = draw_gallery([image], [NOTHING], [difficult], ["dog"], score_threshold=0.2)
    key = slice(0, 30)
    assert (with_difficult[key] != 255).sum() > (plain[key] != 255).sum()


def test_faint_detections_are_not_drawn():
    image = np.zeros((375, 500, 3), np.uint8)

    def page(*scores):
        boxes = np.tile([[50, 50, 300, 200.0]], (len(scores), 1))
        found = Detections(boxes, np.array(scores), np.zeros(len(scores), int))
        return draw_gallery([image], [found], [NO_TRUTH], ["dog"], score_threshold=0.2)

    np.testing.assert_array_equal(page(0.9, 0.19), page(0.9))
    assert (page(0.9, 0.2) != page(0.9)).any()
