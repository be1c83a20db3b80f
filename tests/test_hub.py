"""Files on the hub. A stand-in takes the place of its client: no test needs the network."""

import sys
import types

import numpy as np
import pytest
import safetensors.numpy

from yolov1_jax.config import UserError
from yolov1_jax.weights.safetensors_file import read_weights


@pytest.fixture
def client(monkeypatch):
    """A module in the place of huggingface_hub, whose answer is set by the test."""
    module = types.ModuleType("huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hf://timm/resnet18.tv_in1k", ("timm/resnet18.tv_in1k", "model.safetensors", "main")),
        ("hf://a/b@v1.0", ("a/b", "model.safetensors", "v1.0")),
        ("hf://a-b/c_d/pytorch_model.bin", ("a-b/c_d", "pytorch_model.bin", "main")),
        ("hf://a/b@3f2/sub/w.pth", ("a/b", "sub/w.pth", "3f2")),
    ],
)
def test_a_file_of_the_hub(client, tmp_path, name, asked):
    def hf_hub_download(repository, file, *, revision):
        assert (repository, file, revision) == asked
        return str(tmp_path / "cached")

    client.hf_hub_download = hf_hub_download
    safetensors.numpy.save_file({"w": np.arange(3.0)}, tmp_path / "cached")
    weights = read_weights(name)
    assert weights.origin == name
    np.testing.assert_array_equal(weights.tensors["w"], np.arange(3.0))


def test_malformed_names():
    for name in (
        *("hf://", "hf://timm", "hf://timm/", "hf:///x", "hf://a/b@", "hf://a/b/", "hf://a/../b"),
        *("hf://a/b/../../etc", "hf://a/b c", "hf://a/b@x@y", "hf://a/b//c", "hf://ä/b"),
    ):
        with pytest.raises(UserError, match="OWNER/MODEL"):
            read_weights(name)


def test_without_the_network_or_the_client_one_line_says_so(client, monkeypatch):
    def offline(*_, **__):
        raise KeyError("offline\n  now.")

    client.hf_hub_download = offline
    with pytest.raises(UserError, match=r"^hf://a/b .*offline.*$"):
        read_weights("hf://a/b")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what import takes for absent
    with pytest.raises(UserError, match=r"hf://a/b .*yolov1_jax\[hub\]"):
        read_weights("hf://a/b")
