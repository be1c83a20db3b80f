"""Starting from a file: the settings that it contradicts, and the state that comes out."""

import jax
import numpy as np
import optax
import pytest
from tiny_run import random_state, save_run, tiny_config

from yolov1_jax import config as configs
from yolov1_jax.config import UserError
from yolov1_jax.training.build import Setup
from yolov1_jax.training.optimizer import averaged_weights
from yolov1_jax.training.pretrained import check_pretrained, load_pretrained, with_pretrained
from yolov1_jax.weights.formats import FORMATS, describe, to_format
from yolov1_jax.weights.safetensors_file import WeightsFile, write_safetensors


def config_of(format_name, **changes):
    """A narrow network with all other settings of the format's program."""
    settings = {k.replace(".", "__"): v for k, v in FORMATS[format_name].settings.items()}
    settings |= {"model__pretrained_format": format_name, "model__grid_size": 1, **changes}
    return tiny_config(**settings)


def variables_of(config, seed=1):
    state = random_state(config, seed)
    return {"params": state.params, "batch_stats": state.batch_stats}


def file_of(config, metadata=None):
    name, boxes_per_cell = config.model.pretrained_format, config.model.boxes_per_cell
    tensors = to_format(variables_of(config), name, boxes_per_cell=boxes_per_cell)
    return WeightsFile("ref.pth", "0", metadata or {}, tensors)


def assert_refused(file, config, key, value, message):
    with pytest.raises(UserError, match=rf"^ref\.pth.*{message}"):
        load_pretrained(file, variables_of(config), configs.replace(config, key, value))


@pytest.mark.parametrize("format_name", ["reference", "torchlake"])
def test_a_whole_detector(format_name):
    config = config_of(format_name)
    file = file_of(config)
    # Larger images have more cells, not larger ones.
    larger = configs.replace(configs.replace(config, "image_size", 128), "model.grid_size", 2)
    for run in (config, larger):
        loaded, _ = load_pretrained(file, variables_of(run, seed=2), run)
        jax.tree.map(np.testing.assert_array_equal, loaded, variables_of(config))
    for key, value in (
        *(("model.head_negative_slope", 0.5), ("model.pixel_std", (0.1, 0.2, 0.3))),
        *(("loss.xy_unit", "cell"), ("loss.class_loss", "softmax")),
        ("model.prediction", "sigmoid"),
        ("model.head_neck_channels", 128),
    ):
        assert_refused(file, config, key, value, f"needs config.{key}=")
    assert_refused(file, config, "model.grid_size", 2, "needs config.image_size=128, found 64")


def test_the_metadata_of_our_own_files_decides():
    own = config_of("reference", image_size=32, model__head_negative_slope=0.1)
    file = file_of(own, describe(configs.flatten(own)))
    load_pretrained(file, variables_of(own), own)
    for key, value in (
        ("model.head_negative_slope", 0.0),
        ("model.class_names", own.model.class_names[::-1]),
        ("image_size", 64),
    ):
        assert_refused(file, own, key, value, f"needs config.{key}=")
    # That of another program may have the same names.
    other = config_of("reference")
    for text in ("64x64", "[" * 100_000):
        load_pretrained(file._replace(metadata={"image_size": text}), variables_of(other), other)
    file = file._replace(metadata={"image_size": '"64"'})
    assert_refused(file, other, "seed", 1, "metadata")


@pytest.mark.parametrize("found", FORMATS)
def test_another_format_than_asked_for_is_recognised(found):
    config, asked = config_of(found), "reference" if found == "backbone" else "backbone"
    message = f"set config.model.pretrained_format to '{found}'"
    assert_refused(file_of(config), config, "model.pretrained_format", asked, message)


def test_another_network_is_named_with_the_settings_that_may_be_wrong():
    config = config_of("reference", model__class_names=("a", "b"))
    message = "has shape .* is it a resnet18 .*0.0625.* 2 class_names"
    assert_refused(file_of(config_of("reference")), config, "seed", 1, message)


def test_a_wrong_file_is_found_before_there_is_any_data(tmp_path):
    path = str(tmp_path / "backbone.safetensors")
    config = tiny_config(model__pretrained=path)
    write_safetensors(path, to_format(variables_of(config), "backbone", boxes_per_cell=2), {})
    config = configs.replace(config, "model.class_names", None)
    check_pretrained(config)
    for key, value in (("model.backbone", "resnet34"), ("model.pretrained", str(tmp_path))):
        with pytest.raises(UserError, match=str(tmp_path)):
            check_pretrained(configs.replace(config, key, value))


def test_a_state_from_a_backbone(tmp_path, capsys):
    path = tmp_path / "backbone.safetensors"
    config = tiny_config(optimizer__ema_decay=0.9, model__pretrained=str(path))
    expected = variables_of(config)
    write_safetensors(path, to_format(expected, "backbone", boxes_per_cell=2), {})
    before, setup = random_state(config, seed=2), Setup(config)
    state = with_pretrained(before, setup)
    for found, wanted in (
        (state.params["backbone"], expected["params"]["backbone"]),
        (state.batch_stats["backbone"], expected["batch_stats"]["backbone"]),
        (state.params["head"], before.params["head"]),
        (averaged_weights(state.opt_state, None), state.params),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert int(optax.tree.get(state.opt_state, "num_updates")) == 0
    assert f"from {path} (sha256 " in capsys.readouterr().out


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_state_from_a_run(tmp_path, task):
    """Its best checkpoint's backbone, with the averaged weights."""
    trained = tiny_config(task=task, optimizer__ema_decay=0.9, model__class_names=("cat", "dog"))
    save_run(tmp_path, {5: 0.75, 6: 0.5}, trained)
    best = random_state(trained, seed=5)
    average = averaged_weights(best.opt_state, None)["backbone"]
    # A config whose files would be Darknet's.
    config = tiny_config(model__pretrained=str(tmp_path), model__pretrained_format="darknet")
    check_pretrained(config)
    before, setup = random_state(config, seed=2), Setup(config)
    state = with_pretrained(before, setup)
    for found, wanted in (
        (state.params["backbone"], average),
        (state.batch_stats["backbone"], best.batch_stats["backbone"]),
        (state.params["head"], before.params["head"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    for key, value in (("model.backbone", "resnet34"), ("model.pixel_mean", (0.5, 0.5, 0.5))):
        with pytest.raises(UserError, match=f"needs config.{key}="):
            check_pretrained(configs.replace(config, key, value))
