"""Weights of a ResNet in torchvision's naming, in and out.

torchvision and our backbone have the same parameters under names that differ only in spelling, and
convolution kernels whose axes are permuted: torch's [O, I, H, W], flax's [H, W, I, O]. Files are
safetensors, as on the Hugging Face hub; loading is strict, because a backbone of which a few layers
silently stayed random trains, and only ends up worse.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from yolov1_jax.errors import UserError

Variables = dict[str, Any]

# torch's word for the last part of a flax path.
_TORCH_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """What was read, for a line in the log."""

    path: str
    num_arrays: int
    num_values: int
    ignored: tuple[str, ...]  # names in the file that a backbone has no place for

    def __str__(self) -> str:
        ignored = [name for name in self.ignored if not _is_counter(name)]
        without = f", without {', '.join(ignored)}" if ignored else ""
        return f"{self.path}: {self.num_arrays} arrays, {self.num_values:,} values{without}"


def torchvision_name(path: Iterable[str]) -> str:
    """torchvision's name of a variable of the backbone.

    Args:
      path: names from the backbone down, without the collection, e.g.
        `("layer1_0", "downsample_1", "mean")` -> `layer1.0.downsample.1.running_mean`.
    """
    *modules, leaf = path
    return ".".join([*(module.replace("_", ".") for module in modules), _TORCH_LEAF[leaf]])


def load_backbone(
    path: str | os.PathLike[str], variables: Variables, backbone_name: str
) -> tuple[Variables, LoadedWeights]:
    """Variables of a model with its backbone read from a safetensors file.

    Args:
      path: the file. Its classifier (`fc.*`) and BatchNorm counters are ignored.
      variables: `{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}` of the model as
        `init` gives them, or their `jax.ShapeDtypeStruct`s.
      backbone_name: for the messages.

    Returns:
      The variables with NumPy arrays in place of the backbone's leaves, in the leaves' dtypes, all
      others as they were; and what was read.

    Raises:
      UserError: no such file, not safetensors or truncated, a parameter missing, unexpected, of
        another shape, not floating point or not finite. Names the parameter and the file.
    """
    tensors = read_safetensors(path)
    expected = {
        torchvision_name(leaf_path): leaf for leaf_path, leaf in _backbone_leaves(variables)
    }
    hint = f"is it a {backbone_name}, and is model.width_multiplier 1 as in torchvision's networks?"
    ignored = tuple(sorted(name for name in tensors if _is_counter(name) or _is_classifier(name)))
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected and name not in ignored]
    for problem, names in (("lacks", missing), ("has the unexpected", unexpected)):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{path} {problem} parameter {names[0]}{others}: {hint}")

    def read(name: str, leaf: Any) -> np.ndarray:
        tensor = _to_flax_layout(tensors[name])
        if tensor.shape != leaf.shape:
            found, wanted = (list(_torch_shape(shape)) for shape in (tensor.shape, leaf.shape))
            raise UserError(f"{path}: {name} has shape {found}, expected {wanted}: {hint}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(f"{path}: {name} is {tensor.dtype}, expected floating point weights")
        values = tensor.astype(leaf.dtype)
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name} has NaN or infinite values: the file is damaged")
        return values

    loaded = {name: read(name, leaf) for name, leaf in expected.items()}
    report = LoadedWeights(
        path=os.fspath(path),
        num_arrays=len(loaded),
        num_values=sum(values.size for values in loaded.values()),
        ignored=ignored,
    )
    return _with_backbone(variables, loaded), report


def to_torchvision(variables: Variables) -> dict[str, np.ndarray]:
    """The backbone of a model's variables under torchvision's names, in torch's layout."""
    return {
        torchvision_name(path): _to_torch_layout(np.asarray(leaf))
        for path, leaf in _backbone_leaves(variables)
    }


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file by name.

    Raises:
      UserError: no such file, truncated, or another format.
    """
    if not os.path.isfile(path):
        raise UserError(f"no file of weights at {path}")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a complete safetensors file ({reason})") from error


def _backbone_leaves(variables: Variables) -> list[tuple[tuple[str, ...], Any]]:
    """Paths below the backbone, and leaves, of the parameters and then the running averages."""
    leaves = []
    for collection in ("params", "batch_stats"):
        flat, _ = jax.tree_util.tree_flatten_with_path(variables[collection]["backbone"])
        leaves += [(tuple(key.key for key in path), leaf) for path, leaf in flat]
    return leaves


def _with_backbone(variables: Variables, loaded: Mapping[str, np.ndarray]) -> Variables:
    result = dict(variables)
    for collection in ("params", "batch_stats"):
        backbone = jax.tree_util.tree_map_with_path(
            lambda path, _: loaded[torchvision_name(key.key for key in path)],
            variables[collection]["backbone"],
        )
        result[collection] = {**variables[collection], "backbone": backbone}
    return result


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _is_classifier(name: str) -> bool:
    return name.startswith("fc.")


def _to_flax_layout(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor  # OIHW -> HWIO


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array  # HWIO -> OIHW


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
