import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from yolov1_jax.models.batch_norm import BatchNorm


def variables(mean=0.0, var=1.0, scale=1.0, bias=0.0):
    return {
        "params": {"scale": jnp.full(1, scale), "bias": jnp.full(1, bias)},
        "batch_stats": {"mean": jnp.full(1, mean), "var": jnp.full(1, var)},
    }


def test_training_by_hand():
    # Mean 3, squared deviations 4 + 1 + 0 + 9: biased variance 14/4, unbiased 14/3.
    x = jnp.array([1.0, 2.0, 3.0, 6.0])[:, None]
    y, updated = BatchNorm(use_running_average=False, momentum=0.9).apply(
        variables(mean=10.0, var=2.0, scale=3.0, bias=0.5), x, mutable=["batch_stats"]
    )
    expected = 3 * np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 4 + 1e-5) + 0.5
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.9 * 10 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 * 2 + 0.1 * 14 / 3, rtol=1e-6)


def test_evaluation_by_hand():
    x = jnp.array([1.0, 6.0])[:, None]
    y = BatchNorm(use_running_average=True).apply(variables(2.0, 4.0, 3.0, 0.5), x)
    expected = 3 * np.array([-1.0, 4.0]) / np.sqrt(4 + 1e-5) + 0.5
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)


def test_normalisation_and_gradient_are_those_of_flax():
    x = jax.random.normal(jax.random.key(0), (4, 5, 6, 7)) + 2
    direction = jax.random.normal(jax.random.key(1), x.shape)
    ours = BatchNorm(use_running_average=False)
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)
    state = jax.jit(flax.init)(jax.random.key(0), x)

    def output_and_gradient(module):
        def objective(x):
            y, _ = module.apply(state, x, mutable=["batch_stats"])
            return jnp.sum(y * direction), y

        return jax.jit(jax.grad(objective, has_aux=True))(x)

    for got, expected in zip(output_and_gradient(ours), output_and_gradient(flax), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_mean_far_from_zero_costs_no_accuracy_once_the_running_mean_has_followed():
    x = np.random.default_rng(0).normal(1000.0, 0.1, (64, 1)).astype(np.float32)
    y, _ = BatchNorm(use_running_average=False).apply(
        variables(mean=999.9), jnp.asarray(x), mutable=["batch_stats"]
    )
    exact = x.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(y, exact, atol=2e-3)  # float32 at 1000 has steps of 6e-5


def test_initialisation_leaves_the_running_averages_alone():
    x = jnp.full((3, 2), 7.0)
    state = BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    np.testing.assert_array_equal(state["batch_stats"]["mean"], [0, 0])
    np.testing.assert_array_equal(state["batch_stats"]["var"], [1, 1])


def test_one_value_per_channel_is_finite():
    x = jnp.full((1, 1, 1, 1), 7.0)
    y, updated = BatchNorm(use_running_average=False).apply(variables(), x, mutable=["batch_stats"])
    assert np.isfinite(y).all()
    assert np.isfinite(updated["batch_stats"]["var"]).all()


def test_bfloat16_keeps_statistics_in_float32():
    # Eight bits cannot tell 256 from 257: a mean taken in bfloat16 would stop growing.
    x = jnp.concatenate([jnp.full((999, 1), 1.0), jnp.full((1, 1), 3.0)]).astype(jnp.bfloat16)
    module = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    y, updated = module.apply(variables(), x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * 1.002, rtol=1e-6)


@pytest.mark.parametrize("num_devices", [2, 4])
def test_a_sharded_batch_is_normalised_as_a_whole(num_devices):
    mesh = Mesh(jax.devices()[:num_devices], ("data",))
    # Shards with very different statistics: normalising each on its own would show.
    x = np.random.default_rng(0).normal(size=(8, 3, 3, 2)) + np.arange(8).reshape(8, 1, 1, 1)
    x = x.astype(np.float32)
    module = BatchNorm(use_running_average=False)
    state = module.init(jax.random.key(0), x)
    apply = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    got = apply(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), sharded)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, apply(state, x)
    )
