"""Configs: what `check` refuses, the way to JSON and back, and the files in configs/."""

import importlib
import json
import pathlib

import pytest
from ml_collections import ConfigDict

from configs import r34
from yolov1_jax import config as configs
from yolov1_jax.errors import UserError

FILES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).resolve().parents[1] / "configs").glob("*.py")
    if path.stem != "__init__"
)


def with_value(key, value):
    """configs/r34.py with another value, of whatever type."""
    config = r34.get_config()
    *sections, last = key.split(".")
    node = config
    for section in sections:
        node = node[section]
    with node.ignore_type(), node.unlocked():
        node[last] = value
    return config


def refusal(key, value):
    with pytest.raises(UserError) as caught:
        configs.check(with_value(key, value))
    message = str(caught.value)
    assert message.startswith(f"config.{key} ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", FILES)
def test_every_config_of_the_project_passes(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.is_locked
    configs.check(config)


@pytest.mark.parametrize("key", configs.CHOICES)
def test_choices(key):
    for value in configs.CHOICES[key]:
        if (key, value) != ("data.source", "folder"):  # needs a root
            configs.check(with_value(key, value))
    message = refusal(key, "nonsense")
    assert "'nonsense'" in message
    assert repr(configs.CHOICES[key]) in message


def test_a_mistyped_choice_is_answered_with_the_nearest():
    assert "did you mean 'resnet34'?" in refusal("model.backbone", "resnet_34")


@pytest.mark.parametrize("key", configs.LOWER_BOUNDS)
def test_lower_bounds(key):
    bound, inclusive = configs.LOWER_BOUNDS[key]
    configs.check(with_value(key, bound if inclusive else bound + 1e-6))
    too_low = bound - 1 if inclusive else bound
    sign = ">=" if inclusive else ">"
    assert f"must be {sign} {bound}, got {too_low}" in refusal(key, too_low)
    refusal(key, float("nan"))


@pytest.mark.parametrize("key", configs.UPPER_BOUNDS)
def test_upper_bounds(key):
    bound, inclusive = configs.UPPER_BOUNDS[key]
    configs.check(with_value(key, bound if inclusive else bound - 1e-6))
    too_high = bound + 1 if inclusive else bound
    sign = "<=" if inclusive else "<"
    assert f"must be {sign} {bound}, got {too_high}" in refusal(key, too_high)


def test_every_key_with_a_rule_exists():
    flat = configs.flatten(r34.get_config())
    assert {*configs.CHOICES, *configs.LOWER_BOUNDS, *configs.UPPER_BOUNDS} <= flat.keys()


def test_a_config_without_a_key_is_refused():
    config = r34.get_config()
    with config.loss.unlocked():
        del config.loss.reduction
    with pytest.raises(UserError, match=r"config\.loss\.reduction is missing"):
        configs.check(config)


def test_a_run_needs_a_length():
    config = with_value("train.num_epochs", None)
    with pytest.raises(UserError, match="num_steps or num_epochs, got neither"):
        configs.check(config)
    configs.check(configs.replace(config, "train.num_steps", 10))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer.learning_rate", float("inf"), "must be finite, got inf"),
        ("optimizer.warmup_epochs", float("inf"), "must be finite, got inf"),
        ("data.augmentation.min_area", float("inf"), "must be finite, got inf"),
        ("model.head_negative_slope", float("nan"), "must be finite, got nan"),
        ("model.pixel_mean", (0.5, float("nan"), 0.5), r"must be finite, got (0.5, nan, 0.5)"),
        ("model.pixel_mean", ("a", "b", "c"), "must be a tuple of numbers, got ('a', 'b', 'c')"),
        ("data.train", (1, 2), "must be a tuple of strings, got (1, 2)"),
        ("data.eval", (None,), "must be a tuple of strings, got (None,)"),
        ("model.class_names", (1,), "must be a tuple of strings, got (1,)"),
        ("optimizer.decay_epochs", ("a",), "must be a tuple of numbers, got ('a',)"),
        ("optimizer.decay_epochs", (-1, 2), "must be positive and ascending, got (-1, 2)"),
        ("optimizer.decay_epochs", (0,), "must be positive and ascending, got (0,)"),
        ("optimizer.decay_epochs", (3, 2), "must be positive and ascending, got (3, 2)"),
        ("optimizer.decay_epochs", (2, 2), "must be positive and ascending, got (2, 2)"),
        ("seed", 10**23, "must be < 4294967296, got 1000"),
    ],
)
def test_numbers_and_tuples_that_cannot_be_right(key, value, expected):
    assert expected in refusal(key, value)


def test_decay_epochs_that_ascend():
    configs.check(with_value("optimizer.decay_epochs", (0.5, 75, 105.0)))


@pytest.mark.parametrize("key", ["data.train", "data.eval"])
@pytest.mark.parametrize("empty", [(), ("",), (" , ",)])
def test_splits_must_be_named(key, empty):
    assert "is empty" in refusal(key, empty)


def test_a_folder_needs_a_root():
    config = with_value("data.source", "folder")
    with pytest.raises(UserError, match="needs the top of the tree"):
        configs.check(config)
    configs.check(configs.replace(config, "data.root", "somewhere"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.pixel_mean", (0.5,)),
        ("model.pixel_std", (1.0, 1.0)),
        ("model.pixel_std", (1.0, 0.0, 1.0)),
    ],
)
def test_pixel_statistics_are_three_numbers(key, value):
    assert "three" in refusal(key, value)
    assert ("positive" in refusal(key, value)) == (key == "model.pixel_std")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.batchsize", "did you mean config.train.batch_size?"),
        ("optimizer.lerning_rate", "did you mean config.optimizer.learning_rate?"),
        ("image_sise", "did you mean config.image_size?"),
        # The right name in the wrong section, too far away for its letters to tell.
        ("x.momentum", "did you mean config.optimizer.momentum?"),
        ("zzz", "the sections are ['compute_dtype', 'data', 'eval'"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(key, hint):
    message = configs.unknown_key_message(r34.get_config(), key)
    assert message.startswith(f"config.{key} does not exist: ")
    assert hint in message


@pytest.mark.parametrize("name", FILES)
def test_json_round_trip(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config = configs.replace(config, "model.class_names", ("red cell", "blue"))
    # Through text, as in a run folder.
    back = configs.from_json(json.loads(json.dumps(configs.to_json(config))))
    assert configs.flatten(back) == configs.flatten(config)
    types = [
        {key: type(value) for key, value in configs.flatten(one).items()} for one in (back, config)
    ]
    assert types[0] == types[1]  # () is not [], 150.0 is not 150
    assert back.is_locked
    assert back.data.root is None
    assert back.optimizer.decay_epochs == ()
    # What was None can still be set, and a mistyped key is still an error.
    assert configs.replace(back, "data.root", "x").data.root == "x"
    with pytest.raises(AttributeError):
        back.train.batchsize = 1


def test_replace_makes_a_copy():
    config = r34.get_config()
    changed = configs.replace(config, "train.batch_size", 7)
    assert (config.train.batch_size, changed.train.batch_size) == (16, 7)
    assert changed.is_locked
    before, after = configs.flatten(config), configs.flatten(changed)
    assert {key for key in before if before[key] != after[key]} == {"train.batch_size"}
    with pytest.raises(KeyError):
        configs.replace(config, "train.batchsize", 7)


def test_flatten():
    assert configs.flatten(ConfigDict({"a": 1, "b": {"c": None, "d": {"e": (2,)}}})) == {
        "a": 1,
        "b.c": None,
        "b.d.e": (2,),
    }


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ((), ()),
        (("a",), ("a",)),
        (("a,b", "c"), ("a", "b", "c")),
        ((" a , b ", ",c,"), ("a", "b", "c")),
        (("",), ()),
        (("VOC2012:train+val",), ("VOC2012:train+val",)),
    ],
)
def test_split_list(splits, expected):
    assert configs.split_list(splits) == expected


@pytest.mark.parametrize(
    ("name", "differences"),
    [
        (
            "r18",
            {"model.backbone": "resnet18", "train.batch_size": 32, "train.accumulation_steps": 2},
        ),
        (
            "r50",
            {"model.backbone": "resnet50", "train.batch_size": 8, "train.accumulation_steps": 8},
        ),
    ],
)
def test_the_siblings_of_r34_differ_in_what_they_say(name, differences):
    base = configs.flatten(r34.get_config())
    other = configs.flatten(importlib.import_module(f"configs.{name}").get_config())
    assert base.keys() == other.keys()
    assert {key: other[key] for key in base if base[key] != other[key]} == differences
    # The reference updates its weights once in 64 images, whatever fits into memory.
    for flat in (base, other):
        assert flat["train.batch_size"] * flat["train.accumulation_steps"] == 64
