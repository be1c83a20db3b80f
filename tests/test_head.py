import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.errors import UserError
from yolov1_jax.models.head import Head, head_strides


def abstract_head(head, features):
    x = jax.ShapeDtypeStruct(features, jnp.float32)
    variables = jax.eval_shape(lambda x: head.init(jax.random.key(0), x, False), x)
    shapes = {
        layer: {name: leaf.shape for name, leaf in leaves.items()}
        for layer, leaves in variables["params"].items()
    }
    return shapes, jax.eval_shape(lambda v, x: head.apply(v, x, False), variables, x).shape


def conv_and_norm(i, in_channels):
    return {
        f"conv{i}": {"kernel": (3, 3, in_channels, 1024)},
        f"bn{i}": {"scale": (1024,), "bias": (1024,)},
    }


def test_layers_of_the_reference():
    shapes, output = abstract_head(Head(out_channels=30), (2, 14, 14, 512))
    assert shapes == {
        **conv_and_norm(1, 512),
        **conv_and_norm(2, 1024),
        **conv_and_norm(3, 1024),
        **conv_and_norm(4, 1024),
        "predict": {"kernel": (1, 1, 1024, 30), "bias": (30,)},
    }
    assert output == (2, 7, 7, 30)


def test_layers_with_a_neck():
    shapes, output = abstract_head(Head(out_channels=30, neck_channels=256), (2, 14, 14, 512))
    assert shapes["neck"] == {"kernel": (3, 3, 1024, 256), "bias": (256,)}
    assert shapes["predict"] == {"kernel": (1, 1, 256, 30), "bias": (30,)}
    assert output == (2, 7, 7, 30)


@pytest.mark.parametrize(("strides", "side"), [((1, 1), 12), ((2, 1), 6), ((2, 2), 3)])
def test_strides_of_the_output(strides, side):
    head = Head(out_channels=7, strides=strides, channels=8)
    assert abstract_head(head, (2, 12, 12, 16))[1] == (2, side, side, 7)


def test_initial_values_are_pytorchs():
    head = Head(out_channels=1000, channels=64, neck_channels=512)
    init = jax.jit(head.init, static_argnums=2)
    params = init(jax.random.key(0), jnp.zeros((1, 2, 2, 32)), False)["params"]
    for values, fan_in in (
        (params["conv1"]["kernel"], 9 * 32),
        (params["conv2"]["kernel"], 9 * 64),
        (params["neck"]["kernel"], 9 * 64),
        (params["neck"]["bias"], 9 * 64),
        (params["predict"]["kernel"], 512),
        (params["predict"]["bias"], 512),
    ):
        bound = 1 / np.sqrt(fan_in)
        assert 0.95 * bound < np.max(values) <= bound
        assert -bound <= np.min(values) < -0.95 * bound
        assert np.std(values) == pytest.approx(bound / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (0.1, -0.1)])
def test_activation(slope, expected):
    head = Head(out_channels=1, channels=1, strides=(1, 1), negative_slope=slope)
    features = jnp.ones((1, 1, 1, 1))
    variables = head.init(jax.random.key(0), features, False)
    # BatchNorm turns everything into its bias, -1 behind the last of the four convolutions.
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    params["bn4"]["bias"] = jnp.full(1, -1.0)
    params["predict"]["kernel"] = jnp.ones((1, 1, 1, 1))
    output = head.apply({**variables, "params": params}, features, False)
    np.testing.assert_allclose(output, np.full((1, 1, 1, 1), expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("image_size", "grid_size", "expected"),
    [
        (448, 7, (2, 1)),
        (448, 14, (1, 1)),
        (224, 7, (1, 1)),
        (896, 7, (2, 2)),
        (416, 13, (1, 1)),
        (32, 1, (1, 1)),
    ],
)
def test_strides_follow_from_the_sizes(image_size, grid_size, expected):
    assert head_strides(image_size, grid_size) == expected


@pytest.mark.parametrize(
    ("image_size", "grid_size", "advice"),
    [
        (448, 8, "make grid_size 14 or 7, or image_size 256, 512 or 1024"),
        # 13 pixels at a stride of 2 give 7, but the seventh cell would hang over the image.
        (416, 7, "make grid_size 13, or image_size 224, 448 or 896"),
        (896, 9, "make grid_size 28, 14 or 7, or image_size 288, 576 or 1152"),
        (450, 7, "make image_size a multiple of 32, or image_size 224, 448 or 896"),
        (448, 0, "make grid_size 14 or 7"),
        (0, -1, "make image_size a multiple of 32"),
    ],
)
def test_impossible_sizes_are_refused_with_the_possible_ones(image_size, grid_size, advice):
    with pytest.raises(UserError) as error:
        head_strides(image_size, grid_size)
    assert str(error.value) == (
        f"grid_size={grid_size} is not possible with image_size={image_size}: {advice}"
    )


def test_another_backbone_stride():
    assert head_strides(112, 7, backbone_stride=16) == (1, 1)
