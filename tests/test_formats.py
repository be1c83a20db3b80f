"""Whole detectors under the names of other programs: names, order of channels, strictness."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.errors import UserError
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.weights.assign import leaves_of
from yolov1_jax.weights.formats import (
    DESCRIBED,
    DETECTOR_FORMATS,
    TORCHLAKE_GROUPED,
    describe,
    expected_settings,
    load_detector,
    recognise,
    to_detector,
)
from yolov1_jax.weights.safetensors_file import WeightsFile
from yolov1_jax.yolo.grid import split_predictions

SIZES = {"boxes_per_cell": 2, "num_classes": 3}
HINT = "is it a resnet18?"


@functools.cache
def shapes(format_name):
    neck = 256 if format_name == "torchlake" else None
    model = YOLOv1(
        num_classes=3,
        backbone_name="resnet18",
        grid_size=1,
        width_multiplier=0.0625,
        head_channels=128,
        head_neck_channels=neck,
    )
    images = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))


def random_variables(format_name, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes(format_name)
    )


def file_of(tensors, metadata=None):
    return WeightsFile("ref.pth", "ref.pth", "0", metadata or {}, tensors)


def load(format_name, tensors):
    return load_detector(file_of(tensors), shapes(format_name), format_name, hint=HINT, **SIZES)


@pytest.fixture(params=DETECTOR_FORMATS)
def format_name(request):
    return request.param


@pytest.fixture
def tensors(format_name):
    return to_detector(random_variables(format_name), format_name, **SIZES)


# --------------------------------------------------------------------------------------- names

# Written down from the classes of the two programs, PyTorch's way of naming what they are made of.
REFERENCE_NAMES = {
    "backbone/conv1/kernel": "backbone.conv1.weight",
    "backbone/bn1/mean": "backbone.bn1.running_mean",
    "backbone/layer2_0/downsample_1/var": "backbone.layer2.0.downsample.1.running_var",
    "head/conv1/kernel": "conv.0.weight",
    "head/bn1/scale": "conv.1.weight",
    "head/conv2/kernel": "conv.3.weight",
    "head/bn2/bias": "conv.4.bias",
    "head/conv3/kernel": "conv.6.weight",
    "head/bn3/mean": "conv.7.running_mean",
    "head/conv4/kernel": "conv.9.weight",
    "head/bn4/var": "conv.10.running_var",
    "head/predict/kernel": "conv_out.0.weight",
    "head/predict/bias": "conv_out.0.bias",
}
TORCHLAKE_HEAD = {
    "head/conv1/kernel": "neck.0.0.weight",
    "head/bn1/scale": "neck.0.1.weight",
    "head/conv2/kernel": "neck.1.0.weight",
    "head/bn2/bias": "neck.1.1.bias",
    "head/conv3/kernel": "neck.2.0.weight",
    "head/bn3/mean": "neck.2.1.running_mean",
    "head/conv4/kernel": "neck.3.0.weight",
    "head/bn4/var": "neck.3.1.running_var",
    "head/neck/kernel": "neck.4.0.weight",
    "head/neck/bias": "neck.4.0.bias",
    "head/predict/kernel": "head.weight",
    "head/predict/bias": "head.bias",
}
TORCHLAKE_NAMES = {
    "backbone/conv1/kernel": "foot.feature_extractor.0.weight",
    "backbone/bn1/mean": "foot.feature_extractor.1.running_mean",
    "backbone/layer1_1/bn2/bias": "foot.feature_extractor.4.1.bn2.bias",
    "backbone/layer4_0/downsample_0/kernel": "foot.feature_extractor.7.0.downsample.0.weight",
    **TORCHLAKE_HEAD,
}
GROUPED_NAMES = {
    "backbone/conv1/kernel": "foot.feature_extractor.0.0.weight",
    "backbone/bn1/mean": "foot.feature_extractor.0.1.running_mean",
    "backbone/layer1_1/bn2/bias": "foot.feature_extractor.1.1.bn2.bias",
    "backbone/layer4_0/downsample_0/kernel": "foot.feature_extractor.4.0.downsample.0.weight",
    **TORCHLAKE_HEAD,
}


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (DETECTOR_FORMATS["reference"], REFERENCE_NAMES),
        (DETECTOR_FORMATS["torchlake"], TORCHLAKE_NAMES),
        (TORCHLAKE_GROUPED, GROUPED_NAMES),
    ],
    ids=["reference", "torchlake", "grouped"],
)
def test_names(form, names):
    for path, name in names.items():
        assert form.name_of(tuple(path.split("/"))) == name


def test_every_variable_has_a_name_of_its_own(format_name):
    leaves = leaves_of(shapes(format_name))
    names = {DETECTOR_FORMATS[format_name].name_of(path) for path in leaves}
    assert len(names) == len(leaves)
    assert recognise(names) == format_name
    assert any(path[0] == "head" for path in leaves)


def test_a_layer_that_a_program_lacks():
    with pytest.raises(UserError, match="the network of the PyTorch reference has no head/neck"):
        to_detector(random_variables("torchlake"), "reference", **SIZES)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "backbone"),
        (["backbone.conv1.weight", "conv_out.0.bias"], "reference"),
        (["foot.feature_extractor.0.0.weight", "head.1.weight"], "torchlake"),
        (["features.0.weight"], None),
        ([], None),
    ],
)
def test_recognise(names, found):
    assert recognise(names) == found


# ----------------------------------------------------------------------------------- and back


def test_there_and_back(format_name, tensors):
    variables, report = load(format_name, tensors)
    expected = random_variables(format_name)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, other, strict=True),
        variables,
        expected,
    )
    assert report.num_arrays == len(tensors)


def test_the_layout_of_torch(tensors, format_name):
    form = DETECTOR_FORMATS[format_name]
    variables = random_variables(format_name)
    kernel = variables["params"]["head"]["conv2"]["kernel"]
    found = tensors[form.name_of(("head", "conv2", "kernel"))]
    assert found[5, 3, 2, 1] == kernel[2, 1, 3, 5]


def test_the_grouped_backbone_of_older_checkpoints():
    variables = random_variables("torchlake")
    tensors = to_detector(variables, "torchlake", **SIZES)
    renamed = {
        TORCHLAKE_GROUPED.name_of(path): tensors[DETECTOR_FORMATS["torchlake"].name_of(path)]
        for path in leaves_of(variables)
    }
    assert renamed.keys() != tensors.keys()
    loaded, _ = load("torchlake", renamed)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_channels_are_put_into_our_order():
    """The bias alone says what a channel means: its numbers are the channels' numbers."""
    tensors = to_detector(random_variables("torchlake"), "torchlake", **SIZES)
    tensors["head.bias"] = np.arange(13, dtype=np.float32)
    variables, _ = load("torchlake", tensors)
    bias = variables["params"]["head"]["predict"]["bias"]
    # theirs: x y w h conf | x y w h conf | classes
    np.testing.assert_array_equal(bias, [4, 0, 1, 2, 3, 9, 5, 6, 7, 8, 10, 11, 12])
    kernel = variables["params"]["head"]["predict"]["kernel"]  # [1, 1, I, O]
    np.testing.assert_array_equal(kernel[0, 0, :, 0], tensors["head.weight"][4, :, 0, 0])
    np.testing.assert_array_equal(kernel[0, 0, :, 7], tensors["head.weight"][6, :, 0, 0])
    # What either program reads from its own channels is the same.
    theirs = split_predictions(
        tensors["head.bias"].reshape(1, 1, 1, 13), layout="torchlake", **SIZES
    )
    ours = split_predictions(bias.reshape(1, 1, 1, 13), layout="reference", **SIZES)
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(one, other)


# --------------------------------------------------------------------------------- strictness


def test_what_is_wrong_is_named(format_name, tensors):
    form = DETECTOR_FORMATS[format_name]
    name = form.name_of(("head", "bn3", "var"))
    without = {key: value for key, value in tensors.items() if key != name}
    for wrong, message in (
        (without, f"ref.pth lacks parameter {name}: is it a resnet18"),
        ({**tensors, "fc.weight": np.zeros(3)}, "ref.pth has the unexpected parameter fc.weight"),
        ({**tensors, name: tensors[name][1:]}, rf"ref.pth: {name} has shape \[7\], expected \[8\]"),
        ({**tensors, name: tensors[name] * np.nan}, f"ref.pth: {name} has NaN or infinite"),
        ({**tensors, name: tensors[name].astype(int)}, f"ref.pth: {name} is int64"),
    ):
        with pytest.raises(UserError, match=message):
            load(format_name, wrong)


def test_counters_are_ignored(format_name, tensors):
    tensors["conv.1.num_batches_tracked"] = np.array(9)
    _, report = load(format_name, tensors)
    assert report.ignored == ("conv.1.num_batches_tracked",)
    assert "without" not in str(report)


def test_other_boxes_or_classes_are_told(format_name, tensors):
    message = r"\.weight has shape \[13, \d+, 1, 1\], expected 30 channels \(2 boxes x 5 \+ 20 cl"
    with pytest.raises(UserError, match=message):
        load_detector(
            file_of(tensors),
            shapes(format_name),
            format_name,
            hint=HINT,
            boxes_per_cell=2,
            num_classes=20,
        )


@pytest.mark.parametrize(
    ("counts", "whole"),
    [((7, 7), True), ((7, 0), False), ((7, 9), True), (([7, 7], [8, 8, 8]), True), (([], 3), True)],
)
def test_a_backbone_that_was_not_run_as_a_whole(counts, whole):
    tensors = to_detector(random_variables("torchlake"), "torchlake", **SIZES)
    for block, count in enumerate(counts):
        name = f"foot.feature_extractor.7.{block}.bn1.num_batches_tracked"
        tensors[name] = np.array(count)
    if whole:
        load("torchlake", tensors)
    else:
        with pytest.raises(UserError, match=r"7\.1\.bn1 has seen 0 batches .* without that block"):
            load("torchlake", tensors)


# ----------------------------------------------------------------------------------- settings


def test_settings_without_metadata_are_the_program_s():
    found = expected_settings(file_of({}), "torchlake")
    assert found["model.head_neck_channels"] == 256
    assert found["model.head_negative_slope"] == 0.1
    assert found["model.pixel_mean"] == (0.485, 0.456, 0.406)
    assert expected_settings(file_of({}), "reference")["model.pixel_std"] == (1.0, 1.0, 1.0)


def test_a_file_s_own_words_come_first():
    settings = {key: f"value of {key}" for key in DESCRIBED if key != "model.width_multiplier"} | {
        "model.pixel_mean": (0.1, 0.2, 0.3),
        "data.root": "not described",
    }
    metadata = describe(settings)
    assert json.loads(metadata["pixel_mean"]) == [0.1, 0.2, 0.3]
    assert "root" not in metadata
    found = expected_settings(file_of({}, {**metadata, "format": "pt"}), "reference")
    assert found["model.pixel_mean"] == (0.1, 0.2, 0.3)
    assert found["model.class_names"] == "value of model.class_names"
    assert "model.width_multiplier" not in found
    with pytest.raises(UserError, match=r"ref\.pth: its metadata 'grid_size' is not JSON"):
        expected_settings(file_of({}, {"grid_size": "{"}), "reference")
