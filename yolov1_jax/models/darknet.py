"""Darknet's layers, and the backbones that the paper was written with.

Redmon, "Darknet: open source neural networks in C" (2013-2016), https://pjreddie.com/darknet, at
commit f6afaab. Its layers differ from PyTorch's in the BatchNorm (see batch_norm.py), in the
padding of a pooling, and in initial weights; and it has locally connected ones. Files of Darknet
hold [channel, row, column]; so does here what a connected layer reads, and nothing else.

B batch, H and W sides, C channels, F filters.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.models.batch_norm import norm_layer
from yolov1_jax.models.resnet import max_pool, scale_channels

# Initial kernels (convolutional_layer.c, local_layer.c, connected_layer.c). Darknet
# fills only the first place of a local layer, by mistake; here all.
conv_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
uniform_init = nn.initializers.variance_scaling(2 / 3, "fan_in", "uniform")  # U(+-sqrt(2/fan_in))

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "leaky": functools.partial(nn.leaky_relu, negative_slope=0.1),
    "linear": lambda x: x,
    "logistic": nn.sigmoid,
    "relu": nn.relu,
}


class Layer(NamedTuple):
    """A layer, in the words of Darknet's cfg files; each kind has its own part of the fields."""

    kind: str  # "convolutional", "maxpool", "local", "connected" or "dropout"
    filters: int = 1
    size: int = 1
    stride: int = 1
    pad: int = 0  # pixels on each side; of "maxpool", on both sides together
    output: int = 1  # of "connected"
    batch_normalize: int = 0
    activation: str = "linear"
    probability: float = 0.5  # of "dropout"


def parse_layer(text: str) -> Layer:
    """ "maxpool size=2 stride=2 pad=1" -> Layer, see `weights.darknet_cfg`."""
    kind, *options = text.split()
    defaults = Layer._field_defaults
    values = (option.split("=") for option in options)
    return Layer(kind, **{name: type(defaults[name])(value) for name, value in values})


class Darknet(nn.Module):
    """A chain of Darknet's layers: image or feature map -> feature map, or a vector.

    Attributes:
      layers: from the first to the last; module i is `<kind><i>`, its BatchNorm `norm<i>`.
      norm: of the layers with `batch_normalize`, see `norm_layer`; "none" gives them a bias.
      width_multiplier: factor on the filters.
      dtype: of the computation.
      param_dtype: of the parameters.
    """

    layers: tuple[Layer, ...]
    norm: str = "darknet"
    width_multiplier: float = 1.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', F], or [B, output] if the last is "connected"."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = norm_layer(self.norm, train=train, **dtypes)
        for i, layer in enumerate(self.layers):
            name, window = f"{layer.kind}{i}", (layer.size, layer.size)
            filters = scale_channels(layer.filters, self.width_multiplier)
            normalized = norm is not None and layer.batch_normalize
            if layer.kind == "convolutional":
                x = nn.Conv(
                    filters,
                    window,
                    layer.stride,
                    padding=layer.pad,
                    use_bias=not normalized,
                    kernel_init=conv_init,
                    name=name,
                    **dtypes,
                )(x)
            elif layer.kind == "local":
                x = Local(filters, layer.size, layer.stride, layer.pad, name=name, **dtypes)(x)
            elif layer.kind == "connected":
                last = i == len(self.layers) - 1
                wide = jnp.promote_types(self.param_dtype, jnp.float32)
                x = nn.Dense(
                    layer.output,
                    use_bias=not normalized,
                    kernel_init=uniform_init,
                    name=name,
                    **dtypes | ({"dtype": wide} if last else {}),
                )(channels_first(x))
            elif layer.kind == "maxpool":
                before = layer.pad // 2
                x = max_pool(x, layer.size, layer.stride, (before, layer.pad - before))
            else:
                x = nn.Dropout(layer.probability, deterministic=not train)(x)
            if norm is not None and normalized:
                x = norm(name=f"norm{i}")(x)
            x = ACTIVATIONS[layer.activation](x)
        return x


class Local(nn.Module):
    """A convolution with weights of its own at every place (Darknet's [local]).

    Attributes:
      filters: F.
      size, stride, pad: of the window, in pixels; zeros surround the image.
      kernel_init: of the weights of one place, [size, size, C, F].
    """

    filters: int
    size: int = 3
    stride: int = 1
    pad: int = 1
    kernel_init: nn.initializers.Initializer = uniform_init
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', F]; kernel [H', W', size, size, C, F], bias [F * H' * W']."""
        pad = (self.pad, self.pad)
        x = jnp.pad(x.astype(self.dtype), ((0, 0), pad, pad, (0, 0)))
        rows, columns = ((side - self.size) // self.stride + 1 for side in x.shape[1:3])

        def shifted(i: int, j: int) -> jax.Array:
            last = (self.stride * (rows - 1) + 1, self.stride * (columns - 1) + 1)
            return x[:, i : i + last[0] : self.stride, j : j + last[1] : self.stride]

        window = [shifted(i, j) for i in range(self.size) for j in range(self.size)]
        patches = jnp.concatenate(window, axis=-1)  # [B, H', W', size * size * C]

        def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
            keys = jax.random.split(key, rows * columns)
            each = jax.vmap(lambda one: self.kernel_init(one, shape[2:], dtype))(keys)
            return each.reshape(shape)

        shape = (rows, columns, self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        # One axis, as biases have, which do not decay; [F, H', W'] as in Darknet's files.
        size = (self.filters * rows * columns,)
        bias = self.param("bias", nn.initializers.zeros, size, self.param_dtype).astype(self.dtype)
        kernel = kernel.reshape(rows, columns, -1, self.filters)
        y = jnp.einsum("bhwi,hwif->bhwf", patches, kernel)
        return y + bias.reshape(1, self.filters, rows, columns).transpose(0, 2, 3, 1)


def channels_first(x: jax.Array) -> jax.Array:
    """What a connected layer reads: [B, H, W, C] -> [B, C * H * W]; [B, N] as it is."""
    return x if x.ndim == 2 else x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def _conv(filters: int, size: int, stride: int = 1) -> Layer:
    return Layer("convolutional", filters, size, stride, size // 2, 1, 1, "leaky")


_POOL = Layer("maxpool", size=2, stride=2, pad=1)

# Both are layer for layer the start of the classifier that Darknet pretrained, cfg/extraction.cfg
# and cfg/darknet.cfg, and of the detector, cfg/yolov1.cfg (layers 0 to 23) and
# cfg/yolov1-tiny.cfg (0 to 12).
EXTRACTION = (
    *(_conv(64, 7, 2), _POOL),
    *(_conv(192, 3), _POOL),
    *(_conv(128, 1), _conv(256, 3), _conv(256, 1), _conv(512, 3), _POOL),
    *(_conv(256, 1), _conv(512, 3)) * 4,
    *(_conv(512, 1), _conv(1024, 3), _POOL),
    *(_conv(512, 1), _conv(1024, 3)) * 2,
)
FAST = (
    *(layer for filters in (16, 32, 64, 128, 256, 512) for layer in (_conv(filters, 3), _POOL)),
    _conv(1024, 3),
)
BACKBONES: Mapping[str, Callable[..., Darknet]] = {
    "darknet": functools.partial(Darknet, layers=EXTRACTION),
    "fast": functools.partial(Darknet, layers=FAST),
}
STRIDES = {"darknet": 32, "fast": 64}  # image pixels to a pixel of the last feature map
