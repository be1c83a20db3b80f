"""ResNet-18, 34 and 50 without the classifier, parameter for parameter torchvision's.

He et al., "Deep residual learning for image recognition" (2016), in the variant of torchvision: the
stride of a bottleneck is on its 3x3 convolution ("v1.5"). Submodules carry torchvision's names with
"." written as "_" (layer1.0.conv1 -> layer1_0/conv1), and every padding is torch's explicit,
symmetric one: XLA's "SAME" pads a stride of 2 on the other side, and pretrained weights would see
a shifted image.

Frames: images are normalised by the caller. B batch, H and W image side, C channels.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from yolov1_jax.models.batch_norm import BatchNorm

ModuleDef = Callable[..., Any]

STRIDE = 32  # image pixels to a pixel of the last feature map

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    channels: int
    stride: int
    conv: ModuleDef
    norm: ModuleDef
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.channels, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, (3, 3), padding=1, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(y + shortcut(x, y.shape[-1], self.stride, self.conv, self.norm))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last with four times the channels, and a shortcut."""

    channels: int
    stride: int
    conv: ModuleDef
    norm: ModuleDef
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.channels, (1, 1), name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, (3, 3), self.stride, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(self.channels * self.expansion, (1, 1), name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(y + shortcut(x, y.shape[-1], self.stride, self.conv, self.norm))


def shortcut(
    x: jax.Array, channels: int, stride: int, conv: ModuleDef, norm: ModuleDef
) -> jax.Array:
    """The identity where shapes allow it, else a projection. Called inside a block's compact."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    projected = conv(channels, (1, 1), stride, name="downsample_0")(x)
    return norm(name="downsample_1")(projected)


class ResNet(nn.Module):
    """Images -> last feature map.

    Attributes:
      stage_sizes: number of blocks in each of the four stages.
      block: `BasicBlock` or `Bottleneck`.
      width_multiplier: factor on all channels; 1.0 is torchvision's network.
      dtype: of the computation (BatchNorm statistics stay in float32 at least).
      param_dtype: of the parameters.
    """

    stage_sizes: tuple[int, int, int, int]
    block: ModuleDef
    width_multiplier: float = 1.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, ceil(H/32), ceil(W/32), C]."""
        conv = functools.partial(
            nn.Conv,
            padding=0,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        norm = functools.partial(
            BatchNorm, use_running_average=not train, dtype=self.dtype, param_dtype=self.param_dtype
        )
        width = scale_channels(64, self.width_multiplier)

        x = conv(width, (7, 7), 2, padding=3, name="conv1")(images)  # [B, H/2, W/2, C]
        x = nn.relu(norm(name="bn1")(x))
        x = max_pool(x, 3, stride=2, padding=(1, 1))  # [B, H/4, W/4, C]
        for stage, num_blocks in enumerate(self.stage_sizes):  # stages 1 to 3 halve H, W
            channels = scale_channels(64 * 2**stage, self.width_multiplier)
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = self.block(channels, stride, conv=conv, norm=norm, name=name)(x)
        return x


BACKBONES: Mapping[str, Callable[..., ResNet]] = {
    "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock),
    "resnet34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock),
    "resnet50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck),
}


def scale_channels(channels: int, width_multiplier: float) -> int:
    """Channels of a narrower or wider network, rounded to the nearest multiple of 8, at least 8."""
    if width_multiplier == 1:
        return channels
    return max(8, round(channels * width_multiplier / 8) * 8)


def max_pool(x: jax.Array, size: int, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Largest value of each size x size window: [B, H, W, C] -> [B, H', W', C].

    `padding` before and after each axis never is the largest. Written as the maximum of shifted
    views per axis, because the gradient of `lax.reduce_window` is XLA's select-and-scatter, five
    times slower on a CPU.
    """
    for axis in (1, 2):
        widths = [padding if i == axis else (0, 0) for i in range(x.ndim)]
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        end = padded.shape[axis] - size + 1
        views = (
            lax.slice_in_dim(padded, offset, offset + end, stride=stride, axis=axis)
            for offset in range(size)
        )
        x = functools.reduce(jnp.maximum, views)
    return x
