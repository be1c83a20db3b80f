"""Whole detectors, backbone and head, in the naming of the PyTorch reference, in and out.

The reference (gitE0Z9/pytorch-implementations) has two generations of code whose checkpoints differ
in names, network and order of channels:

  "reference"  the notebook behind the published numbers, "object detection/yolo/yolov1/
               yolov1-v2.ipynb" at commit b924e99 (class yolov1_resnet): four 3x3 convolutions with
               ReLU, images divided by 255 only, channels [conf, x, y, w, h] per box
  "torchlake"  the later library, torchlake/object_detection/models/yolov1/model.py (YOLOV1Modified)
               on torchlake/common/models/resnet_feature_extractor.py: a fifth convolution to 256
               channels, leaky ReLU of 0.1, ImageNet's mean and standard deviation inside the
               network, channels [x, y, w, h, conf] per box. Its backbone is a torch.nn.Sequential
               without names: grouped as (stem, layer1, ...) from commit 0a504cb on, and flat from
               7809067 on

The channels of the last convolution are put into our own order, the reference's, as a file is read:
nothing else ever sees another.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from yolov1_jax.errors import UserError
from yolov1_jax.weights.assign import (
    TORCH_LEAF,
    LoadedWeights,
    Path,
    Variables,
    assign,
    leaves_of,
    to_torch_layout,
    with_leaves,
)
from yolov1_jax.weights.safetensors_file import WeightsFile
from yolov1_jax.weights.torchvision import torchvision_name
from yolov1_jax.yolo.grid import CHANNEL_LAYOUTS

# Image pixels to a cell: both networks halve the image six times.
CELL_SIZE = 64


@dataclasses.dataclass(frozen=True)
class DetectorFormat:
    """How a program names, orders and feeds its detector."""

    program: str
    backbone: str  # what stands before the names of the backbone
    stem: Mapping[str, str]  # our first modules of the backbone -> the program's names, if others
    head: Mapping[str, str]  # our modules of the head -> the program's names
    layout: str  # of the channels; a key of CHANNEL_LAYOUTS
    # The config that the program's network corresponds to.
    settings: Mapping[str, Any]

    def name_of(self, path: Path) -> str:
        """The program's name of a variable of ours."""
        part, module, *rest = path
        if part == "backbone":
            first, dot, others = torchvision_name(path[1:]).partition(".")
            return f"{self.backbone}{self.stem.get(first, first)}{dot}{others}"
        if module not in self.head:
            raise UserError(f"the network of {self.program} has no {part}/{module}")
        return f"{self.head[module]}.{TORCH_LEAF[rest[-1]]}"


_BOTH = {"loss.xy_unit": "image", "loss.class_loss": "squared"}

REFERENCE = DetectorFormat(
    program="the PyTorch reference",
    backbone="backbone.",
    stem={},
    head={
        "conv1": "conv.0",
        "conv2": "conv.3",
        "conv3": "conv.6",
        "conv4": "conv.9",
        "bn1": "conv.1",
        "bn2": "conv.4",
        "bn3": "conv.7",
        "bn4": "conv.10",
        "predict": "conv_out.0",
    },
    layout="reference",
    settings={
        "model.head_neck_channels": None,
        "model.head_negative_slope": 0.0,
        "model.pixel_mean": (0.0, 0.0, 0.0),
        "model.pixel_std": (1.0, 1.0, 1.0),
        **_BOTH,
    },
)
TORCHLAKE = DetectorFormat(
    program="torchlake",
    backbone="foot.feature_extractor.",
    stem={"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"},
    head={
        "conv1": "neck.0.0",
        "conv2": "neck.1.0",
        "conv3": "neck.2.0",
        "conv4": "neck.3.0",
        "bn1": "neck.0.1",
        "bn2": "neck.1.1",
        "bn3": "neck.2.1",
        "bn4": "neck.3.1",
        "neck": "neck.4.0",
        "predict": "head",
    },
    layout="torchlake",
    settings={
        "model.head_neck_channels": 256,
        "model.head_negative_slope": 0.1,
        "model.pixel_mean": (0.485, 0.456, 0.406),
        "model.pixel_std": (0.229, 0.224, 0.225),
        **_BOTH,
    },
)
TORCHLAKE_GROUPED = dataclasses.replace(
    TORCHLAKE,
    stem={"conv1": "0.0", "bn1": "0.1", "layer1": "1", "layer2": "2", "layer3": "3", "layer4": "4"},
)
DETECTOR_FORMATS = {"reference": REFERENCE, "torchlake": TORCHLAKE}

# Settings that a file of ours has in its metadata, as JSON under the last part of their name.
DESCRIBED = (
    "model.backbone",
    "model.width_multiplier",
    "model.grid_size",
    "model.boxes_per_cell",
    "model.class_names",
    "model.head_neck_channels",
    "model.head_negative_slope",
    "model.pixel_mean",
    "model.pixel_std",
    "loss.xy_unit",
    "loss.class_loss",
    "image_size",
)


def describe(settings: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a detector with the settings of a config, which may lack some of the keys."""
    return {key.split(".")[-1]: json.dumps(settings[key]) for key in DESCRIBED if key in settings}


def expected_settings(file: WeightsFile, format_name: str) -> dict[str, Any]:
    """The config values that a checkpoint was trained with: its own words, or else its program's.

    Raises:
      UserError: the metadata of the file is malformed.
    """
    settings = dict(DETECTOR_FORMATS[format_name].settings)
    for key in DESCRIBED:
        name = key.split(".")[-1]
        if name not in file.metadata:
            continue
        try:
            value = json.loads(file.metadata[name])
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file.origin}: its metadata {name!r} is not JSON") from error
        settings[key] = tuple(value) if isinstance(value, list) else value
    return settings


def recognise(names: Iterable[str]) -> str | None:
    """The format that the names of a file are of: "backbone", a detector's, or None."""
    names = set(names)
    if any(name.startswith(TORCHLAKE.backbone) for name in names):
        return "torchlake"
    if any(name.startswith("conv_out.") for name in names):
        return "reference"
    return "backbone" if "layer1.0.conv1.weight" in names else None


def load_detector(
    file: WeightsFile,
    variables: Variables,
    format_name: str,
    *,
    boxes_per_cell: int,
    num_classes: int,
    hint: str,
) -> tuple[Variables, LoadedWeights]:
    """Variables of a model, all of them read from a checkpoint of another program.

    Args:
      file: from `read_weights`.
      variables: `{"params": ..., "batch_stats": ...}` of the model, or their shapes and dtypes.
      format_name: a key of `DETECTOR_FORMATS`.
      boxes_per_cell, num_classes: K and C of the model.
      hint: for the messages: what the reason of a missing or misshaped parameter may be.

    Returns:
      The variables as NumPy arrays, the channels of the grid in our order; and what was read.

    Raises:
      UserError: a parameter is missing, unexpected, of another shape, not floating point or not
        finite; the channels are not K*5+C; the backbone was not trained as a whole.
    """
    form = DETECTOR_FORMATS[format_name]
    if form is TORCHLAKE and f"{TORCHLAKE.backbone}0.0.weight" in file.tensors:
        form = TORCHLAKE_GROUPED
    predict = f"{form.head['predict']}.weight"
    num_channels = boxes_per_cell * 5 + num_classes
    if predict in file.tensors and file.tensors[predict].shape[:1] != (num_channels,):
        raise UserError(
            f"{file.origin}: {predict} has shape {list(file.tensors[predict].shape)}, expected "
            f"{num_channels} channels ({boxes_per_cell} boxes x 5 + {num_classes} classes): change "
            "config.model.boxes_per_cell or config.model.class_names"
        )
    leaves = leaves_of(variables)
    loaded, report = assign(file, leaves, form.name_of, hint=hint)
    if form is TORCHLAKE:
        _check_whole_backbone(file, [form.name_of(path) for path in leaves])
    order = _to_native(form.layout, boxes_per_cell, num_classes)
    for leaf in ("kernel", "bias"):
        path = ("head", "predict", leaf)
        loaded[path] = np.ascontiguousarray(loaded[path][..., order])
    return with_leaves(variables, loaded), report


def to_detector(
    variables: Variables, format_name: str, *, boxes_per_cell: int, num_classes: int
) -> dict[str, np.ndarray]:
    """A model's variables under a program's names, in torch's layout and the program's order.

    Raises:
      UserError: the program's network lacks a layer of ours.
    """
    form = DETECTOR_FORMATS[format_name]
    order = np.argsort(_to_native(form.layout, boxes_per_cell, num_classes))
    tensors = {}
    for path, leaf in leaves_of(variables).items():
        array = np.asarray(leaf)
        if path[:2] == ("head", "predict"):
            array = array[..., order]
        tensors[form.name_of(path)] = to_torch_layout(array)
    return tensors


def _to_native(layout: str, boxes_per_cell: int, num_classes: int) -> np.ndarray:
    """The index in `layout` of each of our channels, int [K*5+C]."""
    ours, theirs = (np.array(CHANNEL_LAYOUTS[name]) for name in ("reference", layout))
    within_box = theirs[np.argsort(ours)]
    boxes = [5 * box + within_box for box in range(boxes_per_cell)]
    classes = 5 * boxes_per_cell + np.arange(num_classes)
    return np.concatenate([*boxes, classes])


def _check_whole_backbone(file: WeightsFile, names: Iterable[str]) -> None:
    """Refuses checkpoints of torchlake since 7527191, as its notebook makes them.

    "4_1" there came to mean the first block of layer4 instead of all of it: the blocks behind were
    never run, and the head was trained on other features than those of this network. BatchNorm's
    counters show it: in those blocks they have stood still.
    """
    layer4 = f"{TORCHLAKE.backbone}{TORCHLAKE.stem['layer4']}."
    blocks = [name.removeprefix(layer4).split(".")[0] for name in names if name.startswith(layer4)]
    seen = {}
    for block in sorted(set(blocks)):
        counter = file.tensors.get(f"{layer4}{block}.bn1.num_batches_tracked")
        if counter is not None and counter.size:
            seen[block] = int(counter.max())
    for block, count in seen.items():
        if count < seen.get("0", 0):
            raise UserError(
                f"{file.origin}: {layer4}{block}.bn1 has seen {count} batches and "
                f"{layer4}0.bn1 {seen['0']}: it was trained without that block, and cannot be run "
                "as this network"
            )
