"""The state dict of a file that torch.save wrote, without PyTorch.

There are two formats. Since PyTorch 1.6 a file is a zip archive (stored, never compressed) of a
pickle, `<name>/data.pkl`, and a file of raw numbers per storage, `<name>/data/<key>`. Before that
it was five pickles (a magic number, the format's version, the byte order, the content, the keys of
the storages) and then the storages, each after the number of its values.

Arrays are views of the file's bytes, so that what is read never takes more memory than the file.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from yolov1_jax.weights.torch_pickle import (
    MAX_BYTES,
    PickleError,
    Storage,
    TensorView,
    read_pickle,
)

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# Under one of these, training programs keep the state dict beside their optimizer and counters.
WRAPPERS = ("state_dict", "model_state_dict", "model")

StorageReader = Callable[[Storage], np.ndarray]


class TorchFileError(Exception):
    """Why a file cannot be read; says what is wrong with it, but not which file it is."""


def read_state_dict(data: bytes) -> dict[str, np.ndarray]:
    """Name -> array of a state dict, in the file's own dtypes.

    Args:
      data: the content of the file. A state dict may lie in a dict under one of `WRAPPERS`.

    Returns:
      Arrays that cannot be written to. Those of bfloat16 have the dtype of ml_dtypes.

    Raises:
      TorchFileError: the file is truncated or damaged, holds something else than a state dict, or
        its pickle wants more than a state dict needs. Names the parameter where there is one.
    """
    try:
        content, read = _open_zip(data) if data.startswith(ZIP_MAGIC) else _open_legacy(data)
    except PickleError as error:
        raise TorchFileError(str(error)) from None
    return {name: _array(name, view, read) for name, view in _state_dict(content).items()}


def _open_zip(data: bytes) -> tuple[Any, StorageReader]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, struct.error) as e:
        cut = _cut_parameter(data)
        where = "" if cut is None else f"; it ends within or before {cut}"
        raise TorchFileError(f"it is not a complete zip archive ({e}){where}") from None
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise TorchFileError(f"it is a zip archive with {len(pickles)} data.pkl, expected 1")
    root = pickles[0].removesuffix("data.pkl")
    swapped = False
    if f"{root}byteorder" in entries:
        byte_order = bytes(_stored(data, entries[f"{root}byteorder"]))
        if byte_order not in (b"little", b"big"):
            raise TorchFileError(f"its byte order is {byte_order[:20]!r}, expected little or big")
        swapped = byte_order == b"big"

    def read(storage: Storage) -> np.ndarray:
        entry = entries.get(f"{root}data/{storage.key}")
        if entry is None:
            raise TorchFileError(f"its storage {storage.key[:20]!r} is missing")
        return _values(_stored(data, entry), storage, swapped=swapped)

    return read_pickle(io.BytesIO(_stored(data, entries[pickles[0]]))), read


def _cut_parameter(data: bytes) -> str | None:
    """The first parameter that the beginning of an archive lacks; None if that cannot be told.

    The directory of a zip archive stands at its end, but torch writes the pickle in front of the
    numbers, and every entry has a header of its own.
    """
    starts: dict[bytes, int] = {}  # of the contents by name
    header = data.find(ZIP_MAGIC)
    while 0 <= header <= len(data) - 30:
        name_size, extra_size = struct.unpack_from("<HH", data, header + 26)
        name = data[header + 30 : header + 30 + name_size]
        starts.setdefault(name, header + 30 + name_size + extra_size)
        header = data.find(ZIP_MAGIC, header + 4)
    pickles = [name for name in starts if name.endswith(b"data.pkl")]
    if not pickles:
        return None
    start = starts[pickles[0]]
    try:
        pickled = io.BytesIO(data[start : start + MAX_BYTES])
        tensors = _state_dict(read_pickle(pickled))
    except (PickleError, TorchFileError):
        return None
    root = pickles[0].removesuffix(b"data.pkl")
    for parameter, view in tensors.items():
        start = starts.get(root + b"data/" + view.storage.key.encode(), len(data))
        if start + view.storage.num_values * view.storage.dtype.itemsize > len(data):
            return parameter[:100]
    return None


def _stored(data: bytes, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry. (zipfile would believe what a header says of its size.)"""
    name = entry.filename[-60:]
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise TorchFileError(f"its {name!r} is compressed or encrypted, which torch never does")
    start = entry.header_offset
    header = data[start : start + 30] if start >= 0 else b""
    if len(header) < 30 or not header.startswith(ZIP_MAGIC):
        raise TorchFileError(f"it is truncated or damaged at {name!r}")
    start += 30 + sum(struct.unpack_from("<HH", header, 26))  # name, extra field
    content = memoryview(data)[start : start + entry.file_size]
    if len(content) != entry.file_size:
        raise TorchFileError(f"it is truncated at {name!r}")
    # torch writes 0 where it was told not to compute the checksums.
    if entry.CRC != 0 and zlib.crc32(content) != entry.CRC:
        raise TorchFileError(f"it is damaged: the checksum of {name!r} does not match")
    return content


def _open_legacy(data: bytes) -> tuple[Any, StorageReader]:
    # Five pickles of the largest size allowed; the storages behind them are not copied.
    stream = io.BytesIO(data[: 5 * MAX_BYTES])
    if read_pickle(stream) != LEGACY_MAGIC:
        raise TorchFileError("it is a pickle, but was not written by torch.save")
    version, system = read_pickle(stream), read_pickle(stream)
    if version != LEGACY_VERSION or not isinstance(system, dict):
        raise TorchFileError("it is of an unknown version of torch's old format")
    if not system.get("little_endian", True):
        raise TorchFileError("it was written on a big-endian machine: save it again on another")
    content, keys = read_pickle(stream), read_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TorchFileError("it is damaged: the list of its storages is none")
    position = stream.tell()
    # The size of a value, and so where the next storage begins, is known to the tensors alone.
    dtypes = {storage.key: storage.dtype for storage in _storages(content)}
    found: dict[str, tuple[int, memoryview]] = {}
    for key in keys:
        if key not in dtypes:
            raise TorchFileError(f"it is damaged: no tensor is in its storage {key[:20]!r}")
        if len(data) < position + 8:
            break  # truncated: told when a parameter is missed
        (num_values,) = struct.unpack_from("<q", data, position)
        size = max(num_values, 0) * dtypes[key].itemsize
        found[key] = num_values, memoryview(data)[position + 8 : position + 8 + size]
        position += 8 + size

    def read(storage: Storage) -> np.ndarray:
        if storage.key not in found:
            raise TorchFileError(f"it ends before storage {storage.key[:20]!r}")
        num_values, content = found[storage.key]
        if num_values != storage.num_values:
            raise TorchFileError(
                f"storage {storage.key[:20]!r} has {num_values:,} values, expected "
                f"{storage.num_values:,}"
            )
        return _values(content, storage, swapped=False)

    return content, read


def _storages(content: Any) -> list[Storage]:
    """Of all tensors, wherever they are in nested dicts, lists and tuples."""
    storages: list[Storage] = []
    seen: set[int] = set()  # containers may contain each other
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Storage):
            storages.append(value)
        elif isinstance(value, TensorView):
            storages.append(value.storage)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return storages


def _values(content: memoryview, storage: Storage, *, swapped: bool) -> np.ndarray:
    """The bytes of a storage as its values, 1-D."""
    expected = storage.num_values * storage.dtype.itemsize
    if len(content) != expected:
        raise TorchFileError(
            f"storage {storage.key[:20]!r} has {len(content):,} bytes, expected {expected:,}"
        )
    values = np.frombuffer(content, np.uint8)
    if swapped:
        values = np.ascontiguousarray(values.reshape(-1, storage.dtype.itemsize)[:, ::-1])
    return values.reshape(-1).view(storage.dtype)


def _state_dict(content: Any) -> Mapping[str, TensorView]:
    """The state dict in what a file holds."""
    if not isinstance(content, dict):
        raise TorchFileError(f"it holds {_kind(content)}, expected a state dict")
    for candidate in (content, *(content.get(key) for key in WRAPPERS)):
        if isinstance(candidate, dict) and _has_tensors(candidate):
            break
    else:
        keys = ", ".join(repr(key)[:40] for key in list(content)[:5]) or "nothing"
        raise TorchFileError(f"it holds a dict with {keys}, expected the tensors of a state dict")
    tensors = {name: value for name, value in candidate.items() if name != "_metadata"}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TorchFileError(f"a parameter is named {name!r}, expected a string")
        if not isinstance(value, TensorView):
            raise TorchFileError(f"{name[:100]} is {_kind(value)}, expected a tensor")
    return tensors


def _has_tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, TensorView) for value in content.values())


def _kind(value: Any) -> str:
    return (
        "a tensor" if isinstance(value, TensorView) else f"a value of type {type(value).__name__}"
    )


def _array(name: str, view: TensorView, read: StorageReader) -> np.ndarray:
    """The array that a view of a storage is, after checking that it stays inside the storage."""
    try:
        values = read(view.storage)
    except TorchFileError as error:
        raise TorchFileError(f"{name[:100]}: {error}") from None
    size, last = 1, view.offset
    for length, stride in zip(view.shape, view.strides, strict=True):
        size *= length
        last += (length - 1) * stride
    if size == 0:
        if math.prod(max(length, 1) for length in view.shape) >= 1 << 31:
            raise TorchFileError(f"{name[:100]} is empty and has the shape {list(view.shape)}")
        return np.empty(view.shape, values.dtype)
    if last >= len(values):
        raise TorchFileError(
            f"{name[:100]} of shape {list(view.shape)} reaches beyond its storage of "
            f"{len(values):,} values"
        )
    if size > len(values):
        raise TorchFileError(
            f"{name[:100]} of shape {list(view.shape)} repeats the {len(values):,} values of its "
            "storage, as no parameter does"
        )
    # The stride of a single value is never walked, and may be any number.
    strides = [
        stride * values.itemsize if length > 1 else 0
        for length, stride in zip(view.shape, view.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(
        values[view.offset :], view.shape, strides, writeable=False
    )
