"""A saved run as a function of images, through the front door of the package."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_run import random_state, save_run, tiny_config

import yolov1_jax
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.detector import load, restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.training import run_folder
from yolov1_jax.training.optimizer import averaged_weights

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pixels(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3, 30: None})


def test_a_run_becomes_a_function_of_images(run):
    detector = yolov1_jax.load(str(run))
    assert detector.class_names == SyntheticSource.class_names
    assert detector.image_size == 64
    images = [pixels(50, 70, seed=1), pixels(64, 64, seed=2)]
    together = detector(images, score_threshold=0.0)
    assert [len(found.scores) > 0 for found in together] == [True, True]
    for image, expected in zip(images, together, strict=True):
        (alone,) = detector(image, score_threshold=0.0)
        for one, two in zip(alone, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)
    assert together[0].boxes_xyxy.max() <= 70


@pytest.mark.parametrize(
    ("step", "number", "reason"),
    [
        ("best", 10, "the best by mAP of the run's own evaluations (latest: 30)"),
        ("latest", 30, "the latest"),
        (20, 20, "as asked for"),
        ("20", 20, "as asked for"),
    ],
)
def test_the_step_is_chosen(run, step, number, reason):
    restored = restore_variables(run, step)
    assert (restored.step, restored.reason) == (number, reason)


def test_weights_are_the_averaged_ones_of_the_step(run):
    state = random_state(tiny_config(), seed=20)
    variables = restore_variables(run, 20).variables
    expected = {
        "params": averaged_weights(state.opt_state, None),
        "batch_stats": state.batch_stats,
    }
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    kernels = [one["backbone"]["conv1"]["kernel"] for one in (expected["params"], state.params)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_without_an_evaluation_best_is_the_latest(tmp_path):
    save_run(tmp_path, {1: None, 2: None})
    restored = restore_variables(tmp_path, "best")
    assert restored.step == 2
    assert restored.reason.startswith("the latest: none has been evaluated")


def test_a_run_may_be_older_than_a_key_of_the_config(tmp_path):
    save_run(tmp_path, {1: None})
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["data"]["images_per_epoch"]
    path.write_text(json.dumps(content))
    assert restore_variables(tmp_path, "best").step == 1


@pytest.mark.parametrize("step", ["15", 15, "newest", "-1", "", "1e1", "²"])
def test_a_step_that_is_not_there(run, step):
    with pytest.raises(UserError, match=r"one of \[10, 20, 30\], got"):
        load(run, step)


def test_no_run_and_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"expected the config\.json of a run"):
        load(tmp_path / "nothing")
    run_folder.write_config(tmp_path, tiny_config())
    with pytest.raises(UserError, match="train first"):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"expected a checkpoint in .* found none: train first"):
        load(tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    save_run(tmp_path, {1: None, 2: None})
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint 2 in .* is damaged .* one of \[1, 2\]"):
        load(tmp_path, "latest")
    assert restore_variables(tmp_path, 1).step == 1


# ---------------------------------------------------------------------------- the front door


def test_importing_the_package_is_quick():
    program = (
        "import sys, yolov1_jax; print(yolov1_jax.__version__, yolov1_jax.__all__);"
        "print(*{'jax', 'numpy', 'flax'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    version, modules = result.stdout.splitlines()
    assert version.endswith("['__version__', 'load']")
    assert version[0].isdigit()
    assert modules == ""


def test_the_front_door_has_no_other_names():
    assert yolov1_jax.load is load
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = yolov1_jax.laod
