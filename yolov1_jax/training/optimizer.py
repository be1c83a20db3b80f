"""Learning rate schedule, weight decay, accumulation and weight average as one optax chain.

An update is one change of the weights; with accumulation it takes several train steps.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


def build_schedule(
    name: str,
    *,
    learning_rate: float,
    num_updates: int,
    warmup_updates: int = 0,
    decays: Iterable[tuple[int, float]] = (),
    final_fraction: float = 0.0,
) -> optax.Schedule:
    """Number of updates made so far -> learning rate of the next one.

    Args:
      name: "constant"; "step": multiplied by a factor after a number of updates, for each such pair
        of `decays`; "cosine": half a cosine from `learning_rate` down to `final_fraction` of it at
        `num_updates`.
      learning_rate: the rate after warm-up.
      num_updates: length of the run, warm-up included.
      warmup_updates: updates over which the rate rises linearly; the first update already has
        1 / warmup_updates of it.
    """
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "step":
        factors: dict[int, float] = {}
        for update, factor in decays:  # in a short run, several may fall on one update
            factors[update] = factors.get(update, 1.0) * factor
        schedule = optax.piecewise_constant_schedule(learning_rate, factors)
    else:
        end, low = max(num_updates, warmup_updates + 1), final_fraction * learning_rate
        schedule = optax.warmup_cosine_decay_schedule(
            learning_rate, learning_rate, warmup_updates, end, low
        )
    if warmup_updates == 0:
        return schedule
    # A factor does not shift the decays, as joining two schedules would.
    return lambda count: schedule(count) * jnp.minimum((count + 1) / warmup_updates, 1.0)


class WeightAverage(NamedTuple):
    num_updates: jax.Array  # int32 [], made so far
    average: Any  # a tree like the parameters


def average_weights(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters; passes the updates through.

    It is the last of a chain, because it adds the updates to the parameters itself. The decay at
    update n is min(decay, (1 + n) / (10 + n)): the average soon forgets the random initial weights.
    """

    def init(params: Any) -> WeightAverage:
        return WeightAverage(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: WeightAverage, params: Any = None) -> tuple[Any, WeightAverage]:
        keep = jnp.minimum(decay, (1 + state.num_updates) / (10 + state.num_updates))
        average = jax.tree.map(
            lambda a, p, u: (keep * a + (1 - keep) * (p + u)).astype(a.dtype),
            state.average,
            params,
            updates,
        )
        return updates, WeightAverage(state.num_updates + 1, average)

    return optax.GradientTransformation(init, update)


def decay_kernels(weight_decay: float) -> optax.GradientTransformation:
    """`optax.add_decayed_weights` for arrays of two and more axes: no bias, no BatchNorm.

    optax's mask would change the form of the state, and a checkpoint would not fit both.
    """

    def add(update: jax.Array, param: jax.Array) -> jax.Array:
        return update + weight_decay * param if param.ndim > 1 else update

    return optax.stateless(lambda updates, params: jax.tree.map(add, updates, params))


def scale_backbone(
    transformation: optax.GradientTransformation, factor: float
) -> optax.GradientTransformation:
    """Multiplies the updates of "backbone". The state keeps its form: a checkpoint fits both."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = transformation.update(updates, state, params)
        backbone = jax.tree.map(lambda update: factor * update, updates["backbone"])
        return {**updates, "backbone": backbone}, state

    return optax.GradientTransformation(transformation.init, update)


def build_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    momentum: float = 0.9,
    clip_norm: float | None = None,
    accumulation_steps: int = 1,
    ema_decay: float | None = None,
    decay_norms: bool = True,
    backbone_factor: float = 1.0,
) -> optax.GradientTransformation:
    """
    Args:
      name: "adam" and "sgd" add the decay to the gradient, as PyTorch's `weight_decay` does (L2
        regularisation); "adamw" decays the weights directly (Loshchilov & Hutter 2019).
      clip_norm: bound of the global norm of the gradient, before the decay is added.
      accumulation_steps: train steps whose gradients are averaged into one update.
      ema_decay: decay of the weight average; None for no average.
      decay_norms: whether biases and BatchNorm's scales decay, too, as in PyTorch's optimizers;
        otherwise only kernels do (He et al. 2019, Bag of tricks, section 3.1).
      backbone_factor: of the learning rate for the parameters under "backbone"; 0 freezes them (but
        not the running averages of their BatchNorm).
    """
    decay = (optax.add_decayed_weights if decay_norms else decay_kernels)(weight_decay)
    adam = optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon)
    scale = optax.scale_by_learning_rate(schedule)
    if backbone_factor != 1:
        scale = scale_backbone(scale, backbone_factor)
    chain = {
        "adam": [decay, adam, scale],
        "adamw": [adam, decay, scale],
        "sgd": [decay, optax.trace(decay=momentum), scale],
    }[name]
    if clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(clip_norm))
    if ema_decay is not None:
        chain.append(average_weights(ema_decay))
    optimizer = optax.chain(*chain)
    if accumulation_steps > 1:
        # float32, or float64 under jax_enable_x64, where the default would be float32.
        steps = optax.MultiSteps(optimizer, accumulation_steps, accumulator_dtype=jnp.float64)
        return steps.gradient_transformation()
    return optimizer


def averaged_weights(opt_state: Any, params: Any) -> Any:
    """The weight average in an optimizer's state, or `params` if it keeps none."""
    return optax.tree.get(opt_state, "average", params)
