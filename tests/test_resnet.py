import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.models.resnet import BACKBONES, BasicBlock, ResNet, scale_channels


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
    images = jax.ShapeDtypeStruct((2, 64, 97, 3), jnp.float32)
    features, variables = jax.eval_shape(
        lambda x: BACKBONES[name]().init_with_output(jax.random.key(0), x, False), images
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert features.shape == (2, 2, 4, channels)  # odd sizes round up


@pytest.mark.parametrize(
    ("channels", "multiplier", "expected"),
    [(64, 1.0, 64), (64, 0.3, 16), (64, 0.33, 24), (64, 0.01, 8), (1024, 0.25, 256), (64, 2, 128)],
)
def test_channels_are_multiples_of_8(channels, multiplier, expected):
    assert scale_channels(channels, multiplier) == expected


def test_initial_values():
    network = ResNet(stage_sizes=(1, 1, 1, 1), block=BasicBlock, width_multiplier=0.5)
    options = {"xla_backend_optimization_level": 0}  # compiles in half the time
    init = jax.jit(network.init, static_argnums=2, compiler_options=options)
    params = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)["params"]
    kernel = params["layer3_0"]["conv2"]["kernel"]  # 3 x 3 x 128 x 128
    expected = np.sqrt(2 / (9 * 128))
    assert np.std(kernel) == pytest.approx(expected, rel=0.01)
    assert np.abs(kernel).max() > 4 * expected  # a normal distribution that is not truncated
    # Where inputs and outputs differ in number, it is the outputs that count.
    kernel = params["layer4_0"]["conv1"]["kernel"]  # 3 x 3 x 128 x 256
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    norm = params["layer4_0"]["bn2"]  # not zero: torchvision's default
    np.testing.assert_array_equal(norm["scale"], np.ones(256))
    np.testing.assert_array_equal(norm["bias"], np.zeros(256))
