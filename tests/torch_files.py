"""Files as torch.save writes them, and worse, assembled byte by byte without PyTorch."""

import io
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np

STORAGE_NAMES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}
EMPTY_DICT, MARK, SETITEMS, STOP, REDUCE, PERSISTENT = b"}", b"(", b"u", b".", b"R", b"Q"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def items(*values: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(values) + b"t"


def integers(values) -> bytes:
    return items(*map(integer, values))


def storage(key, storage_name, num_values, kind="storage") -> bytes:
    parts = text(kind), name("torch", storage_name), text(key), text("cpu"), integer(num_values)
    return items(*parts) + PERSISTENT


def tensor(described: bytes, offset, shape, strides) -> bytes:
    """The tensor of a storage that `storage` has described."""
    arguments = described, integer(offset), integers(shape), integers(strides)
    empty = name("collections", "OrderedDict") + b")" + REDUCE
    return name("torch._utils", "_rebuild_tensor_v2") + items(*arguments, b"\x89", empty) + REDUCE


def dictionary(entries) -> bytes:
    """{name: bytes that make a value}."""
    pairs = b"".join(text(key) + value for key, value in entries.items())
    return EMPTY_DICT + MARK + pairs + SETITEMS


def program(value: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + value + STOP


def contiguous(key: str, array: np.ndarray) -> bytes:
    """The tensor that is all of a storage of its own."""
    strides = [stride // array.itemsize for stride in np.zeros(array.shape, array.dtype).strides]
    described = storage(key, STORAGE_NAMES[array.dtype.name], array.size)
    return tensor(described, 0, array.shape, strides)


def state_dict(arrays) -> tuple[bytes, dict[str, np.ndarray]]:
    """What makes a state dict, and its storages by key."""
    storages = {str(number): array for number, array in enumerate(arrays.values())}
    entries = zip(arrays, storages.items(), strict=True)
    return dictionary({key: contiguous(*pair) for key, pair in entries}), storages


def zip_file(value: bytes, storages, byte_order=None, compression=zipfile.ZIP_STORED) -> bytes:
    """The format of today."""
    stream = io.BytesIO()
    swap = byte_order == "big"
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("weights/version", "3\n")
        archive.writestr("weights/data.pkl", program(value))
        if byte_order is not None:
            archive.writestr("weights/byteorder", byte_order)
        for key, array in storages.items():
            raw = array.reshape(-1).view(np.uint8)
            raw = raw.reshape(-1, array.itemsize)[:, ::-1] if swap else raw
            archive.writestr(f"weights/data/{key}", raw.tobytes())
    return stream.getvalue()


def legacy_file(value: bytes, storages, keys=None, little_endian=True) -> bytes:
    """The format before PyTorch 1.6."""
    keys = list(storages) if keys is None else keys
    system = dictionary({"little_endian": b"\x88" if little_endian else b"\x89"})
    listed = b"]" + MARK + b"".join(map(text, keys)) + b"e"
    parts = integer(0x1950A86A20F9469CFC6C), integer(1001), system, value, listed
    raw = [struct.pack("<q", storages[key].size) + storages[key].tobytes() for key in keys]
    return b"".join([*map(program, parts), *raw])


def example() -> dict[str, np.ndarray]:
    """A state dict with a kernel, a bias in bfloat16, a counter, doubles, and an empty array."""
    return {
        "conv.weight": np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2),
        "conv.bias": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "bn.num_batches_tracked": np.array(7),
        "bn.running_var": np.array([0.25, 3.0]),
        "empty": np.zeros((0, 4), np.float16),
    }


def recompute_checksum(data: bytes, entry: str, content: bytes) -> bytes:
    """The zip file with another content of an entry, of equal length, and its checksums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo(entry)
        old = archive.read(entry)
    assert len(content) == len(old)
    data = data.replace(old, content)
    return data.replace(struct.pack("<I", info.CRC), struct.pack("<I", zlib.crc32(content)))
