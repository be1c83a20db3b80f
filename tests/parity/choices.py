"""Makes PyTorch's ReLU and max-pool choose as ours did, and counts where they would not have.

In float32 two programs round differently, and some of the twenty million inputs of the ReLUs are so
near to 0 that one program lets them through and the other does not. Each changes all gradients
behind it by about a thousandth. With the same choices the gradients agree to the last digits.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from golden.torch_detector import Detector
from torch import nn


@dataclasses.dataclass
class Choices:
    """What a pass that followed ours would have chosen otherwise."""

    num_choices: int = 0
    num_different: int = 0
    margin: float = 0.0  # the largest difference in value of such a choice, relative to its layer

    def count(self, different: torch.Tensor, margins: torch.Tensor, layer: torch.Tensor) -> None:
        self.num_choices += different.numel()
        self.num_different += int(different.sum())
        if different.any():
            self.margin = max(self.margin, float(margins[different].max() / layer.abs().max()))


def follow(model: Detector, normalized: Any) -> Choices:
    """The ReLUs and the max-pool of the model's next pass choose as in ours.

    `normalized` is the output of our BatchNorms and blocks, by flax's names.
    """
    choices = Choices()
    stem = our_activation("backbone.relu", normalized).clamp(min=0)

    def relu_hook(name: str, slope: float):
        ours = our_activation(name, normalized) > 0

        def choose(module: nn.Module, inputs: tuple[torch.Tensor], _: torch.Tensor):
            (x,) = inputs
            values = x.detach()
            choices.count((values > 0) != ours, values.abs(), values)
            return torch.where(ours, x, slope * x)

        return choose

    def pool_hook(module: nn.MaxPool2d, inputs: tuple[torch.Tensor], own: torch.Tensor):
        (x,) = inputs
        ours = windows(stem, module)  # [B, C, 9, L]
        largest = (ours == ours.amax(2, keepdim=True)).to(x.dtype)
        share = largest / largest.sum(2, keepdim=True)  # equal values share the gradient
        chosen = (windows(x, module) * share).sum(2).view_as(own)
        lost = (own - chosen).detach()
        choices.count(lost > 0, lost, own.detach())
        return chosen

    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            slope = getattr(module, "negative_slope", 0.0)
            module.register_forward_hook(relu_hook(name, slope))
        elif isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(pool_hook)
    return choices


def windows(x: torch.Tensor, pool: nn.MaxPool2d) -> torch.Tensor:
    """[B, C, H, W], not negative -> [B, C, 9, L]. Padded with zeros, which never win alone."""
    patches = nn.functional.unfold(x, pool.kernel_size, padding=pool.padding, stride=pool.stride)
    return patches.unflatten(1, (x.shape[1], -1))


def our_activation(name: str, normalized: Any) -> torch.Tensor:
    """Our array with the sign of the input of the ReLU with this name in PyTorch: [B, C, H, W].

    `backbone.layer1.0.relu1` stands behind our `bn1` of that block; `backbone.layer1.0.relu` is
    the block's last, so the block's output is positive where its input is.
    """
    part, *block, relu = name.split(".")
    node = normalized[part]
    if block:
        node = node["_".join(block)]
    if relu != "relu":
        node = node[f"bn{relu.removeprefix('relu')}"]
    elif not block:
        node = node["bn1"]
    (value,) = node["__call__"]
    return torch.from_numpy(np.array(value)).permute(0, 3, 1, 2)
