"""The run folder: config.json, whole files, and runs that must not be mixed."""

import errno
import functools
import json
import logging
import re
import resource

import pytest

from yolov1_jax import config as configs
from yolov1_jax.config import UserError
from yolov1_jax.training import run_folder


def run_config():
    return configs.replace(configs.shipped_config("r34"), "model.class_names", ("cat", "dog"))


@pytest.fixture
def run(tmp_path):
    """The folder of a run with a checkpoint."""
    run_folder.write_config(tmp_path, run_config())
    (run_folder.checkpoints_dir(tmp_path) / "2250").mkdir(parents=True)
    return tmp_path


def test_the_config_comes_back(tmp_path, caplog):
    workdir = tmp_path / "runs" / "new"  # made on the way
    config = configs.replace(run_config(), "train.num_steps", 7)
    for _ in range(2):
        run_folder.write_config(workdir, config)
    assert caplog.text == ""
    assert configs.flatten(run_folder.read_config(workdir)) == configs.flatten(config)
    written = json.loads((workdir / "config.json").read_text())
    assert re.fullmatch(r"4 x cpu, \d+ cores", written["device"])  # fake ones, see conftest.py
    assert {"yolov1_jax", "jax", "flax", "python"} <= written["versions"].keys()


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.backbone", "resnet18", False),
        ("model.class_names", ("dog", "cat"), False),
        ("image_size", 224, False),
        ("loss.xy_unit", "cell", False),
        ("loss.class_loss", "softmax", False),
        ("optimizer.name", "sgd", False),
        ("optimizer.ema_decay", 0.9, False),
        ("optimizer.clip_norm", 1.0, False),
        ("train.accumulation_steps", 1, False),
        ("train.accumulation_steps", 8, True),
        ("optimizer.learning_rate", 0.5, True),
        ("model.pretrained", "moved/r18.pth", True),
    ],
)
def test_which_settings_of_a_run_may_change(run, caplog, key, value, allowed):
    config = configs.replace(run_config(), key, value)
    if not allowed:
        with pytest.raises(UserError, match=f"config.{key}="):
            run_folder.check_run(run, config, 2250)
        return
    run_folder.check_run(run, config, 2250)
    with caplog.at_level(logging.WARNING):
        run_folder.write_config(run, config)
    (record,) = caplog.records
    for part in (key, repr(value), repr(configs.flatten(run_config())[key])):
        assert part in record.getMessage()
    assert configs.flatten(run_folder.read_config(run))[key] == value


def test_a_run_is_not_shortened(run):
    with pytest.raises(UserError, match=r"2,250 steps.* 750"):
        run_folder.check_run(run, run_config(), 750)


def test_a_run_without_a_checkpoint_may_become_another(tmp_path):
    """The model's settings may be why it has none: its weights were refused, for example."""
    run_folder.write_config(tmp_path, run_config())
    (run_folder.checkpoints_dir(tmp_path) / "3.damaged").mkdir(parents=True)
    run_folder.check_run(tmp_path, configs.replace(run_config(), "image_size", 224), 1)


def test_a_run_of_an_older_version_still_opens(run):
    path = run / "config.json"
    content = json.loads(path.read_text())
    del content["config"]["model"]["pretrained_format"]
    content["config"]["eval"]["protocol"] = "seed"  # the old name of "reference"
    path.write_text(json.dumps(content))
    assert run_folder.read_config(run).eval.protocol == "reference"
    run_folder.check_run(run, run_config(), 2250)
    run_folder.write_config(run, run_config())
    assert run_folder.read_config(run).model.pretrained_format == "backbone"


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}", b'{"config": null}', b"\xff\x00"])
def test_a_folder_whose_config_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", {}), ("image_size", "x"), ("data", 5), ("compute_dtype", "float99"), ("seed", [1])],
)
def test_a_config_that_was_changed_by_hand_is_checked(run, key, value):
    content = json.loads((run / "config.json").read_text())
    content["config"][key] = value
    (run / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json"):
        run_folder.read_config(run)


def test_a_damaged_config_beside_checkpoints_is_written_anew(run, caplog):
    (run / "config.json").write_text("")
    run_folder.check_run(run, run_config(), 2250)
    run_folder.write_config(run, run_config())
    (record,) = caplog.records
    assert "written anew" in record.getMessage()
    assert configs.flatten(run_folder.read_config(run)) == configs.flatten(run_config())


def test_a_folder_has_one_run_at_a_time(tmp_path):
    (tmp_path / ".lock").write_text("left by a run that was killed")
    lock = functools.partial(run_folder.lock, tmp_path)
    for _ in range(2):
        with lock(), pytest.raises(UserError, match="another run"), lock():
            pass


def test_a_file_is_replaced_or_left_alone(tmp_path):
    path = tmp_path / "eval" / "1.json"
    run_folder.write_json(path, {"mAP": None})
    # A file that may not grow.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(OSError, match=r"too large: .*eval/1\.json"):
            run_folder.write_json(path, {"mAP": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == '{\n  "mAP": null\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["1.json"]


@pytest.mark.parametrize("place", ["file", "file/run", "a" * 300])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected to write"):
        run_folder.make(tmp_path / place)


def test_a_disk_without_room_for_a_checkpoint(tmp_path):
    run_folder.check_space(tmp_path, 1)
    with pytest.raises(OSError, match="No space") as caught:
        run_folder.check_space(tmp_path, 2**60)
    assert caught.value.errno == errno.ENOSPC
