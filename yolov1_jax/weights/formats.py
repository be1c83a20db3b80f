"""The names of other programs: ResNets of torchvision, detectors of the PyTorch reference.

"backbone"   a ResNet of torchvision, or of timm, such as timm/resnet18.tv_in1k
"reference"  the notebook behind the published numbers of gitE0Z9/pytorch-implementations, "object
             detection/yolo/yolov1/yolov1-v2.ipynb" at commit b924e99 (class yolov1_resnet): four
             3x3 convolutions with ReLU, images divided by 255 only, channels [conf, x, y, w, h]
             per box
"torchlake"  its later library, torchlake/object_detection/models/yolov1/model.py (YOLOV1Modified)
             on torchlake/common/models/resnet_feature_extractor.py: a fifth convolution to 256
             channels, leaky ReLU of 0.1, ImageNet's mean and standard deviation inside the
             network, channels [x, y, w, h, conf] per box. Its backbone is a torch.nn.Sequential
             without names, grouped as (stem, layer1, ...) from commit 0a504cb on, flat from
             7809067 on. YOLOV1 is the same with config.model.head=connected: a linear layer
             that gives [channel, row, column]

The channels of the last convolution get our own order, that of "reference", when a file is read.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.weights.assign import Path, Variables, assign, leaves_of, to_torch_layout
from yolov1_jax.weights.safetensors_file import WeightsFile
from yolov1_jax.yolo.grid import CHANNEL_LAYOUTS

TORCH_LEAF = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class Format:
    """How a program names its network, and the config that it needs."""

    backbone: str = ""  # the prefix of the names of the backbone
    stem: Mapping[str, str] = dataclasses.field(default_factory=dict)  # our first modules -> theirs
    head: Mapping[str, str] = dataclasses.field(default_factory=dict)  # our modules -> theirs
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def name_of(self, path: Path) -> str:
        """The program's name of a variable of ours."""
        module, dot, rest = torchvision_name(path[1:]).partition(".")
        if path[0] == "head":
            return f"{self.head[module]}{dot}{rest}"
        return f"{self.backbone}{self.stem.get(module, module)}{dot}{rest}"


REFERENCE = Format(
    backbone="backbone.",
    head={
        **{f"conv{i + 1}": f"conv.{3 * i}" for i in range(4)},
        **{f"bn{i + 1}": f"conv.{3 * i + 1}" for i in range(4)},
        "predict": "conv_out.0",
        "neck": "neck",  # this one and the next are not the reference's, but of our own files
        "hidden": "hidden",
    },
    settings={
        "model.norm": "torch",
        "model.head": "convolutional",
        "model.head_depth": 4,
        "model.head_hidden": None,
        "model.head_neck_channels": None,
        "model.head_negative_slope": 0.0,
        "model.pixel_mean": (0.0, 0.0, 0.0),
        "model.pixel_std": (1.0, 1.0, 1.0),
        "model.prediction": "raw",
        "loss.xy_unit": "image",
        "loss.class_loss": "squared",
    },
)
TORCHLAKE = Format(
    backbone="foot.feature_extractor.",
    stem={"conv1": "0", "bn1": "1", **{f"layer{i}": f"{i + 3}" for i in range(1, 5)}},
    head={
        **{f"conv{i + 1}": f"neck.{i}.0" for i in range(4)},
        **{f"bn{i + 1}": f"neck.{i}.1" for i in range(4)},
        "neck": "neck.4.0",
        "predict": "head",
    },
    settings={
        **REFERENCE.settings,
        "model.head_neck_channels": 256,
        "model.head_negative_slope": 0.1,
        "model.pixel_mean": (0.485, 0.456, 0.406),
        "model.pixel_std": (0.229, 0.224, 0.225),
    },
)
TORCHLAKE_GROUPED = dataclasses.replace(
    TORCHLAKE, stem={"conv1": "0.0", "bn1": "0.1", **{f"layer{i}": f"{i}" for i in range(1, 5)}}
)
_CONNECTED = "head.1.weight"  # of torchlake's YOLOV1
FORMATS = {"backbone": Format(), "reference": REFERENCE, "torchlake": TORCHLAKE}

# Settings in the metadata of an exported file, as JSON: name -> key of the config.
DESCRIBED = {
    key.split(".")[-1]: key
    for key in (
        *("model.backbone", "model.width_multiplier", "model.grid_size", "model.boxes_per_cell"),
        *("model.class_names", "model.head_neck_channels", "model.head_negative_slope"),
        *("model.norm", "model.head", "model.head_depth", "model.head_hidden", "model.layers"),
        *("model.pixel_mean", "model.pixel_std", "model.prediction", "loss.xy_unit"),
        *("loss.class_loss", "image_size"),
    )
}


def torchvision_name(path: Iterable[str]) -> str:
    """("layer1_0", "downsample_1", "mean") -> "layer1.0.downsample.1.running_mean"."""
    *modules, leaf = path
    return f"{'.'.join(modules).replace('_', '.')}.{TORCH_LEAF.get(leaf, leaf)}"


def recognise(names: Collection[str]) -> str | None:
    """The key of `FORMATS` for the names in a file; None if they are of no format."""
    for form, start in ("torchlake", "foot."), ("reference", "conv_out."), ("backbone", "layer1."):
        if any(name.startswith(start) for name in names):
            return form
    return None


def describe(settings: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a detector with the settings of a config."""
    return {name: json.dumps(settings[key]) for name, key in DESCRIBED.items()}


def expected_settings(file: WeightsFile, format_name: str) -> dict[str, Any]:
    """The config values that a checkpoint was trained with: its metadata's, else its program's."""
    settings = dict(FORMATS[format_name].settings)
    if _CONNECTED in file.tensors:
        settings["model.head"] = "connected"
    for name in DESCRIBED.keys() & file.metadata.keys():
        # The metadata of other programs may have the same names and be no JSON.
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(file.metadata[name])
            settings[DESCRIBED[name]] = tuple(value) if isinstance(value, list) else value
    return settings


def from_format(
    file: WeightsFile,
    variables: Variables,
    format_name: str,
    *,
    boxes_per_cell: int,
    grid_size: int = 1,
    hint: str,
) -> tuple[Variables, str]:
    """Variables of a model, read from a file of another program.

    Args:
      variables: `{"params": ..., "batch_stats": ...}` of the model, or their shapes and dtypes.
      grid_size: needed for a head that is not convolutional.
      hint: as for `assign`.

    Returns:
      The variables with the file's NumPy arrays (those of a "backbone" leave the head as it was),
      the channels of the grid in our order; and a line on what was read.

    Raises:
      UserError: as `assign`; or the backbone was not trained as a whole.
    """
    form = _form(format_name, variables, f"{TORCHLAKE.backbone}0.0.weight" in file.tensors)
    ignored_prefix = None if form.head else "fc."  # torchvision's classifier
    leaves = _leaves(form, variables)
    loaded, report = assign(file, leaves, form.name_of, ignored_prefix=ignored_prefix, hint=hint)
    if format_name == "torchlake":
        _check_last_blocks(file)
    for path, array in loaded.items():
        if path[:2] == ("head", "predict"):
            order = _channel_order(format_name, variables, boxes_per_cell, grid_size)
            loaded[path] = array[..., order]
    values = (leaves_of(variables) | loaded).values()
    return jax.tree.unflatten(jax.tree.structure(variables), values), report


def to_format(
    variables: Variables, format_name: str, *, boxes_per_cell: int, grid_size: int = 1
) -> dict[str, np.ndarray]:
    """The inverse of `from_format`: arrays under a program's names, in torch's layout."""
    form = _form(format_name, variables)
    tensors = {}
    for path, leaf in _leaves(form, variables).items():
        array = np.asarray(leaf)
        if path[:2] == ("head", "predict"):
            order = _channel_order(format_name, variables, boxes_per_cell, grid_size)
            array = array[..., np.argsort(order)]
        tensors[form.name_of(path)] = to_torch_layout(array)
    return tensors


def _leaves(form: Format, variables: Variables) -> dict[Path, Any]:
    """The leaves that a format names: all, or those of the backbone."""
    leaves = leaves_of(variables).items()
    return {path: leaf for path, leaf in leaves if form.head or path[0] == "backbone"}


def _form(format_name: str, variables: Variables, grouped: bool = False) -> Format:
    form = FORMATS[format_name]
    if form is TORCHLAKE and grouped:
        form = TORCHLAKE_GROUPED
    if format_name == "torchlake" and _is_connected(variables):
        form = dataclasses.replace(form, head={**form.head, "predict": "head.1"})
    return form


def _is_connected(variables: Variables) -> bool:
    kernel = leaves_of(variables).get(("head", "predict", "kernel"))
    return kernel is not None and len(kernel.shape) == 2


def _channel_order(
    format_name: str, variables: Variables, boxes_per_cell: int, grid_size: int
) -> np.ndarray:
    """The format's index of each of our outputs: int [K*5+C], or [S*S*(K*5+C)] if connected."""
    num_cells = grid_size**2 if _is_connected(variables) else 1
    num_channels = leaves_of(variables)["head", "predict", "bias"].size // num_cells
    layout = np.array(CHANNEL_LAYOUTS[format_name])
    boxes = 5 * np.arange(boxes_per_cell)[:, None] + layout  # [K, 5]
    channels = np.concatenate([boxes.reshape(-1), np.arange(boxes.size, num_channels)])
    cells = np.arange(num_cells)[:, None]
    if format_name == "torchlake":  # [channel, row, column]
        return (channels * num_cells + cells).reshape(-1)
    return (cells * num_channels + channels).reshape(-1)


def _check_last_blocks(file: WeightsFile) -> None:
    """Refuses checkpoints that the notebook of torchlake has made since its commit 7527191.

    It ran only the first block of layer4, so the head was trained on other features than those of
    this network. BatchNorm's counters of the other blocks stand still.
    """
    counter = re.compile(r"foot\.feature_extractor\.7\.\d\.bn1\.num_batches_tracked")
    counts = {name: f"{array}" for name, array in file.tensors.items() if counter.fullmatch(name)}
    if len(set(counts.values())) > 1:
        raise UserError(
            f"{file.origin} was trained without some blocks of layer4: {str(counts)[:300]}"
        )
