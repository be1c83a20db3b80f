"""Configs: read from a file, overridden, checked and stored; and the errors that users see.

A config is a locked ConfigDict that a file's `get_config()` returns. All keys and their meaning
stand in configs/r34.py.
"""

import ast
import copy
import difflib
import json
import math
import os
import pathlib
import re
import runpy
import sysconfig
import traceback
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_flags import config_path


class UserError(Exception):
    """A mistake in what the user gave: a path, a config value, a data file.

    Its message is one line: what was expected, what was found, what to do. Commands print the line
    without a traceback and exit with code 2.
    """


class RunError(Exception):
    """A run that cannot go on although its input is right, such as a loss that is not finite.

    Its message is one line. Commands print it and exit with code 1.
    """


# What each value may be; the code that uses a value does not check it again.
_CHOICES = {
    "task": "detection classification",
    "compute_dtype": "float32 bfloat16",
    "data.source": "tfds folder synthetic",
    "data.format": "auto voc yolo coco classes",
    "data.unknown_classes": "refuse skip",
    "data.unannotated": "skip background",
    "data.resize": "opencv darknet",
    "model.backbone": "resnet18 resnet34 resnet50 darknet fast layers",
    "model.norm": "torch darknet none",
    "model.head": "convolutional connected local",
    "model.prediction": "raw sigmoid darknet",
    "model.pretrained_format": "backbone reference torchlake darknet darknet_backbone",
    "loss.objectness_target": "iou one",
    "loss.no_object_boxes": "all empty_cells",
    "loss.xy_unit": "image cell",
    "loss.box": "squared_roots giou ciou",
    "loss.confidence": "squared cross_entropy",
    "loss.class_loss": "squared softmax bernoulli",
    "loss.reduction": "sum mean",
    "loss.collision": "last first",
    "loss.class_target": "all winner",
    "optimizer.name": "adam adamw sgd",
    "optimizer.schedule": "constant step cosine",
    "eval.protocol": "voc07 voc10 reference",
    "eval.classes_per_box": "best all",
    "eval.clip": "before_nms after_nms",
}
# Numbers are finite, integers at least 1, others at least 0; except these, by the last part of
# their keys. "[" includes the bound, "(" does not.
_INTERVALS = {
    "[0, 4294967296)": "seed",  # numpy and grain take 32 bits
    "[0, inf)": "num_steps num_workers",
    "[1, inf)": "expand window_ratio",
    "(0, inf)": """width_multiplier pixel_std sqrt_epsilon num_epochs eval_every_epochs epsilon
        learning_rate clip_norm max_hours saturation_scale value_scale""",
    "[0, 1]": """flip_probability color_probability brightness contrast saturation hue
        affine_probability shift min_visibility expand_probability crop_probability
        mosaic_probability erase_probability erase ignore_iou plain_fraction final_fraction
        score_threshold nms_iou_threshold""",
    "[0, 1)": "scale min_side head_dropout label_smoothing beta1 beta2 momentum ema_decay",
    "(0, 1)": "eval_fraction",
    "(0, 1]": "window_area",
    "[0.1, 1]": "crop",
    "[0, 0.5)": "jitter",
}
_INTERVAL_OF = {name: interval for interval, names in _INTERVALS.items() for name in names.split()}
# Besides those that are None in configs/r34.py.
_MAY_BE_NONE = ("train.num_epochs", "train.eval_every_epochs", "train.checkpoint_every_steps")
# Tuples of strings; all other tuples are of numbers.
_STRINGS = ("data.train", "data.eval", "model.class_names", "model.layers")
# Keys of the section loss that `darknet_loss` does not have.
NOT_OF_DARKNET = (
    *("no_object_boxes", "ignore_iou", "box"),
    *("confidence", "label_smoothing", "sqrt_epsilon"),
)


def shipped_config(name: str) -> ConfigDict:
    """The config of this project's configs/<name>.py, a copy to change; "ablations:flip_off"."""
    return read_config_file(name).unlock()


def read_config_file(path: str) -> ConfigDict:
    """The config that a file's get_config() returns; UserError if there is none, or if it fails.

    `path`: of a Python file, or the name of a shipped config ("r34"). What follows a colon is the
    argument of get_config, such as "configs/ablations.py:flip_off".
    """
    place, variant = split_variant(path)
    checkout = pathlib.Path(__file__).resolve().parents[1]
    installed = pathlib.Path(sysconfig.get_path("data"), "share", "yolov1_jax")
    shipped = [folder / "configs" / f"{place}.py" for folder in (checkout, installed)]
    files = [one for one in (pathlib.Path(os.path.expanduser(place)), *shipped) if one.is_file()]
    if not files:
        names = sorted({one.stem for file in shipped for one in file.parent.glob("*.py")})
        raise UserError(
            f"expected a config file, or the name of a shipped one ({', '.join(names)}), found "
            f"neither at {path!r}: correct --config"
        )
    file = files[0].resolve()
    try:
        get_config = runpy.run_path(str(file))["get_config"]
        config = get_config() if variant is None else get_config(variant)
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config() returns {type(config).__name__}")
        return config.lock()
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename) == file]
        where = f"{file}, line {lines[-1]}" if lines else str(file)
        raise UserError(
            f"expected a get_config() that returns a ConfigDict in {where}, found "
            f"{type(error).__name__}: {error}; compare it with configs/r34.py"
        ) from error


def split_variant(path: str) -> tuple[str, str | None]:
    """("configs/strong.py", "r18") of "configs/strong.py:r18"; a colon may be part of a path."""
    place, colon, variant = path.rpartition(":")
    whole = not colon or os.path.isfile(os.path.expanduser(path))
    return (path, None) if whole else (place, variant)


def override(config: ConfigDict, key: str, text: str) -> ConfigDict:
    """A copy with one value ("train.batch_size") as a command line gives it, in its own type.

    `text`: a number, true or false, a string; "none" empties a value that may be empty; a tuple is
    written with commas, with or without brackets and quotes. Raises UserError if there is no such
    key, or if the text is not of its type.
    """
    keys = list(flatten(config))
    if key not in keys:
        near = [one for one in keys if one.rpartition(".")[2] == key.rpartition(".")[2]]
        near = near or difflib.get_close_matches(key, keys, 1, cutoff=0.4)
        hint = f"did you mean config.{near[0]}?" if near else "see configs/r34.py"
        raise UserError(f"config.{key} does not exist: {hint}")
    if text.lower() == "none" and _may_be_none(key, flatten(shipped_config("r34"))):
        return replace(config, key, None)
    kind = config_path.get_type(key, config)
    try:
        return replace(config, key, _convert(text, kind, of_strings=key in _STRINGS))
    except (ValueError, KeyError, SyntaxError, TypeError):
        raise UserError(
            f"config.{key} must be of type {kind.__name__}, got {text!r}: correct the value"
        ) from None


def _may_be_none(key: str, known: dict[str, Any]) -> bool:
    return key in _MAY_BE_NONE or known.get(key, key) is None


def _convert(text: str, kind: type, *, of_strings: bool) -> Any:
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if kind is not tuple:
        return kind(text)
    if of_strings and text[:1] not in ("(", "["):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    return tuple(ast.literal_eval(text if text[:1] in ("(", "[") else f"({text},)"))


def check(config: ConfigDict) -> None:
    """Raises UserError at the first value that cannot be right."""
    flat, base = flatten(config), shipped_config("r34")
    known = flatten(base)
    for key in known:
        if key not in flat:
            raise UserError(f"config.{key} is missing: start from the config of configs/r34.py")
        value, kind = flat[key], config_path.get_type(key, base)
        if value is None:
            if not _may_be_none(key, known):
                raise UserError(f"config.{key} must have a value, got None: set it")
        elif key in _CHOICES:
            choices = _CHOICES[key].split()
            if value not in choices:
                near = difflib.get_close_matches(str(value), choices, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise UserError(f"config.{key} must be one of {choices}, got {value!r}{hint}")
        elif kind in (int, float, tuple) and key not in _STRINGS:
            default = "[1, inf)" if kind is int else "[0, inf)"
            interval = _INTERVAL_OF.get(key.rpartition(".")[2], default)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(_is_within(number, interval) for number in numbers):
                raise UserError(f"config.{key} must be in {interval}, got {value!r}")
    _check_together(flat, known)


def _check_together(flat: dict[str, Any], known: dict[str, Any]) -> None:
    """Raises UserError for values that do not go together."""
    prediction = flat["model.prediction"]
    for key in (f"loss.{name}" for name in NOT_OF_DARKNET):
        if prediction == "darknet" and flat[key] != known[key]:
            raise UserError(
                f"config.{key}={flat[key]} is not for model.prediction=darknet: leave it at "
                f"{known[key]}"
            )
    for key in ("loss.box", "loss.confidence"):
        if prediction != "sigmoid" and flat[key] != known[key]:
            raise UserError(
                f"config.{key}={flat[key]} needs values in (0, 1), got model.prediction="
                f"{prediction}: set config.model.prediction=sigmoid"
            )
    if flat["model.head"] == "local" and flat["model.head_neck_channels"] is None:
        raise UserError("config.model.head=local needs model.head_neck_channels: set it to 256")
    if flat["data.source"] == "folder" and flat["data.root"] is None:
        raise UserError(
            "config.data.root is not set: the folder source needs the top of the tree, for example "
            "--config.data.root=VOCdevkit"
        )
    for key in ("data.train", "data.eval"):
        splits = split_list(flat[key])
        if not splits:
            raise UserError(f"config.{key} is empty: name at least one split")
        if flat["data.source"] == "folder" and any(one.startswith("voc/") for one in splits):
            raise UserError(
                f"config.{key} is {splits}, splits of tfds: name those of the folder, such as "
                'train, val or "VOC2007:test", or start from --config=own_data'
            )


def _is_within(number: Any, interval: str) -> bool:
    if not isinstance(number, int | float):
        return False
    low, high = map(float, interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below and math.isfinite(number)


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"train.batch_size": 16, ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{rest}": item for rest, item in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def replace(config: ConfigDict, key: str, value: Any) -> ConfigDict:
    """A copy in which one value ("model.class_names") is another."""
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict({key: value})
    return changed.lock()


def to_json(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json_best_effort())


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`. A key that an older run lacks has its value of configs/r34.py.

    Raises TypeError, ValueError or AttributeError if a value is of another type.
    """
    config = shipped_config("r34")
    config.update(values)
    if config.eval.protocol == "seed":  # its name in older runs
        config.eval.protocol = "reference"
    return config.lock()


def local_path(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a user gave, with a leading ~ replaced by the home folder.

    Raises UserError if it is a URL such as gs://bucket/run, or no path at all.
    """
    hint = ""
    if isinstance(text, str | os.PathLike) and "\0" not in os.fsdecode(text):
        path = os.path.expanduser(os.fsdecode(text))
        if not re.match(r"[a-z][a-z0-9+.-]+:/|~", path):
            return pathlib.Path(path)
        hint = ": a bucket must be mounted, and ~NAME be a user of this machine"
    raise UserError(f"expected a path of this machine, found {text!r:.80}{hint}")


def with_absolute_paths(config: ConfigDict) -> ConfigDict:
    """A copy whose paths mean the same from every folder; UserError for a URL."""
    for key in ("data.root", "model.pretrained"):
        value = flatten(config)[key]
        if value is not None and not value.startswith("hf://"):
            config = replace(config, key, os.path.abspath(local_path(value)))
    return config


def split_list(splits: tuple[str, ...]) -> tuple[str, ...]:
    """("a,b", "c") -> ("a", "b", "c"): on a command line, commas are easier than a tuple."""
    return tuple(part.strip() for split in splits for part in split.split(",") if part.strip())
