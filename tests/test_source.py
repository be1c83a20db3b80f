"""Opening a source by the name that configs use."""

import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.data.source import open_source


def open_synthetic(*splits, class_names=None):
    options = {"unknown_classes": "refuse", "image_size": 64, "seed": 0}
    return open_source("synthetic", root=None, splits=splits, class_names=class_names, **options)


def test_a_split_of_the_synthetic_data_may_be_a_part_of_it():
    whole, part = open_synthetic("eval"), open_synthetic("eval:7")
    assert (len(whole), len(part)) == (500, 7)
    np.testing.assert_equal(part[6], whole[6])


@pytest.mark.parametrize("splits", [["eval:"], ["eval:few"], ["eval:-3"], ["val:5"], ["a", "b"]])
def test_other_splits_are_refused(splits):
    with pytest.raises(UserError, match=splits[0].removesuffix(":5")):
        open_synthetic(*splits)


def test_the_classes_of_the_synthetic_data_cannot_be_chosen():
    with pytest.raises(UserError, match="unset"):
        open_synthetic("eval", class_names=("cat",))
