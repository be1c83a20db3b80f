"""Assigns the arrays of a PyTorch file to the variables of a model, strictly.

Every variable must have its array and every array its variable: a network of which a few layers
silently stayed random trains all the same, only to a worse end. The numbers are equal in both
worlds. Names differ, and the axes of kernels: [O, I, H, W] and [O, I] in PyTorch, [H, W, I, O] and
[I, O] in flax.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.weights.safetensors_file import WeightsFile

Variables = dict[str, Any]
Path = tuple[str, ...]  # of a variable, from the model down, without the collection


def leaves_of(variables: Variables) -> dict[Path, Any]:
    """The leaves of all collections by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {tuple(key.key for key in path[1:]): leaf for path, leaf in leaves}


def assign(
    file: WeightsFile,
    leaves: Mapping[Path, Any],
    name_of: Callable[[Path], str],
    *,
    ignored_prefix: str | None,
    hint: str,
) -> tuple[dict[Path, np.ndarray], str]:
    """The arrays of a file for the variables of a model.

    Args:
      leaves: the variables, or their shapes and dtypes, by path.
      name_of: the file's name of a path.
      ignored_prefix: of names in the file that may lack a variable, as BatchNorm's counters may.
      hint: what the reason of an error may be, for its message.

    Returns:
      An array for each leaf, in flax's layout and the leaf's dtype; and a line on what was read.

    Raises:
      UserError: a parameter is missing, unexpected, of another shape or type, or not finite.
    """
    names = {path: name_of(path) for path in leaves}
    rest = file.tensors.keys() - names.values()
    rest = {name for name in rest if not name.endswith(".num_batches_tracked")}  # of BatchNorm
    ignored = {name for name in rest if ignored_prefix and name.startswith(ignored_prefix)}
    missing = set(names.values()) - file.tensors.keys()
    for problem, wrong in ("lacks", missing), ("has the unexpected", rest - ignored):
        if wrong:
            others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(f"{file.origin} {problem} parameter {min(wrong)[:100]}{others}: {hint}")
    loaded = {}
    for path, leaf in leaves.items():
        tensor = file.tensors[names[path]]
        where = f"{file.origin}: {names[path]}"
        expected = to_torch_layout(np.broadcast_to(0, leaf.shape)).shape
        if tensor.shape != expected:
            shapes = f"{list(tensor.shape)}, expected {list(expected)}"
            raise UserError(f"{where} has shape {shapes}: {hint}")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise UserError(f"{where} is {tensor.dtype}, expected floating point")
        array = tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim)))
        with np.errstate(over="ignore"):  # becomes infinite
            loaded[path] = np.array(array, leaf.dtype)
        if not np.isfinite(loaded[path]).all():
            raise UserError(f"{where} has NaN or infinite values: the file is damaged")
    num_values = sum(array.size for array in loaded.values())
    without = f", without {len(ignored)} named {ignored_prefix}*" if ignored else ""
    read = f"{file.origin} (sha256 {file.sha256})"
    return loaded, f"{read}: {len(loaded)} arrays, {num_values:,} values{without}"


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))
