"""Our detector with the numbers of a golden case, and our variables under PyTorch's names."""

import jax
import numpy as np
from golden import fixed_numbers
from golden.resnet_cases import ResNetCase
from jax.typing import DTypeLike

from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.weights.formats import torchvision_name


def model_of(case: ResNetCase, dtype: DTypeLike) -> YOLOv1:
    return YOLOv1(
        num_classes=case.num_classes,
        backbone_name=case.backbone,
        grid_size=case.grid_size,
        width_multiplier=case.width / 64,
        head_channels=case.head_channels * 64 // case.width,
        head_neck_channels=case.neck_channels and case.neck_channels * 64 // case.width,
        head_negative_slope=case.negative_slope,
        pixel_mean=case.pixel_mean,
        pixel_std=case.pixel_std,
        dtype=dtype,
        param_dtype=dtype,
    )


def fixed_variables(model, images):
    """Variables from the numbers that the golden file was made with."""

    def fixed(path, leaf):
        shape = torch_layout(np.empty(leaf.shape)).shape
        name = torchvision_name(key.key for key in path[1:])
        values = fixed_numbers.torch_parameter(name, shape)
        return (values.transpose(2, 3, 1, 0) if values.ndim == 4 else values).astype(leaf.dtype)

    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))
    return jax.tree_util.tree_map_with_path(fixed, abstract)


def torch_layout(leaf: np.ndarray) -> np.ndarray:
    return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf


def torch_names(tree) -> dict[str, np.ndarray]:
    """{torch's name: leaf in torch's layout}, sorted by name."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {
        torchvision_name(key.key for key in path): torch_layout(np.asarray(leaf))
        for path, leaf in flat
    }
    return dict(sorted(named.items()))
