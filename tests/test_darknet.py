"""Darknet's layers against slow loops over its own arrays, and the sizes of its networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.config import shipped_config
from yolov1_jax.models.darknet import Darknet, Layer, Local, parse_layer
from yolov1_jax.training import build
from yolov1_jax.weights.darknet import layers_of

rng = np.random.default_rng(0)


QUICK = {"xla_backend_optimization_level": 0}  # compiles in half the time


def outputs(layers, x, **options):
    """Random variables of a chain of layers, and what it gives for [B, H, W, C]."""
    network = Darknet(layers=layers, **options)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype("f4"), shapes)
    run = jax.jit(network.apply, static_argnums=2, compiler_options=QUICK)
    return variables, np.asarray(run(variables, x, False))


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 1, 1), (2, 2, 0), (3, 2, 1)])
def test_convolutional_against_a_slow_loop(size, stride, pad):
    """With BatchNorm: blas.c, normalize_cpu; then scales, biases and the leaky ReLU."""
    x = rng.normal(size=(1, 4, 5, 2)).astype(np.float32)
    layer = Layer("convolutional", 8, size, stride, pad, 1, 1, "leaky")
    variables, y = outputs((layer,), x)
    params, stats = variables["params"], variables["batch_stats"]["norm0"]
    kernel, norm = params["convolutional0"]["kernel"], params["norm0"]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for row, column, f in np.ndindex(y.shape[1:]):
        window = padded[0, row * stride :, column * stride :][:size, :size]
        total = (window * kernel[..., f]).sum()
        total = (total - stats["mean"][f]) / (np.sqrt(stats["var"][f]) + 1e-6)
        expected = leaky(total * norm["scale"][f] + norm["bias"][f])
        assert y[0, row, column, f] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_local_against_a_slow_loop():
    """local_layer.c: weights [place][filter][channel, row, column], biases [filter, place]."""
    x = rng.normal(size=(1, 3, 4, 2)).astype(np.float32)
    local = Local(filters=3)
    shapes = jax.eval_shape(local.init, jax.random.key(0), x)["params"]
    bias, kernel = (rng.normal(size=shapes[n].shape).astype(np.float32) for n in ("bias", "kernel"))
    y = local.apply({"params": {"bias": bias, "kernel": kernel}}, x)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    for f, row, column in itertools.product(range(3), range(3), range(4)):
        place = row * 4 + column
        expected = bias[f * 12 + place]
        for c, i, j in itertools.product(range(2), range(3), range(3)):
            expected += padded[row + i, column + j, c] * kernel[row, column, i, j, c, f]
        assert y[0, row, column, f] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_connected_reads_channel_row_column():
    x = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    variables, y = outputs((Layer("connected", output=5),), x)
    layer = variables["params"]["connected0"]
    for b, o in np.ndindex(2, 5):
        numbers = (x[b, i, j, c] for c in range(4) for i in range(2) for j in range(3))
        expected = layer["bias"][o] + sum(
            value * weight for value, weight in zip(numbers, layer["kernel"][:, o], strict=True)
        )
        assert y[b, o] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("side", "size", "stride"), [(4, 2, 2), (5, 2, 2), (5, 3, 1), (1, 3, 2), (4, 3, 2), (5, 3, 2)]
)
def test_maxpool_against_a_slow_loop(side, size, stride):
    """maxpool_layer.c: padding = size - 1, of which half, rounded down, lies before.

    ResNet's pooling, of 3 with a stride of 2, is the same.
    """
    x = rng.normal(size=(1, side, side, 1)).astype(np.float32) - 5
    pad = size - 1
    _, y = outputs((Layer("maxpool", size=size, stride=stride, pad=pad),), x)
    out = (side + pad - size) // stride + 1
    assert y.shape == (1, out, out, 1)
    for row, column in np.ndindex(out, out):
        rows, columns = (
            range(max(0, at * stride - pad // 2), min(side, at * stride - pad // 2 + size))
            for at in (row, column)
        )
        assert y[0, row, column, 0] == max(x[0, i, j, 0] for i in rows for j in columns)


def test_dropout_is_inverted_and_only_of_training():
    network = Darknet(layers=(Layer("dropout", probability=0.75),))
    x = jnp.ones((1, 4000))
    np.testing.assert_array_equal(network.apply({}, x, False), x)
    dropped = network.apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert np.mean(dropped) == pytest.approx(1, abs=0.1)


def test_batch_norm_of_training_is_finite_where_a_channel_is_constant():
    network = Darknet(layers=(Layer("convolutional", 8, batch_normalize=1),))
    x = jnp.ones((2, 2, 2, 1))
    variables = jax.jit(network.init, static_argnums=2, compiler_options=QUICK)(
        jax.random.key(0), x, False
    )

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.grad
    def gradient(params):
        y, _ = network.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return y.sum()

    for leaf in jax.tree.leaves(gradient(variables["params"])):
        assert np.isfinite(leaf).all()


def test_initial_weights():
    """convolutional_layer.c: N(0, 1) sqrt(2 / inputs); connected and local U(-1, 1) of that."""
    layers = (Layer("convolutional", 64, 3, pad=1), Layer("local", 64, 3, pad=1))
    network = Darknet(layers=(*layers, Layer("connected", output=100)), norm="none")
    init = jax.jit(network.init, static_argnums=2, compiler_options=QUICK)
    params = init(jax.random.key(0), jnp.zeros((1, 2, 2, 16)), False)["params"]
    conv, local, connected = (
        np.asarray(params[name]["kernel"]) for name in ("convolutional0", "local1", "connected2")
    )
    assert np.std(conv) == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.05)
    for kernel, inputs in ((local, 9 * 64), (connected, 64 * 4)):
        assert np.abs(kernel).max() == pytest.approx(np.sqrt(2 / inputs), rel=0.01)
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / inputs / 3), rel=0.05)
    assert np.unique(local[0, 0]).size > 1000
    assert not np.array_equal(local[0, 0], local[1, 1])


def test_parse_layer():
    text = "convolutional filters=64 size=7 stride=2 pad=3 batch_normalize=1 activation=leaky"
    assert parse_layer(text) == Layer("convolutional", 64, 7, 2, 3, 1, 1, "leaky")
    assert parse_layer("dropout probability=.25") == Layer("dropout", probability=0.25)


# --- The networks of the table in cfg/yolov1.cfg and cfg/yolov1-tiny.cfg -------------------------

YOLOV1 = [  # parameters of each layer with weights, statistics of BatchNorm included
    *(9_664, 111_360, 25_088, 295_936, 66_560, 1_181_696),
    *(132_096, 1_181_696) * 4,
    *(264_192, 4_722_688),
    *(526_336, 4_722_688) * 2,
    *(9_441_280,) * 4,
    *(115_618_048, 21_514_675),
]


def layer_sizes(name):
    variables = build.abstract_variables(build.with_class_names(shipped_config(name)))
    return [layer.size for layer in layers_of(variables, None)]


def test_yolov1_is_darknets_layer_for_layer():
    sizes = layer_sizes("yolov1")
    assert sizes == YOLOV1
    assert 16 + 4 * sum(sizes) == 789_312_988  # bytes of the file with its header


def test_fast_yolo_is_darknets():
    sizes = layer_sizes("fast_yolo")
    assert len(sizes) == 9
    assert 16 + 4 * sum(sizes) == 108_399_816


@pytest.mark.parametrize(
    ("name", "convolutions", "rest"),
    [
        # 50,176 inputs to the hidden layer, 4,096 to the 1,470 outputs, with biases
        ("yolov1:paper", 24, [50_177 * 4_096, 4_097 * 1_470]),
        ("fast_yolo:paper", 9, [50_177 * 4_096, 4_097 * 1_470]),
        ("yolov1:convolutional", 24, [1_025 * 30]),
    ],
)
def test_the_papers_networks(name, convolutions, rest):
    sizes = layer_sizes(name)
    assert len(sizes) == convolutions + len(rest)
    assert sizes[convolutions:] == rest


def test_the_articles_first_network_has_229_megabytes():
    config = build.with_class_names(shipped_config("yolov1:convolutional"))
    assert 4 * build.count_parameters(config) // 2**20 == 229
