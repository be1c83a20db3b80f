"""YOLOv1: one network from an image to a grid of boxes, objectness and class scores.

Redmon et al., "You only look once: unified, real-time object detection" (2016), with the paper's
own backbones or a ResNet in their place. What the channels of the grid mean is not known here:
yolo/grid.py decides.

B batch, H image side in pixels, S grid side, K boxes per cell, C classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.models import darknet, resnet
from yolov1_jax.models.head import Head, head_strides
from yolov1_jax.models.resnet import scale_channels
from yolov1_jax.yolo.grid import initial_outputs

BACKBONES = {**resnet.BACKBONES, **darknet.BACKBONES}


class YOLOv1(nn.Module):
    """Images -> raw grid. Parameters lie under "backbone" and "head".

    Attributes:
      num_classes, boxes_per_cell, grid_size: C, K and S.
      backbone_name: a key of `BACKBONES`, or "layers".
      layers: of "layers", all layers up to the grid, see `darknet.parse_layer`; it has no head.
      norm: of the head and of Darknet's backbones, see `norm_layer`. ResNets have PyTorch's.
      width_multiplier: factor on the channels of backbone and head; 1.0 is the reference's width.
      head: its kind, see `Head`.
      head_depth: number of its 3x3 convolutions.
      head_channels, head_neck_channels, head_hidden: see `Head`; before the width multiplier.
      head_dropout, head_negative_slope: see `Head`.
      pixel_mean, pixel_std: images become (image / 255 - mean) / std, per RGB channel. The defaults
        give image / 255, on which the reference trained; torchvision's weights were trained with
        ImageNet's (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).
      prediction: what the outputs mean, see `finish_predictions`; "sigmoid" starts them from
        `initial_outputs`.
      dtype: of the computation: float32, bfloat16 or (with jax_enable_x64) float64.
      param_dtype: of the parameters.
    """

    num_classes: int
    backbone_name: str = "resnet34"
    grid_size: int = 7
    boxes_per_cell: int = 2
    layers: tuple[str, ...] = ()
    norm: str = "torch"
    width_multiplier: float = 1.0
    head: str = "convolutional"
    head_depth: int = 4
    head_channels: int = 1024
    head_neck_channels: int | None = None
    head_hidden: int | None = None
    head_dropout: float = 0.0
    head_negative_slope: float = 0.0
    pixel_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    prediction: str = "raw"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """The raw grid [B, S, S, K * 5 + C], in float32 (float64 where the parameters are).

        Args:
          images: [B, H, H, 3] RGB, uint8, or floating point in the same range of 0 to 255.
          train: normalise with the statistics of this batch and update the running averages (the
            collection "batch_stats" must be mutable), instead of using those; and drop out, which
            needs rngs={"dropout": key}.
        """
        x = normalize(images, self.pixel_mean, self.pixel_std, self.param_dtype)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        out_channels = self.boxes_per_cell * 5 + self.num_classes
        if self.backbone_name == "layers":
            layers = tuple(map(darknet.parse_layer, self.layers))
            x = darknet.Darknet(layers, name="backbone", **dtypes)(x, train)
            return x.reshape(-1, self.grid_size, self.grid_size, out_channels)

        backbone = build_backbone(self.backbone_name, self.norm, self.width_multiplier, **dtypes)
        features = backbone(x, train)  # [B, H / stride, .., C']
        initial = initial_outputs(self.boxes_per_cell, self.num_classes)
        return Head(
            out_channels=out_channels,
            kind=self.head,
            strides=self.head_strides(images.shape[1]),
            channels=scale_channels(self.head_channels, self.width_multiplier),
            neck_channels=self._scaled(self.head_neck_channels),
            hidden=self._scaled(self.head_hidden),
            dropout=self.head_dropout,
            negative_slope=self.head_negative_slope,
            norm=self.norm,
            initial_outputs=initial if self.prediction == "sigmoid" else None,
            name="head",
            **dtypes,
        )(features, train)  # [B, S, S, K*5+C]

    def head_strides(self, image_size: int) -> tuple[int, ...]:
        """See `head.head_strides`, whose UserError it raises."""
        stride = darknet.STRIDES.get(self.backbone_name, resnet.STRIDE)
        return head_strides(image_size, self.grid_size, stride, self.head_depth)

    def _scaled(self, channels: int | None) -> int | None:
        return None if channels is None else scale_channels(channels, self.width_multiplier)


def build_backbone(name: str, norm: str, width_multiplier: float, **dtypes: Any) -> nn.Module:
    """The module "backbone": a key of `BACKBONES`, with `norm` where the layers are Darknet's."""
    if name in darknet.BACKBONES:
        dtypes["norm"] = norm
    return BACKBONES[name](width_multiplier=width_multiplier, name="backbone", **dtypes)


def normalize(
    images: jax.Array,
    pixel_mean: tuple[float, float, float],
    pixel_std: tuple[float, float, float],
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """(image / 255 - mean) / std. [B, H, W, 3] in 0 to 255 -> [B, H, W, 3].

    In float32 at least, whatever the network computes in: bfloat16 has fewer levels than a pixel.
    """
    dtype = jnp.promote_types(dtype, jnp.float32)
    mean = jnp.asarray(pixel_mean, dtype).reshape(1, 1, 1, 3)
    std = jnp.asarray(pixel_std, dtype).reshape(1, 1, 1, 3)
    return (images.astype(dtype) / 255 - mean) / std
