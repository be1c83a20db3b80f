"""Reads Darknet's cfg files of YOLOv1: the network, and the config values that stand in them.

Such a file is a list of sections, [net] and one for each layer, of lines `option=value`. The layers
of a detector become strings ("convolutional filters=64 size=7 stride=2 pad=3 ..."), which a config
holds as `model.layers` and `models.darknet.parse_layer` reads.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from yolov1_jax.config import UserError, local_path

T = TypeVar("T")

# The options of each layer that has a place in `models.darknet.Layer`, with Darknet's defaults
# (src/parser.c of f6afaab).
_WINDOW = {"filters": "1", "size": "1", "stride": "1", "pad": "0", "activation": "logistic"}
_OPTIONS: dict[str, dict[str, str]] = {
    "convolutional": {**_WINDOW, "padding": "0", "batch_normalize": "0"},
    "maxpool": {"size": "", "stride": "1", "padding": ""},  # the stride, and size - 1
    "local": _WINDOW,
    "connected": {"output": "1", "batch_normalize": "0", "activation": "logistic"},
    "dropout": {"probability": "0.5"},
}
_ACTIVATIONS = ("leaky", "linear", "logistic", "relu")
_CLASSIFIER = ("avgpool", "softmax", "cost")  # the end of one, without weights
# examples/yolo.c has these names for every network of 20 classes.
_VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_SHORT = {"network": "net", "conv": "convolutional", "max": "maxpool", "conn": "connected"}
_SHORT |= {"avg": "avgpool", "soft": "softmax"}


class Section(NamedTuple):
    """A section, and where it starts."""

    where: str  # "FILE, line 7"
    kind: str
    options: dict[str, str]

    def get(self, name: str, kind: Callable[[str], T], default: T) -> T:
        if name not in self.options:
            return default
        try:
            return kind(self.options[name])
        except ValueError:
            raise self.error(f"a number as {name}", self.options[name]) from None

    def error(self, expected: str, found: str) -> UserError:
        return UserError(f"{self.where}, [{self.kind}]: expected {expected}, found {found}")


def read_sections(path: str | os.PathLike[str]) -> list[Section]:
    """The sections of a cfg file, [net] first; UserError if it is no such file."""
    file = local_path(path)
    if not file.is_file():
        raise UserError(f"expected a cfg file of Darknet at {file}, found none")
    sections: list[Section] = []
    for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), start=1):
        text = "".join(line.split())
        name, equals, value = text.partition("=")
        if text.startswith("["):
            kind = text.strip("[]")
            sections.append(Section(f"{file}, line {number}", _SHORT.get(kind, kind), {}))
        elif sections and equals:
            sections[-1].options.setdefault(name, value)
        elif text and text[0] not in "#;":
            raise UserError(f"{file}, line {number}: expected [section] or option=value: {text!r}")
    if not sections or sections[0].kind != "net":
        raise UserError(f"{file}: expected a cfg file of Darknet, which starts with [net]")
    return sections


def read_layers(sections: list[Section]) -> tuple[str, ...]:
    """The layers between [net] or [crop] and the end, [detection] or that of a classifier.

    UserError for a layer that no network of YOLOv1 has, or one with unknown options.
    """
    layers = []
    for section in sections[1:]:
        kind, options = section.kind, section.options
        if kind in ("crop", "detection", *_CLASSIFIER):
            continue
        if kind not in _OPTIONS:
            known = f"{', '.join(_OPTIONS)}, crop or detection"
            raise section.error(f"a layer of YOLOv1 ({known})", f"[{kind}]")
        if unknown := options.keys() - _OPTIONS[kind].keys():
            raise section.error(f"only the options {', '.join(_OPTIONS[kind])}", min(unknown))
        values = _OPTIONS[kind] | options
        if values.get("activation", "linear") not in _ACTIVATIONS:
            raise section.error(f"activation={' or '.join(_ACTIVATIONS)}", values["activation"])
        for name in options.keys() - {"activation"}:
            section.get(name, float if kind == "dropout" else int, 0.0)
        size = section.get("size", int, section.get("stride", int, 1))
        if kind == "convolutional" and values["pad"] != "0":
            values["padding"] = str(size // 2)
        elif kind == "maxpool":
            values |= {"size": str(size), "padding": options.get("padding", str(size - 1))}
        if "padding" in values:
            values["pad"] = values.pop("padding")
        layers.append(" ".join([kind, *(f"{n}={value}" for n, value in values.items())]))
    return tuple(layers)


def detector_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The values of a config that a cfg file of a YOLOv1 detector decides, {"image_size": 448, ..}.

    Raises:
      UserError: as `read_sections` and `read_layers`; or it is no such detector.
    """
    sections = read_sections(path)
    layers = read_layers(sections)
    net, last, detection = sections[0], sections[-2], sections[-1]
    if detection.kind != "detection" or last.kind != "connected":
        raise detection.error(
            "[connected] and [detection] at the end", f"[{last.kind}] and [{detection.kind}]"
        )
    image_size, side = net.get("width", int, 0), detection.get("side", int, 7)
    num, classes = detection.get("num", int, 1), detection.get("classes", int, 1)
    crop = next((section for section in sections if section.kind == "crop"), net)
    in_sections: list[tuple[Section, str, int]] = [
        (net, "height", image_size),
        (net, "channels", 3),
        (crop, "crop_width", image_size),
        (crop, "crop_height", image_size),
        (detection, "coords", 4),
        (last, "output", side**2 * (num * 5 + classes)),
    ]
    for section, name, wanted in in_sections:
        if section.get(name, int, wanted) != wanted:
            raise section.error(f"{name}={wanted}", section.options[name])
    # [crop] turns [0, 1] into [-1, 1].
    half = 0.5 if crop.kind == "crop" and crop.get("noadjust", int, 0) == 0 else 0.0
    stepped = net.options.get("policy") == "steps"

    def numbers(name: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
        return net.get(name, lambda text: tuple(map(kind, text.split(","))), ()) if stepped else ()

    values = {
        "image_size": image_size,
        "model.backbone": "layers",
        "model.layers": layers,
        "model.grid_size": side,
        "model.boxes_per_cell": num,
        "model.class_names": _VOC_NAMES if classes == len(_VOC_NAMES) else None,
        "model.pixel_mean": (half,) * 3,
        "model.pixel_std": (1 - half,) * 3,
        "model.prediction": "darknet" if detection.get("sqrt", int, 0) else "raw",
        "loss.objectness_target": "iou" if detection.get("rescore", int, 0) else "one",
        "loss.class_loss": "softmax" if detection.get("softmax", int, 0) else "squared",
        "loss.coordinate_weight": detection.get("coord_scale", float, 1.0),
        "loss.object_weight": detection.get("object_scale", float, 1.0),
        "loss.no_object_weight": detection.get("noobject_scale", float, 1.0),
        "loss.class_weight": detection.get("class_scale", float, 1.0),
        "data.augmentation.jitter": detection.get("jitter", float, 0.2),
        "data.augmentation.hue": net.get("hue", float, 0.0),
        "optimizer.learning_rate": net.get("learning_rate", float, 0.001),
        "optimizer.momentum": net.get("momentum", float, 0.9),
        "optimizer.weight_decay": net.get("decay", float, 0.0001),
        "optimizer.decay_updates": numbers("steps", int),
        "optimizer.decay_scales": numbers("scales", float),
        "train.num_steps": net.get("max_batches", int, 0),
    }
    colours = crop if "saturation" in crop.options else net
    for name, key in (("saturation", "saturation_scale"), ("exposure", "value_scale")):
        values[f"data.augmentation.{key}"] = colours.get(name, float, 1.0)
    return values
