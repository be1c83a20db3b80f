"""The heads: last feature map of the backbone -> raw grid.

All start with 3x3 convolutions with BatchNorm, four of 1024 channels in the paper. Then

"convolutional"  a 1x1 convolution predicts the grid: the PyTorch reference. Its second form
                 (torchlake's YOLOV1Modified) has a neck, a 3x3 convolution to 256 channels with a
                 bias and without BatchNorm, and a leaky ReLU of 0.1 in place of the ReLU.
"connected"      a hidden layer of 4096, dropout and a linear layer: the paper. With a neck and
                 without the hidden layer: torchlake's YOLOV1.
"local"          a locally connected neck, dropout and a linear layer: Darknet's cfg/yolov1.cfg.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.config import UserError
from yolov1_jax.models.batch_norm import norm_layer
from yolov1_jax.models.darknet import Local, channels_first, conv_init, uniform_init
from yolov1_jax.models.resnet import ModuleDef

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
    """3x3 convolutions, an optional neck and hidden layer, and the layer that predicts the grid.

    Attributes:
      out_channels: channels of the grid, K * 5 + C.
      kind: "convolutional", "connected" or "local", see above.
      strides: of the convolutions, from `head_strides`.
      channels: of the convolutions.
      neck_channels: of the neck; None leaves it out, "local" needs it.
      hidden: units of the hidden layer of "connected" and "local"; None leaves it out.
      dropout: probability, of "connected" and "local"; train with rngs={"dropout": key}.
      negative_slope: of the leaky ReLU; 0 is a plain ReLU.
      norm: "torch", "darknet" or "none", see `norm_layer`; it decides the initial weights as well:
        PyTorch's, or else Darknet's.
      initial_outputs: initial bias of the last layer in each cell; None for that of a hidden one.
      dtype: of the computation, except the last layer's.
      param_dtype: of the parameters.
    """

    out_channels: int
    kind: str = "convolutional"
    strides: tuple[int, ...] = (1, 2, 1, 1)
    channels: int = 1024
    neck_channels: int | None = None
    hidden: int | None = None
    dropout: float = 0.0
    negative_slope: float = 0.0
    norm: str = "torch"
    initial_outputs: tuple[float, ...] | None = None
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, S, S, out_channels] in float32, or wider if `param_dtype` is."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        is_torch = self.norm == "torch"
        dense_init = torch_kernel_init if is_torch else uniform_init
        conv: ModuleDef = functools.partial(
            nn.Conv, kernel_init=torch_kernel_init if is_torch else conv_init, **dtypes
        )
        dense: ModuleDef = functools.partial(nn.Dense, kernel_init=dense_init, **dtypes)
        local: ModuleDef = functools.partial(Local, kernel_init=dense_init, **dtypes)
        norm = norm_layer(self.norm, train=train, **dtypes)
        activation = nn.relu
        if self.negative_slope != 0:
            activation = functools.partial(nn.leaky_relu, negative_slope=self.negative_slope)

        def bias_init(fan_in: int) -> nn.initializers.Initializer:
            return torch_bias_init(fan_in) if is_torch else nn.initializers.zeros

        x = features
        for i, stride in enumerate(self.strides, start=1):
            plain = norm is None
            x = conv(self.channels, (3, 3), stride, padding=1, use_bias=plain, name=f"conv{i}")(x)
            x = activation(x if norm is None else norm(name=f"bn{i}")(x))  # [B, S, S, channels]
        if self.kind == "local":
            x = activation(local(self.neck_channels, name="neck")(x))
        elif self.neck_channels is not None:
            init = bias_init(9 * x.shape[-1])
            x = conv(self.neck_channels, (3, 3), padding=1, bias_init=init, name="neck")(x)
            x = activation(x)
        # bfloat16 holds 8 bits: rounding the boxes and scores themselves to it would cost accuracy
        # and save nothing in a layer this small.
        out_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        convolutional, places = self.kind == "convolutional", x.shape[1:3]
        if not convolutional:
            x = channels_first(x)  # [B, channels * S * S]
            if self.hidden is not None:
                init = bias_init(x.shape[-1])
                x = activation(dense(self.hidden, bias_init=init, name="hidden")(x))  # [B, hidden]
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = bias_init(x.shape[-1])
        if self.initial_outputs is not None:
            each_cell = self.initial_outputs * (1 if convolutional else math.prod(places))
            init = nn.initializers.constant(jnp.array(each_cell))
        last: dict[str, Any] = {"bias_init": init, "dtype": out_dtype, "name": "predict"}
        if convolutional:
            return conv(self.out_channels, (1, 1), **last)(x)
        x = dense(math.prod(places) * self.out_channels, **last)(x)
        return x.reshape(-1, *places, self.out_channels)


def head_strides(
    image_size: int, grid_size: int, backbone_stride: int = 32, depth: int = 4
) -> tuple[int, ...]:
    """Strides of the head's convolutions, which lead from an image to an S x S grid.

    Args:
      image_size: side of the network's input in pixels.
      grid_size: S.
      backbone_stride: image pixels per pixel of the backbone's feature map.
      depth: how many convolutions there are.

    Raises:
      UserError: the feature map is not 1, 2 or 4 times as wide as the grid (as far as there are
        convolutions with a stride). Sizes that fit only after rounding are refused, too: the cells
        would not lie on the pixels of the feature map.
    """
    # Pixels of the image to a cell; each convolution but the first can halve the feature map.
    cells = [backbone_stride * total for total in STRIDES if total < 2**depth]
    sizes = [cell * grid_size for cell in cells]
    if image_size not in sizes:
        grids = [str(image_size // cell) for cell in cells if image_size % cell == 0]
        raise UserError(
            f"grid_size={grid_size} is not possible with image_size={image_size}: make image_size "
            + " or ".join(map(str, sizes))
            + (f", or grid_size {' or '.join(grids)}" if grids else "")
        )
    strides = STRIDES[image_size // grid_size // backbone_stride]
    return (1, *strides, *(1,) * depth)[:depth]
