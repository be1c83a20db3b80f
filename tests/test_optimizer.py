"""The optimizer against hand-worked updates and slow loops of the published rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolov1_jax.training.optimizer import averaged_weights, build_optimizer, build_schedule

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5])}


def run(optimizer, gradients):
    """Weights and state of the optimizer after some updates of PARAMS."""

    @jax.jit
    def step(gradient, state, params):
        updates, state = optimizer.update({"w": gradient}, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for gradient in gradients:
        params, state = step(jnp.asarray(gradient, jnp.float32), state, params)
    return params, state


def gradients_of(seed, count):
    return np.random.default_rng(seed).normal(size=(count, 3))


def constant(learning_rate):
    return optax.constant_schedule(learning_rate)


def test_adam_with_l2_is_pytorchs_adam():
    gradients = gradients_of(0, 5)
    params, _ = run(build_optimizer("adam", constant(1e-2), weight_decay=0.1), gradients)
    # torch.optim.Adam: the decay enters the gradient, and so both moments.
    w = np.array(PARAMS["w"], np.float64)
    m = v = np.zeros(3)
    for t, gradient in enumerate(gradients, start=1):
        g = gradient + 0.1 * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_adamw_decays_the_weights_and_not_the_gradient():
    params, _ = run(build_optimizer("adamw", constant(0.01), weight_decay=0.5), np.zeros((1, 3)))
    np.testing.assert_allclose(params["w"], PARAMS["w"] * (1 - 0.01 * 0.5), rtol=1e-6)


def test_sgd_is_darknets_rule():
    """update_convolutional_layer: sums over B images, and momentum before the next update.

    PyTorch's is the same but for the sum. The rate changes at the third update, as it does after an
    accumulation of two steps each.
    """
    batch_size, rates = 4, [0.1, 0.1, 0.25, 0.25]
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    # -dL/dw of every image
    deltas = {name: rng.normal(size=(4, batch_size, *w.shape)) for name, w in start.items()}

    weights = {name: w.copy() for name, w in start.items()}
    updates = {name: np.zeros_like(w) for name, w in start.items()}
    for n, rate in enumerate(rates):
        for name in weights:
            updates[name] += deltas[name][n].sum(axis=0)
            if name == "kernel":
                updates[name] += -0.01 * batch_size * weights[name]
            weights[name] += rate / batch_size * updates[name]
            updates[name] *= 0.9

    schedule = build_schedule("step", learning_rate=0.1, num_updates=4, decays=[(2, 2.5)])
    options = {"weight_decay": 0.01, "momentum": 0.9, "decay_norms": False}
    optimizer = build_optimizer("sgd", schedule, accumulation_steps=2, **options)
    params = jax.tree.map(jnp.float32, start)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(8):  # of the mean over half of the images
        half = slice(2 * (step % 2), 2 * (step % 2) + 2)
        gradient = {
            name: jnp.float32(-delta[step // 2, half].mean(axis=0))
            for name, delta in deltas.items()
        }
        changes, state = update(gradient, state, params)
        params = optax.apply_updates(params, changes)
    for name, expected in weights.items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_kernels_decay_on_request(name):
    params = {"kernel": jnp.ones((1, 2)), "scale": jnp.ones(2), "bias": jnp.ones(1)}
    optimizer = build_optimizer(name, constant(0.1), weight_decay=0.5, decay_norms=False)
    state = optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(
        build_optimizer(name, constant(0.1), weight_decay=0.5).init(params)
    )
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_allclose(updates["kernel"], np.full((1, 2), -0.1 * 0.5), rtol=1e-6)
    assert not updates["scale"].any()
    assert not updates["bias"].any()


@pytest.mark.parametrize("factor", [0.0, 0.1])
def test_backbone_has_a_rate_of_its_own(factor):
    params = {"backbone": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
    optimizer = build_optimizer("adamw", constant(0.1), backbone_factor=factor, ema_decay=0.5)
    plain = build_optimizer("adamw", constant(0.1), ema_decay=0.5)
    updates, state = optimizer.update(params, optimizer.init(params), params)
    expected, plain_state = plain.update(params, plain.init(params), params)
    assert jax.tree.structure(state) == jax.tree.structure(plain_state)  # a checkpoint fits both
    np.testing.assert_array_equal(updates["head"]["w"], expected["head"]["w"])
    np.testing.assert_allclose(updates["backbone"]["w"], factor * expected["backbone"]["w"])
    # The average follows the weights as they are. Its first update keeps 1/10.
    average = averaged_weights(state, params)["backbone"]["w"]
    np.testing.assert_allclose(average, 1 + 0.9 * updates["backbone"]["w"], rtol=1e-6)


def test_clip_norm_bounds_the_gradient():
    optimizer = build_optimizer("sgd", constant(1.0), momentum=0.0, clip_norm=1.0)
    params, _ = run(optimizer, [[3.0, 0.0, 4.0]])
    np.testing.assert_allclose(params["w"], PARAMS["w"] - np.array([0.6, 0.0, 0.8]), rtol=1e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_weight_average(accumulation_steps):
    gradients = gradients_of(3, 6)
    options = {"momentum": 0.0, "accumulation_steps": accumulation_steps}
    params, state = run(build_optimizer("sgd", constant(0.1), ema_decay=0.5, **options), gradients)
    # Averaging must not change the weights that are trained.
    plain, plain_state = run(build_optimizer("sgd", constant(0.1), **options), gradients)
    np.testing.assert_array_equal(params["w"], plain["w"])
    assert averaged_weights(plain_state, plain) is plain

    w = average = np.array(PARAMS["w"], np.float64)
    for n, group in enumerate(gradients.reshape(-1, accumulation_steps, 3)):
        w = w - 0.1 * group.mean(axis=0)
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(averaged_weights(state, params)["w"], average, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "rates"),
    [
        ("constant", {"warmup_updates": 4}, {0: 0.5, 1: 1, 2: 1.5, 3: 2, 4: 2, 5: 2}),
        ("step", {"decays": [(2, 0.1), (4, 2.5)]}, {0: 2, 1: 2, 2: 0.2, 3: 0.2, 4: 0.5}),
        ("step", {"decays": [(2, 0.1), (2, 0.2)]}, {0: 2, 1: 2, 2: 0.04}),
        # Half of the cosine, at count 7, is the mean of its ends.
        (
            "cosine",
            {"warmup_updates": 2, "final_fraction": 0.1},
            {0: 1, 1: 2, 2: 2, 7: (2 + 0.2) / 2, 12: 0.2, 20: 0.2},
        ),
    ],
)
def test_schedules(name, options, rates):
    schedule = build_schedule(name, learning_rate=2.0, num_updates=12, **options)
    found = {count: float(schedule(count)) for count in rates}
    assert found == pytest.approx(rates, rel=1e-5)
