"""Reads a file of weights of any format, and writes safetensors.

The first bytes of a file decide what it is, not its name: safetensors, or one of the two formats of
torch.save. Instead of a path it may be named on the Hugging Face hub, see hub.py.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from yolov1_jax.config import UserError, local_path
from yolov1_jax.weights import hub
from yolov1_jax.weights.torch_file import ZIP_MAGIC, read_state_dict

# Put before every name by torch.nn.DataParallel and by torch.compile.
_WRAPPERS = re.compile(r"\A(?:module\.|_orig_mod\.)+")


class WeightsFile(NamedTuple):
    """The content of a file."""

    origin: str  # as asked for: a path, or a name on the hub
    sha256: str
    metadata: Mapping[str, str]  # of safetensors, else empty
    tensors: Mapping[str, np.ndarray]  # by name, in the file's own layout and dtypes


def local_file(origin: str | os.PathLike[str]) -> str:
    """The path of a file of weights, fetched if it is one of the hub. Raises UserError."""
    origin = os.fspath(origin)
    if origin.startswith(hub.PREFIX):
        return hub.download(origin)
    if not local_path(origin).is_file():
        raise UserError(f"no file of weights at {origin}")
    return str(local_path(origin))


def file_sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(origin: str | os.PathLike[str]) -> WeightsFile:
    """Reads all arrays of a path or of a name on the hub, without PyTorch or running a pickle.

    Raises:
      UserError: there is no such file, or it is truncated, damaged, hostile or of another format.
    """
    origin, path = os.fspath(origin), local_file(origin)
    metadata: dict[str, str] = {}
    try:
        sha256 = file_sha256(path)
        with open(path, "rb") as stream:
            head = stream.read(9)
        if head.startswith((ZIP_MAGIC, b"\x80")) and head[8:] != b"{":
            tensors = read_state_dict(path)
        else:
            tensors = safetensors.numpy.load_file(path)
            with safetensors.safe_open(path, framework="numpy") as content:
                metadata = content.metadata() or {}
    except Exception as error:  # damage and the network show in many types, of several libraries
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{origin} gives no safetensors or torch.save file ({reason})") from error
    bare = {name: _WRAPPERS.sub("", name) for name in tensors}
    if len({name.removesuffix(short) for name, short in bare.items()}) == 1:
        tensors = {bare[name]: array for name, array in tensors.items()}
    return WeightsFile(origin, sha256, metadata, tensors)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file, which a failure may leave incomplete: see `run_folder.replacing`."""
    # safetensors writes the memory of an array, whatever its strides.
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    pathlib.Path(path).write_bytes(safetensors.numpy.save(contiguous, dict(metadata)))
