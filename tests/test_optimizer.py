"""The optimizer against hand-worked updates and slow loops of the published rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolov1_jax.training.optimizer import averaged_weights, build_optimizer, build_schedule


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def gradients_of(seed, count):
    rng = np.random.default_rng(seed)
    return [{"w": jnp.asarray(rng.normal(size=3), jnp.float32)} for _ in range(count)]


PARAMS = {"w": jnp.array([1.0, -2.0, 0.5])}


def test_adam_with_l2_is_pytorchs_adam():
    gradients = gradients_of(0, 5)
    optimizer = build_optimizer("adam", optax.constant_schedule(1e-2), weight_decay=0.1)
    params, _ = run(optimizer, PARAMS, gradients)

    # torch.optim.Adam: the decay enters the gradient, and so both moments.
    w = np.array(PARAMS["w"], np.float64)
    m = v = np.zeros(3)
    for t, gradient in enumerate(gradients, start=1):
        g = np.asarray(gradient["w"], np.float64) + 0.1 * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_adamw_decays_the_weights_and_not_the_gradient():
    optimizer = build_optimizer("adamw", optax.constant_schedule(0.01), weight_decay=0.5)
    params, _ = run(optimizer, PARAMS, [{"w": jnp.zeros(3)}])
    np.testing.assert_allclose(params["w"], PARAMS["w"] * (1 - 0.01 * 0.5), rtol=1e-6)


def test_sgd_with_momentum_is_pytorchs_sgd():
    gradients = gradients_of(1, 4)
    optimizer = build_optimizer(
        "sgd", optax.constant_schedule(0.1), weight_decay=0.01, momentum=0.9
    )
    params, _ = run(optimizer, PARAMS, gradients)
    w, buffer = np.array(PARAMS["w"], np.float64), np.zeros(3)
    for gradient in gradients:
        buffer = 0.9 * buffer + np.asarray(gradient["w"], np.float64) + 0.01 * w
        w = w - 0.1 * buffer
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_accumulation_updates_with_the_mean_of_the_gradients():
    gradients = gradients_of(2, 4)
    means = [
        jax.tree.map(lambda a, b: (a + b) / 2, *pair) for pair in (gradients[0:2], gradients[2:4])
    ]
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5})  # by updates, not by steps
    whole, _ = run(build_optimizer("adam", schedule), PARAMS, means)
    accumulated, _ = run(build_optimizer("adam", schedule, accumulation_steps=2), PARAMS, gradients)
    np.testing.assert_allclose(accumulated["w"], whole["w"], rtol=1e-5)
    after_one, _ = run(
        build_optimizer("adam", schedule, accumulation_steps=2), PARAMS, gradients[:1]
    )
    np.testing.assert_array_equal(after_one["w"], PARAMS["w"])


def test_clip_norm_bounds_the_gradient():
    optimizer = build_optimizer("sgd", optax.constant_schedule(1.0), momentum=0.0, clip_norm=1.0)
    params, _ = run(optimizer, PARAMS, [{"w": jnp.array([3.0, 0.0, 4.0])}])
    np.testing.assert_allclose(params["w"], PARAMS["w"] - np.array([0.6, 0.0, 0.8]), rtol=1e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_weight_average(accumulation_steps):
    gradients = gradients_of(3, 6)
    schedule = optax.constant_schedule(0.1)
    options = {"momentum": 0.0, "accumulation_steps": accumulation_steps}
    params, state = run(
        build_optimizer("sgd", schedule, ema_decay=0.5, **options), PARAMS, gradients
    )
    # Averaging must not change the weights that are trained.
    plain, plain_state = run(build_optimizer("sgd", schedule, **options), PARAMS, gradients)
    np.testing.assert_array_equal(params["w"], plain["w"])
    assert averaged_weights(plain_state, plain) is plain

    w = average = np.array(PARAMS["w"], np.float64)
    for n in range(6 // accumulation_steps):
        group = gradients[n * accumulation_steps : (n + 1) * accumulation_steps]
        w = w - 0.1 * np.mean([np.asarray(g["w"], np.float64) for g in group], axis=0)
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(averaged_weights(state, params)["w"], average, rtol=1e-5)


def test_constant_schedule_with_warmup():
    schedule = build_schedule("constant", learning_rate=0.8, num_updates=10, warmup_updates=4)
    rates = [float(schedule(count)) for count in range(6)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)


def test_step_schedule():
    schedule = build_schedule(
        "step", learning_rate=1.0, num_updates=10, decay_updates=[2, 4], decay_factor=0.1
    )
    rates = [float(schedule(count)) for count in range(6)]
    np.testing.assert_allclose(rates, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_two_decays_of_one_update_are_both_made():
    """Two epochs of a short run may be one update."""
    schedule = build_schedule(
        "step", learning_rate=1.0, num_updates=10, decay_updates=[2, 2], decay_factor=0.1
    )
    np.testing.assert_allclose([float(schedule(1)), float(schedule(2))], [1.0, 0.01], rtol=1e-6)


def test_cosine_schedule_ends_at_its_final_fraction():
    schedule = build_schedule(
        "cosine", learning_rate=2.0, num_updates=12, warmup_updates=2, final_fraction=0.1
    )
    rates = [float(schedule(count)) for count in (0, 1, 2, 7, 12, 20)]
    # Half of the cosine, at count 7, is the mean of its ends.
    np.testing.assert_allclose(rates, [1.0, 2.0, 2.0, (2.0 + 0.2) / 2, 0.2, 0.2], rtol=1e-5)


@pytest.mark.parametrize("name", ["lion", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="must be"):
        build_optimizer(name, optax.constant_schedule(1.0))
    with pytest.raises(ValueError, match="must be"):
        build_schedule(name, learning_rate=1.0, num_updates=1)
