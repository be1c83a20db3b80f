"""Weights of a ResNet in torchvision's naming, in and out.

torchvision and our backbone have the same parameters under names that differ only in spelling.
timm's ResNets, such as timm/resnet18.tv_in1k on the Hugging Face hub, have the same names.
"""

import os
from collections.abc import Iterable

import numpy as np

from yolov1_jax.weights.assign import (
    TORCH_LEAF,
    LoadedWeights,
    Variables,
    assign,
    is_counter,
    leaves_of,
    to_torch_layout,
    with_leaves,
)
from yolov1_jax.weights.safetensors_file import WeightsFile, read_weights


def torchvision_name(path: Iterable[str]) -> str:
    """torchvision's name of a variable of the backbone.

    Args:
      path: names from the backbone down, without the collection, e.g.
        `("layer1_0", "downsample_1", "mean")` -> `layer1.0.downsample.1.running_mean`.
    """
    *modules, leaf = path
    return ".".join([*(module.replace("_", ".") for module in modules), TORCH_LEAF[leaf]])


def load_backbone(
    file: str | os.PathLike[str] | WeightsFile, variables: Variables, backbone_name: str
) -> tuple[Variables, LoadedWeights]:
    """Variables of a model with its backbone read from a file.

    Args:
      file: safetensors or torch.save, see `read_weights`; or what it has read. Its classifier
        (`fc.*`) and BatchNorm counters are ignored.
      variables: `{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}` of the model as
        `init` gives them, or their `jax.ShapeDtypeStruct`s.
      backbone_name: for the messages.

    Returns:
      The variables with NumPy arrays in place of the backbone's leaves, in the leaves' dtypes, all
      others as they were; and what was read.

    Raises:
      UserError: no such file, another format or truncated; a parameter missing, unexpected, of
        another shape, not floating point or not finite. Names the parameter and the file.
    """
    if not isinstance(file, WeightsFile):
        file = read_weights(file)
    leaves = {path: leaf for path, leaf in leaves_of(variables).items() if path[0] == "backbone"}
    loaded, report = assign(
        file,
        leaves,
        lambda path: torchvision_name(path[1:]),
        is_ignored=lambda name: is_counter(name) or name.startswith("fc."),
        hint=f"is it a {backbone_name}, and is model.width_multiplier 1 as in torchvision's "
        "networks?",
    )
    return with_leaves(variables, loaded), report


def to_torchvision(variables: Variables) -> dict[str, np.ndarray]:
    """The backbone of a model's variables under torchvision's names, in torch's layout."""
    return {
        torchvision_name(path[1:]): to_torch_layout(np.asarray(leaf))
        for path, leaf in leaves_of(variables).items()
        if path[0] == "backbone"
    }
