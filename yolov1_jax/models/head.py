"""The convolutional head: last feature map of the backbone -> raw grid.

The reference has two forms. Both start with four 3x3 convolutions of 1024 channels with
BatchNorm; the second (torchlake's YOLOV1Modified) adds a 3x3 convolution to 256 channels with a
bias and without BatchNorm, and has a leaky ReLU of 0.1 where the first has a ReLU. A 1x1
convolution without activation predicts the grid.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.config import UserError
from yolov1_jax.models.batch_norm import BatchNorm

# Strides of the second and third convolution, by the total that they must make.
STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}

# PyTorch's default for a convolution, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for the bias of a convolution: as its kernel, of `fan_in` inputs."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init


class Head(nn.Module):
    """Four 3x3 convolutions, an optional fifth, and a 1x1 convolution without activation.

    Attributes:
      out_channels: channels of the grid, K * 5 + C.
      strides: of the second and the third convolution, from `head_strides`.
      channels: of the four convolutions.
      neck_channels: of the fifth convolution (256 in torchlake); None leaves it out.
      negative_slope: of the leaky ReLU; 0 is a plain ReLU.
      initial_outputs: initial bias of the last convolution; None for PyTorch's random one.
      dtype: of the computation, except the last convolution's.
      param_dtype: of the parameters.
    """

    out_channels: int
    strides: tuple[int, int] = (2, 1)
    channels: int = 1024
    neck_channels: int | None = None
    negative_slope: float = 0.0
    initial_outputs: tuple[float, ...] | None = None
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, S, S, out_channels] in float32, or wider if `param_dtype` is."""
        conv = functools.partial(
            nn.Conv, kernel_init=torch_kernel_init, dtype=self.dtype, param_dtype=self.param_dtype
        )
        norm = functools.partial(
            BatchNorm,
            use_running_average=not train,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        activation = nn.relu
        if self.negative_slope != 0:
            activation = functools.partial(nn.leaky_relu, negative_slope=self.negative_slope)

        x = features
        for i, stride in enumerate((1, *self.strides, 1), start=1):
            x = conv(self.channels, (3, 3), stride, padding=1, use_bias=False, name=f"conv{i}")(x)
            x = activation(norm(name=f"bn{i}")(x))  # [B, S, S, channels] after the third
        if self.neck_channels is not None:
            bias_init = torch_bias_init(9 * x.shape[-1])
            x = conv(self.neck_channels, (3, 3), padding=1, bias_init=bias_init, name="neck")(x)
            x = activation(x)
        # bfloat16 holds 8 bits: rounding the boxes and scores themselves to it would cost accuracy
        # and save nothing in a layer this small.
        out_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        bias_init = torch_bias_init(x.shape[-1])
        if self.initial_outputs is not None:
            bias_init = nn.initializers.constant(jnp.array(self.initial_outputs))
        return conv(
            self.out_channels, (1, 1), bias_init=bias_init, dtype=out_dtype, name="predict"
        )(x)


def head_strides(image_size: int, grid_size: int, backbone_stride: int = 32) -> tuple[int, int]:
    """Strides of the head's second and third convolution that lead from an image to an S x S grid.

    Args:
      image_size: side of the network's input in pixels.
      grid_size: S.
      backbone_stride: image pixels per pixel of the backbone's feature map.

    Raises:
      UserError: the feature map is not 1, 2 or 4 times as wide as the grid. Sizes that fit only
        after rounding are refused, too: the cells would not lie on the pixels of the feature map.
    """
    sizes = {backbone_stride * total * grid_size: strides for total, strides in STRIDES.items()}
    if image_size not in sizes:
        cells = [backbone_stride * total for total in STRIDES]  # pixels
        grids = [str(image_size // cell) for cell in cells if image_size % cell == 0]
        raise UserError(
            f"grid_size={grid_size} is not possible with image_size={image_size}: make image_size "
            + " or ".join(map(str, sizes))
            + (f", or grid_size {' or '.join(grids)}" if grids else "")
        )
    return sizes[image_size]
