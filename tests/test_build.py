"""From a config to lengths, rates and options: arithmetic a person can follow."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import save_run

from yolov1_jax import config as configs
from yolov1_jax.config import UserError, shipped_config
from yolov1_jax.training import build


def config_with(**changes):
    """configs/r34.py with 10 images a step, and what `changes` say ("train__num_steps")."""
    config = configs.replace(shipped_config("r34"), "train.batch_size", 10)
    config = configs.replace(config, "model.class_names", tuple("abcdefghijklmnopqrst"))
    for key, value in changes.items():
        config = configs.replace(config, key.replace("__", "."), value)
    return config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # (num_steps, eval_every_steps, checkpoint_every_steps, plain_from_step) of 105 images in
        # steps of 10
        ({"num_epochs": 4.0, "eval_every_epochs": 2.0}, (42, 21, 1000, 42)),
        ({"num_epochs": 1.0, "eval_every_epochs": 0.5}, (10, 5.25, 1000, 10)),
        ({"num_epochs": 0.01, "eval_every_epochs": 0.01}, (1, 1, 1000, 1)),
        ({"num_epochs": 4.0, "num_steps": 7}, (7, 105, 1000, 7)),
        ({"num_epochs": None, "num_steps": 7, "eval_every_epochs": None}, (7, 7, 1000, 7)),
        ({"num_steps": 7, "eval_every_steps": 3}, (7, 3, 1000, 7)),
        ({"num_epochs": 4.0, "min_steps": 50}, (50, 105, 1000, 50)),
        ({"num_epochs": 4.0, "min_steps": 7}, (42, 105, 1000, 42)),
        ({"num_steps": 0, "min_steps": 50}, (0, 105, 1000, 0)),
        ({"eval_every_steps": 3, "checkpoint_every_steps": None}, (1575, 3, 1575, 1575)),
        ({"num_epochs": 4.0, "plain_fraction": 0.25}, (42, 105, 1000, 32)),
    ],
)
def test_length(changes, expected):
    changes = {"checkpoint_every_steps": 1000, **changes}
    config = config_with(**{f"train__{key}": value for key, value in changes.items()})
    num_steps, *others = expected
    assert build.run_length(config, 105) == build.Length(num_steps, 10.5, *others)


def test_evaluations_are_at_the_nearest_steps_and_at_the_end():
    length = build.Length(63, 10.5, 10.5, 1000, 63)
    steps = [step for step in range(1, 64) if length.evaluates_after(step)]
    assert steps == [10, 21, 32, 42, 52, 63]  # 31.5 and 52.5 are rounded to even


def test_an_epoch_of_endless_data_has_the_length_it_is_given():
    config = config_with(data__images_per_epoch=50, train__num_epochs=3.0)
    assert build.run_length(config, 1_000_000)[:2] == (15, 5.0)


COSINE = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(24) / 24)) / 2


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "step", "decay_epochs": (1, 2)}, [1] * 8 + [0.5] * 8 + [0.25] * 8),
        ({"warmup_epochs": 2.0}, [*(np.arange(1, 17) / 16), *[1] * 8]),
        ({"schedule": "cosine", "final_fraction": 0.1}, COSINE),
    ],
)
@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_schedules_by_epochs(accumulation_steps, options, rates):
    """`rates` of every step; an update of several steps has the rate of its last warm-up step."""
    options = {"learning_rate": 1.0, "decay_factor": 0.5, **options}
    config = config_with(
        train__accumulation_steps=accumulation_steps,
        train__num_epochs=3.0,
        **{f"optimizer__{key}": value for key, value in options.items()},
    )
    schedule = build.Setup(config, num_images=80).learning_rate  # 8 steps an epoch
    first = accumulation_steps - 1 if "warmup_epochs" in options else 0
    expected = rates[first::accumulation_steps]
    found = [float(schedule(jnp.int32(update))) for update in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_schedule_of_yolov1_cfg():
    """The update numbered 200, counted from 1, is the first with the second rate, and so on."""
    config = config_with(
        train__accumulation_steps=8,
        train__num_steps=8 * 40_000,
        optimizer__learning_rate=0.0005,
        optimizer__schedule="step",
        optimizer__decay_updates=(200, 400, 600, 20_000, 30_000),
        optimizer__decay_scales=(2.5, 2.0, 2.0, 0.1, 0.1),
    )
    schedule = build.Setup(config).learning_rate
    last_of = {199: 0.0005, 399: 0.00125, 599: 0.0025, 19_999: 0.005, 29_999: 0.0005}
    for number, rate in [*last_of.items(), (40_000, 0.00005)]:
        assert float(schedule(jnp.int32(number - 1))) == pytest.approx(rate, rel=1e-5)
    firsts = [float(schedule(jnp.int32(number))) for number in last_of]
    np.testing.assert_allclose(firsts, [0.00125, 0.0025, 0.005, 0.0005, 0.00005], rtol=1e-5)


def test_the_network_of_r34_is_the_references():
    """REFERENCE, section 2.2: ResNet-34 with four convolutions of 1024 channels and one of 30."""
    head = build.Setup(config_with()).abstract_state().params["head"]
    shapes = {name: head[name]["kernel"].shape for name in head if name[:2] != "bn"}
    middle = {f"conv{i}": (3, 3, 1024, 1024) for i in (2, 3, 4)}
    assert shapes == {"conv1": (3, 3, 512, 1024), **middle, "predict": (1, 1, 1024, 30)}
    assert [name for name in shapes if "bias" in head[name]] == ["predict"]


def test_a_damaged_checkpoint_does_not_hide_the_others(tmp_path):
    save_run(tmp_path, {3: 0.25, 6: 0.5})
    (tmp_path / "checkpoints" / "6" / "metrics" / "metrics").write_text("")
    assert build.restore_run(tmp_path).step == 3
    with pytest.raises(UserError, match="checkpoint 6"):
        build.restore_run(tmp_path, "latest")


def test_a_run_of_classification_is_no_detector():
    with pytest.raises(UserError, match="classification"):
        build.select_options(config_with(task="classification"))
