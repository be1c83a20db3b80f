"""Names of files on the hub, and its client, which a stub stands for: no test needs the network."""

import logging
import sys
import types

import pytest

from yolov1_jax.errors import UserError
from yolov1_jax.weights import hub


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://timm/resnet18.tv_in1k", ("timm/resnet18.tv_in1k", "main", "model.safetensors")),
        ("hf://a/b@v1.0", ("a/b", "v1.0", "model.safetensors")),
        ("hf://a-b/c_d/pytorch_model.bin", ("a-b/c_d", "main", "pytorch_model.bin")),
        ("hf://a/b@3f2/sub/w.pth", ("a/b", "3f2", "sub/w.pth")),
    ],
)
def test_names(name, expected):
    assert hub.is_hub_name(name)
    assert hub.parse(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("hf://", "hf://timm", "hf://timm/", "hf:///x", "hf://a/b@", "hf://a/b/", "hf://a/../b"),
        *("hf://a/b/../../etc", "hf://a/b c", "hf://a/b@x@y", "hf://a/b//c", "hf://ä/b"),
    ],
)
def test_malformed_names(name):
    with pytest.raises(UserError, match=r"OWNER/MODEL\[@REVISION\]\[/FILE\], found "):
        hub.parse(name)


@pytest.mark.parametrize("path", ["resnet18.pth", "/hf://x", "timm/resnet18.tv_in1k", ""])
def test_paths_are_no_names(path):
    assert not hub.is_hub_name(path)


@pytest.fixture
def client(monkeypatch):
    """A module in the place of huggingface_hub, whose answer is set by the test."""
    module = types.ModuleType("huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_the_client_is_asked(client):
    calls = []
    client.hf_hub_download = lambda *args, **kwargs: calls.append((args, kwargs)) or "/cache/file"
    assert hub.download("hf://timm/resnet18.tv_in1k@abc") == "/cache/file"
    assert calls == [(("timm/resnet18.tv_in1k", "model.safetensors"), {"revision": "abc"})]


@pytest.mark.parametrize("error", [OSError("offline\n  now."), ValueError("401"), KeyError("x")])
def test_a_failure_is_one_line(client, error):
    logger = logging.getLogger("huggingface_hub")
    level, levels = logger.level, []

    def fail(*args, **kwargs):
        levels.append(logger.level)
        raise error

    client.hf_hub_download = fail
    with pytest.raises(UserError, match=r"hf://a/b could not be fetched \(\w+Error: ") as caught:
        hub.download("hf://a/b")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("check the name and the network, or give the path of a file")
    assert levels == [logging.ERROR]
    assert logger.level == level


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what import takes for absent
    with pytest.raises(UserError, match=r"hf://a/b needs .*pip install 'yolov1_jax\[hub\]'"):
        hub.download("hf://a/b")
