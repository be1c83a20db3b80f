"""A run's weights as safetensors: what is in the file, and that it comes back bit for bit."""

import json

import jax
import numpy as np
import pytest
from tiny_run import save_run, tiny_config

from yolov1_jax import config as configs
from yolov1_jax import export
from yolov1_jax.training.build import restore_run
from yolov1_jax.training.pretrained import load_pretrained
from yolov1_jax.weights.darknet import read_darknet
from yolov1_jax.weights.safetensors_file import read_weights

PLAIN = tiny_config(optimizer__ema_decay=0.9)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One with averaged weights, its best at step 10; one with a neck that was never evaluated."""
    necked = tiny_config(model__head_neck_channels=256, optimizer__ema_decay=None)
    folder = tmp_path_factory.mktemp("runs")
    return {
        "plain": save_run(folder / "plain", {10: 0.5, 20: 0.3}, PLAIN),
        "necked": save_run(folder / "necked", {2: None, 3: None}, necked),
    }


@pytest.mark.parametrize(
    ("name", "flags", "format_name", "step", "num_arrays"),
    [
        ("plain", [], "reference", 10, 146),
        ("necked", [], "torchlake", 3, 148),
        # torchvision's 122 arrays without the two of the classifier
        ("plain", ["--format=backbone", "--step=20"], "backbone", 20, 120),
    ],
)
def test_weights_come_back(runs, tmp_path, name, flags, format_name, step, num_arrays):
    output = tmp_path / "new" / "out.safetensors"
    assert export.main([f"--workdir={runs[name]}", f"--output={output}", *flags]) == 0

    setup, variables, *_ = restore_run(runs[name], step)
    variables = jax.device_get(variables)
    config = configs.replace(setup.config, "model.pretrained_format", format_name)
    file = read_weights(output)
    loaded, _ = load_pretrained(file, jax.tree.map(np.zeros_like, variables), config)
    if format_name == "backbone":
        loaded, variables = (
            {key: tree["backbone"] for key, tree in one.items()} for one in (loaded, variables)
        )
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert len(file.tensors) == num_arrays
    counters = [array for key, array in file.tensors.items() if "num_batches_tracked" in key]
    np.testing.assert_array_equal(counters[0], np.array(step), strict=True)

    assert file.metadata["format"] == "pt"
    metadata = {
        k: json.loads(v) for k, v in file.metadata.items() if k not in ("format", "program")
    }
    assert metadata["weights_format"] == format_name
    assert metadata.get("channel_layout") == (None if format_name == "backbone" else format_name)
    for key in ("class_names", "pixel_mean", "pixel_std", "width_multiplier", "grid_size"):
        assert metadata[key] == json.loads(json.dumps(config.model[key]))
    assert (metadata["step"], metadata["averaged"]) == (step, name == "plain")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--workdir={plain}", "--output"),
        ("--output={out}", "--workdir"),
        ("--workdir={plain} --output={out}.pth", "only .safetensors"),
        ("--workdir={plain}/x --output={out}", "config.json"),
        ("--workdir={plain} --output={out} --step=15", "[10, 20]"),
        ("--workdir={plain} --output={out} --format=torchlake", "--format=reference"),
        ("--workdir={necked} --output={out} --format=reference", "--format=torchlake"),
        ("--workdir={plain} --output={out} --outputs=boxes", "--outputs"),
        ("--workdir={plain} --output={out} dog.jpg", "dog.jpg"),
        ("--workdir={plain} --format=tflite", "--batch_size"),
    ],
)
def test_mistakes(runs, tmp_path, capsys, arguments, word):
    places = {**runs, "out": tmp_path / "out.safetensors"}
    assert export.main(arguments.format(**places).split()) == 2
    assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_classifier_goes_with_its_backbone(tmp_path):
    """In torchvision's naming: 122 arrays of a ResNet-18, and as many counters as BatchNorms."""
    config = tiny_config(task="classification")
    run = save_run(tmp_path / "run", {1: None}, config)
    assert export.main([f"--workdir={run}", f"--output={tmp_path}/out.safetensors"]) == 0
    tensors = read_weights(tmp_path / "out.safetensors").tensors
    last = restore_run(run).variables["params"]["head"]["predict"]
    assert len(tensors) == 122
    np.testing.assert_array_equal(tensors["fc.weight"], np.transpose(last["kernel"]))
    np.testing.assert_array_equal(tensors["fc.bias"], last["bias"])


def test_a_classifier_of_darknet(tmp_path):
    """Its last layer, a 1x1 convolution in Darknet, is biases and weights [filter, channel]."""
    config = tiny_config(task="classification", model__backbone="fast", model__norm="darknet")
    run = save_run(tmp_path / "run", {1: None}, config)
    path = tmp_path / "out.weights"
    assert export.main([f"--workdir={run}", f"--output={path}"]) == 0
    variables = jax.device_get(restore_run(run).variables)
    last = variables["params"]["head"]["predict"]
    numbers = np.concatenate([last["bias"], last["kernel"].T.reshape(-1)])
    np.testing.assert_array_equal(np.fromfile(path, "<f4")[-numbers.size :], numbers)
    # A detector takes the backbone from it.
    loaded, report = read_darknet(path, jax.tree.map(np.zeros_like, variables), partial=True)
    assert "6 outputs" in report
    for name, part in loaded.items():
        jax.tree.map(np.testing.assert_array_equal, part["backbone"], variables[name]["backbone"])
