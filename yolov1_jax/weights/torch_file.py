"""Reads the state dict of a file of torch.save, without PyTorch.

torch.save has two formats. Since PyTorch 1.6 a file is a zip archive of a pickle,
`<name>/data.pkl`, and of the raw numbers of each storage, `<name>/data/<key>`. Before that it was
five pickles (a magic number, the version of the format, the byte order, the content, the keys of
the storages) and then the storages, each after the number of its values.

A pickle is a program that imports and calls what it names. Here it can name only what is in
`NAMES`, and a tensor is a description until its storage is read and checked.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 4 << 20  # a state dict has a few hundred bytes per tensor
MAX_DIMENSIONS = 8
# The keys under which training programs store a state dict, beside optimizer and counters.
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


class _Storage(NamedTuple):
    """The numbers of one or several tensors, which stand elsewhere in the file."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it; offset and strides count values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict, which may lie in a dict under one of `STATE_DICT_KEYS`.

    Returns:
      Arrays by name, in the file's own dtypes (bfloat16 is that of ml_dtypes); read-only.

    Raises:
      Exception: of any type: the file is truncated, damaged or hostile, or holds no state dict.
    """
    with open(path, "rb") as file:
        read = _read_zip if file.read(4) == ZIP_MAGIC else _read_legacy
        file.seek(0)
        content, storages = read(file)
    outer = content if isinstance(content, dict) else {}
    for tensors in (outer, *map(outer.get, STATE_DICT_KEYS)):
        if isinstance(tensors, dict) and set(map(type, tensors.values())) == {_Tensor}:
            return {str(name): _array(name, value, storages) for name, value in tensors.items()}
    raise ValueError("it holds no dict of tensors and nothing else: save model.state_dict()")


def _read_zip(file: BinaryIO) -> tuple[Any, Mapping[str, bytes]]:
    """Returns the content of the pickle, and the storages by key."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if sum(entry.file_size for entry in entries.values()) > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries are compressed or overlap")
        for entry in entries.values():
            if entry.CRC == 0:
                del entry.CRC  # torch.save can leave it out: zipfile then compares nothing
        pickled = next((name for name in entries if name.endswith("data.pkl")), "data.pkl")
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickled)[:MAX_PICKLE_BYTES]))
        content = unpickler.load()
        return content, {key: archive.read(f"{root}data/{key}") for key in unpickler.dtypes}


def _read_legacy(file: BinaryIO) -> tuple[Any, Mapping[str, memoryview]]:
    """As `_read_zip`."""
    data = file.read()
    stream = io.BytesIO(data[:MAX_PICKLE_BYTES])
    magic, _, system = (_Unpickler(stream).load() for _ in range(3))
    if magic != LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("torch.save did not write it, or did so on a big-endian machine")
    unpickler = _Unpickler(stream)
    content, keys = unpickler.load(), _Unpickler(stream).load()
    start = stream.tell()
    storages = {}
    for key in keys:
        _require(isinstance(key, str))
        (size,) = struct.unpack_from("<q", data, start)
        end = start + 8 + size * unpickler.dtypes[key].itemsize
        storages[key] = memoryview(data)[start + 8 : end]
        start = end
    return content, storages


def _array(name: Any, tensor: _Tensor, storages: Mapping[str, Any]) -> np.ndarray:
    """The tensor's view of its storage."""
    (key, dtype, size), offset, shape, strides = tensor
    if 0 in shape:
        return np.empty(shape, dtype)
    values = np.frombuffer(storages[key], dtype)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((length - 1) * stride for length, stride in steps)
    if len(values) != size or max(math.prod(shape), last + 1) > size:
        raise ValueError(f"{name} reaches beyond its storage of {len(values):,} values")
    byte_strides = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, byte_strides, writeable=False)


class _Dict(dict[str | int, Any]):
    """A dict or OrderedDict. Tuples are no keys: to hash nested ones could take for ever."""

    def __init__(self, items: Any = ()) -> None:  # of an OrderedDict of Python 2
        for key, value in items:
            self[key] = value
        if items:
            items.clear()  # moved, because a pickle can recall one list any number of times

    def __setitem__(self, key: Any, value: Any) -> None:
        _require(isinstance(key, str | int))
        super().__setitem__(key, value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    _require(isinstance(storage, _Storage) and max(len(shape), len(strides)) <= MAX_DIMENSIONS)
    _require(all(map(_is_size, (offset, *shape, *strides))))
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < 1 << 63


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("its pickle is damaged")


# What the names in the pickle of a state dict stand for.
NAMES: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch.Size": lambda lengths: lengths,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.ShortStorage": np.dtype(np.int16),
}


class _Unpickler(pickle._Unpickler):
    """The standard library's Unpickler, with `NAMES` in place of imports.

    It is the one written in Python, because the one in C allocates memory for any index that a
    pickle names (64 GiB for 6 bytes) and hashes any key.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="utf-8")  # of the strings of Python 2
        self.dtypes: dict[str, np.dtype] = {}  # of the storages, by key

    def find_class(self, module: str, name: str) -> Any:
        found = NAMES.get(f"{module}.{name}")
        if found is None:
            raise ValueError(f"it asks for {module}.{name}, not imported: save model.state_dict()")
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        _require(kind == "storage" and isinstance(dtype, np.dtype) and view in ([], [None]))
        _require(isinstance(key, str) and _is_size(size))
        self.dtypes[key] = dtype
        return _Storage(key, dtype, size)

    # Instructions are left out that hash keys or allocate what a pickle only claims to hold.
    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys(pickle.DICT + pickle.EMPTY_SET + pickle.FROZENSET + pickle.BYTEARRAY8),
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()),
        pickle.BUILD[0]: lambda self: self.stack.pop(),  # the attributes of an OrderedDict
    }
