import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from yolov1_jax.errors import UserError
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.weights.safetensors_file import read_safetensors
from yolov1_jax.weights.torchvision import load_backbone, to_torchvision, torchvision_name


def abstract_variables(backbone_name="resnet18", **fields):
    model = YOLOv1(num_classes=3, backbone_name=backbone_name, grid_size=1, **fields)
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))


@functools.cache
def narrow():
    return abstract_variables(width_multiplier=0.125, head_channels=64)


@pytest.fixture
def tensors():
    """A file of torchvision's, narrow: every value another, a classifier and counters included."""
    rng = np.random.default_rng(0)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), narrow())
    result = {
        name: rng.normal(size=value.shape).astype(np.float32)
        for name, value in to_torchvision(zeros).items()
    }
    result["fc.weight"] = np.zeros((10, 64), np.float32)
    result["fc.bias"] = np.zeros(10, np.float32)
    result["bn1.num_batches_tracked"] = np.array(7)
    return result


@pytest.fixture
def save(tmp_path):
    def write(tensors):
        path = tmp_path / "resnet.safetensors"
        safetensors.numpy.save_file(tensors, path)
        return path

    return write


def load(path):
    return load_backbone(path, narrow(), "resnet18")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conv1/kernel", "conv1.weight"),
        ("bn1/scale", "bn1.weight"),
        ("bn1/bias", "bn1.bias"),
        ("layer1_0/conv2/kernel", "layer1.0.conv2.weight"),
        ("layer4_1/bn2/mean", "layer4.1.bn2.running_mean"),
        ("layer3_0/downsample_0/kernel", "layer3.0.downsample.0.weight"),
        ("layer3_0/downsample_1/var", "layer3.0.downsample.1.running_var"),
    ],
)
def test_names(path, name):
    assert torchvision_name(path.split("/")) == name


def test_every_value_arrives_where_it_belongs(tensors, save):
    variables, report = load(save(tensors))
    backbone = variables["params"]["backbone"]
    kernel, original = backbone["layer2_0"]["conv1"]["kernel"], tensors["layer2.0.conv1.weight"]
    assert kernel[2, 1, 5, 11] == original[11, 5, 2, 1]
    norm, averages = (variables[c]["backbone"]["bn1"] for c in ("params", "batch_stats"))
    np.testing.assert_array_equal(norm["scale"], tensors["bn1.weight"])
    np.testing.assert_array_equal(norm["bias"], tensors["bn1.bias"])
    np.testing.assert_array_equal(averages["mean"], tensors["bn1.running_mean"])
    np.testing.assert_array_equal(averages["var"], tensors["bn1.running_var"])
    # The rest of the model is untouched, and the way back gives the file again.
    kept, head = (jax.tree.leaves(one["params"]["head"]) for one in (variables, narrow()))
    assert all(one is other for one, other in zip(kept, head, strict=True))
    assert jax.tree.structure(variables) == jax.tree.structure(narrow())
    for name, value in to_torchvision(variables).items():
        np.testing.assert_array_equal(value, tensors[name])
    assert report.num_arrays == 100
    assert set(report.ignored) == {"fc.weight", "fc.bias", "bn1.num_batches_tracked"}
    assert str(report).endswith("without fc.bias, fc.weight")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floating_types_are_converted(tensors, save, dtype):
    values = tensors["layer1.1.bn2.bias"].astype(dtype)
    variables, _ = load(save({**tensors, "layer1.1.bn2.bias": values}))
    bias = variables["params"]["backbone"]["layer1_1"]["bn2"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, values.astype(np.float32))


def test_a_missing_parameter_is_named(tensors, save):
    del tensors["layer3.1.conv2.weight"]
    with pytest.raises(UserError, match=r"resnet\.safetensors lacks parameter layer3\.1\.conv2\.w"):
        load(save(tensors))


def test_a_missing_running_average_is_named(tensors, save):
    del tensors["layer3.1.bn2.running_var"]
    with pytest.raises(UserError, match=r"lacks parameter layer3\.1\.bn2\.running_var: is it a"):
        load(save(tensors))


def test_an_unexpected_parameter_is_named(tensors, save):
    tensors["layer1.2.conv1.weight"] = tensors["layer1.2.conv2.weight"] = np.zeros(1, np.float32)
    with pytest.raises(
        UserError, match=r"unexpected parameter layer1\.2\.conv\d\.weight and 1 more"
    ):
        load(save(tensors))


def test_a_wrong_shape_is_named_with_both_shapes_and_the_likely_reason(tensors, save):
    tensors["layer2.0.conv1.weight"] = np.zeros((16, 8, 1, 1), np.float32)
    message = (
        r"resnet\.safetensors: layer2\.0\.conv1\.weight has shape \[16, 8, 1, 1\], "
        r"expected \[16, 8, 3, 3\]: is it a resnet18, and is model\.width_multiplier 1"
    )
    with pytest.raises(UserError, match=message):
        load(save(tensors))


def test_integer_weights_are_refused(tensors, save):
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(np.int8)
    with pytest.raises(UserError, match=r"conv1\.weight is int8, expected floating point"):
        load(save(tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tensors, save, value):
    tensors["bn1.running_var"][3] = value
    with pytest.raises(UserError, match=r"bn1\.running_var has NaN or infinite"):
        load(save(tensors))


@pytest.mark.parametrize("keep", [100, 100_000, -1])
def test_a_truncated_file_is_refused_in_one_line(tensors, save, keep):
    path = save(tensors)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a usable safetensors file") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_real_file(shared_dir):
    path = shared_dir / "weights" / "resnet18-tinyimagenet.safetensors"
    variables = abstract_variables("resnet18")
    loaded, report = load_backbone(path, variables, "resnet18")
    assert report.num_values == 11_176_512 + 2 * 4_800  # parameters, means and variances
    jax.tree.map(
        lambda got, expected: np.testing.assert_equal(got.shape, expected.shape),
        loaded["params"]["backbone"],
        variables["params"]["backbone"],
    )
    shapes = {name: tensor.shape for name, tensor in read_safetensors(path).items()}
    ours = {name: value.shape for name, value in to_torchvision(loaded).items()}
    rest = {name for name in shapes.keys() - ours.keys() if "num_batches_tracked" not in name}
    assert ours.items() <= shapes.items()
    assert rest == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("backbone_name", "fields", "message"),
    [
        ("resnet34", {}, r"lacks parameter .* and \d+ more: is it a resnet34"),
        ("resnet50", {}, r"lacks parameter .* and \d+ more: is it a resnet50"),
        ("resnet18", {"width_multiplier": 0.5}, r" has shape .*width_multiplier 1"),
    ],
)
def test_a_real_file_for_another_network(shared_dir, backbone_name, fields, message):
    path = shared_dir / "weights" / "resnet18-tinyimagenet.safetensors"
    with pytest.raises(UserError, match=message):
        load_backbone(path, abstract_variables(backbone_name, **fields), backbone_name)
