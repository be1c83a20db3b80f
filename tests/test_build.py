"""From a config to lengths, rates and options: arithmetic a person can follow."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import r34
from yolov1_jax import config as configs
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.errors import UserError
from yolov1_jax.training import build as experiment
from yolov1_jax.yolo.grid import encode_targets
from yolov1_jax.yolo.loss import yolo_loss


def config_with(**changes):
    """configs/r34.py with 10 images a step, and what `changes` say ("train__num_steps")."""
    config = configs.replace(r34.get_config(), "train.batch_size", 10)
    for key, value in changes.items():
        config = configs.replace(config, key.replace("__", "."), value)
    return config


# 105 images in steps of 10: 10.5 steps an epoch.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # num_steps, eval_every_steps, checkpoint_every_steps
        ({"train__num_epochs": 4.0, "train__eval_every_epochs": 2.0}, (42, 21, 1000)),
        ({"train__num_epochs": 1.0, "train__eval_every_epochs": 0.5}, (10, 5, 1000)),
        ({"train__num_epochs": 0.01, "train__eval_every_epochs": 0.01}, (1, 1, 1000)),
        ({"train__num_epochs": 4.0, "train__num_steps": 7}, (7, 105, 1000)),
        ({"train__num_epochs": None, "train__num_steps": 7}, (7, 105, 1000)),
        ({"train__num_steps": 7, "train__eval_every_epochs": None}, (7, 7, 1000)),
        ({"train__num_steps": 7, "train__eval_every_steps": 3}, (7, 3, 1000)),
        (
            {"train__eval_every_steps": 3, "train__checkpoint_every_steps": None},
            (1575, 3, 3),
        ),
    ],
)
def test_duration(changes, expected):
    config = config_with(train__checkpoint_every_steps=1000)
    with config.train.ignore_type():
        for key, value in changes.items():
            section, name = key.split("__")
            config[section][name] = value
    length = experiment.duration(config, 105)
    assert length == experiment.Duration(expected[0], 10.5, *expected[1:])


def test_an_epoch_of_endless_data_has_the_length_it_is_given():
    config = config_with(data__images_per_epoch=50, train__num_epochs=3.0)
    length = experiment.duration(config, 1_000_000)
    assert (length.steps_per_epoch, length.num_steps) == (5.0, 15)


def rates(config, num_images):
    """The learning rate of every update of a run."""
    length = experiment.duration(config, num_images)
    schedule = experiment.schedule(config, length)
    updates = length.num_steps // config.train.accumulation_steps
    return np.array([float(schedule(jnp.int32(update))) for update in range(updates)])


@pytest.mark.parametrize(("accumulation_steps", "updates_per_epoch"), [(1, 8), (2, 4), (4, 2)])
def test_step_schedule_by_epochs(accumulation_steps, updates_per_epoch):
    config = config_with(
        train__accumulation_steps=accumulation_steps,
        train__num_epochs=6.0,
        optimizer__schedule="step",
        optimizer__learning_rate=1.0,
        optimizer__decay_epochs=(2, 5),
        optimizer__decay_factor=0.5,
    )
    expected = np.repeat([1.0, 1.0, 0.5, 0.5, 0.5, 0.25], updates_per_epoch)
    np.testing.assert_allclose(rates(config, 80), expected)


@pytest.mark.parametrize(("accumulation_steps", "updates_per_epoch"), [(1, 8), (2, 4)])
def test_warmup_by_epochs(accumulation_steps, updates_per_epoch):
    config = config_with(
        train__accumulation_steps=accumulation_steps,
        train__num_epochs=3.0,
        optimizer__learning_rate=1.0,
        optimizer__warmup_epochs=2.0,
    )
    warmup = 2 * updates_per_epoch
    expected = [*(np.arange(1, warmup + 1) / warmup), *np.ones(updates_per_epoch)]
    np.testing.assert_allclose(rates(config, 80), expected, rtol=1e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_cosine_ends_with_the_run(accumulation_steps):
    config = config_with(
        train__accumulation_steps=accumulation_steps,
        train__num_epochs=10.0,
        optimizer__schedule="cosine",
        optimizer__learning_rate=1.0,
        optimizer__final_fraction=0.1,
    )
    found = rates(config, 80)
    progress = np.arange(len(found)) / len(found)
    np.testing.assert_allclose(found, 0.1 + 0.9 * (1 + np.cos(np.pi * progress)) / 2, rtol=1e-5)


def test_accumulation_makes_one_update_of_several_steps():
    config = config_with(
        train__accumulation_steps=2,
        train__num_steps=8,
        optimizer__name="sgd",
        optimizer__momentum=0.0,
        optimizer__weight_decay=0.0,
        optimizer__learning_rate=1.0,
        optimizer__schedule="step",
        optimizer__decay_epochs=(0.5,),  # of 8 steps = 4 updates: from the third update on
    )
    optimizer = experiment.optimizer(config, experiment.duration(config, 80))
    weight = jnp.float32(0.0)
    state = optimizer.init(weight)
    path = []
    for gradient in (-1.0, -3.0, 0.0, -2.0, -10.0, -10.0, 0.0, -20.0):
        updates, state = optimizer.update(jnp.float32(gradient), state, weight)
        weight = optax.apply_updates(weight, updates)
        path.append(float(weight))
    np.testing.assert_allclose(path, [0, 2, 2, 3, 3, 4, 4, 5], rtol=1e-6)


def test_every_option_reaches_its_function():
    """A key added to the config without a parameter, or the other way round, is noticed."""

    def keywords(function):
        parameters = inspect.signature(function).parameters.values()
        return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}

    config = r34.get_config()
    assert experiment.loss_options(config).keys() == keywords(yolo_loss)
    assert experiment.select_options(config).keys() == keywords(detections_from_predictions)
    targets = experiment.target_options(config).keys()
    assert targets == keywords(encode_targets) - {"grid_size", "num_classes"}
    assert experiment.augmentation(config) == Augmentation()


def test_build_model():
    config = config_with(
        model__backbone="resnet50",
        model__grid_size=5,
        model__boxes_per_cell=3,
        model__head_neck_channels=256,
        model__pixel_std=(0.5, 0.25, 0.125),
        compute_dtype="bfloat16",
    )
    model = experiment.build_model(config, num_classes=4)
    assert (model.num_classes, model.backbone_name, model.grid_size) == (4, "resnet50", 5)
    assert (model.boxes_per_cell, model.head_neck_channels) == (3, 256)
    assert model.pixel_std == (0.5, 0.25, 0.125)
    assert model.dtype == jnp.bfloat16
    assert model.param_dtype == jnp.float32


def test_splits_may_be_joined_by_commas(monkeypatch):
    opened = []
    monkeypatch.setattr(
        experiment, "open_source", lambda name, **options: opened.append((name, options))
    )
    config = config_with(
        data__source="folder",
        data__root="here",
        data__train=("a:train,b:train", "c:train"),
        data__eval=("a:val",),
    )
    experiment.open_train_source(config)
    experiment.open_eval_source(config)
    (name, train), (_, evaluation) = opened
    assert name == "folder"
    assert train["splits"] == ("a:train", "b:train", "c:train")
    assert evaluation["splits"] == ("a:val",)
    assert train["root"] == "here"


def test_a_mistake_in_the_splits_is_the_users():
    config = config_with(data__source="synthetic", data__train=("trian",))
    with pytest.raises(UserError, match="trian"):
        experiment.open_train_source(config)
