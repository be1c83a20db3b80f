"""Starting from a file: the settings that it contradicts, and the state that comes out."""

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy
from tiny_run import random_state, tiny_config
from torch_files import state_dict, zip_file

from yolov1_jax import config as configs
from yolov1_jax.errors import UserError
from yolov1_jax.training import build as experiment
from yolov1_jax.training.optimizer import averaged_weights
from yolov1_jax.training.pretrained import load_pretrained, with_pretrained
from yolov1_jax.training.sharding import data_mesh, replicated_sharding
from yolov1_jax.weights.formats import DETECTOR_FORMATS, describe, to_detector
from yolov1_jax.weights.safetensors_file import WeightsFile, read_weights
from yolov1_jax.weights.torchvision import to_torchvision


def config_of(format_name, **changes):
    """A narrow network with all other settings of the format's program."""
    settings = {
        key.replace(".", "__"): value
        for key, value in DETECTOR_FORMATS[format_name].settings.items()
    }
    return tiny_config(
        **{
            "model__pretrained_format": format_name,
            "model__grid_size": 1,
            "model__class_names": ("cat", "dog", "cow"),
            **settings,
            **changes,
        }
    )


def variables_of(config, seed=1):
    state = random_state(config, seed)
    return {"params": state.params, "batch_stats": state.batch_stats}


def file_of(config, metadata=None, format_name=None):
    tensors = to_detector(
        variables_of(config),
        format_name or config.model.pretrained_format,
        boxes_per_cell=config.model.boxes_per_cell,
        num_classes=len(config.model.class_names),
    )
    return WeightsFile("ref.pth", "ref.pth", "0", metadata or {}, tensors)


def load(config, file):
    return load_pretrained(file, variables_of(config, seed=2), config)[0]


@pytest.mark.parametrize("format_name", DETECTOR_FORMATS)
def test_a_whole_detector(format_name):
    config = config_of(format_name)
    configs.check(config)
    jax.tree.map(np.testing.assert_array_equal, load(config, file_of(config)), variables_of(config))


@pytest.mark.parametrize("format_name", DETECTOR_FORMATS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.head_negative_slope", 0.5),
        ("model.pixel_mean", (0.1, 0.2, 0.3)),
        ("model.pixel_std", (0.1, 0.2, 0.3)),
        ("loss.xy_unit", "cell"),
        ("loss.class_loss", "softmax"),
    ],
)
def test_a_config_that_contradicts_the_checkpoint(format_name, key, value):
    right = DETECTOR_FORMATS[format_name].settings[key]
    file = file_of(config_of(format_name))
    config = config_of(format_name, **{key.replace(".", "__"): value})
    with pytest.raises(UserError) as error:
        load(config, file)
    assert str(error.value).startswith("ref.pth, a checkpoint of ")
    assert str(error.value).endswith(f"this run has {value!r}: set config.{key} to {right!r}")


@pytest.mark.parametrize(("format_name", "right"), [("reference", None), ("torchlake", 256)])
def test_a_neck_that_one_of_them_lacks(format_name, right):
    file = file_of(config_of(format_name))
    config = config_of(format_name, model__head_neck_channels=None if right else 256)
    with pytest.raises(UserError, match=f"set config.model.head_neck_channels to {right}"):
        load(config, file)


def test_cells_of_another_size():
    file = file_of(config_of("reference"))
    config = config_of("reference", model__grid_size=2)
    message = (
        "has cells of 64 pixels, this run has 64 pixels in 2 cells: set config.image_size to 128"
    )
    with pytest.raises(UserError, match=message):
        load(config, file)
    load(config_of("reference", image_size=128, model__grid_size=2), file)


def test_the_metadata_of_a_file_of_ours_decides():
    own = config_of(
        "reference", model__grid_size=2, model__head_negative_slope=0.1, loss__xy_unit="cell"
    )
    file = file_of(own, describe(configs.flatten(own)))
    load(own, file)
    for key, value in (
        ("model.head_negative_slope", 0.0),
        ("loss.xy_unit", "image"),
        ("model.class_names", ("dog", "cat", "cow")),
        ("model.grid_size", 1),
    ):
        with pytest.raises(UserError, match=f"set config.{key} to "):
            load(configs.replace(own, key, value), file)
    load(configs.replace(configs.replace(own, "image_size", 64), "seed", 3), file)


@pytest.mark.parametrize(
    ("format_name", "asked"), [("reference", "backbone"), ("torchlake", "reference")]
)
def test_another_format_than_asked_for_is_recognised(format_name, asked):
    file = file_of(config_of(format_name))
    config = configs.replace(config_of(format_name), "model.pretrained_format", asked)
    message = (
        f"'{format_name}' file, expected .*set config.model.pretrained_format to '{format_name}'"
    )
    with pytest.raises(UserError, match=message):
        load(config, file)


def test_a_backbone_is_not_a_detector():
    config = config_of("reference")
    tensors = to_torchvision(variables_of(config))
    with pytest.raises(UserError, match="pretrained_format to 'backbone', or give another file"):
        load(config, WeightsFile("r18.pth", "r18.pth", "0", {}, tensors))


def test_another_network_is_named_with_the_settings_that_may_be_wrong():
    file = file_of(config_of("reference"))
    config = config_of("reference", model__width_multiplier=0.125)
    message = r"has shape .* is it a resnet18 \(config\.model\.backbone\), with .*multiplier 0\.125"
    with pytest.raises(UserError, match=message):
        load(config, file)


# ----------------------------------------------------------------------------------- the state


def start(config, pretrained):
    config = configs.replace(config, "model.pretrained", pretrained)
    state = random_state(config, seed=2)
    before = jax.device_get(state)
    optimizer = experiment.optimizer(config, experiment.duration(config, 100))
    return before, with_pretrained(state, config, optimizer, replicated_sharding(data_mesh()))


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_state_from_a_backbone(kind, tmp_path, capsys):
    config = tiny_config(optimizer__ema_decay=0.9)
    tensors = to_torchvision(variables_of(config))
    path = tmp_path / f"backbone.{kind}"
    if kind == "pth":
        path.write_bytes(zip_file(*state_dict(tensors)))
    else:
        path.write_bytes(safetensors.numpy.save(tensors))
    before, state = start(config, str(path))
    expected = variables_of(config)
    for found, wanted in (
        (state.params["backbone"], expected["params"]["backbone"]),
        (state.batch_stats["backbone"], expected["batch_stats"]["backbone"]),
        (state.params["head"], before.params["head"]),
        (averaged_weights(state.opt_state, None), state.params),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert int(optax.tree.get(state.opt_state, "num_updates")) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"pretrained backbone from {path} (sha256 {read_weights(path).sha256}):")


def test_nothing_asked_for_is_nothing_done():
    before, state = start(tiny_config(), None)
    jax.tree.map(np.testing.assert_array_equal, before, state)
