"""Configs: files, values from the command line, what `check` refuses, the way to JSON and back."""

import json
import pathlib
import runpy
import shutil

import pytest

from yolov1_jax import config as configs
from yolov1_jax.config import UserError, override, read_config_file, shipped_config

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
ABLATIONS = [f"ablations:{name}" for name in runpy.run_path(FOLDER / "ablations.py")["ABLATIONS"]]
STRONG = [f"strong:{name}" for name in runpy.run_path(FOLDER / "strong.py")["MODELS"]]
PAPER = ["yolov1", "yolov1:paper", "yolov1:convolutional", "fast_yolo", "fast_yolo:paper"]


@pytest.mark.parametrize("name", ["quickstart", "r18", "r34", "r50", *PAPER, *STRONG, *ABLATIONS])
def test_shipped_configs_pass_and_survive_json(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they are found from any folder
    config = read_config_file(name)
    assert config.is_locked
    configs.check(config)
    config = configs.replace(config, "model.class_names", ("red cell", "blue"))
    back = configs.from_json(json.loads(json.dumps(configs.to_json(config))))
    before, after = configs.flatten(config), configs.flatten(back)
    assert after == before
    assert {key: type(after[key]) for key in after} == {key: type(before[key]) for key in before}


def test_files_by_path(tmp_path):
    path = shutil.copy(FOLDER / "ablations.py", tmp_path / "a:b.py")  # a colon is no variant here
    found = read_config_file(f"{path}:flip_off")
    assert configs.flatten(found) == configs.flatten(read_config_file("ablations:flip_off"))
    with pytest.raises(UserError, match="flip_off"):
        read_config_file("ablations:flip")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing(name):
    base, ablation = configs.flatten(shipped_config("r34")), shipped_config(name)
    changed = {key for key, value in configs.flatten(ablation).items() if value != base[key]}
    assert len(changed) == 1 or changed == {"model.pixel_mean", "model.pixel_std"}


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("x = 1\ny = = 2\n", r"SyntaxError.* line 2"),
        ("def get_config():\n    import nowhere\n", "line 2, found ModuleNotFoundError"),
        ("", "get_config"),
        (None, "expected a config file"),
    ],
)
def test_files_that_are_no_config(tmp_path, content, telling):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=telling):
        read_config_file(str(path))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.batch_size", "8", 8),
        ("train.num_epochs", "8", 8.0),
        ("optimizer.learning_rate", "3e-4", 3e-4),
        ("data.train_difficult", "true", True),
        ("data.augmentation.enabled", "False", False),
        ("model.backbone", "resnet18", "resnet18"),
        ("model.pretrained", "none.pth", "none.pth"),
        ("model.pretrained", "None", None),
        ("train.num_epochs", "none", None),
        ("data.train", "VOC2012:train,b", ("VOC2012:train", "b")),
        ("data.train", "('a', 'b')", ("a", "b")),
        ("model.class_names", "1, red cell", ("1", "red cell")),
        ("model.pixel_mean", "(0.1, 0.2, 0.3)", (0.1, 0.2, 0.3)),
        ("optimizer.decay_epochs", "75,105", (75, 105)),
        ("optimizer.decay_epochs", "75", (75,)),
    ],
)
def test_values_from_the_command_line(key, text, value):
    config = override(shipped_config("r34"), key, text)
    assert configs.flatten(config)[key] == value
    assert type(configs.flatten(config)[key]) is type(value)


def test_a_set_option_can_be_emptied_and_set_again():
    config = override(shipped_config("quickstart"), "optimizer.clip_norm", "none")
    assert config.optimizer.clip_norm is None
    assert override(config, "optimizer.clip_norm", "2").optimizer.clip_norm == 2.0


@pytest.mark.parametrize(
    ("key", "text", "telling"),
    [
        ("train.batchsize", "8", "did you mean config.train.batch_size"),
        ("x.momentum", "0", "did you mean config.optimizer.momentum"),
        ("zzz", "8", "r34"),
        ("train", "8", "does not exist"),
        ("image_size", "large", "type int"),
        ("data.train_difficult", "maybe", "type bool"),
        ("optimizer.decay_epochs", "a,b", "type tuple"),
        ("image_size", "none", "type int"),
    ],
)
def test_mistakes_on_the_command_line(key, text, telling):
    with pytest.raises(UserError, match=telling):
        override(shipped_config("r34"), key, text)


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"model.backbone": "resnet_34"}, "did you mean 'resnet34'"),
        ({"optimizer.beta1": 1.0}, r"in \[0, 1\)"),
        ({"optimizer.learning_rate": 0.0}, r"in \(0, inf\)"),
        ({"optimizer.weight_decay": float("inf")}, "inf"),
        ({"train.batch_size": 0}, r"in \[1, inf\)"),
        ({"seed": 10**23}, "4294967296"),
        ({"model.pixel_std": (1.0, 0.0, 1.0)}, "pixel_std"),
        ({"optimizer.decay_epochs": ("a",)}, "decay_epochs"),
        ({"train.batch_size": None}, "batch_size"),
        ({"data.eval": (" , ",)}, "empty"),
        ({"loss.box": "ciou"}, "model.prediction=sigmoid"),
        ({"model.prediction": "darknet", "loss.ignore_iou": 0.5}, r"config\.loss\.ignore_iou=0\.5"),
        ({"data.source": "folder"}, "data.root"),
        ({"data.source": "folder", "data.root": "data"}, "config.data.train is .* splits of tfds"),
    ],
)
def test_values_that_cannot_be_right(changes, telling):
    config = shipped_config("r34")
    for key, value in changes.items():
        config = configs.replace(config, key, value)
    with pytest.raises(UserError, match=telling) as caught:
        configs.check(config)
    assert "\n" not in str(caught.value)


def test_a_config_without_a_key_is_refused():
    config = shipped_config("r34")
    del config.loss.reduction
    with pytest.raises(UserError, match=r"config\.loss\.reduction"):
        configs.check(config)


@pytest.mark.parametrize("path", ["gs://bucket/run", "~nobody_here/run"])
def test_paths_that_are_none_of_this_machine(path):
    with pytest.raises(UserError, match="expected a path"):
        configs.local_path(path)


def test_paths_mean_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = configs.replace(shipped_config("r34"), "data.root", "a:b/[c]")
    pairs = {"~/w.pth": str(tmp_path / "home/w.pth"), "hf://timm/resnet34": "hf://timm/resnet34"}
    for given, expected in pairs.items():
        found = configs.with_absolute_paths(configs.replace(config, "model.pretrained", given))
        assert found.model.pretrained == expected
        assert found.data.root == str(tmp_path / "a:b/[c]")
