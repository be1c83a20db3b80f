"""Repeated timings, and what the machine can do at most."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolov1_jax.training.sharding import batch_sharding, data_mesh, replicated_sharding

_MATMUL_SIZES = (1024, 2048, 4096, 8192)
_LONG_ENOUGH = 0.1  # seconds of a matrix product, beside which starting it is nothing
_LOADER_WINDOWS = 8


class Timing(NamedTuple):
    """Of something repeated."""

    per_second: float  # median
    spread: float  # half the distance of the quartiles, relative to the median
    repeats: int


def timing_of(rates: Sequence[float]) -> Timing:
    low, median, high = np.quantile(rates, [0.25, 0.5, 0.75])
    return Timing(float(median), float((high - low) / 2 / median), len(rates))


def repeat(run: Callable[[], Any], amount: float, seconds: float) -> Timing:
    """Times `run`, which does `amount` of something and may return arrays to wait for.

    It is called for so many seconds, and three times at least, after two calls to warm up.
    """
    for _ in range(2):
        jax.block_until_ready(run())
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(run())
        rates.append(amount / (time.perf_counter() - start))
    return timing_of(rates)


def matmul_flops(dtype: str, seconds: float) -> tuple[Timing, int]:
    """Floating point operations per second of the fastest matrix product, and its size n.

    Every device multiplies [n, n] by [n, n].
    """
    mesh = data_mesh()
    over_rows, replicated = batch_sharding(mesh), replicated_sharding(mesh)
    multiply = jax.jit(jnp.matmul, in_shardings=(over_rows, replicated), out_shardings=over_rows)
    found: list[tuple[Timing, int]] = []
    for size in _MATMUL_SIZES:
        rows = size * jax.device_count()
        left = jax.device_put(jnp.ones((rows, size), dtype), over_rows)
        right = jax.device_put(jnp.ones((size, size), dtype), replicated)
        amount = 2.0 * rows * size * size
        found.append((repeat(functools.partial(multiply, left, right), amount, seconds), size))
        if amount / found[-1][0].per_second >= _LONG_ENOUGH:
            break
    return max(found, key=lambda one: one[0].per_second)


def loader_rate(batches: Iterator[Any], warm_up: int, batch_size: int, seconds: float) -> Timing:
    """Images per second of a loader that works ahead.

    Batches come in bursts, one from every thread or worker, so windows of several are timed. The
    first `warm_up` of them, which were made while nobody looked, do not count.
    """
    for _ in range(warm_up):
        next(batches)
    start = time.perf_counter()
    arrivals = [start]
    while len(arrivals) <= _LOADER_WINDOWS or arrivals[-1] < start + seconds:
        next(batches)
        arrivals.append(time.perf_counter())
    ends = np.linspace(0, len(arrivals) - 1, _LOADER_WINDOWS + 1).round().astype(int)
    return timing_of(
        [
            (stop - start) * batch_size / (arrivals[stop] - arrivals[start])
            for start, stop in itertools.pairwise(ends)
        ]
    )
