"""Configs as the programs see them: from the command line, to and from JSON, checked.

A config is a locked ConfigDict that a file's `get_config()` returns; all keys and
their meaning stand in configs/r34.py.
"""

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from yolov1_jax.errors import UserError

CHOICES = {
    "compute_dtype": ("float32", "bfloat16"),
    "data.source": ("tfds", "folder", "synthetic"),
    "data.unknown_classes": ("refuse", "skip"),
    "model.backbone": ("resnet18", "resnet34", "resnet50"),
    "model.pretrained_format": ("backbone", "reference", "torchlake"),
    "loss.objectness_target": ("iou", "one"),
    "loss.no_object_boxes": ("all", "empty_cells"),
    "loss.xy_unit": ("image", "cell"),
    "loss.class_loss": ("squared", "softmax"),
    "loss.reduction": ("sum", "mean"),
    "loss.collision": ("last", "first"),
    "loss.class_target": ("all", "winner"),
    "optimizer.name": ("adam", "adamw", "sgd"),
    "optimizer.schedule": ("constant", "step", "cosine"),
    "eval.protocol": ("voc07", "voc10", "seed"),
    "eval.classes_per_box": ("best", "all"),
}

# (lowest allowed value, whether that value itself is allowed)
LOWER_BOUNDS = {
    "seed": (0, True),
    "image_size": (32, True),
    "data.num_workers": (0, True),
    "data.images_per_epoch": (1, True),
    "model.grid_size": (1, True),
    "model.boxes_per_cell": (1, True),
    "model.width_multiplier": (0, False),
    "model.head_channels": (1, True),
    "model.head_neck_channels": (1, True),
    "loss.coordinate_weight": (0, True),
    "loss.object_weight": (0, True),
    "loss.no_object_weight": (0, True),
    "loss.class_weight": (0, True),
    "loss.sqrt_epsilon": (0, False),
    "train.batch_size": (1, True),
    "train.accumulation_steps": (1, True),
    "train.num_epochs": (0, False),
    "train.num_steps": (0, True),
    "train.log_every_steps": (1, True),
    "train.eval_every_epochs": (0, False),
    "train.eval_every_steps": (1, True),
    "train.checkpoint_every_steps": (1, True),
    "train.keep_checkpoints": (1, True),
    "optimizer.learning_rate": (0, False),
    "optimizer.weight_decay": (0, True),
    "optimizer.beta1": (0, True),
    "optimizer.beta2": (0, True),
    "optimizer.epsilon": (0, False),
    "optimizer.momentum": (0, True),
    "optimizer.warmup_epochs": (0, True),
    "optimizer.decay_factor": (0, False),
    "optimizer.final_fraction": (0, True),
    "optimizer.clip_norm": (0, False),
    "optimizer.ema_decay": (0, True),
    "eval.score_threshold": (0, True),
    "eval.nms_iou_threshold": (0, True),
    "eval.batch_size": (1, True),
}

# Likewise for the highest.
UPPER_BOUNDS = {
    "seed": (2**32, False),  # numpy and grain take 32 bits
    "optimizer.beta1": (1, False),
    "optimizer.beta2": (1, False),
    "optimizer.momentum": (1, False),
    "optimizer.final_fraction": (1, True),
    "optimizer.ema_decay": (1, False),
    "eval.nms_iou_threshold": (1, True),
}


# What stands in a tuple.
ELEMENTS: dict[str, type | tuple[type, ...]] = {
    "data.train": str,
    "data.eval": str,
    "model.class_names": str,
    "model.pixel_mean": (int, float),
    "model.pixel_std": (int, float),
    "optimizer.decay_epochs": (int, float),
}


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"train.batch_size": 16, ...}."""

    def walk(node: ConfigDict, prefix: str) -> Iterator[tuple[str, Any]]:
        for key in node:
            value = node[key]
            if isinstance(value, ConfigDict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return dict(walk(config, ""))


def check(config: ConfigDict) -> None:
    """Raises UserError at the first value that cannot be right."""
    flat = flatten(config)
    for key in (*CHOICES, *LOWER_BOUNDS, *ELEMENTS):
        if key not in flat:
            raise UserError(f"config.{key} is missing: start from the config of configs/r34.py")
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            near = difflib.get_close_matches(str(flat[key]), choices, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"config.{key} must be one of {choices}, got {flat[key]!r}{hint}")
    for key, (bound, inclusive) in LOWER_BOUNDS.items():
        value = flat[key]
        if value is not None and not (value >= bound if inclusive else value > bound):
            sign = ">=" if inclusive else ">"
            raise UserError(f"config.{key} must be {sign} {bound}, got {value!r}")
    for key, (bound, inclusive) in UPPER_BOUNDS.items():
        value = flat[key]
        if value is not None and not (value <= bound if inclusive else value < bound):
            sign = "<=" if inclusive else "<"
            raise UserError(f"config.{key} must be {sign} {bound}, got {value!r}")
    for key, kind in ELEMENTS.items():
        value = flat[key]
        if value is not None and not all(isinstance(element, kind) for element in value):
            of = "strings" if kind is str else "numbers"
            raise UserError(f"config.{key} must be a tuple of {of}, got {value!r}")
    for key, value in flat.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"config.{key} must be finite, got {value!r}")
    for name, low in (("pixel_mean", -math.inf), ("pixel_std", 0)):
        value = config.model[name]
        if len(value) != 3 or not min(value) > low:
            positive = "" if low < 0 else "positive "
            raise UserError(f"config.model.{name} must be three {positive}numbers, got {value!r}")
    epochs = config.optimizer.decay_epochs
    if list(epochs) != sorted({epoch for epoch in epochs if epoch > 0}):
        raise UserError(
            f"config.optimizer.decay_epochs must be positive and ascending, got {epochs!r}"
        )
    if config.train.num_steps is None and config.train.num_epochs is None:
        raise UserError("config.train needs num_steps or num_epochs, got neither: set one")
    for split in ("train", "eval"):
        if not split_list(config.data[split]):
            raise UserError(f"config.data.{split} is empty: name at least one split")
    if config.data.source == "folder" and config.data.root is None:
        raise UserError(
            "config.data.root is not set: the folder source needs the top of the tree, for example "
            "--config.data.root=VOCdevkit"
        )


def unknown_key_message(config: ConfigDict, key: str) -> str:
    """One line for a mistyped `config.<key>`, with the nearest key that exists."""
    known = list(flatten(config))
    near = difflib.get_close_matches(key, known, 1, cutoff=0.4)
    last = key.rsplit(".", 1)[-1]
    near = near or [k for k in known if k.rsplit(".", 1)[-1] == last]
    hint = f"did you mean config.{near[0]}?" if near else f"the sections are {sorted(config)}"
    return f"config.{key} does not exist: {hint}"


def replace(config: ConfigDict, key: str, value: Any) -> ConfigDict:
    """A copy in which one value ("model.class_names") is another."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict({key: value})
    return copy.lock()


def to_json(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json_best_effort())


def from_json(values: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`: lists become the tuples that configs are written with."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({key: restore(item) for key, item in value.items()})
        return tuple(value) if isinstance(value, list) else value

    return restore(values).lock()


def split_list(splits: tuple[str, ...]) -> tuple[str, ...]:
    """("a,b", "c") -> ("a", "b", "c"): on a command line, commas are easier than a tuple."""
    return tuple(part.strip() for split in splits for part in split.split(",") if part.strip())
