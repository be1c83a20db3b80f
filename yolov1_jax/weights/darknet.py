"""Reads and writes Darknet's .weights files (src/parser.c, load_weights_upto, save_weights_upto).

A file is a header and, layer after layer, float32 numbers without names or shapes. For each layer
they are

    convolutional, local   biases, [scales, means, variances,] weights
    connected              biases, weights, [scales, means, variances]

with the brackets where the layer has BatchNorm, whose shift the biases then are. Weights are
[filter, channel, row, column], those of each place after the other in a local layer, and [output,
input] in a connected one. Only the size can tell whether a file is that of a network, so it is
compared first.
"""

import math
import os
import re
import struct
from typing import Any, NamedTuple

import jax
import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.weights.assign import Path, Variables, leaves_of
from yolov1_jax.weights.safetensors_file import file_sha256, local_file

# "darknet" is a whole network, the other its first layers.
FORMATS = ("darknet", "darknet_backbone")
_MODULE = re.compile(r"(convolutional|conv|local|connected|norm|bn|neck|hidden|predict)(\d*)")
_AFTER_CONVOLUTIONS = {"neck": 1000, "hidden": 1001, "predict": 1002}  # their places in a head
_ORDER = ("bias", "scale", "mean", "var", "kernel")
_CONNECTED_ORDER = ("bias", "kernel", "scale", "mean", "var")
# The axes of Darknet's array among those of ours, by how many there are: biases and statistics;
# connected [in, out]; convolutional [row, column, in, out]; local [place, place, row, ...].
_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1), 6: (0, 1, 5, 4, 2, 3)}


class Header(NamedTuple):
    """The start of a file; the default is what Darknet writes today."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0  # images in training so far

    @property
    def layout(self) -> str:
        """For struct: `seen` has 64 bits from version 0.2 on."""
        is_new = self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000
        return "<iiiQ" if is_new else "<iiii"

    @property
    def transposed(self) -> bool:
        """Whether the weights of connected layers are [input, output]."""
        return self.major > 1000 or self.minor > 1000

    def __str__(self) -> str:
        return f"version {self.major}.{self.minor}.{self.revision}, {self.seen:,} images seen"


class Layer(NamedTuple):
    """A layer with weights."""

    name: str  # "head/conv1"
    arrays: dict[Path, Any]  # in the order of a file
    inputs: int  # channels, or inputs of a connected layer
    outputs: int
    output_order: np.ndarray | None = None  # our output for each of Darknet's; None: the same

    @property
    def size(self) -> int:
        return sum(math.prod(leaf.shape) for leaf in self.arrays.values())


def expected_settings(backbone: str) -> dict[str, Any]:
    """The config values that a whole network of Darknet needs; a cfg decides those of "layers"."""
    settings: dict[str, Any] = {"loss.xy_unit": "cell"}
    if backbone != "layers":
        settings |= {"model.prediction": "darknet", "model.head_negative_slope": 0.1}
    return settings


def layers_of(
    variables: Variables, detection: tuple[int, int, int] | None, *, backbone_only: bool = False
) -> list[Layer]:
    """The layers of a network in the order of a file; UserError if it has others than Darknet's.

    `detection` is as for `read_darknet`.
    """
    groups: dict[tuple[str, int], list[Path]] = {}
    leaves = leaves_of(variables)
    for path in leaves:
        match = _MODULE.fullmatch(path[1]) if len(path) == 3 else None
        if match is None:
            raise UserError(
                f"{'/'.join(path[:-1])} is no layer of Darknet: its files are for runs with "
                "config.model.backbone darknet, fast or layers"
            )
        number = int(match[2]) if match[2] else _AFTER_CONVOLUTIONS[match[1]]
        groups.setdefault((path[0], number), []).append(path)
    layers = []
    for place, paths in sorted(groups.items()):
        if place[0] != "backbone" and backbone_only:
            continue
        kernel = next(path for path in paths if path[-1] == "kernel")
        *window, inputs, outputs = leaves[kernel].shape
        is_connected = not window
        order = _CONNECTED_ORDER if is_connected else _ORDER
        arrays = {path: leaves[path] for path in sorted(paths, key=lambda p: order.index(p[-1]))}
        output_order = None
        if place == max(groups) and detection is not None:
            if not is_connected:
                raise UserError(
                    "Darknet's detection reads a connected layer: its files are for runs with "
                    "config.model.head connected or local"
                )
            output_order = _output_order(*detection)
        layers.append(Layer("/".join(kernel[:-1]), arrays, inputs, outputs, output_order))
    return layers


def read_header(origin: str | os.PathLike[str]) -> Header:
    """The header of a file. Raises UserError if there is none."""
    with open(local_file(origin), "rb") as stream:
        start = stream.read(20)
    if len(start) < 20:
        raise UserError(f"{origin}: expected weights of Darknet, found only {len(start)} bytes")
    header = Header(*struct.unpack("<iiii", start[:16]))
    return Header(*struct.unpack_from(header.layout, start))


def read_darknet(
    origin: str | os.PathLike[str],
    variables: Variables,
    *,
    detection: tuple[int, int, int] | None = None,
    partial: bool = False,
) -> tuple[Variables, str]:
    """The variables of a network with the weights of a file.

    Args:
      origin: a path, or a name on the hub.
      variables: of the network, or their shapes and dtypes.
      detection: S, K and C where the network's last layer predicts the grid, whose outputs Darknet
        has in another order.
      partial: the file may hold only the first layers of the network; or these and the last layer
        of a classifier; or the whole network, for as many classes or others. The last layer of the
        network is not read then.

    Returns:
      The variables with NumPy arrays, views of the file where its layout allows; those that the
      file does not hold are as they were. And a line on what was read.

    Raises:
      UserError: the size is not that of the network, or a number cannot be right.
    """
    layers = layers_of(variables, None if partial else detection)
    path, header = local_file(origin), read_header(origin)
    start = struct.calcsize(header.layout)
    held, without = _held_layers(origin, os.path.getsize(path), start, layers, partial=partial)
    numbers = np.asarray(np.memmap(path, "<f4", "r", offset=start))
    loaded, at = dict(leaves_of(variables)), 0
    for layer in held:
        for leaf_path, leaf in layer.arrays.items():
            size, axes = math.prod(leaf.shape), _axes(leaf.ndim, header)
            array = numbers[at : at + size].reshape([leaf.shape[axis] for axis in axes])
            array = array.transpose(np.argsort(axes))
            if not np.isfinite(array).all() or (leaf_path[-1] == "var" and array.min() < 0):
                raise UserError(
                    f"{origin}: {layer.name} has NaN, infinite values or negative variances: the "
                    "file is damaged, or of another network"
                )
            if layer.output_order is not None:
                array = array[..., np.argsort(layer.output_order)]
            loaded[leaf_path] = array.astype(leaf.dtype, copy=False)
            at += size
    tree = jax.tree.unflatten(jax.tree.structure(variables), loaded.values())
    report = f"{origin} (sha256 {file_sha256(path)}): {header}, {len(held)} of {len(layers)} layers"
    return tree, f"{report}, {at:,} values{without}"


def write_darknet(
    path: str | os.PathLike[str],
    variables: Variables,
    header: Header,
    *,
    detection: tuple[int, int, int] | None = None,
    backbone_only: bool = False,
) -> int:
    """The inverse of `read_darknet`. -> bytes written"""
    layers = layers_of(variables, detection, backbone_only=backbone_only)
    with open(path, "wb") as file:
        file.write(struct.pack(header.layout, *header))
        for layer in layers:
            for leaf in layer.arrays.values():
                array = np.asarray(leaf, "<f4")
                if layer.output_order is not None:
                    array = array[..., layer.output_order]
                file.write(array.transpose(_axes(array.ndim, header)).tobytes())
        return file.tell()


def _held_layers(
    origin: Any, file_size: int, start: int, layers: list[Layer], *, partial: bool
) -> tuple[list[Layer], str]:
    """The layers of a file of that size that are to be read, and a remark."""
    ends = np.cumsum([start, *(4 * layer.size for layer in layers)]).tolist()
    wanted = len(layers) - partial
    held = sum(end <= file_size for end in ends[1 : wanted + 1])
    rest = file_size - ends[held]
    if partial and held:
        # Weights of this network, or of a classifier, which reads the means of the channels.
        for inputs in [layers[-1].inputs] * (held == wanted) + [layers[held - 1].outputs]:
            outputs, remainder = divmod(rest, 4 * (inputs + 1))
            if remainder == 0:
                without = f", without a last layer of {outputs:,} outputs" if outputs else ""
                return layers[:held], without
    elif not partial and held == wanted and rest == 0:
        return layers, ""
    found = f"expected {ends[-1]:,} bytes for this network, found {file_size:,}"
    if held == wanted:
        raise UserError(
            f"{origin} has {rest:,} bytes more after layer {held} of {len(layers)}, "
            f"{layers[held - 1].name}, which ends at byte {ends[held]:,}: {found}"
        )
    raise UserError(
        f"{origin} ends in layer {held + 1} of {len(layers)}, {layers[held].name}, which needs "
        f"bytes {ends[held]:,} to {ends[held + 1]:,}: {found}"
    )


def _axes(num_axes: int, header: Header) -> tuple[int, ...]:
    return (0, 1) if num_axes == 2 and header.transposed else _AXES[num_axes]


def _output_order(grid_size: int, boxes_per_cell: int, num_classes: int) -> np.ndarray:
    """Our output for each of Darknet's: all classes, all confidences, all boxes of all cells.

    Ours are, cell by cell, [confidence, x, y, w, h] of each box, then the classes.
    """
    boxes = 5 * boxes_per_cell
    places = np.arange(grid_size**2 * (boxes + num_classes)).reshape(grid_size**2, -1)
    by_box = places[:, :boxes].reshape(grid_size**2, boxes_per_cell, 5)
    parts = (places[:, boxes:], by_box[..., 0], by_box[..., 1:])
    return np.concatenate([part.reshape(-1) for part in parts])
