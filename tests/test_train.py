"""Commands that training refuses: early, and without a trace in the run folder."""

import pytest
from tiny_run import tiny_config

from yolov1_jax.errors import UserError
from yolov1_jax.train import train_and_evaluate
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder


def config_with(**changes):
    return tiny_config(**{"data__train": ("train:8",), "train__batch_size": 4, **changes})


def contents(folder):
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def no_data(monkeypatch):
    def fail(config):
        pytest.fail("data is read")

    monkeypatch.setattr(experiment, "open_train_source", fail)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2**32},
        {"model__grid_size": 5},
        {"image_size": 65},
        {"data__augmentation__hue": 3.0},
        {"train__batch_size": 6},
        {"model__pretrained": "/no/weights.safetensors"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_config_shows_is_refused_before_data_is_read(tmp_path, no_data, change):
    with pytest.raises(UserError):
        train_and_evaluate(config_with(**change), tmp_path / "run")
    assert not contents(tmp_path)


@pytest.mark.parametrize("place", ["/dev/null/run", "/proc/run", "file", "file/run", "a" * 300])
def test_a_run_folder_that_cannot_be_made_is_refused_before_data_is_read(
    tmp_path, no_data, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^expected a --workdir to write in, found "):
        train_and_evaluate(config_with(), tmp_path / place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__augmentation__hue": 3.0}, "hue: expected a number from 0 to 0.5"),
        ({"loss__xy_unit": "image"}, "holds a run with config.loss.xy_unit='cell'"),
        ({"train__num_steps": 5}, "holds a run that has made 10 steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refused_command_leaves_a_run_as_it_is(tmp_path, change, message):
    run_folder.write_config(tmp_path, config_with(loss__xy_unit="cell"))
    (run_folder.checkpoints_dir(tmp_path) / "10").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        train_and_evaluate(config_with(**{"loss__xy_unit": "cell", **change}), tmp_path)
    assert contents(tmp_path) == before


def test_a_run_whose_checkpoints_are_damaged_keeps_its_config(tmp_path):
    run_folder.write_config(tmp_path, config_with(train__num_steps=20))
    (run_folder.checkpoints_dir(tmp_path) / "10").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="found only damaged ones"):
        train_and_evaluate(config_with(train__num_steps=30), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
