"""The run folder: config.json, whole files, and runs that must not be mixed."""

import json
import logging
import re

import pytest

from configs import r34
from yolov1_jax import config as configs
from yolov1_jax import run_folder
from yolov1_jax.errors import UserError


def run_config(**changes):
    config = configs.replace(r34.get_config(), "model.class_names", ("cat", "dog"))
    for key, value in changes.items():
        config = configs.replace(config, key.replace("__", "."), value)
    return config


def test_the_config_comes_back(tmp_path):
    workdir = tmp_path / "runs" / "new"  # made on the way
    config = run_config(train__num_steps=7)
    run_folder.write_config(workdir, config)
    assert configs.flatten(run_folder.read_config(workdir)) == configs.flatten(config)
    written = json.loads((workdir / "config.json").read_text())
    assert re.fullmatch(r"4 x cpu, \d+ cores", written["device"])  # fake ones, see conftest.py
    versions = written["versions"]
    assert {"yolov1_jax", "jax", "flax", "optax", "numpy", "python"} <= versions.keys()
    assert all(version[0].isdigit() for version in versions.values())


def test_the_same_run_again_says_nothing(tmp_path, caplog):
    for _ in range(2):
        run_folder.write_config(tmp_path, run_config())
    assert caplog.text == ""


@pytest.mark.parametrize(
    "change",
    [
        {"model__backbone": "resnet18"},
        {"model__class_names": ("dog", "cat")},
        {"image_size": 224},
        {"optimizer__name": "sgd"},
        {"optimizer__ema_decay": 0.9},
        {"optimizer__clip_norm": 1.0},
        {"train__accumulation_steps": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_of_another_model_is_refused(tmp_path, change):
    run_folder.write_config(tmp_path, run_config())
    (run_folder.checkpoints_dir(tmp_path) / "10").mkdir(parents=True)
    written = (tmp_path / "config.json").read_text()
    ((key, value),) = change.items()
    expected = rf"holds a run with config\.{key.replace('__', '.')}=.* asks for "
    for is_main_process in (True, False):
        with pytest.raises(UserError, match=expected) as caught:
            run_folder.write_config(tmp_path, run_config(**change), is_main_process=is_main_process)
        assert repr(value) in str(caught.value)
    assert (tmp_path / "config.json").read_text() == written


@pytest.mark.parametrize(
    "change",
    [
        {"train__num_epochs": 3.0},
        {"optimizer__learning_rate": 0.5},
        {"train__accumulation_steps": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_may_change_is_told(tmp_path, caplog, change):
    run_folder.write_config(tmp_path, run_config())
    ((key, value),) = change.items()
    with caplog.at_level(logging.WARNING):
        run_folder.write_config(tmp_path, run_config(**change))
    name = key.replace("__", ".")
    assert [record.getMessage() for record in caplog.records] == [
        f"config.{name} was {configs.flatten(run_config())[name]!r}, is now {value!r}"
    ]
    assert configs.flatten(run_folder.read_config(tmp_path))[name] == value


def test_a_run_without_a_checkpoint_may_become_another(tmp_path):
    """The model's settings may be why it has none: its weights were refused, for example."""
    run_folder.write_config(tmp_path, run_config())
    run_folder.checkpoints_dir(tmp_path).mkdir()
    run_folder.write_config(tmp_path, run_config(model__backbone="resnet18"))
    assert run_folder.read_config(tmp_path).model.backbone == "resnet18"


def test_a_run_may_be_older_than_a_key_of_the_model(tmp_path):
    run_folder.write_config(tmp_path, run_config())
    (run_folder.checkpoints_dir(tmp_path) / "10").mkdir(parents=True)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["model"]["pretrained_format"]
    path.write_text(json.dumps(content))
    run_folder.write_config(tmp_path, run_config())
    assert run_folder.read_config(tmp_path).model.pretrained_format == "backbone"


def test_only_the_main_process_writes(tmp_path):
    run_folder.write_config(tmp_path, run_config(), is_main_process=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"config"', "\xff\x00"])
def test_a_config_that_cannot_be_read(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="expected a run's config in"):
        run_folder.read_config(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match=r"expected the config\.json of a run .* found none"):
        run_folder.read_config(tmp_path)


def test_write_json_replaces_or_leaves_alone(tmp_path):
    path = tmp_path / "eval" / "1.json"
    run_folder.write_json(path, {"mAP": None})
    for wrong in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            run_folder.write_json(path, {"mAP": wrong})
    assert path.read_text() == '{\n  "mAP": null\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["1.json"]


def test_a_run_is_not_told_to_be_shorter_than_it_is(tmp_path):
    run_folder.check_length(tmp_path, [], 10)
    run_folder.check_length(tmp_path, [5, 10], 10)
    with pytest.raises(UserError, match=r"made 2,250 steps, this command asks for 750: choose"):
        run_folder.check_length(tmp_path, [2250, 2000], 750)
