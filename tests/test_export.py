"""A run's weights as safetensors: what is in them, and that they come back bit for bit."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from tiny_run import save_run, tiny_config

from yolov1_jax import config as configs
from yolov1_jax.detector import restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.export import export_weights
from yolov1_jax.training.pretrained import load_pretrained
from yolov1_jax.weights.safetensors_file import read_metadata, read_weights
from yolov1_jax.weights.torchvision import load_backbone

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With averaged weights, which are what it evaluates with; the best is step 10."""
    config = tiny_config(optimizer__ema_decay=0.9)
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3}, config)


@pytest.fixture(scope="module")
def necked(tmp_path_factory):
    config = tiny_config(
        model__head_neck_channels=256, model__head_negative_slope=0.1, optimizer__ema_decay=None
    )
    return save_run(tmp_path_factory.mktemp("necked"), {3: None}, config)


def config_of(workdir, format_name):
    config = configs.from_json(json.loads((workdir / "config.json").read_text())["config"])
    return configs.replace(config, "model.pretrained_format", format_name)


def zeros(variables):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)


@pytest.mark.parametrize("format_name", ["reference", None])
def test_a_detector_comes_back_bit_for_bit(run, tmp_path, format_name):
    path = tmp_path / "out.safetensors"
    export_weights(run, path, format_name=format_name)
    variables = restore_variables(run, "best").variables
    config = config_of(run, "reference")
    loaded, _ = load_pretrained(read_weights(path), zeros(variables), config)
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, other, strict=True),
        loaded,
        jax.device_get(variables),
    )
    names = set(safetensors.numpy.load_file(path))
    assert {"conv.0.weight", "conv_out.0.bias", "backbone.conv1.weight"} <= names


def test_a_detector_with_a_neck_comes_back_bit_for_bit(necked, tmp_path):
    path = tmp_path / "out.safetensors"
    export_weights(necked, path)
    variables = restore_variables(necked, "best").variables
    loaded, _ = load_pretrained(
        read_weights(path), zeros(variables), config_of(necked, "torchlake")
    )
    jax.tree.map(np.testing.assert_array_equal, loaded, jax.device_get(variables))
    assert "neck.4.0.bias" in safetensors.numpy.load_file(path)


def test_a_backbone_comes_back_bit_for_bit(run, tmp_path):
    path = tmp_path / "out.safetensors"
    export_weights(run, path, step=20, format_name="backbone")
    variables = restore_variables(run, 20).variables
    loaded, report = load_backbone(path, zeros(variables), "resnet18")
    for collection in ("params", "batch_stats"):
        one, other = (tree[collection]["backbone"] for tree in (loaded, variables))
        jax.tree.map(np.testing.assert_array_equal, one, jax.device_get(other))
    tensors = safetensors.numpy.load_file(path)
    assert len(tensors) == 120  # the classifier's two are missing from torchvision's 122
    assert tensors["bn1.num_batches_tracked"] == 20
    assert tensors["bn1.num_batches_tracked"].shape == ()
    assert len(report.ignored) == 20


def test_what_the_file_says_of_itself(run, tmp_path):
    path = tmp_path / "out.safetensors"
    lines = export_weights(run, path)
    metadata = read_metadata(path)
    assert metadata["format"] == "pt"
    config = config_of(run, "reference")
    said = {
        key: json.loads(value)
        for key, value in metadata.items()
        if key not in ("format", "program")
    }
    assert said["class_names"] == list(config.model.class_names)
    assert said["channel_layout"] == "reference"
    assert said["pixel_mean"] == list(config.model.pixel_mean)
    assert said["pixel_std"] == list(config.model.pixel_std)
    assert (said["step"], said["averaged"], said["grid_size"]) == (10, True, 2)
    assert lines[0] == f"{run}: step 10, the best by mAP of the run's own evaluations (latest: 20)"
    assert lines[1].startswith(f"{path}: reference, 146 arrays, ")
    assert any("config.model.width_multiplier is 0.0625" in line for line in lines)
    assert any("config.loss.xy_unit is" in line for line in lines) == (
        config.loss.xy_unit != "image"
    )


def test_a_run_that_is_older_than_some_keys(run, tmp_path):
    path = run / "config.json"
    whole = path.read_text()
    content = json.loads(whole)
    del content["config"]["model"]["pretrained_format"]
    del content["config"]["data"]["images_per_epoch"]
    path.write_text(json.dumps(content))
    try:
        export_weights(run, tmp_path / "out.safetensors")
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 15}, r"step must be 'best', 'latest' or one of \[10, 20\]"),
        ({"format_name": "torchlake"}, "torchlake has a neck, .* is None: --format=reference"),
        ({"format_name": "keras"}, "format must be one of"),
        ({"output": "out.pth"}, r"expected --output=FILE\.safetensors, found 'out\.pth'"),
    ],
)
def test_mistakes(run, tmp_path, arguments, message):
    output = pathlib.Path(arguments.pop("output", tmp_path / "out.safetensors"))
    with pytest.raises(UserError, match=message):
        export_weights(run, output, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_neck_has_no_place_in_the_reference(necked, tmp_path):
    with pytest.raises(UserError, match=r"has no neck, .* is 256: --format=torchlake"):
        export_weights(necked, tmp_path / "out.safetensors", format_name="reference")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--workdir={run}"], 2, "error: --output is missing"),
        (["--workdir={run}/x", "--output={out}"], 2, "error: expected the config.json of a run"),
        (["--help"], 0, "--format: <backbone|reference|torchlake>"),
        (["--workdir={run}", "--output={out}", "--format=backbone"], 0, "backbone, 120 arrays"),
    ],
)
def test_the_command(run, tmp_path, arguments, code, said):
    places = {"run": run, "out": tmp_path / "out.safetensors"}
    result = subprocess.run(
        [sys.executable, "-m", "yolov1_jax.export", *(one.format(**places) for one in arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result.stderr
    assert said in result.stdout + result.stderr
    assert len(result.stderr.splitlines()) <= (code != 0)
    assert places["out"].exists() == (code == 0 and "help" not in arguments[0])
