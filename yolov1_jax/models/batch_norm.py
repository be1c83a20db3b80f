"""Batch normalisation with the statistics of torch.nn.BatchNorm2d.

flax.linen.BatchNorm keeps the biased variance as its running average; PyTorch normalises with the
biased variance, too, but averages the unbiased one. On a 7x7 feature map and a small batch the two
differ by a percent, and a network trained here could not be compared with its PyTorch counterpart.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import lax
from jax.typing import DTypeLike


class BatchNorm(nn.Module):
    """Normalises the last axis over all others; parameters scale, bias; batch_stats mean, var.

    Statistics and normalisation are computed in float32 at least, whatever the compute type. Under
    jit with a sharded batch the means are those of the global batch: on N devices the result is
    that of one device.

    Attributes:
      use_running_average: normalise with the running averages (evaluation) instead of the batch.
      momentum: weight of the old running average; PyTorch's `momentum` is one minus this.
      epsilon: added to the variance under the square root.
      epsilon_beside_root: add it to the root instead, as Darknet does on a CPU (blas.c:147-156).
      dtype: of the output. Its computation is never in less than float32.
      param_dtype: of the parameters; the running averages are kept in it, or in float32 if that is
        wider.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    epsilon_beside_root: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]; outside of evaluation also updates the running averages."""
        channels = (x.shape[-1],)
        stats_dtype = jnp.promote_types(self.param_dtype, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, stats_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, stats_dtype)
        scale = self.param("scale", nn.initializers.ones, channels, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, self.param_dtype)

        x = x.astype(jnp.promote_types(x.dtype, stats_dtype))
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = _mean_and_variance(x, shift=running_mean.value)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased_var = var * (count / max(count - 1, 1))
                for running, of_batch in ((running_mean, mean), (running_var, unbiased_var)):
                    old = self.momentum * running.value
                    running.value = old + (1 - self.momentum) * of_batch

        def per_channel(values: jax.Array) -> jax.Array:
            return jnp.expand_dims(values, range(x.ndim - 1))  # [C] -> [1, .., 1, C]

        factor = _factor(self, scale, var)
        y = (x - per_channel(mean)) * per_channel(factor) + per_channel(bias)
        return y.astype(self.dtype)


def norm_layer(
    name: str, *, train: bool, dtype: DTypeLike, param_dtype: DTypeLike
) -> Callable[..., Any] | None:
    """The BatchNorm of "torch" or of "darknet", still without its name; None for "none"."""
    options: dict[str, dict[str, Any]] = {
        "torch": {},
        "darknet": {"momentum": 0.99, "epsilon": 1e-6, "epsilon_beside_root": True},
    }
    if name not in options:
        return None
    return functools.partial(
        BatchNorm,
        use_running_average=not train,
        dtype=dtype,
        param_dtype=param_dtype,
        **options[name],
    )


def fold_batch_norms(model: nn.Module, variables: Mapping[str, Any], images: Any) -> dict[str, Any]:
    """The parameters of the same network without BatchNorm, to apply in `folded_batch_norms()`.

    In evaluation, BatchNorm multiplies by a factor and adds a bias: the kernel (and bias) before it
    take the factor, and what is left of the BatchNorm is its parameter "bias".

    Args:
      model: called as model.apply(variables, images, train=False).
      variables: "params" and, where there are BatchNorms, "batch_stats".
      images: an array, or its shape and type.
    """
    params: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(variables["params"])
    stats = traverse_util.flatten_dict(variables.get("batch_stats", {}))
    pairs: list[tuple[tuple[str, ...], BatchNorm]] = []  # what a BatchNorm follows, and itself
    last: tuple[str, ...] = ()

    def find(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal last
        path = context.module.path
        if isinstance(context.module, BatchNorm):
            pairs.append((last, context.module))
        elif (*path, "kernel") in params:
            last = path
        return next_call(*args, **kwargs)

    with nn.intercept_methods(find):
        jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
    for before, module in pairs:
        path = module.path
        factor = _factor(module, params.pop((*path, "scale")), stats[(*path, "var")])
        params[(*path, "bias")] -= stats[(*path, "mean")] * factor
        params[(*before, "kernel")] *= jnp.expand_dims(
            factor, range(params[(*before, "kernel")].ndim - 1)
        )
        if (bias := params.get((*before, "bias"))) is not None:  # [F], or of `Local` [F * H * W]
            scaled = bias.reshape(len(factor), -1) * factor[:, None]
            params[(*before, "bias")] = scaled.reshape(-1)
    return traverse_util.unflatten_dict(params)


def folded_batch_norms() -> contextlib.AbstractContextManager[None]:
    """Inside, every BatchNorm only adds its bias: for parameters of `fold_batch_norms`."""

    def add_bias(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, BatchNorm):
            return next_call(*args, **kwargs)
        bias: Any = context.module.get_variable("params", "bias")
        return args[0] + jnp.expand_dims(bias, range(args[0].ndim - 1))

    return nn.intercept_methods(add_bias)


def _factor(module: BatchNorm, scale: jax.Array, var: jax.Array) -> jax.Array:
    if module.epsilon_beside_root:  # a root of exactly 0 has no derivative
        return scale / (jnp.sqrt(jnp.maximum(var, 1e-30)) + module.epsilon)
    return lax.rsqrt(var + module.epsilon) * scale


def _mean_and_variance(x: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of [..., C] per channel, in one pass over memory.

    Var(x) = E[(x - c)^2] - E[x - c]^2 holds for every constant c, so both sums can be taken in one
    pass. With c = 0 the difference cancels where the mean is large beside the deviation; with c
    near the mean, as the running average soon is, it does not.
    """
    axes = tuple(range(x.ndim - 1))
    centred = x - jnp.expand_dims(shift, axes)
    mean = jnp.mean(centred, axes)  # [C]
    var = jnp.mean(jnp.square(centred), axes) - jnp.square(mean)
    return mean + shift, jnp.maximum(var, 0.0)
