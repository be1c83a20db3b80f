"""A file of weights, of whatever format and origin, and the safetensors that this project writes.

What a file is, its first bytes decide, not its name: safetensors, or one of the two formats of
torch.save. Instead of a path it may be named on the Hugging Face hub, see hub.py.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from yolov1_jax.errors import UserError
from yolov1_jax.weights import hub
from yolov1_jax.weights.torch_file import ZIP_MAGIC, TorchFileError, read_state_dict

# Put before every name by torch.nn.DataParallel and by torch.compile.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# The types of safetensors that NumPy has, with ml_dtypes.
NUMPY_DTYPES = (
    *("F64", "F32", "F16", "BF16", "C64", "BOOL"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"),
)


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """The content of a file."""

    origin: str  # as asked for: a path, or a name on the hub
    path: str  # where it is on this machine
    sha256: str
    metadata: Mapping[str, str]  # of safetensors; empty where there is none
    tensors: Mapping[str, np.ndarray]  # by name, in the file's own layout and dtypes

    def __str__(self) -> str:
        place = self.path if self.path == self.origin else f"{self.origin} at {self.path}"
        return f"{place} (sha256 {self.sha256})"


def check_origin(origin: str) -> None:
    """Raises the UserErrors of `read_weights` that can be known without reading or fetching."""
    if hub.is_hub_name(origin):
        hub.parse(origin)
        hub.client(origin)
    elif not os.path.isfile(origin):
        raise UserError(f"no file of weights at {origin}")


def read_weights(origin: str | os.PathLike[str]) -> WeightsFile:
    """Reads all arrays of a file; of a torch file without PyTorch, and without running its pickle.

    Args:
      origin: a path, or a name on the hub such as "hf://timm/resnet18.tv_in1k".

    Raises:
      UserError: there is no such file, or it is truncated, damaged, hostile or of another format.
    """
    origin = os.fspath(origin)
    path = hub.download(origin) if hub.is_hub_name(origin) else origin
    if not os.path.isfile(path):
        raise UserError(f"no file of weights at {path}")
    try:
        with open(path, "rb") as stream:
            head = stream.read(9)
            stream.seek(0)
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    metadata: Mapping[str, str] = {}
    if head[8:] == b"{":
        tensors = read_safetensors(path)
        metadata = read_metadata(path)
    elif head.startswith((ZIP_MAGIC, b"\x80")):
        try:
            tensors = read_state_dict(pathlib.Path(path).read_bytes())
        except TorchFileError as error:
            raise UserError(f"{path} is not a usable torch file: {error}") from error
    else:
        raise UserError(
            f"{path} is neither a safetensors file nor one of torch.save: it begins with {head!r}"
        )
    return WeightsFile(origin, path, sha256, metadata, _unwrapped(tensors))


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file by name.

    Raises:
      UserError: no such file, truncated, or another format.
    """
    if not os.path.isfile(path):
        raise UserError(f"no file of weights at {path}")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = _culprit(path) or " ".join(str(error).split())
        raise UserError(f"{path} is not a usable safetensors file: {reason}") from error


def _culprit(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with which parameter of a safetensors file; None if its header does not tell.

    The header is the size of a JSON object, 8 bytes, and that object: {name: {"dtype", "shape",
    "data_offsets": [begin, end] behind the header}}.
    """
    content = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    try:
        entries = json.loads(content[8:start])
        entries.pop("__metadata__", None)
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            if start + entry["data_offsets"][1] > len(content):
                return f"it ends within or before parameter {name[:100]}"
            if entry["dtype"] not in NUMPY_DTYPES:
                return f"parameter {name[:100]} has the type {entry['dtype']}, which NumPy lacks"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return None


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What a safetensors file says beside its arrays."""
    with safetensors.safe_open(path, framework="numpy") as content:
        return dict(content.metadata() or {})


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a file that is either there and whole, or not there.

    Raises:
      UserError: it cannot be written.
    """
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # A scalar has become an array of one value on the way.
    shaped = {name: contiguous[name].reshape(array.shape) for name, array in tensors.items()}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(shaped, temporary, dict(metadata))
        temporary.replace(target)
    except (OSError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written: {error}; choose another --output") from error


def _unwrapped(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under the names that they have in the model itself."""
    result = dict(tensors)
    while result:
        prefixes = (one for one in WRAPPER_PREFIXES if all(name.startswith(one) for name in result))
        prefix = next(prefixes, None)
        if prefix is None:
            break
        result = {name.removeprefix(prefix): array for name, array in result.items()}
    return result
