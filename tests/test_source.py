"""Opening a source by the names that configs use."""

import numpy as np
import pytest

from yolov1_jax.data.source import open_source
from yolov1_jax.data.synthetic import NUM_IMAGES
from yolov1_jax.errors import UserError


def open_synthetic(*splits, class_names=None):
    return open_source(
        "synthetic",
        root=None,
        splits=splits,
        class_names=class_names,
        unknown_classes="refuse",
        image_size=64,
        seed=0,
    )


def test_a_split_of_the_synthetic_source_may_be_a_part_of_it():
    whole, part = open_synthetic("eval"), open_synthetic("eval:7")
    assert (len(whole), len(part)) == (NUM_IMAGES["eval"], 7)
    for name in ("image", "boxes_xyxy", "labels"):
        np.testing.assert_array_equal(part[6][name], whole[6][name])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["eval:"], "expected a split such as .* found 'eval:'"),
        (["eval:few"], "found 'eval:few'"),
        (["eval:-3"], "found 'eval:-3'"),
        (["eval:0"], "number of images .* at least 1, found 0"),
        (["val:5"], "found 'val'"),
        (["train", "eval"], "takes one split"),
    ],
)
def test_other_splits_are_refused(splits, message):
    with pytest.raises(UserError, match=message):
        open_synthetic(*splits)


def test_the_classes_of_the_synthetic_source_cannot_be_chosen():
    names = open_synthetic("eval").class_names
    assert open_synthetic("eval", class_names=list(names)).class_names == names
    with pytest.raises(UserError, match="leave it unset"):
        open_synthetic("eval", class_names=("cat",))
