"""The run folder: config.json, whole files, and runs that must not be mixed."""

import errno
import json
import logging
import pathlib
import re

import pytest
from end_to_end import finish
from tiny_run import save_run, tiny_config

from configs import quickstart, r34
from yolov1_jax import config as configs
from yolov1_jax.errors import UserError
from yolov1_jax.training import run_folder


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
        {"loss__xy_unit": "cell"},
        {"loss__class_loss": "softmax"},
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
        {"model__pretrained": "moved/r18.pth"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_may_change_is_told(tmp_path, caplog, change):
    run_folder.write_config(tmp_path, run_config())
    (run_folder.checkpoints_dir(tmp_path) / "10").mkdir(parents=True)
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


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"config"', "\xff\x00", "[" * 100_000])
def test_a_config_that_cannot_be_read(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="expected a run's config in"):
        run_folder.read_config(tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match=r"expected the config\.json of a run .* found none"):
        run_folder.read_config(tmp_path)
    with pytest.raises(UserError, match=r"expected the config\.json of a run .* found none"):
        run_folder.read_config(tmp_path / ("a" * 300))


def test_write_json_replaces_or_leaves_alone(tmp_path):
    path = tmp_path / "eval" / "1.json"
    run_folder.write_json(path, {"mAP": None})
    for wrong in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            run_folder.write_json(path, {"mAP": wrong})
    assert path.read_text() == '{\n  "mAP": null\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["1.json"]


@pytest.mark.parametrize("place", ["", ".", "/", "folder", "file/1.json", "a" * 300, "/dev/null/1"])
def test_write_json_where_nothing_can_be_written(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^expected .* write.*, found"):
        run_folder.write_json(pathlib.Path(place), {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_write_json_on_a_full_disk(tmp_path, monkeypatch):
    def fill(path, text):
        path.write_bytes(text.encode()[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", fill)
    with pytest.raises(UserError, match=r"write .*1\.json, found: No space left on device; choose"):
        run_folder.write_json(tmp_path / "1.json", {"mAP": 0.5})
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_told_to_be_shorter_than_it_is(tmp_path):
    run_folder.check_length(tmp_path, [], 10)
    run_folder.check_length(tmp_path, [5, 10], 10)
    with pytest.raises(UserError, match=r"made 2,250 steps, this command asks for 750: choose"):
        run_folder.check_length(tmp_path, [2250, 2000], 750)


def test_the_program_does_not_shorten_a_run(program, tmp_path):
    save_run(tmp_path, {30: None}, tiny_config(train__num_steps=30))
    before = (tmp_path / "config.json").read_text()
    flags = {
        key: value
        for key, value in configs.flatten(tiny_config()).items()
        if value != configs.flatten(quickstart.get_config()).get(key) and value is not None
    }
    ended = finish(
        program.start_with(
            [
                f"--workdir={tmp_path}",
                "--config.train.num_steps=20",
                "--config.data.train=train:8",
                *(f"--config.{key}={value}" for key, value in flags.items()),
            ]
        )
    )
    assert ended.code == 2, ended.err
    assert ended.err.startswith(f"error: {tmp_path} holds a run that has made 30 steps, this comm")
    assert ended.err.count("\n") == 1
    assert (tmp_path / "config.json").read_text() == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["30"]
