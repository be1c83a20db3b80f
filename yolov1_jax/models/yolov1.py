"""YOLOv1: one network from an image to a grid of boxes, objectness and class scores.

Redmon et al., "You only look once: unified, real-time object detection" (2016), with a ResNet in
place of the paper's own backbone and a convolutional head. What the channels of the grid mean is
not known here: yolo/grid.py decides.

B batch, H image side in pixels, S grid side, K boxes per cell, C classes.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.models.head import Head, head_strides
from yolov1_jax.models.resnet import BACKBONES, STRIDE, scale_channels
from yolov1_jax.yolo.grid import initial_outputs


class YOLOv1(nn.Module):
    """Images -> raw grid. Parameters lie under "backbone" and "head".

    Attributes:
      num_classes, boxes_per_cell, grid_size: C, K and S.
      backbone_name: a key of `BACKBONES`.
      width_multiplier: factor on the channels of backbone and head; 1.0 is the reference's width.
      head_channels, head_neck_channels, head_negative_slope: see `Head`; before the width
        multiplier.
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
    width_multiplier: float = 1.0
    head_channels: int = 1024
    head_neck_channels: int | None = None
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
            collection "batch_stats" must be mutable), instead of using those.

        Raises:
          UserError: H and S do not fit, see `head_strides`.
        """
        strides = head_strides(images.shape[1], self.grid_size, STRIDE)
        neck_channels = self.head_neck_channels
        if neck_channels is not None:
            neck_channels = scale_channels(neck_channels, self.width_multiplier)

        x = normalize(images, self.pixel_mean, self.pixel_std, self.param_dtype)
        features = BACKBONES[self.backbone_name](
            width_multiplier=self.width_multiplier,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="backbone",
        )(x, train)  # [B, H/32, H/32, C']
        initial = initial_outputs(self.boxes_per_cell, self.num_classes)
        return Head(
            out_channels=self.boxes_per_cell * 5 + self.num_classes,
            strides=strides,
            channels=scale_channels(self.head_channels, self.width_multiplier),
            neck_channels=neck_channels,
            negative_slope=self.head_negative_slope,
            initial_outputs=initial if self.prediction == "sigmoid" else None,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="head",
        )(features, train)  # [B, S, S, K*5+C]


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
