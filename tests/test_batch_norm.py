import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from yolov1_jax.models.batch_norm import BatchNorm, norm_layer

training = BatchNorm(use_running_average=False, momentum=0.9)


def variables(mean=0.0, var=1.0, scale=1.0, bias=0.0):
    return {
        "params": {"scale": jnp.full(1, scale), "bias": jnp.full(1, bias)},
        "batch_stats": {"mean": jnp.full(1, mean), "var": jnp.full(1, var)},
    }


@functools.partial(jax.jit, static_argnums=0)
def apply(module, state, x):
    """Output and new statistics."""
    y, updated = module.apply(state, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def test_training_by_hand():
    # Mean 3, squared deviations 4 + 1 + 0 + 9: biased variance 14/4, unbiased 14/3.
    x = jnp.array([1.0, 2.0, 3.0, 6.0])[:, None]
    y, statistics = apply(training, variables(mean=10.0, var=2.0, scale=3.0, bias=0.5), x)
    expected = 3 * np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 4 + 1e-5) + 0.5
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(statistics["mean"], 0.9 * 10 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 * 2 + 0.1 * 14 / 3, rtol=1e-6)


def test_evaluation_by_hand():
    state = variables(2.0, 4.0, 3.0, 0.5)
    y, statistics = apply(BatchNorm(use_running_average=True), state, jnp.array([[1.0], [6.0]]))
    expected = 3 * np.array([-1.0, 4.0]) / np.sqrt(4 + 1e-5) + 0.5
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)
    assert statistics == state["batch_stats"]


def test_darknets_epsilon_is_beside_the_root_and_its_averages_are_slow():
    dtypes = {"dtype": jnp.float32, "param_dtype": jnp.float32}
    state = variables(mean=2.0, var=1e-12, scale=3.0, bias=0.5)
    evaluation, training = (norm_layer("darknet", train=train, **dtypes)() for train in (0, 1))
    y, _ = apply(evaluation, state, jnp.array([[2.0 + 2**-20]]))
    np.testing.assert_allclose(y, [[3 * 2**-20 / (1e-6 + 1e-6) + 0.5]], rtol=1e-5)
    _, statistics = apply(training, state, jnp.array([[1.0], [3.0], [5.0]]))
    np.testing.assert_allclose(statistics["mean"], 0.99 * 2 + 0.01 * 3, rtol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.01 * 8 / 2, rtol=1e-6)
    assert norm_layer("none", train=True, **dtypes) is None


def test_a_mean_far_from_zero_costs_no_accuracy_once_the_running_mean_has_followed():
    x = np.random.default_rng(0).normal(1000.0, 0.1, (64, 1)).astype(np.float32)
    y, _ = apply(training, variables(mean=999.9), x)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(y, exact, atol=2e-3)  # float32 at 1000 has steps of 6e-5


def test_one_value_per_channel_is_finite():
    for array in jax.tree.leaves(apply(training, variables(), jnp.full((1, 1, 1, 1), 7.0))):
        assert np.isfinite(array).all()


def test_bfloat16_keeps_statistics_in_float32():
    # Eight bits cannot tell 256 from 257: a mean taken in bfloat16 would stop growing.
    x = jnp.concatenate([jnp.full((999, 1), 1.0), jnp.full((1, 1), 3.0)]).astype(jnp.bfloat16)
    module = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    y, statistics = apply(module, variables(), x)
    assert y.dtype == jnp.bfloat16
    assert statistics["mean"].dtype == statistics["var"].dtype == jnp.float32
    np.testing.assert_allclose(statistics["mean"], 0.1 * 1.002, rtol=1e-6)


def test_a_sharded_batch_is_normalised_as_a_whole():
    mesh = Mesh(jax.devices(), ("data",))
    # Shards with very different statistics: normalising each on its own would show.
    x = np.random.default_rng(0).normal(size=(8, 3, 3, 2)) + np.arange(8).reshape(8, 1, 1, 1)
    x = x.astype(np.float32)
    state = training.init(jax.random.key(0), x)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    one, several = apply(training, state, x), apply(training, replicated, sharded)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), several, one)
