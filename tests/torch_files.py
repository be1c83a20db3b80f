"""Writes files as torch.save does, and hostile ones, without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections import namedtuple

import ml_dtypes
import numpy as np

STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}

Raw = namedtuple("Raw", "code")  # instructions of a pickle as they stand
Call = namedtuple("Call", "name arguments")  # what a pickle makes by a call
Storage = namedtuple("Storage", "key name size")
FLOATS = Storage("0", "FloatStorage", 24)


class _Pickler(pickle._Pickler):
    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Raw):
            self.write(obj.code)
        elif isinstance(obj, Call):
            self.save(Raw("c{}\n{}\n".format(*obj.name.rsplit(".", 1)).encode()))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, Storage):
            kind = Raw(f"ctorch\n{obj.name}\n".encode())
            self.save(("storage", kind, obj.key, "cpu", obj.size))
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


def pickled(value, protocol=2):
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor(storage, offset, shape, strides):
    hooks = Call("collections.OrderedDict", ())
    arguments = (storage, offset, shape, strides, False, hooks)
    return Call("torch._utils._rebuild_tensor_v2", arguments)


def state_dict(arrays):
    """A state dict of arrays, and its storages by key."""
    storages = {str(number): array for number, array in enumerate(arrays.values())}
    tensors = {}
    for name, (key, array) in zip(arrays, storages.items(), strict=True):
        strides = np.array(np.empty(array.shape, np.uint8).strides, int).tolist()
        storage = Storage(key, STORAGE_NAMES[array.dtype.name], array.size)
        tensors[name] = tensor(storage, 0, array.shape, tuple(strides))
    return tensors, storages


def zipped(content, storages, *, protocol=2, byte_order="little", **options):
    """The format since PyTorch 1.6; `options` are those of ZipFile. -> bytes"""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        archive.writestr("weights/data.pkl", pickled(content, protocol))
        archive.writestr("weights/byteorder", byte_order)
        for key, array in storages.items():
            archive.writestr(f"weights/data/{key}", array.tobytes())
    return stream.getvalue()


def legacy(content, storages, *, protocol=2, byte_order="little", keys=None):
    """The format before PyTorch 1.6. -> bytes"""
    system = {"little_endian": byte_order == "little"}
    parts = 0x1950A86A20F9469CFC6C, 1001, system, content, keys or list(storages)
    raw = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    return b"".join([*(pickled(part, protocol) for part in parts), *raw])


def example():
    """A state dict with a kernel, a bias in bfloat16, a counter, doubles, and an empty array."""
    return {
        "conv.weight": np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2),
        "conv.bias": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "bn.num_batches_tracked": np.array(7),
        "bn.running_var": np.array([0.25, 3.0]),
        "empty": np.zeros((0, 4), np.float16),
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
