"""The pickle machine: what a state dict needs, and nothing that a hostile file wants."""

import collections
import contextlib
import io
import os
import pickle
import struct

import numpy as np
import pytest
from torch_files import (
    dictionary,
    integer,
    integers,
    items,
    name,
    program,
    storage,
    tensor,
    text,
)

from yolov1_jax.weights import torch_pickle
from yolov1_jax.weights.torch_pickle import PickleError, Storage, TensorView, read_pickle


def read(value: bytes):
    return read_pickle(io.BytesIO(program(value)))


FLOATS = storage("0", "FloatStorage", 24)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(protocol):
    value = {
        "lr": 0.125,
        "betas": (0.9, 0.999),
        "none": None,
        "flags": [True, False],
        "nested": {"a": (), "b": (1, 2, 3, 4), "c": [], "d": {}},
        "integers": [0, 1, 255, 256, 65536, -1, 2**31, -(2**40), 2**79],
        "ä": "ö\n" * 200,
        3: "three",
    }
    assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_ordered_dict_with_attributes_is_a_dict(protocol):
    value = collections.OrderedDict([("a", 1), ("b", 2)])
    value._metadata = {"": {"version": 1}}
    assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == {"a": 1, "b": 2}


def test_containers_that_contain_themselves():
    ring: list = [1]
    ring.append(ring)
    result = read_pickle(io.BytesIO(pickle.dumps(ring)))
    assert result[1] is result


def test_a_tensor_is_a_description():
    view = read(tensor(FLOATS, 2, (3, 4), (4, 1)))
    expected = Storage("0", np.dtype(np.float32), 24)
    assert view == TensorView(expected, offset=2, shape=(3, 4), strides=(4, 1))


def test_a_parameter_is_its_tensor():
    inner = tensor(FLOATS, 0, (24,), (1,))
    value = name("torch._utils", "_rebuild_parameter") + items(inner, b"\x88", b"}") + b"R"
    assert read(value) == read(inner)


def test_the_stream_stands_behind_the_pickle():
    stream = io.BytesIO(program(integer(1)) + program(integer(2)) + b"rest")
    assert [read_pickle(stream), read_pickle(stream)] == [1, 2]
    assert stream.read() == b"rest"


# ------------------------------------------------------------------------------------- hostility


class Runs:
    """A program in the place of a tensor."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_program_does_not_run(protocol, tmp_path):
    target = tmp_path / "executed"
    value = {"conv1.weight": Runs(os.mkdir, str(target))}
    with pytest.raises(PickleError, match=r"asks for '(posix|nt)\.mkdir' at 'conv1\.weight'"):
        read_pickle(io.BytesIO(pickle.dumps(value, protocol)))
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch", "FloatStorage.__class__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.nn.modules.conv", "Conv2d"),
        ("collections", "defaultdict"),
        ("torch.evil", "FloatStorage"),
        ("evil", "FloatStorage"),
        ("yolov1_jax.weights.torch_pickle", "read_pickle"),
        ("", ""),
        ("x" * 10_000, "y"),
    ],
)
def test_only_listed_names_have_a_meaning(module, attribute):
    with pytest.raises(PickleError, match=r"asks for .* at 'bn1\.bias', which no state dict needs"):
        read(dictionary({"bn1.bias": name(module, attribute)}))
    with pytest.raises(PickleError, match="asks for") as error:
        read(dictionary({"bn1.bias": text(module) + text(attribute) + b"\x93"}))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"ios\nsystem\n", "instruction INST at 'w'"),
        (b"(" + name("torch", "Size") + b"o", "instruction OBJ at 'w'"),
        (name("torch", "Size") + b")\x81", "instruction NEWOBJ at 'w'"),
        (b"\x82\x01", "instruction EXT1 at 'w'"),
        (b"P0\n", "instruction PERSID at 'w'"),
        (b"\x8f", "instruction EMPTY_SET at 'w'"),
        (name("torch", "Size") + b"}b", "changes a _Name at 'w'"),  # attributes of a function
        (b"]}b", "changes a list"),
        (text("f") + b")R", "calls what is no function"),
        (name("torch", "FloatStorage") + b")R", "misuses torch.FloatStorage"),
        (name("torch._utils", "_rebuild_tensor_v2") + b")R", "misuses torch._utils"),
        (items(text("module"), text("x")) + b"Q", "refers to what is no plain storage at 'w'"),
        (text("0") + b"Q", "no plain storage"),
        (storage("0", "FloatStorage", -1), "no plain storage at 'w'"),
        (storage("0", "FloatStorage", 1, kind="view"), "no plain storage"),
        (tensor(FLOATS, -1, (3,), (1,)), "misuses"),
        (tensor(FLOATS, 0, (-3,), (1,)), "misuses"),
        (tensor(FLOATS, 0, (3,), (-1,)), "misuses"),
        (tensor(FLOATS, 0, (3, 2), (1,)), "misuses"),
        (tensor(FLOATS, 0, (1,) * 100, (1,) * 100), "misuses"),
        (tensor(text("0"), 0, (3,), (1,)), "misuses"),
        (integers([1] * 3) + b"h\x09", "recalls what it never had"),
        (b"t", "a mark that is not there"),
        (b"e", "changes a dict"),
        (b"00000000", "a mark that is not there|a value that is not there"),
        (integer(1 << 200), "absurd"),
    ],
)
def test_what_no_state_dict_does_is_refused(value, message):
    with pytest.raises(PickleError, match=message):
        read(dictionary({"w": value}))


def test_a_key_that_takes_for_ever_to_hash():
    bomb = b")" + 60 * b"q\x01h\x01\x86"  # pairs of pairs of pairs ...
    with pytest.raises(PickleError, match="tuple as the key"):
        read(b"}" + bomb + integer(1) + b"s")


def test_claims_of_size_take_no_memory():
    """Each of these would take gigabytes, or all there is, of a reader that believed it."""
    huge = 1 << 60
    claims = [
        b"X" + struct.pack("<I", 0xFFFFFFF0) + b"ab",
        b"\x8d" + struct.pack("<Q", huge) + b"ab",
        b"\x8e" + struct.pack("<Q", huge) + b"ab",
        b"\x96" + struct.pack("<Q", huge) + b"ab",
        b"\x8b" + struct.pack("<i", 0x7FFFFFF0) + b"ab",
        b"\x95" + struct.pack("<Q", huge),
    ]
    for claim in claims:
        with pytest.raises(PickleError):
            read(dictionary({"w": claim}))
    far = b"r" + struct.pack("<I", 0xFFFFFFF0)  # an index of the memo
    assert read(dictionary({"w": integer(1) + far})) == {"w": 1}
    view = read(tensor(storage("0", "FloatStorage", huge), huge, (huge, huge), (huge, 1)))
    assert view.shape == (huge, huge)


def test_a_pickle_beyond_all_measure(monkeypatch):
    monkeypatch.setattr(torch_pickle, "MAX_BYTES", 1000)
    assert len(read(b"](" + 900 * b"N" + b"e")) == 900
    with pytest.raises(PickleError, match="more than 1,000 bytes"):
        read(b"](" + 1001 * b"N" + b"e")


def test_every_truncation_is_told():
    whole = program(dictionary({"w": tensor(FLOATS, 2, (3, 4), (4, 1)), "n": integer(3)}))
    for length in range(len(whole)):
        with pytest.raises(PickleError, match="truncated or damaged"):
            read_pickle(io.BytesIO(whole[:length]))


def test_random_damage_ends_in_a_value_or_the_one_error():
    rng = np.random.default_rng(0)
    whole = np.frombuffer(
        program(dictionary({"w": tensor(FLOATS, 2, (3, 4), (4, 1)), "n": integer(3)})), np.uint8
    )
    refused = 0
    for _ in range(3000):
        damaged = whole.copy()
        where = rng.integers(0, len(whole), rng.integers(1, 4))
        damaged[where] = rng.integers(0, 256, len(where))
        with contextlib.suppress(PickleError):
            read_pickle(io.BytesIO(damaged.tobytes()))
            continue
        refused += 1
    assert refused > 1000


def test_repeated_copies_are_refused():
    many = b"(" + b"K\x01" * 100 + b"t\x94"
    with pytest.raises(PickleError, match=r"misuses torch\.Size"):
        read_pickle(io.BytesIO(b"\x80\x04" + name("torch", "Size") + many + b"\x85R."))
