"""Networks under the names of other programs: names, axes, channels, strictness, round trips."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.weights import formats
from yolov1_jax.weights.assign import leaves_of
from yolov1_jax.weights.formats import FORMATS, TORCHLAKE_GROUPED, from_format, recognise, to_format
from yolov1_jax.weights.safetensors_file import WeightsFile, read_weights


@functools.cache
def shapes(neck=None, width=0.0625, head="convolutional", grid=1):
    sizes = {"grid_size": grid, "head_channels": 128, "width_multiplier": width, "head": head}
    model = YOLOv1(num_classes=3, backbone_name="resnet18", head_neck_channels=neck, **sizes)
    images = jnp.zeros((1, 64 * grid, 64 * grid, 3), jnp.uint8)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))


def random_variables(format_name):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        shapes(256 if format_name == "torchlake" else None),
    )


def load(format_name, tensors):
    zeros = jax.tree.map(np.zeros_like, random_variables(format_name))
    file = WeightsFile("ref.pth", "0f", {}, tensors)
    return from_format(file, zeros, format_name, boxes_per_cell=2, hint="is it a resnet18?")


# --- Names ----------------------------------------------------------------------------------------

# Written down from the classes of the programs, in PyTorch's way of naming what they consist of.
NAMES = {
    "backbone": {
        "backbone/bn1/scale": "bn1.weight",
        "backbone/layer4_1/bn2/mean": "layer4.1.bn2.running_mean",
        "backbone/layer3_0/downsample_0/kernel": "layer3.0.downsample.0.weight",
    },
    "reference": {
        "backbone/layer2_0/downsample_1/var": "backbone.layer2.0.downsample.1.running_var",
        "head/conv1/kernel": "conv.0.weight",
        "head/bn4/var": "conv.10.running_var",
        "head/predict/bias": "conv_out.0.bias",
    },
    "torchlake": {
        "backbone/bn1/mean": "foot.feature_extractor.1.running_mean",
        "backbone/layer4_0/downsample_0/kernel": "foot.feature_extractor.7.0.downsample.0.weight",
        "head/conv4/kernel": "neck.3.0.weight",
        "head/bn4/var": "neck.3.1.running_var",
        "head/neck/bias": "neck.4.0.bias",
        "head/predict/kernel": "head.weight",
    },
    "grouped": {
        "backbone/bn1/mean": "foot.feature_extractor.0.1.running_mean",
        "backbone/layer4_0/downsample_0/kernel": "foot.feature_extractor.4.0.downsample.0.weight",
    },
}


@pytest.mark.parametrize("format_name", NAMES)
def test_names(format_name):
    form = {**FORMATS, "grouped": TORCHLAKE_GROUPED}[format_name]
    for path, name in NAMES[format_name].items():
        assert form.name_of(tuple(path.split("/"))) == name


@pytest.mark.parametrize("format_name", FORMATS)
def test_round_trip(format_name):
    expected = random_variables(format_name)
    tensors = to_format(expected, format_name, boxes_per_cell=2)
    assert recognise(tensors) == format_name
    kernel = expected["params"]["backbone"]["layer2_0"]["conv1"]["kernel"]
    tensor = tensors[FORMATS[format_name].name_of(("backbone", "layer2_0", "conv1", "kernel"))]
    assert tensor[7, 3, 2, 1] == kernel[2, 1, 3, 7]  # O I H W
    if format_name == "backbone":  # the head stays what it was
        for collection in expected.values():
            collection["head"] = jax.tree.map(np.zeros_like, collection["head"])
    jax.tree.map(np.testing.assert_array_equal, load(format_name, tensors)[0], expected)
    if format_name == "torchlake":  # of older checkpoints
        tensors = {
            TORCHLAKE_GROUPED.name_of(path): tensors[FORMATS["torchlake"].name_of(path)]
            for path in leaves_of(expected)
        }
        assert recognise(tensors) == "torchlake"
        jax.tree.map(np.testing.assert_array_equal, load(format_name, tensors)[0], expected)


def test_channels_get_our_order():
    """The bias alone says what a channel means: its numbers are those of the channels."""
    tensors = to_format(random_variables("torchlake"), "torchlake", boxes_per_cell=2)
    tensors["head.bias"] = np.arange(13, dtype=np.float32)
    head = load("torchlake", tensors)[0]["params"]["head"]["predict"]
    # theirs: x y w h conf | x y w h conf | classes
    np.testing.assert_array_equal(head["bias"], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8, 10, 11, 12])
    np.testing.assert_array_equal(head["kernel"][0, 0, :, 7], tensors["head.weight"][6, :, 0, 0])


def test_torchlakes_connected_outputs_get_our_order():
    """YOLOV1 gives [channel, row, column] of a linear layer, which reads [channel, row, column]."""
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        shapes(256, 0.0625, "connected", 2),
    )
    options = {"boxes_per_cell": 2, "grid_size": 2}
    tensors = to_format(variables, "torchlake", **options)
    assert "head.weight" not in tensors
    weight = tensors["head.1.weight"]
    assert weight.shape == (13 * 4, 16 * 4)
    tensors["head.1.bias"] = np.arange(52, dtype=np.float32)  # place 4 * channel + 2 * row + column
    file = WeightsFile("ref.pth", "0f", {}, tensors)
    assert formats.expected_settings(file, "torchlake")["model.head"] == "connected"
    found, _ = from_format(file, variables, "torchlake", hint="", **options)
    predict = found["params"]["head"]["predict"]
    # our channels: conf x y w h | conf x y w h | classes; theirs: x y w h conf | ... | classes
    theirs = np.array([4, 0, 1, 2, 3, 9, 5, 6, 7, 8, 10, 11, 12])
    bias = predict["bias"].reshape(2, 2, 13)
    for row, column in np.ndindex(2, 2):
        np.testing.assert_array_equal(bias[row, column], 4 * theirs + 2 * row + column)
    np.testing.assert_array_equal(
        predict["kernel"], variables["params"]["head"]["predict"]["kernel"]
    )
    np.testing.assert_array_equal(predict["kernel"][:, 13 * 3 + 1], weight[0 * 4 + 3])


# --- What a file may hold -------------------------------------------------------------------------


def load_backbone(**changes):
    tensors = to_format(random_variables("backbone"), "backbone", boxes_per_cell=2)
    tensors |= {"bn1.num_batches_tracked": np.array(7), "fc.bias": np.zeros(2)}
    tensors |= {name.replace("__", "."): value for name, value in changes.items()}
    return load("backbone", {k: value for k, value in tensors.items() if value is not None})


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_array_arrives_in_the_type_of_its_variable(dtype):
    loaded, report = load_backbone(bn1__bias=np.arange(8, dtype=dtype))
    found = loaded["params"]["backbone"]["bn1"]["bias"]
    np.testing.assert_array_equal(found, np.arange(8, dtype=np.float32), strict=True)
    assert report == "ref.pth (sha256 0f): 100 arrays, 48,088 values, without 1 named fc.*"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1__bias": None}, r"lacks parameter bn1\.bias: is it a resnet18\?"),
        ({"a__x": np.zeros(1), "a__y": np.zeros(1)}, r"unexpected parameter a\.x and 1 more: is"),
        ({"bn1__bias": np.zeros(5)}, r"bn1\.bias has shape \[5\], expected \[8\]: is it"),
        ({"conv1__weight": np.zeros((7, 7, 3, 8))}, r"\[7, 7, 3, 8\], expected \[8, 3, 7, 7\]"),
        ({"bn1__bias": np.zeros(8, np.int8)}, r"bn1\.bias is int8"),
        ({"bn1__bias": np.full(8, np.nan)}, r"bn1\.bias has NaN"),
        ({"bn1__bias": np.full(8, 1e300)}, r"bn1\.bias has NaN or infinite"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(UserError, match=rf"^ref\.pth.*{message}"):
        load_backbone(**changes)


def test_a_backbone_that_was_not_run_as_a_whole():
    tensors = to_format(random_variables("torchlake"), "torchlake", boxes_per_cell=2)
    blocks = [f"foot.feature_extractor.7.{block}.bn1.num_batches_tracked" for block in (0, 1)]
    load("torchlake", tensors | dict.fromkeys(blocks, np.array(7)))
    with pytest.raises(UserError, match="layer4"):
        load("torchlake", tensors | {blocks[0]: np.array(7), blocks[1]: np.array(0)})


def test_a_real_file(shared_dir):
    file = read_weights(shared_dir / "weights" / "resnet18-tinyimagenet.safetensors")
    assert recognise(file.tensors) == "backbone"
    variables, report = from_format(file, shapes(width=1), "backbone", boxes_per_cell=2, hint="")
    # parameters, means and variances
    assert f"{11_176_512 + 2 * 4_800:,} values, without 2 named fc.*" in report
    for name, tensor in to_format(variables, "backbone", boxes_per_cell=2).items():
        np.testing.assert_array_equal(tensor, file.tensors[name])
