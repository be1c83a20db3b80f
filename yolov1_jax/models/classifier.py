"""Classification, to pretrain a backbone: global average pooling and a linear layer.

B batch, H image side in pixels, C classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike

from yolov1_jax.models.head import torch_bias_init, torch_kernel_init
from yolov1_jax.models.yolov1 import build_backbone, normalize
from yolov1_jax.yolo.loss import Loss


class Classifier(nn.Module):
    """Images -> logits. Parameters lie under "backbone", as those of `YOLOv1`, and "head".

    Attributes: see `YOLOv1`.
    """

    num_classes: int
    backbone_name: str = "resnet34"
    norm: str = "torch"
    width_multiplier: float = 1.0
    pixel_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """The logits [B, C], in float32 or wider; `images` and `train` as of `YOLOv1`."""
        x = normalize(images, self.pixel_mean, self.pixel_std, self.param_dtype)
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = build_backbone(self.backbone_name, self.norm, self.width_multiplier, **dtypes)(x, train)
        return LinearHead(self.num_classes, self.param_dtype, name="head")(x)  # [B, C]


class LinearHead(nn.Module):
    """[B, H, W, F] -> [B, C]"""

    num_classes: int
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        wide = jnp.promote_types(self.param_dtype, jnp.float32)
        pooled = features.astype(wide).mean(axis=(1, 2))  # [B, F]
        return nn.Dense(
            self.num_classes,
            kernel_init=torch_kernel_init,
            bias_init=torch_bias_init(pooled.shape[-1]),
            dtype=wide,
            param_dtype=self.param_dtype,
            name="predict",
        )(pooled)


def classification_loss(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> Loss:
    """The mean softmax cross-entropy of logits [B, C] with labels int [B]; no terms.

    With label smoothing (Szegedy et al. 2016, section 7), the target is uniform to this part.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)  # [B, C]
    targets = optax.smooth_labels(targets, label_smoothing)
    return Loss(optax.softmax_cross_entropy(logits, targets).mean(), {})
