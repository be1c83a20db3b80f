import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from yolov1_jax.models.resnet import BACKBONES, max_pool_3x3_stride_2, scale_channels

IMAGE = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)


def abstract_variables(backbone):
    return jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros(IMAGE.shape), False))


@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    # torchvision's counts (11,689,512, 21,797,672 and 25,557,032) less those of its classifier.
    [
        ("resnet18", 11_689_512 - 513 * 1000, 512),
        ("resnet34", 21_797_672 - 513 * 1000, 512),
        ("resnet50", 25_557_032 - 2049 * 1000, 2048),
    ],
)
def test_size_is_torchvisions(name, parameters, channels):
    backbone = BACKBONES[name]()
    variables = abstract_variables(backbone)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    features = jax.eval_shape(lambda v, x: backbone.apply(v, x, False), variables, IMAGE)
    assert features.shape == (2, 2, 3, channels)


@pytest.mark.parametrize(("side", "expected"), [(32, 1), (33, 2), (224, 7), (225, 8), (448, 14)])
def test_odd_sizes_round_up(side, expected):
    backbone = BACKBONES["resnet18"]()
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    features = jax.eval_shape(
        lambda v, x: backbone.apply(v, x, False), abstract_variables(backbone), image
    )
    assert features.shape == (1, expected, expected, 512)


def test_width_multiplier_scales_every_layer():
    full = abstract_variables(BACKBONES["resnet50"]())["params"]
    half = abstract_variables(BACKBONES["resnet50"](width_multiplier=0.5))["params"]
    for leaf, narrow in zip(jax.tree.leaves(full), jax.tree.leaves(half), strict=True):
        factors = [1 if side in (1, 3, 7) else 2 for side in leaf.shape]
        assert leaf.shape == tuple(f * n for f, n in zip(factors, narrow.shape, strict=True))


@pytest.mark.parametrize(
    ("channels", "multiplier", "expected"),
    [(64, 1.0, 64), (64, 0.3, 16), (64, 0.33, 24), (64, 0.01, 8), (1024, 0.25, 256), (64, 2, 128)],
)
def test_channels_are_multiples_of_8(channels, multiplier, expected):
    assert scale_channels(channels, multiplier) == expected


def test_initial_values():
    init = jax.jit(BACKBONES["resnet18"]().init, static_argnums=2)
    variables = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    kernel = variables["params"]["layer3_1"]["conv2"]["kernel"]  # 3 x 3 x 256 x 256
    expected = np.sqrt(2 / (9 * 256))
    assert np.std(kernel) == pytest.approx(expected, rel=0.01)
    assert np.abs(kernel).max() > 4 * expected  # a normal distribution that is not truncated
    # Where inputs and outputs differ in number, it is the outputs that count.
    kernel = variables["params"]["layer4_0"]["conv1"]["kernel"]  # 3 x 3 x 256 x 512
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)
    norm = variables["params"]["layer4_1"]["bn2"]  # not zero: torchvision's default
    np.testing.assert_array_equal(norm["scale"], np.ones(512))
    np.testing.assert_array_equal(norm["bias"], np.zeros(512))


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_max_pool_against_a_slow_loop(side):
    x = np.random.default_rng(side).normal(size=(2, side, side + 1, 3)).astype(np.float32) - 5
    height, width = (side + 1) // 2, (side + 2) // 2
    expected = np.full((2, height, width, 3), -np.inf, np.float32)
    for i, j in itertools.product(range(height), range(width)):
        window = x[:, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
        expected[:, i, j] = window.max(axis=(1, 2))
    np.testing.assert_array_equal(max_pool_3x3_stride_2(jnp.asarray(x)), expected)


def test_max_pool_gradient_is_that_of_reduce_window():
    x = jax.random.normal(jax.random.key(0), (1, 9, 8, 2))

    def reduce_window(x):
        return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])

    def gradient(pool):
        return jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)

    np.testing.assert_allclose(
        gradient(max_pool_3x3_stride_2), gradient(reduce_window), rtol=1e-6, atol=1e-6
    )


def test_max_pool_passes_nan_on():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    assert np.isnan(max_pool_3x3_stride_2(x)).all()
