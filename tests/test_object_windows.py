"""The windows around the objects of a data set of detection."""

import numpy as np
import pytest
from annotated_sets import images_of, truth

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Record
from yolov1_jax.data.object_windows import ObjectWindows

# In an image of 100 x 60 pixels (width x height).
CAT, DOG = ((40, 20, 60, 30), 0, False), ((80, 10, 90, 50), 1, False)
HARD = ((10, 10, 20, 20), 1, True)


class Images:
    """Image i is of the level i."""

    def __init__(self, *truths):
        self.table = images_of(*"abcdef"[: len(truths)], truths=truths, sizes=(60, 100))

    def annotations(self, limit=None):
        return self.table

    def __getitem__(self, index):
        image = np.full((60, 100, 3), index, np.uint8)
        return Record(image, self.table.image_ids[index], *self.table[index])


def test_each_object_has_a_square_window_within_its_image():
    source = ObjectWindows(Images(truth(HARD), truth(), truth(CAT, HARD, DOG), truth(DOG)), 0.25)
    records = [source[i] for i in range(len(source))]
    assert [(one.image_id, one.labels.tolist()) for one in records] == [
        ("c object 1", [0]),
        ("c object 3", [1]),
        ("d", [1]),
    ]
    assert [int(one.image[0, 0, 0]) for one in records] == [2, 2, 3]
    # Sides 20 and 40, with a quarter of that on each side; the dog's reaches over the borders.
    assert records[0].boxes_xyxy.tolist() == [[35, 10, 65, 40]]
    assert records[1].boxes_xyxy.tolist() == [[55, 0, 100, 60]]

    table = source.annotations()
    assert table.image_ids == ("c object 1", "c object 3", "d")
    assert table.labels.tolist() == [0, 1, 1]
    assert len(source.annotations(limit=2)) == len(source.annotations(limit=2).labels) == 2


def test_the_window_of_a_whole_image_is_the_image():
    source = ObjectWindows(Images(truth(((0, 0, 100, 60), 0, False))), 0.1)
    assert source[0].boxes_xyxy.tolist() == [[0, 0, 100, 60]]


def test_no_object_is_a_mistake():
    with pytest.raises(UserError, match="found none"):
        ObjectWindows(Images(truth(HARD), truth()))
