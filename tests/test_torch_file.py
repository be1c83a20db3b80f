"""State dicts out of both formats of torch.save, written by PyTorch and by torch_files.py."""

import collections
import io
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from golden.pth_values import expected
from torch_files import FLOATS, Call, Raw, assert_same, example, legacy, state_dict, tensor, zipped

from yolov1_jax.config import UserError
from yolov1_jax.weights import torch_file
from yolov1_jax.weights.safetensors_file import read_weights

ONE = {"0": np.arange(24, dtype=np.float32)}


@pytest.fixture(params=[zipped, legacy])
def write(request):
    return request.param


@pytest.fixture
def read(tmp_path):
    def read(data):
        (tmp_path / "w.pth").write_bytes(data)
        return read_weights(tmp_path / "w.pth").tensors

    return read


@pytest.fixture
def refused(read):
    """Asserts that a file is refused with little memory and in one line, which it returns."""

    def refused(data):
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=r"^.{,500}$") as error:
                read(data)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
        return str(error.value)

    return refused


@pytest.mark.parametrize("file", ["pth_zip.pth", "pth_legacy.pth", "pth_wrapped.pth"])
def test_files_of_pytorch(file):
    """The last is a training program's: of a DataParallel model, beside optimizer and counter."""
    golden = pathlib.Path(__file__).parent / "golden"
    assert_same(read_weights(golden / file).tensors, expected())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_files_of_our_own(write, read, protocol, key):
    content, storages = state_dict(example())
    if key is not None:
        shared = (0.9, 0.999)
        groups = [{"betas": shared, "lr": 1e-4}, {"betas": shared, "ä": [-1, 2**40, None, True]}]
        content = {"epoch": 3, key: content, "optimizer": groups}
    assert_same(read(write(content, storages, protocol=protocol)), example())


def test_ordered_dicts(write, read):
    """With attributes, as of a module; and as Python 2 wrote them, by pairs and byte strings."""
    content, storages = state_dict(example())
    ordered = collections.OrderedDict(content)
    ordered._metadata = {"": {"version": 1}}
    assert_same(read(write(ordered, storages)), example())
    pairs = [[Raw(b"U" + bytes([len(name)]) + name.encode()), content[name]] for name in content]
    assert_same(read(write(Call("collections.OrderedDict", (pairs,)), storages)), example())


def test_views_of_one_storage(write, read):
    numbers = ONE["0"]
    views = {
        "all": ((0, (2, 3, 4), (12, 4, 1)), numbers.reshape(2, 3, 4)),
        "turned": ((0, (4, 3), (1, 4)), numbers[:12].reshape(3, 4).T),
        "end": ((22, (1, 2), (10**9, 1)), numbers[22:].reshape(1, 2)),
        "one": ((23, (), ()), numbers[23]),
        "nothing": ((24, (0, 7), (1, 1)), np.zeros((0, 7), np.float32)),
    }
    found = read(write({name: tensor(FLOATS, *place) for name, (place, _) in views.items()}, ONE))
    for name, (_, values) in views.items():
        np.testing.assert_array_equal(found[name], values)


def test_checksums(read, refused):
    """torch.serialization.set_crc32_options(False) leaves zeros in their place."""
    data = zipped(*state_dict(example()))
    damaged = data.replace(np.float32(23).tobytes(), np.float32(24).tobytes())
    assert "CRC" in refused(damaged)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for checksum in {info.CRC for info in archive.infolist()} - {0}:
            data = data.replace(struct.pack("<I", checksum), bytes(4))
    assert_same(read(data), example())


def test_truncated_and_contradictory_files(write, refused):
    data = write(*state_dict(example()))
    for length in range(0, len(data), 3):
        refused(data[:length])
    assert "big-endian" in refused(write(*state_dict(example()), byte_order="big"))
    old = legacy({"w": tensor(FLOATS, 0, (2,), (1,))}, ONE)
    for size in (-1, 0, 23, 25, 1 << 60):  # which is not that of the storage
        refused(write({"w": tensor(FLOATS._replace(size=size), 0, (2,), (1,))}, ONE))
        refused(old.replace(struct.pack("<q", 24), struct.pack("<q", min(size, 23))))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        *((0, (25,), (1,)), (1, (24,), (1,)), (24, (1,), (1,)), (0, (2, 2), (1, 23))),
        *((-1, (3,), (1,)), (0, (-3,), (1,)), (23, (2,), (-1,)), (10**30, (1,), (1,))),
        *((0, (2,), (1 << 62,)), (0, (5,), (1 << 62,))),  # four strides overflow 64 bits to 0
        *((24, (0, 10**30), (1, 1)), (0, (0, 2**30, 2**30, 2**30), (10**9, 0, 0, 0))),
        *((0, (10**6, 10**6), (0, 0)), (0, (3, 2), (1,)), (0, (1,) * 100, (1,) * 100)),
    ],
)
def test_a_tensor_stays_inside_its_storage(write, refused, offset, shape, strides):
    refused(write({"w": tensor(FLOATS, offset, shape, strides)}, ONE))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_no_program_runs(write, refused, tmp_path, protocol):
    target = str(tmp_path / "made")
    string = b"X" + struct.pack("<I", len(target)) + target.encode()
    for value in (
        Call("os.mkdir", (target,)),
        Raw(b"(" + string + b"ios\nmkdir\n"),  # INST
        Raw(b"(cos\nmkdir\n" + string + b"o"),  # OBJ
        Raw(b"cos\nmkdir\n" + string + b"\x85\x81"),  # NEWOBJ
        Raw(b"\x8c\x02os\x8c\x05mkdir\x93" + string + b"\x85R"),  # STACK_GLOBAL
    ):
        assert "os.mkdir" in refused(write({"conv.weight": value}, {}, protocol=protocol))
    assert not (tmp_path / "made").exists()


BOMB = b")" + 60 * b"q\x01h\x01\x86"  # pairs of pairs of pairs ...: to hash it takes for ever
PAIRS = [(number, None) for number in range(1000)]


@pytest.mark.parametrize(
    "value",
    [
        *(3, None, {}, {"epoch": 3}, Call("torch.FloatStorage", ())),
        Call("torch._utils._rebuild_tensor_v2", ()),
        # Names of other things
        *(Call("builtins.eval", ()), Call("torch.FloatStorage.__class__", ()), Call(".", ())),
        Call("torch._utils._rebuild_tensor_v2.__globals__", ()),
        # An extension; a memo never filled; no stack
        *(Raw(b"\x82\x01"), Raw(b"h\xff"), Raw(b"00000000")),
        # Keys that take for ever to hash: SETITEM, DICT, FROZENSET
        *(Raw(b"}" + BOMB + b"K\1s"), Raw(b"(" + BOMB + b"K\1d"), Raw(b"(" + BOMB + b"\x91")),
        # Sizes that the file does not have
        *(Raw(b"X\xf0\xff\xff\xff"), Raw(b"\x96" + bytes(4) + b"\1\0\0\0")),
        *(Raw(b"\x95" + bytes(7) + b"\1"), Raw(b"K\1r\xf0\xff\xff\xff")),
        # A list of a thousand pairs, a thousand times made a dict
        [Call("collections.OrderedDict", (PAIRS,)) for _ in range(1000)],
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_no_state_dict_does(write, refused, value):
    refused(write({"w": value}, {}))
    refused(write(value, {}))


def test_keys_of_storages_and_sizes_beyond_all_measure(write, refused, monkeypatch):
    refused(legacy(*state_dict(example()), keys=[Raw(BOMB)]))
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 100)
    refused(write(*state_dict(example())))


def test_archives_of_more_than_their_size(refused):
    """Compressed entries; entries that share their bytes; headers that claim a name of 64 KB."""
    big = {"w": np.zeros(1 << 22, np.float32)}
    refused(zipped(*state_dict(big), compression=zipfile.ZIP_DEFLATED))
    data = bytearray(zipped(*state_dict(dict.fromkeys("abcde", np.zeros(1000, np.float32)))))
    entry = data.index(b"PK\x01\x02")
    while (entry := data.find(b"PK\x01\x02", entry + 1)) > 0:
        struct.pack_into("<I", data, entry + 24, len(data) // 2)
    refused(bytes(data))
    header = b"PK\x03\x04\xff\xff" + struct.pack("<I", 1) + bytes(16) + b"\xff\xff"
    refused(header * 60_000)
