"""State dicts out of both formats of torch.save, written by PyTorch and by torch_files.py."""

import io
import pathlib
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from golden.pth_values import expected
from torch_files import (
    contiguous,
    dictionary,
    example,
    integer,
    legacy_file,
    name,
    program,
    recompute_checksum,
    state_dict,
    storage,
    tensor,
    text,
    zip_file,
)

from yolov1_jax.weights.torch_file import TorchFileError, read_state_dict

GOLDEN = pathlib.Path(__file__).parent / "golden"
WRITERS = {"zip": zip_file, "legacy": legacy_file}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key, strict=True)


@pytest.fixture(params=WRITERS.values(), ids=WRITERS.keys())
def write(request):
    return request.param


# ------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("file", ["pth_zip.pth", "pth_legacy.pth"])
def test_files_of_pytorch(file):
    assert_same(read_state_dict((GOLDEN / file).read_bytes()), expected())


def test_a_training_program_s_file_of_pytorch():
    found = read_state_dict((GOLDEN / "pth_wrapped.pth").read_bytes())
    assert_same(found, {f"module.{key}": array for key, array in expected().items()})


def test_files_of_our_own_hand(write):
    assert_same(read_state_dict(write(*state_dict(example()))), example())


def test_a_big_endian_archive():
    data = zip_file(*state_dict(example()), byte_order="big")
    assert_same(read_state_dict(data), example())
    assert read_state_dict(zip_file(*state_dict(example()), byte_order="little"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_wrapped_state_dict(write, wrapper):
    inner, storages = state_dict(example())
    lone = tensor(storage("0", "FloatStorage", 24), 0, (24,), (1,))
    wrapped = dictionary({"epoch": integer(3), wrapper: inner, "optimizer": b"](" + lone + b"e"})
    assert_same(read_state_dict(write(wrapped, storages)), example())


def test_views_of_one_storage(write):
    values = np.arange(24, dtype=np.float32)
    described = storage("0", "FloatStorage", 24)
    entries = {
        "all": tensor(described, 0, (2, 3, 4), (12, 4, 1)),
        "turned": tensor(described, 0, (4, 3), (1, 4)),
        "end": tensor(described, 22, (1, 2), (10**30, 1)),
        "one": tensor(described, 23, (), ()),
        "nothing": tensor(described, 24, (0, 7), (1, 1)),
    }
    found = read_state_dict(write(dictionary(entries), {"0": values}))
    np.testing.assert_array_equal(found["all"], values.reshape(2, 3, 4))
    np.testing.assert_array_equal(found["turned"], values[:12].reshape(3, 4).T)
    np.testing.assert_array_equal(found["end"], [[22, 23]])
    assert found["one"] == 23
    assert found["nothing"].shape == (0, 7)
    assert not found["all"].flags.writeable


def test_checksums_that_were_not_computed():
    """torch.serialization.set_crc32_options(False) leaves zeros in their place."""
    data = zip_file(*state_dict(example()))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        checksums = [info.CRC for info in archive.infolist()]
    for checksum in filter(None, checksums):
        data = data.replace(struct.pack("<I", checksum), bytes(4))
    assert_same(read_state_dict(data), example())


# ---------------------------------------------------------------------------- what is refused


def refusal(data: bytes) -> str:
    with pytest.raises(TorchFileError) as error:
        read_state_dict(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_truncation_is_told(write):
    data = write(*state_dict(example()))
    for length in range(4, len(data)):
        refusal(data[:length])
    assert write is zip_file or "running_var: storage '3' has 15 bytes" in refusal(data[:-9])


def test_a_truncated_archive_names_the_parameter():
    data = zip_file(*state_dict(example()))
    for number, parameter in enumerate(example()):
        start = data.index(f"weights/data/{number}".encode())
        for end in (start, start + 15)[: example()[parameter].size]:  # before its content, within
            assert refusal(data[:end]).endswith(f"; it ends within or before {parameter}")
    # Only the directory is missing, or the pickle itself is cut: no parameter is to blame.
    assert refusal(data[:-30]).endswith(")")
    assert refusal(data[:60]).endswith(")")


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "message"),
    [
        (0, (25,), (1,), "reaches beyond"),
        (1, (24,), (1,), "reaches beyond"),
        (24, (1,), (1,), "reaches beyond"),
        (0, (2, 2), (1, 23), "reaches beyond"),
        (10**30, (1,), (1,), "reaches beyond"),
        (0, (2,), (10**30,), "reaches beyond"),
        (24, (0, 10**30), (1, 1), "is empty"),
        (0, (0, 2**30, 2**30, 2**30), (10**9, 0, 0, 0), "is empty"),
        (0, (10**30, 10**30), (10**30, 1), "reaches beyond"),
        (0, (10**6, 10**6), (0, 0), "repeats"),
        (0, (5, 5), (0, 1), "repeats"),
    ],
)
def test_a_tensor_stays_inside_its_storage(write, offset, shape, strides, message):
    value = tensor(storage("0", "FloatStorage", 24), offset, shape, strides)
    data = write(dictionary({"conv1.weight": value}), {"0": np.zeros(24, np.float32)})
    found = refusal(data)
    assert found.startswith("conv1.weight ")
    assert message in found


@pytest.mark.parametrize("num_values", [0, 23, 25, 1 << 60])
def test_a_storage_of_another_size_than_claimed(write, num_values):
    value = tensor(storage("0", "FloatStorage", num_values), 0, (2,), (1,))
    message = refusal(write(dictionary({"fc.bias": value}), {"0": np.zeros(24, np.float32)}))
    assert message.startswith("fc.bias: storage '0' has ")


@pytest.mark.parametrize("num_values", [-1, 1 << 62])
def test_a_legacy_storage_of_absurd_size(num_values):
    value, storages = state_dict({"w": np.zeros(3, np.float32)})
    data = legacy_file(value, storages)[: -8 - 12]
    assert "w: storage '0' has" in refusal(data + struct.pack("<q", num_values) + bytes(12))


def test_hostile_claims_take_no_memory():
    huge = 1 << 40
    entries = {
        f"w{i}": tensor(storage("0", "FloatStorage", huge), 0, (huge,), (1,)) for i in range(9)
    }
    files = [
        write(dictionary(entries), {"0": np.zeros(24, np.float32)}) for write in WRITERS.values()
    ]
    tracemalloc.start()
    try:
        for data in files:
            refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_an_archive_whose_directory_lies():
    data = zip_file(*state_dict(example()))
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"weights/data/3"))
    # The size, and where the content starts, of the last storage.
    for position, value in ((20, 1 << 30), (24, 1 << 30), (42, 1 << 30), (42, 3)):
        lying = bytearray(data)
        struct.pack_into("<I", lying, entry + position, value)
        if position != 20:  # that of compressed content, which is not looked at
            assert "running_var" in refusal(bytes(lying)) or "truncated" in refusal(bytes(lying))


def test_damage_is_seen_by_the_checksum():
    data = bytearray(zip_file(*state_dict(example())))
    data[data.index(np.float32(23).tobytes())] ^= 1
    assert "conv.weight: it is damaged: the checksum of 'weights/data/0'" in refusal(bytes(data))


def test_compressed_archives_are_refused():
    """They could hold a thousand times their size."""
    data = zip_file(*state_dict(example()), compression=zipfile.ZIP_DEFLATED)
    assert "compressed or encrypted" in refusal(data)


def test_other_archives_are_refused():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "0 data.pkl" in refusal(stream.getvalue())
    assert "not a complete zip archive" in refusal(b"PK\x03\x04" * 100)


def test_a_missing_storage_names_the_parameter(write):
    value, storages = state_dict(example())
    del storages["3"]
    assert refusal(write(value, storages)).startswith("bn.running_var: ")


def test_a_byte_order_of_neither_kind():
    data = zip_file(*state_dict(example()), byte_order="little")
    data = recompute_checksum(data, "weights/byteorder", b"middle")
    assert "its byte order is b'middle'" in refusal(data)
    assert "big-endian" in refusal(legacy_file(*state_dict(example()), little_endian=False))


def test_a_program_does_not_run(write):
    call = name("os", "abort") + b")R"
    assert "asks for 'os.abort' at 'conv.weight'" in refusal(
        write(dictionary({"conv.weight": call}), {})
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (integer(3), "holds a value of type int, expected a state dict"),
        (b"N", "holds a value of type NoneType"),
        (tensor(storage("0", "FloatStorage", 3), 0, (3,), (1,)), "holds a tensor, expected"),
        (b"}", "holds a dict with nothing"),
        (dictionary({"epoch": integer(3), "net": b"}"}), "holds a dict with 'epoch', 'net', exp"),
        (dictionary({"w": contiguous("0", np.zeros(3)), "epoch": integer(3)}), "epoch is a value"),
        (b"}" + integer(5) + contiguous("0", np.zeros(3)) + b"s", "a parameter is named 5"),
    ],
)
def test_other_content_is_named(write, value, message):
    assert message in refusal(write(value, {"0": np.zeros(3)} if b"Q" in value else {}))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([integer(1)], "was not written by torch.save"),
        ([text("x")], "was not written by torch.save"),
        ([integer(0x1950A86A20F9469CFC6C), integer(1002), b"}"], "unknown version"),
        ([integer(0x1950A86A20F9469CFC6C), integer(1001), b"]"], "unknown version"),
        ([integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", b"}", b"}"], "list of its stor"),
        ([integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", b"}", b"](N" + b"e"], "list of"),
    ],
)
def test_other_pickles_are_refused(parts, message):
    assert message in refusal(b"".join(map(program, parts)))


def test_a_storage_that_no_tensor_needs():
    value, storages = state_dict(example())
    message = refusal(legacy_file(value, {**storages, "stray": np.zeros(1)}))
    assert "no tensor is in its storage 'stray'" in message


def test_random_damage_ends_in_arrays_or_the_one_error(write):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(write(*state_dict(example())), np.uint8)
    refused = 0
    for _ in range(1500):
        damaged = whole.copy()
        where = rng.integers(4, len(whole), rng.integers(1, 4))
        damaged[where] = rng.integers(0, 256, len(where))
        try:
            found = read_state_dict(damaged.tobytes())
        except TorchFileError:
            refused += 1
        else:
            assert sum(array.size for array in found.values()) < 1000
    assert refused > 300


def test_half_and_bfloat16_keep_their_types(write):
    arrays = {"h": np.ones(3, np.float16), "b": np.ones(3, ml_dtypes.bfloat16)}
    found = read_state_dict(write(*state_dict(arrays)))
    assert [found[key].dtype for key in "hb"] == [np.float16, ml_dtypes.bfloat16]
