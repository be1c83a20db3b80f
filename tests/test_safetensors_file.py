"""One entry for every format, told by content; and the safetensors that are written."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from torch_files import assert_same, example, legacy, state_dict, zipped

from yolov1_jax.config import UserError
from yolov1_jax.weights.safetensors_file import read_weights, write_safetensors

SAFETENSORS = safetensors.numpy.save(example())
# A file of one tensor in a type that NumPy does not have
FP8 = b'{"w":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize(
    "content", [SAFETENSORS, zipped(*state_dict(example())), legacy(*state_dict(example()))]
)
def test_the_content_decides_not_the_name(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    weights = read_weights(tmp_path / name)
    assert_same(weights.tensors, example())
    assert weights.sha256 == hashlib.sha256(content).hexdigest()
    assert weights.metadata == {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["_orig_mod.a", "_orig_mod.module"], ["a", "module"]),
        (["module._orig_mod.a.module.b"], ["a.module.b"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["module." * 500_000 + "a"], ["a"]),  # in time that grows with the length alone
    ],
)
def test_names_lose_the_prefixes_of_wrappers(tmp_path, names, expected):
    safetensors.numpy.save_file({name: np.zeros(2) for name in names}, tmp_path / "w")
    assert sorted(read_weights(tmp_path / "w").tensors) == sorted(expected)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html>404 Not Found</html>", b"version https://git-lfs", bytes(100)),
        *(b"PK\x03\x04" * 100, b"\x80\x02}.", b"\x80\x02", b"\x80" + bytes(7) + b"{" + bytes(200)),
        *(SAFETENSORS[:-1], SAFETENSORS[:50], len(FP8).to_bytes(8, "little") + FP8 + bytes(8)),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path} .*$"):
        read_weights(path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(UserError, match="no file of weights at"):
            read_weights(path)


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "out.safetensors"
    arrays = {**example(), "turned": np.arange(6.0).reshape(2, 3).T, "scalar": np.array(3)}
    write_safetensors(path, arrays, {"class_names": json.dumps(["ä", "b"])})
    weights = read_weights(path)
    assert_same(weights.tensors, arrays)
    assert json.loads(weights.metadata["class_names"]) == ["ä", "b"]
