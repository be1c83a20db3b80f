"""Configs: read from a file, overridden, checked and stored; and the errors that users see.

A config is a locked ConfigDict that a file's `get_config()` returns. All keys and their meaning
stand in configs/r34.py.
"""

import ast
import copy
import difflib
import functools
import json
import math
import os
import pathlib
import re
import runpy
import sysconfig
import traceback
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict


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
    "compute_dtype": ("float32", "bfloat16"),
    "data.source": ("tfds", "folder", "synthetic"),
    "data.format": ("auto", "voc", "yolo", "coco"),
    "data.unknown_classes": ("refuse", "skip"),
    "data.unannotated": ("skip", "background"),
    "data.resize": ("opencv", "darknet"),
    "model.backbone": ("resnet18", "resnet34", "resnet50", "darknet", "fast", "layers"),
    "model.norm": ("torch", "darknet", "none"),
    "model.head": ("convolutional", "connected", "local"),
    "model.prediction": ("raw", "sigmoid", "darknet"),
    "model.pretrained_format": (
        *("backbone", "reference", "torchlake"),
        *("darknet", "darknet_backbone"),
    ),
    "loss.objectness_target": ("iou", "one"),
    "loss.no_object_boxes": ("all", "empty_cells"),
    "loss.xy_unit": ("image", "cell"),
    "loss.box": ("squared_roots", "giou", "ciou"),
    "loss.confidence": ("squared", "cross_entropy"),
    "loss.class_loss": ("squared", "softmax", "bernoulli"),
    "loss.reduction": ("sum", "mean"),
    "loss.collision": ("last", "first"),
    "loss.class_target": ("all", "winner"),
    "optimizer.name": ("adam", "adamw", "sgd"),
    "optimizer.schedule": ("constant", "step", "cosine"),
    "eval.protocol": ("voc07", "voc10", "reference"),
    "eval.classes_per_box": ("best", "all"),
    "eval.clip": ("before_nms", "after_nms"),
}
# Keys of values that may be None.
_OPTIONAL = """
data.root data.images_per_epoch model.class_names model.pretrained model.head_neck_channels
model.head_hidden
train.num_epochs train.num_steps train.eval_every_epochs train.eval_every_steps
train.checkpoint_every_steps optimizer.clip_norm optimizer.ema_decay
loss.ignore_iou train.patience train.max_hours
"""
# Tuples of strings; all other tuples are of numbers.
_STRINGS = ("data.train", "data.eval", "model.class_names", "model.layers")
# Values of older versions, by their names of today.
_RENAMED = {("eval.protocol", "seed"): "reference"}
# Keys that older runs lack, with the value that stands for what those runs did.
_ADDED: dict[str, Any] = {
    "data.images_per_epoch": None,
    "data.format": "auto",
    "data.eval_fraction": 0.2,
    "data.unannotated": "skip",
    "data.augmentation.expand_probability": 0.0,
    "data.augmentation.expand": 2.0,
    "data.augmentation.crop_probability": 0.0,
    "data.augmentation.crop": 0.4,
    "data.augmentation.mosaic_probability": 0.0,
    "data.augmentation.erase_probability": 0.0,
    "data.augmentation.erase": 0.2,
    "data.augmentation.jitter": 0.0,
    "data.augmentation.saturation_scale": 1.0,
    "data.augmentation.value_scale": 1.0,
    "data.augmentation.min_side": 0.0,
    "data.resize": "opencv",
    "model.pretrained_format": "backbone",
    "model.prediction": "raw",
    "model.layers": (),
    "model.norm": "torch",
    "model.head": "convolutional",
    "model.head_depth": 4,
    "model.head_hidden": None,
    "model.head_dropout": 0.0,
    "loss.box": "squared_roots",
    "loss.confidence": "squared",
    "loss.ignore_iou": None,
    "loss.label_smoothing": 0.0,
    "train.plain_epochs": 0.0,
    "train.patience": None,
    "train.max_hours": None,
    "optimizer.decay_norms": True,
    "optimizer.backbone_factor": 1.0,
    "optimizer.decay_updates": (),
    "optimizer.decay_scales": (),
    "eval.clip": "before_nms",
}
# Keys of the section loss that `darknet_loss` does not have.
NOT_OF_DARKNET = (
    "no_object_boxes",
    "ignore_iou",
    "box",
    "confidence",
    "label_smoothing",
    "sqrt_epsilon",
)

# Keys by the interval of their values: "[" includes the bound, "(" does not.
_INTERVALS = {
    "[0, 4294967296)": "seed",  # numpy and grain take 32 bits
    "[32, inf)": "image_size",
    "[1, inf)": """
        data.images_per_epoch model.grid_size model.boxes_per_cell model.head_channels
        model.head_neck_channels model.head_hidden model.head_depth train.batch_size
        train.accumulation_steps train.log_every_steps
        train.eval_every_steps train.checkpoint_every_steps train.keep_checkpoints eval.batch_size
        train.patience data.augmentation.expand optimizer.decay_updates
        """,
    "(0, inf)": """
        model.width_multiplier model.pixel_std loss.sqrt_epsilon
        train.eval_every_epochs optimizer.learning_rate optimizer.epsilon optimizer.decay_epochs
        optimizer.decay_factor optimizer.decay_scales optimizer.clip_norm train.max_hours
        data.augmentation.saturation_scale data.augmentation.value_scale
        """,
    "[0, inf)": """
        data.num_workers data.augmentation.min_area loss.coordinate_weight loss.object_weight
        loss.no_object_weight loss.class_weight optimizer.weight_decay
        optimizer.warmup_epochs train.plain_epochs optimizer.backbone_factor
        """,
    "[0, 1000000000]": "train.num_steps",
    "(0, 1000000]": "train.num_epochs",
    "[0, 1]": """
        data.augmentation.flip_probability data.augmentation.color_probability
        data.augmentation.brightness data.augmentation.contrast data.augmentation.saturation
        data.augmentation.affine_probability data.augmentation.shift
        data.augmentation.min_visibility optimizer.final_fraction eval.score_threshold
        eval.nms_iou_threshold
        data.augmentation.expand_probability data.augmentation.crop_probability
        data.augmentation.mosaic_probability data.augmentation.erase_probability loss.ignore_iou
        """,
    "(0, 1)": "data.eval_fraction",
    "[0, 1)": """
        data.augmentation.scale optimizer.beta1 optimizer.beta2 optimizer.momentum
        optimizer.ema_decay model.head_dropout loss.label_smoothing data.augmentation.min_side
        """,
    "[0.1, 1]": "data.augmentation.crop",
    "[0.02, 1]": "data.augmentation.erase",
    "[0, 0.5]": "data.augmentation.hue",
    "[0, 0.5)": "data.augmentation.jitter",
    "(-inf, inf)": "model.head_negative_slope model.pixel_mean",
}
_INTERVAL_OF = {key: interval for interval, keys in _INTERVALS.items() for key in keys.split()}


def shipped_config(name: str) -> ConfigDict:
    """The config of this project's configs/<name>.py, a copy to change; "ablations:flip_off"."""
    return read_config_file(name).unlock()


def read_config_file(path: str) -> ConfigDict:
    """The config that a file's get_config() returns.

    Args:
      path: of a Python file, or the name of a shipped config ("r34"). What follows a colon is the
        argument of get_config, such as "configs/ablations.py:flip_off".

    Raises:
      UserError: there is no such file, or it fails in any way.
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
        if isinstance(error, SyntaxError):
            lines = [error.lineno]
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
    """A copy with one value as a command line gives it, converted to the type that it had.

    Args:
      key: "train.batch_size".
      text: a number, true or false, a string; "none" empties a value that may be empty; a tuple is
        written with commas, with or without brackets and quotes.

    Raises:
      UserError: there is no such key, or the text is not of its type.
    """
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, ConfigDict) or part not in node:
            raise UserError(_unknown_key(config, key))
        parent, node = node, node[part]
    if isinstance(node, ConfigDict):
        raise UserError(_unknown_key(config, key))
    if text.lower() == "none" and key in _OPTIONAL.split():
        return replace(config, key, None)
    kind = parent.get_type(key.rsplit(".", 1)[-1])
    try:
        return replace(config, key, _convert(text, kind, of_strings=key in _STRINGS))
    except (ValueError, KeyError, SyntaxError, TypeError):
        raise UserError(
            f"config.{key} must be of type {kind.__name__}, got {text!r}: correct the value"
        ) from None


def _convert(text: str, kind: type, *, of_strings: bool) -> Any:
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if kind is not tuple:
        return kind(text)
    if of_strings and text[:1] not in ("(", "["):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    return tuple(ast.literal_eval(text if text[:1] in ("(", "[") else f"({text},)"))


def _unknown_key(config: ConfigDict, key: str) -> str:
    """One line for a mistyped `config.<key>`, with the nearest key that exists."""
    known = list(flatten(config))
    last = key.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(key, known, 1, cutoff=0.4)
    near = near or [k for k in known if k.rsplit(".", 1)[-1] == last]
    hint = f"did you mean config.{near[0]}?" if near else f"the sections are {sorted(config)}"
    return f"config.{key} does not exist: {hint}"


def check(config: ConfigDict) -> None:
    """Raises UserError at the first value that cannot be right."""
    flat = flatten(config)
    known = shipped_config("r34")
    for key in flatten(known):
        if key not in flat:
            raise UserError(f"config.{key} is missing: start from the config of configs/r34.py")
        *sections, name = key.split(".")
        kind = functools.reduce(getattr, sections, known).get_type(name)
        value = flat[key]
        strings = value if key in _STRINGS and isinstance(value, tuple) else ()
        of_kind = isinstance(value, int | float if kind is float else kind)
        if value is not None and not (of_kind and all(isinstance(one, str) for one in strings)):
            raise UserError(f"config.{key} must be of type {kind.__name__}, got {value!r}")
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            new = _RENAMED.get((key, flat[key]))
            near = difflib.get_close_matches(str(flat[key]), choices, 1)
            hint = f"; its name is {new!r} now" if new else ""
            hint = hint or (f"; did you mean {near[0]!r}?" if near else "")
            raise UserError(f"config.{key} must be one of {choices}, got {flat[key]!r}{hint}")
    for key, value in flat.items():
        if value is None and key not in _OPTIONAL.split():
            raise UserError(f"config.{key} must have a value, got None: set it")
    for key, interval in _INTERVAL_OF.items():
        value = flat[key]
        numbers = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(_is_within(number, interval) for number in numbers):
            raise UserError(f"config.{key} must be in {interval}, got {value!r}")
    for key in ("model.pixel_mean", "model.pixel_std"):
        if len(flat[key]) != 3:
            raise UserError(f"config.{key} must be three numbers, got {flat[key]!r}")
    for key in ("optimizer.decay_epochs", "optimizer.decay_updates"):
        if list(flat[key]) != sorted(set(flat[key])):
            raise UserError(f"config.{key} must be ascending, got {flat[key]!r}")
    if len(flat["optimizer.decay_updates"]) != len(flat["optimizer.decay_scales"]):
        raise UserError(
            "config.optimizer.decay_scales must have one factor for each of decay_updates, got "
            f"{flat['optimizer.decay_scales']!r} for {flat['optimizer.decay_updates']!r}"
        )
    if flat["train.num_steps"] is None and flat["train.num_epochs"] is None:
        raise UserError("config.train needs num_steps or num_epochs, got neither: set one")
    if flat["model.prediction"] == "darknet":
        for key in NOT_OF_DARKNET:
            if flat[f"loss.{key}"] != known.loss[key]:
                raise UserError(
                    f"config.loss.{key}={flat[f'loss.{key}']} is not for "
                    f"model.prediction=darknet: leave it at {known.loss[key]}"
                )
    if (flat["model.backbone"] == "layers") != bool(flat["model.layers"]):
        raise UserError(
            f"config.model.backbone={flat['model.backbone']} with {len(flat['model.layers'])} "
            "model.layers: --config=yolov1:FILE.cfg sets both"
        )
    if flat["model.head"] == "local" and flat["model.head_neck_channels"] is None:
        raise UserError("config.model.head=local needs model.head_neck_channels: set it to 256")
    needs_sigmoid = flat["loss.box"] != "squared_roots" or flat["loss.confidence"] != "squared"
    if needs_sigmoid and flat["model.prediction"] != "sigmoid":
        raise UserError(
            f"config.loss.box={flat['loss.box']} or config.loss.confidence="
            f"{flat['loss.confidence']} needs boxes and confidence in (0, 1), got "
            f"model.prediction={flat['model.prediction']}: set config.model.prediction=sigmoid"
        )
    if flat["data.source"] == "folder" and flat["data.root"] is None:
        raise UserError(
            "config.data.root is not set: the folder source needs the top of the tree, for example "
            "--config.data.root=VOCdevkit"
        )
    for split in ("train", "eval"):
        if not split_list(flat[f"data.{split}"]):
            raise UserError(f"config.data.{split} is empty: name at least one split")
        if flat["data.source"] == "folder" and any(
            one.startswith("voc/") for one in flat[f"data.{split}"]
        ):
            raise UserError(
                f"config.data.{split} is {flat[f'data.{split}']}, splits of tfds: name those of "
                'the folder, such as train, val or "VOC2007:test", or start from --config=own_data'
            )


def _is_within(number: Any, interval: str) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    low, high = map(float, interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    below = number <= high if interval[-1] == "]" else number < high
    return above and below and math.isfinite(number)


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"train.batch_size": 16, ...}."""

    def walk(node: ConfigDict, prefix: str) -> Iterator[tuple[str, Any]]:
        for key in node:
            if isinstance(node[key], ConfigDict):
                yield from walk(node[key], f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", node[key]

    return dict(walk(config, ""))


def replace(config: ConfigDict, key: str, value: Any) -> ConfigDict:
    """A copy in which one value ("model.class_names") is another."""
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict({key: value})
    return changed.lock()


def to_json(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json_best_effort())


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`: lists become tuples again, names of older versions are mapped."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({key: restore(item) for key, item in value.items()})
        return tuple(value) if isinstance(value, list) else value

    config = restore(values)
    for (key, old), new in _RENAMED.items():
        if flatten(config).get(key) == old:
            config.update_from_flattened_dict({key: new})
    for key, value in _ADDED.items():
        section, _, name = key.rpartition(".")
        node = config
        for part in section.split(".") if section else ():
            node = node[part]
        if name not in node:
            node[name] = value
    return config.lock()


def local_path(text: str | os.PathLike[str]) -> pathlib.Path:
    """The path that a user gave, with a leading ~ replaced by the home folder.

    Raises:
      UserError: it is a URL such as gs://bucket/run, or no path at all.
    """
    if not isinstance(text, str | os.PathLike) or "\0" in os.fsdecode(text):
        raise UserError(f"expected a path, found {text!r:.80}")
    text = os.fspath(text)
    if re.match(r"[a-z][a-z0-9+.-]+:/", text):
        raise UserError(
            f"expected a path of this machine, found {text!r}: mount the bucket, and give the path "
            "of the mount"
        )
    path = os.path.expanduser(text)
    if path == text and text.startswith("~"):
        raise UserError(f"expected a path, found {text!r}: there is no such home folder")
    return pathlib.Path(path)


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
