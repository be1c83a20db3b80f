import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.models.head import Head, head_strides


def shapes_of(head, features):
    """Shapes of the layers and of the output, for a feature map of this shape."""
    x = jax.ShapeDtypeStruct(features, jnp.float32)
    output, variables = jax.eval_shape(
        lambda x: head.init_with_output(jax.random.key(0), x, False), x
    )
    return jax.tree.map(lambda leaf: leaf.shape, variables["params"]), output.shape


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        # torchlake's YOLOV1Modified
        ({"neck_channels": 256}, {"neck": (3, 3, 1024, 256), "predict": (1, 1, 256, 30)}),
        # The paper: 4096 units on 1024 channels in 7 x 7 cells
        ({"kind": "connected", "hidden": 4096}, {"hidden": (50176, 4096), "predict": (4096, 1470)}),
        # torchlake's YOLOV1
        (
            {"kind": "connected", "neck_channels": 256},
            {"neck": (3, 3, 1024, 256), "predict": (12544, 1470)},
        ),
        # Darknet's yolov1.cfg
        (
            {"kind": "local", "neck_channels": 256},
            {"neck": (7, 7, 3, 3, 1024, 256), "predict": (12544, 1470)},
        ),
    ],
)
def test_layers_behind_the_convolutions(options, layers):
    found, output = shapes_of(Head(out_channels=30, **options), (2, 14, 14, 512))
    for name, kernel in layers.items():
        places = 49 if name == "neck" and len(kernel) == 6 else 1
        assert found[name] == {"kernel": kernel, "bias": (places * kernel[-1],)}
    assert output == (2, 7, 7, 30)


def test_without_batch_norm_convolutions_have_a_bias():
    head = Head(out_channels=5, strides=(1, 1), channels=8, norm="none")
    layers, _ = shapes_of(head, (1, 2, 2, 4))
    assert layers == {
        "conv1": {"kernel": (3, 3, 4, 8), "bias": (8,)},
        "conv2": {"kernel": (3, 3, 8, 8), "bias": (8,)},
        "predict": {"kernel": (1, 1, 8, 5), "bias": (5,)},
    }


def test_dropout_before_the_last_layer_needs_a_key_in_training():
    head = Head(out_channels=2, kind="connected", strides=(1,), channels=8, dropout=0.5)
    features = jnp.ones((4, 2, 2, 8))

    @jax.jit
    def outputs():
        variables = head.init(jax.random.key(0), features, False)

        def train(seed):
            rngs = {"dropout": jax.random.key(seed)}
            return head.apply(variables, features, True, mutable=["batch_stats"], rngs=rngs)[0]

        return head.apply(variables, features, False), train(1), train(1), train(2)

    evaluation, first, again, other = outputs()
    np.testing.assert_array_equal(evaluation[0], evaluation[1])
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_initial_values_are_pytorchs():
    head = Head(out_channels=500, channels=32, neck_channels=256)
    init = jax.jit(head.init, static_argnums=2)
    params = init(jax.random.key(0), jnp.zeros((1, 1, 1, 32)), False)["params"]
    for values, fan_in in (
        (params["conv1"]["kernel"], 9 * 32),
        (params["neck"]["kernel"], 9 * 32),
        (params["neck"]["bias"], 9 * 32),
        (params["predict"]["kernel"], 256),
        (params["predict"]["bias"], 256),
    ):
        bound = 1 / np.sqrt(fan_in)
        assert 0.95 * bound < np.max(values) <= bound
        assert -bound <= np.min(values) < -0.95 * bound
        assert np.std(values) == pytest.approx(bound / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize(("kind", "num_cells"), [("convolutional", 1), ("connected", 4)])
def test_initial_outputs_are_the_bias_of_the_last_layer(kind, num_cells):
    head = Head(3, kind, (1,), channels=1, initial_outputs=(0.5, -4.0, 2.0))
    init = jax.jit(head.init, static_argnums=2)
    params = init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), False)["params"]
    np.testing.assert_array_equal(params["predict"]["bias"], [0.5, -4.0, 2.0] * num_cells)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (0.1, -0.1)])
def test_activation(slope, expected):
    head = Head(out_channels=1, channels=1, strides=(1, 1, 1, 1), negative_slope=slope)
    features = jnp.ones((1, 1, 1, 1))

    @jax.jit
    def output():
        variables = head.init(jax.random.key(0), features, False)
        # BatchNorm turns everything into its bias, -1 behind the last of the four convolutions.
        params = jax.tree.map(jnp.zeros_like, variables["params"])
        params["bn4"]["bias"] = jnp.full(1, -1.0)
        params["predict"]["kernel"] = jnp.ones((1, 1, 1, 1))
        return head.apply({**variables, "params": params}, features, False)

    np.testing.assert_allclose(output(), np.full((1, 1, 1, 1), expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("image_size", "backbone_stride", "grid_size", "strides"),
    [
        (448, 32, 7, (1, 2, 1, 1)),
        (448, 32, 14, (1, 1, 1, 1)),
        (896, 32, 7, (1, 2, 2, 1)),
        (416, 32, 13, (1, 1, 1, 1)),
        (32, 32, 1, (1, 1, 1, 1)),
        (112, 16, 7, (1, 1, 1, 1)),
    ],
)
def test_strides_follow_from_the_sizes(image_size, backbone_stride, grid_size, strides):
    assert head_strides(image_size, grid_size, backbone_stride) == strides
    head = Head(out_channels=7, strides=strides, channels=8)
    features = (2, image_size // backbone_stride, image_size // backbone_stride, 16)
    assert shapes_of(head, features)[1] == (2, grid_size, grid_size, 7)


@pytest.mark.parametrize(
    ("depth", "image_size", "strides"), [(1, 448, (1,)), (2, 896, (1, 2)), (3, 1792, (1, 2, 2))]
)
def test_fewer_convolutions_have_fewer_strides(depth, image_size, strides):
    assert head_strides(image_size, 7, 64, depth) == strides
    with pytest.raises(UserError, match=f"{image_size}$|{image_size}, or"):
        head_strides(4 * 1792, 7, 64, depth)


@pytest.mark.parametrize(
    ("image_size", "grid_size", "possible"),
    [
        (448, 8, "256 or 512 or 1024, or grid_size 14 or 7$"),
        # 13 pixels at a stride of 2 give 7, but the seventh cell would hang over the image.
        (416, 7, "224 or 448 or 896, or grid_size 13$"),
        (450, 7, "224 or 448 or 896$"),
    ],
)
def test_impossible_sizes_are_refused_with_the_possible_ones(image_size, grid_size, possible):
    with pytest.raises(UserError, match=f"grid_size={grid_size} .*={image_size}: .* {possible}"):
        head_strides(image_size, grid_size)
