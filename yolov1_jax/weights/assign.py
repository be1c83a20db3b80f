"""From the arrays of a PyTorch file to the variables of a model, strictly.

Every variable must have its array and every array its variable: a network of which a few layers
silently stayed random trains, and only ends up worse. Values and their order are the same in both
worlds; what differs are names, and the axes of convolution kernels: torch's [O, I, H, W] are flax's
[H, W, I, O].
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolov1_jax.errors import UserError
from yolov1_jax.weights.safetensors_file import WeightsFile

Variables = dict[str, Any]
Path = tuple[str, ...]  # of a variable, from the model down, without the collection

COLLECTIONS = ("params", "batch_stats")

# torch's word for the last part of a flax path.
TORCH_LEAF = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """What was read, for a line in the log."""

    origin: str
    num_arrays: int
    num_values: int
    ignored: tuple[str, ...]  # names in the file that the model has no place for

    def __str__(self) -> str:
        ignored = [name for name in self.ignored if not is_counter(name)]
        without = f", without {', '.join(ignored)}" if ignored else ""
        return f"{self.origin}: {self.num_arrays} arrays, {self.num_values:,} values{without}"


def is_counter(name: str) -> bool:
    """Whether it is BatchNorm's number of batches seen, which nothing is computed from."""
    return name.endswith(".num_batches_tracked")


def leaves_of(variables: Variables) -> dict[Path, Any]:
    """The leaves by their paths: parameters, and then running averages."""
    leaves: dict[Path, Any] = {}
    for collection in COLLECTIONS:
        flat, _ = jax.tree_util.tree_flatten_with_path(variables[collection])
        leaves |= {tuple(key.key for key in path): leaf for path, leaf in flat}
    return leaves


def with_leaves(variables: Variables, leaves: Mapping[Path, Any]) -> Variables:
    """The variables with other leaves at some of their paths."""
    return variables | {
        collection: jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaves.get(tuple(key.key for key in path), leaf),
            variables[collection],
        )
        for collection in COLLECTIONS
    }


def assign(
    file: WeightsFile,
    leaves: Mapping[Path, Any],
    name_of: Callable[[Path], str],
    *,
    is_ignored: Callable[[str], bool] = is_counter,
    hint: str,
) -> tuple[dict[Path, np.ndarray], LoadedWeights]:
    """The arrays of a file for the variables of a model.

    Args:
      leaves: the variables, or their shapes and dtypes, by path.
      name_of: the file's name of a path.
      is_ignored: whether a name in the file may lack a variable.
      hint: for the messages: what the reason may be.

    Returns:
      An array for each leaf, in flax's layout and the leaf's dtype; and what was read.

    Raises:
      UserError: a parameter is missing, unexpected, of another shape, not floating point or not
        finite. Names the parameter and the file.
    """
    names = {path: name_of(path) for path in leaves}
    known = set(names.values())
    ignored = tuple(sorted(name for name in file.tensors if is_ignored(name)))
    missing = [name for name in names.values() if name not in file.tensors]
    unexpected = [name for name in file.tensors if name not in known and name not in ignored]
    for problem, wrong in (("lacks", missing), ("has the unexpected", unexpected)):
        if wrong:
            others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(f"{file.origin} {problem} parameter {wrong[0]}{others}: {hint}")

    loaded = {}
    for path, leaf in leaves.items():
        name = names[path]
        tensor = to_flax_layout(file.tensors[name])
        if tensor.shape != leaf.shape:
            found, wanted = (list(_torch_shape(shape)) for shape in (tensor.shape, leaf.shape))
            raise UserError(f"{file.origin}: {name} has shape {found}, expected {wanted}: {hint}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(
                f"{file.origin}: {name} is {tensor.dtype}, expected floating point weights"
            )
        with np.errstate(over="ignore"):  # an infinite value is told of below
            values = np.array(tensor, leaf.dtype)
        if not np.isfinite(values).all():
            raise UserError(
                f"{file.origin}: {name} has NaN or infinite values: the file is damaged"
            )
        loaded[path] = values
    num_values = sum(values.size for values in loaded.values())
    return loaded, LoadedWeights(str(file), len(loaded), num_values, ignored)


def to_flax_layout(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor  # OIHW -> HWIO


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    # A copy: safetensors writes the memory of an array, whatever its strides.
    return array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array  # HWIO -> OIHW


def _torch_shape(shape: Iterable[int]) -> tuple[int, ...]:
    shape = tuple(shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
