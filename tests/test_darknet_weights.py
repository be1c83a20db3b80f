"""Darknet's files: bytes that come back, and what is refused."""

import struct

import jax
import numpy as np
import pytest
from golden.darknet_cases import RELEASED
from tiny_run import save_run, tiny_config

from yolov1_jax import config as configs
from yolov1_jax import export
from yolov1_jax.config import UserError, read_config_file, shipped_config
from yolov1_jax.models.darknet import Darknet, Layer, parse_layer
from yolov1_jax.training import build
from yolov1_jax.training.pretrained import check_pretrained
from yolov1_jax.weights.assign import leaves_of
from yolov1_jax.weights.darknet import Header, layers_of, read_darknet, read_header, write_darknet
from yolov1_jax.weights.darknet_cfg import detector_settings, read_layers, read_sections

# 32 pixels -> 16 -> 8 -> 4, and 3 x 3 cells of 3 boxes and 4 classes
CFG = RELEASED.replace("width=32", "# a comment\n\nwidth = 32")
LAYERS = [6 * 4 + 6 * 27, 8 * 4 + 8 * 24, 4 * 16 + 4 * 16 * 8 * 9, 24 * 4 + 24 * 64, 171 + 171 * 24]
DETECTION = (3, 3, 4)  # S, K, C
VALUES = np.random.default_rng(0).uniform(0.1, 0.6, sum(LAYERS)).astype("<f4") - np.float32(0.25)
for part in slice(6, 24), slice(194, 218), slice(-4347, -4275):  # of BatchNorm, with variances
    VALUES[part] = np.abs(VALUES[part]) + np.float32(0.1)
HEADERS = [(0, 1, 0, 7), (0, 2, 0, 2**40), (2, 0, 5, 7), (1001, 0, 0, 7), (0, 1001, 0, 7)]


@pytest.fixture
def cfg(tmp_path):
    path = tmp_path / "tiny.cfg"
    path.write_text(CFG)
    return path


def packed(header=HEADERS[0]):
    return struct.pack("<iiiQ" if header[1] == 2 or header[0] == 2 else "<iiii", *header)


def file_of(tmp_path, content, name="tiny.weights"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def config_of(cfg):
    return build.with_class_names(read_config_file(f"yolov1:{cfg}"))


def variables_of(cfg):
    return build.abstract_variables(config_of(cfg))


@pytest.mark.parametrize("header", HEADERS)
def test_bytes_come_back(tmp_path, cfg, header):
    """A transposed file holds the weights of connected layers as [input, output]."""
    numbers, usual = VALUES.copy(), variables_of(cfg)
    if 1001 in header:
        *_, last = np.cumsum(LAYERS[:-1])
        start = last - LAYERS[-2]
        for at, (outputs, inputs) in ((start + 24, (24, 64)), (last + 171, (171, 24))):
            part = slice(at, at + outputs * inputs)
            numbers[part] = numbers[part].reshape(outputs, inputs).T.reshape(-1)
    content = packed(header) + numbers.tobytes()
    path = file_of(tmp_path, content)
    variables, _ = read_darknet(path, usual, detection=DETECTION)
    assert read_header(path) == Header(*header)
    expected, _ = read_darknet(
        file_of(tmp_path, packed() + VALUES.tobytes(), "usual"), usual, detection=DETECTION
    )
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    copy = tmp_path / "copy.weights"
    size = write_darknet(copy, variables, read_header(path), detection=DETECTION)
    assert copy.read_bytes() == content
    assert size == len(content)


@pytest.mark.parametrize("name", ["yolov1", "yolov1:paper", "fast_yolo"])
def test_narrow_networks_come_back(tmp_path, name):
    config = shipped_config(name)
    config.model.width_multiplier = 0.01
    if config.model.head == "connected":
        config.model.head_hidden = None
    config = build.with_class_names(config)
    shapes, detection = build.abstract_variables(config), build.detection_layer(config)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape).astype("f4"), shapes)
    path = tmp_path / "narrow.weights"
    write_darknet(path, variables, Header(), detection=detection)
    found, _ = read_darknet(path, shapes, detection=detection)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    # Its first layers are the backbone's.
    write_darknet(path, variables, Header(), detection=detection, backbone_only=True)
    found, report = read_darknet(path, shapes, detection=detection, partial=True)
    jax.tree.map(
        np.testing.assert_array_equal, found["params"]["backbone"], variables["params"]["backbone"]
    )
    assert found["params"]["head"] == shapes["params"]["head"]
    assert any(part in report for part in ("20 of 26", "20 of 25", "7 of 9"))


@pytest.mark.parametrize(
    ("num_bytes", "message"),
    [
        (3, "only 3 bytes"),
        (-4, r"layer 5 of 5, backbone/connected6, .* expected 43,972 bytes .* found 43,968"),
        (24, "layer 1 of 5, backbone/convolutional0, which needs bytes 16 to 760"),
        (1000, "layer 2 of 5, backbone/convolutional2"),
        (100_000, r"more after layer 5 of 5, backbone/connected6, which ends at byte 43,972: "),
    ],
)
def test_another_size_names_the_layer(tmp_path, cfg, num_bytes, message):
    content = (packed() + VALUES.tobytes() + bytes(50_000))[: 16 + len(VALUES) * 4 + 50_000]
    end = num_bytes if num_bytes > 0 else 16 + 4 * len(VALUES) + num_bytes
    path = file_of(tmp_path, content[:end])
    with pytest.raises(UserError, match=rf"tiny\.weights.*{message}"):
        read_darknet(path, variables_of(cfg), detection=DETECTION)


def test_the_first_layers_and_another_last_one(tmp_path, cfg):
    shapes = variables_of(cfg)
    first, most = (packed() + VALUES[: sum(LAYERS[:n])].tobytes() for n in (2, 4))
    for content, remark in (
        (first, "2 of 5"),
        (first + bytes(4 * 9 * 10), "last layer of 10 outputs"),  # of a classifier
        (most + bytes(4 * 25 * 40), "last layer of 40 outputs"),  # of a detector of 0 classes
        (packed() + VALUES.tobytes(), "last layer of 171 outputs"),
    ):
        path = file_of(tmp_path, content)
        found, report = read_darknet(path, shapes, partial=True)
        assert remark in report
        kernel = leaves_of(found)["backbone", "convolutional2", "kernel"]
        assert kernel[1, 0, 3, 2] == VALUES[LAYERS[0] + 32 + (2 * 6 + 3) * 4 + 2]  # O, I, row 1
        last = leaves_of(found)["backbone", "connected6", "kernel"]
        assert last is leaves_of(shapes)["backbone", "connected6", "kernel"]
    path = file_of(tmp_path, first)
    with pytest.raises(UserError, match="layer 3 of 5"):  # not asked for as partial
        read_darknet(path, shapes, detection=DETECTION)
    for content, message in ((first, "layer 3 of 5"), (most, "bytes more after layer 4 of 5")):
        path = file_of(tmp_path, content + bytes(4))
        with pytest.raises(UserError, match=message):
            read_darknet(path, shapes, partial=True)


def test_the_last_layer_alone_waits_for_the_classes(tmp_path, cfg):
    """A named network, whose classes are those of data that is not read yet."""
    config = shipped_config("fast_yolo")
    config.model.width_multiplier, config.data.source = 0.01, "folder"
    config.model.pretrained = str(file_of(tmp_path, packed() + bytes(4004)))
    with pytest.raises(UserError, match="layer 3 of 9, backbone/convolutional4"):
        check_pretrained(config)
    shapes = build.abstract_variables(build.with_class_names(config))
    num_values = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    config.model.pretrained = str(file_of(tmp_path, packed() + bytes(4 * num_values)))
    check_pretrained(config)


@pytest.mark.parametrize(
    ("place", "value", "layer"), [(-1, np.nan, "connected6"), (20, -1.0, "convolutional0")]
)
def test_values_that_cannot_be_right(tmp_path, cfg, place, value, layer):
    values = VALUES.copy()
    values[place] = value
    path = file_of(tmp_path, packed() + values.tobytes())
    with pytest.raises(UserError, match=f"{layer} has NaN, infinite values or negative variances"):
        read_darknet(path, variables_of(cfg), detection=DETECTION)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__backbone": "resnet18"}, "no layer of Darknet"),
        ({"model__backbone": "darknet"}, "connected or local"),
    ],
)
def test_networks_that_darknet_has_not(changes, message):
    variables = build.abstract_variables(tiny_config(**changes))
    with pytest.raises(UserError, match=message):
        layers_of(variables, (2, 2, 3))


# --- cfg files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[dropout]", "[shortcut]", r"line 31, \[shortcut\]: expected a layer"),
        ("filters=8", "groups=8", "found groups"),
        ("relu", "mish", "found mish"),
        ("filters=8", "filters=many", "found many"),
        ("output=171", "output=170", "expected output=171, found 170"),
        ("height=32", "height=64", "expected height=32, found 64"),
        ("[detection]", "[softmax]", r"found .*softmax"),
        ("[net]", "[yolo]", r"starts with \[net\]"),
        ("side=3", "side", "option=value"),
    ],
)
def test_a_cfg_of_another_network(cfg, old, new, message):
    cfg.write_text(CFG.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        read_config_file(f"yolov1:{cfg}")
    assert str(cfg) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_crop_layer_turns_images_to_minus_one_to_one(cfg):
    cfg.write_text(CFG.replace("[conv", "[crop]\ncrop_width=32\ncrop_height=32\n[conv", 1))
    settings = detector_settings(cfg)
    assert settings["model.pixel_mean"] == settings["model.pixel_std"] == (0.5, 0.5, 0.5)
    cfg.write_text(CFG.replace("[conv", "[crop]\nnoadjust=1\n[conv", 1))
    assert detector_settings(cfg)["model.pixel_std"] == (1.0, 1.0, 1.0)


def test_a_classifier(tmp_path, cfg):
    """As cfg/darknet19.cfg ends: a convolution without BatchNorm gives the classes."""
    cfg.write_text(
        "[net]\n[conv]\nbatch_normalize=1\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
        "[max]\nstride=2\n[conv]\nfilters=16\nactivation=linear\n"
        "[avgpool]\n[softmax]\ngroups=1\n[cost]\ntype=sse\n"
    )
    layers = tuple(map(parse_layer, read_layers(read_sections(cfg))))
    assert layers[1] == Layer("maxpool", size=2, stride=2, pad=1)
    image = np.zeros((1, 4, 4, 3), np.float32)
    network = Darknet(layers)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, False))
    shapes = {name: {"backbone": tree} for name, tree in shapes.items()}
    content = packed() + VALUES[: 4 * 8 + 27 * 8 + 16 + 8 * 16].tobytes()
    variables, report = read_darknet(file_of(tmp_path, content), shapes)
    assert "2 of 2 layers" in report
    write_darknet(tmp_path / "copy", variables, Header(0, 1, 0, 7))
    assert (tmp_path / "copy").read_bytes() == content


def test_class_names_must_fit_the_layers(cfg):
    config = configs.replace(config_of(cfg), "model.class_names", ("a", "b"))
    with pytest.raises(UserError, match=r"expected 4 classes.* found 2.* a, b"):
        build.build_model(config)


def test_the_shipped_config_has_the_values_of_darknets_file(cfg):
    """cfg/yolov1.cfg of Darknet, but for most of its layers."""
    cfg.write_text(
        "[net]\nbatch=1\nheight=448\nwidth=448\nchannels=3\nmomentum=0.9\ndecay=0.0005\n"
        "saturation=1.5\nexposure=1.5\nhue=.1\nlearning_rate=0.0005\npolicy=steps\n"
        "steps=200,400,600,20000,30000\nscales=2.5,2,2,.1,.1\nmax_batches = 40000\n"
        "[dropout]\nprobability=.5\n[connected]\noutput= 1715\nactivation=linear\n"
        "[detection]\nclasses=20\ncoords=4\nrescore=1\nside=7\nnum=3\nsoftmax=0\nsqrt=1\n"
        "jitter=.2\nobject_scale=1\nnoobject_scale=.5\nclass_scale=1\ncoord_scale=5\n"
    )
    found, shipped = (
        configs.flatten(build.with_class_names(read_config_file(name)))
        for name in (f"yolov1:{cfg}", "yolov1")
    )
    different = {key for key in shipped if found[key] != shipped[key]}
    assert different == {"model.backbone", "model.layers", "model.class_names"}
    assert found["model.class_names"][::19] == ("aeroplane", "tvmonitor")


# --- Commands -------------------------------------------------------------------------------------


def test_a_run_from_a_file_exports_the_same_bytes(tmp_path, cfg, capsys):
    path = file_of(tmp_path, packed() + VALUES.tobytes())
    config = configs.replace(config_of(cfg), "model.pretrained", str(path))
    check_pretrained(configs.replace(config, "model.class_names", None))
    variables, _ = read_darknet(path, variables_of(cfg), detection=DETECTION)
    workdir = save_run(tmp_path / "run", {0: None}, config, variables)
    output = tmp_path / "out.weights"
    assert export.main([f"--workdir={workdir}", f"--output={output}"]) == 0
    assert output.read_bytes() == path.read_bytes()
    assert "version 0.1.0, 7 images seen" in capsys.readouterr().out


def test_a_name_that_contradicts_the_format(tmp_path, cfg):
    config = configs.replace(config_of(cfg), "model.pretrained", "yolov1.weights")
    config = configs.replace(config, "model.pretrained_format", "reference")
    with pytest.raises(UserError, match="pretrained_format to darknet or darknet_backbone"):
        check_pretrained(config)
