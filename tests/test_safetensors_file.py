"""One entry for every format, told by content; and the safetensors that are written."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from torch_files import dictionary, example, legacy_file, name, state_dict, zip_file

from yolov1_jax.errors import UserError
from yolov1_jax.weights import hub
from yolov1_jax.weights.safetensors_file import read_weights, write_safetensors

FORMATS = {
    "safetensors": safetensors.numpy.save,
    "zip": lambda arrays: zip_file(*state_dict(arrays)),
    "legacy": lambda arrays: legacy_file(*state_dict(arrays)),
}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key, strict=True)


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def save(request, tmp_path):
    def write(arrays, file="weights"):
        path = tmp_path / file
        path.write_bytes(request.param(arrays))
        return path

    return write


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.pt", "w.bin", "w"])
def test_the_content_decides_not_the_name(save, file):
    path = save(example(), file)
    weights = read_weights(path)
    assert_same(weights.tensors, example())
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(weights) == f"{path} (sha256 {weights.sha256})"
    assert weights.metadata == {}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(save, prefix):
    path = save({prefix + key: array for key, array in example().items()})
    assert_same(read_weights(path).tensors, example())


def test_a_prefix_of_only_some_names_stays(save):
    arrays = {"module.a": np.zeros(2), "b": np.ones(2)}
    assert_same(read_weights(save(arrays)).tensors, arrays)


def test_a_name_of_the_hub(save, monkeypatch):
    path = save(example())
    asked = []
    monkeypatch.setattr(hub, "download", lambda origin: asked.append(origin) or str(path))
    weights = read_weights("hf://timm/resnet18.tv_in1k")
    assert asked == ["hf://timm/resnet18.tv_in1k"]
    assert_same(weights.tensors, example())
    assert str(weights).startswith(f"hf://timm/resnet18.tv_in1k at {path} (sha256 ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"weights is neither .* it begins with b''"),
        (b"<html>404 Not Found</html>", r"it begins with b'<html>404'"),
        (b"version https://git-lfs", "is neither a safetensors file nor one of torch.save"),
        (b"\x00" * 100, "is neither"),
        (b"PK\x03\x04" * 100, "not a complete zip archive"),
        (b"\x80\x02}.", "was not written by torch.save"),
        (b"\x80\x02", "truncated"),
        (b"\x80\x00\x00\x00\x00\x00\x00\x00{" + bytes(200), "not a usable safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}" + bytes(9), "not a usable safetensors file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_weights(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", [1, 4 * 24 + 7])
def test_a_truncated_safetensors_file_names_the_parameter(tmp_path, missing):
    path = tmp_path / "cut.safetensors"
    arrays = {name: np.zeros(24, np.float32) for name in ("conv1.weight", "bn1.weight", "fc.bias")}
    content = safetensors.numpy.save(arrays)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    last_first = sorted(header, key=lambda name: header[name]["data_offsets"], reverse=True)
    path.write_bytes(content[:-missing])
    cut = last_first[missing // (4 * 24)]
    with pytest.raises(UserError, match=rf"cut\.safetensors .* within or before parameter {cut}$"):
        read_weights(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "F4"])
def test_types_that_numpy_lacks_are_refused_with_the_parameter(tmp_path, dtype):
    size = 4 if dtype == "F4" else 8  # bytes of eight values
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}
    header = json.dumps({"conv1.weight": entry}).encode()
    path = tmp_path / "small.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(UserError, match=f"parameter conv1.weight has the type {dtype}, which"):
        read_weights(path)


def test_a_hostile_file_is_named_with_its_parameter(tmp_path):
    path = tmp_path / "evil.pth"
    value = dictionary({"layer1.0.conv1.weight": name("os", "abort") + b")R"})
    path.write_bytes(zip_file(value, {}))
    message = r"evil\.pth is not a usable torch file: .*'os\.abort' at 'layer1\.0\.conv1\.weight'"
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(UserError, match="no file of weights at"):
            read_weights(path)


# ------------------------------------------------------------------------------------- writing


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "new" / "out.safetensors"
    arrays = {**example(), "turned": np.arange(6.0).reshape(2, 3).T, "scalar": np.array(3)}
    write_safetensors(path, arrays, {"class_names": json.dumps(["ä", "b"])})
    weights = read_weights(path)
    assert_same(weights.tensors, arrays)
    assert json.loads(weights.metadata["class_names"]) == ["ä", "b"]
    assert [file.name for file in path.parent.iterdir()] == ["out.safetensors"]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written: .*; choose another --output"):
        write_safetensors(tmp_path / "file" / "out.safetensors", example(), {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_safetensors(tmp_path / "folder", example(), {})
    assert {file.name for file in tmp_path.iterdir()} == {"file", "folder"}
