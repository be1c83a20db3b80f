"""The code of docs/extending.md works as it stands."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from yolov1_jax.data.annotated_images import AnnotatedImages
from yolov1_jax.yolo.grid import GridTargets, Predictions

pytestmark = pytest.mark.slow  # it traces a whole train step
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def names():
    """What the page's code defines, all its blocks one after the other."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    found = {"__name__": "extending"}
    exec("\n".join(code), found)
    yield found
    del found["BACKBONES"]["plain"]


def test_the_new_term_is_part_of_the_loss(names):
    # One object; the cell's two boxes are equal, so that their IoU is 1.
    outputs = Predictions(
        np.full((1, 1, 1, 2, 4), 0.5), np.zeros((1, 1, 1, 2)), np.zeros((1, 1, 1, 1))
    )
    targets = GridTargets(
        np.ones((1, 1, 1), bool), np.full((1, 1, 1, 4), 0.5), np.ones((1, 1, 1, 1))
    )
    outputs, targets = jax.tree.map(jax.numpy.asarray, (outputs, targets))
    options = {"xy_unit": "cell", "prediction": "raw", "reduction": "sum"}
    loss = jax.jit(functools.partial(names["loss_with_variety"], **options))(outputs, targets)
    assert loss.terms["variety"] == pytest.approx(0.1)
    assert loss.total == pytest.approx(sum(map(float, loss.terms.values())))


def test_the_train_step_logs_the_new_term(names):
    state = jax.eval_shape(names["setup"].create_state, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((2, 128, 128, 3), np.uint8),
        "boxes_xyxy": jax.ShapeDtypeStruct((2, 1, 4), np.float32),
        "labels": jax.ShapeDtypeStruct((2, 1), np.int32),
        "valid": jax.ShapeDtypeStruct((2, 1), bool),
    }
    _, metrics = names["train_step"].eval_shape(state, batch)
    assert "loss/variety" in metrics


def test_the_new_reader_gives_images_and_boxes(names, tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "a.png")
    (tmp_path / "boxes.csv").write_text("train/a.png,cat,0,0,10,20\ntrain/a.png,dog,5,5,40,30\n")
    found = names["find"](str(tmp_path), ["boxes.csv", "train/a.png"])
    images = found.splits["train"]().images
    source = AnnotatedImages(str(tmp_path), images, found.report, None)
    assert source.class_names == ("cat", "dog")
    assert source[0].boxes_xyxy.tolist() == [[1, 1, 10, 20], [6, 6, 40, 30]]
