"""Measures loader, train step, predict step and decoding, in images per second over all devices.

    python -m yolov1_jax.benchmark --config=r34 --config.compute_dtype=bfloat16 --seconds=10
    python -m yolov1_jax.benchmark --config=r18 --backbones=resnet18,resnet34,darknet,fast

Each part is measured alone; the spread is half the distance between the quartiles. The limit of a
step is the machine's rate for matrix products over the operations that XLA counts in the step. In
decoding every box counts.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Column, Table

from yolov1_jax import command_line
from yolov1_jax import config as configs
from yolov1_jax.training import build, cpu
from yolov1_jax.training.sharding import shard_batch
from yolov1_jax.training.step import inference_variables
from yolov1_jax.yolo.decode import detections_from_predictions

FLAGS = flags.FlagValues()
_CONFIG = command_line.ConfigFlag(FLAGS)
_SECONDS = flags.DEFINE_float("seconds", 5.0, "time of each measurement", flag_values=FLAGS)
_BACKBONES = flags.DEFINE_list(
    "backbones", None, "each is measured, in place of config.model.backbone", flag_values=FLAGS
)


def repeat(work: Callable[[Any], Any], amount: float, last: Any = None) -> np.ndarray:
    """Rates of `work(its last result)`, which does `amount` of something: 3 or more, warmed up."""
    rates: list[float] = []
    end = time.perf_counter() + _SECONDS.value
    while len(rates) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        last = jax.block_until_ready(work(last))
        rates.append(amount / (time.perf_counter() - start))
    return np.array(rates[2:])


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    cpu.keep_freed_memory()
    config = configs.with_absolute_paths(_CONFIG.value)
    backbones = _BACKBONES.value or [config.model.backbone]
    for backbone in backbones:
        build.check(configs.replace(config, "model.backbone", backbone))
    source = build.open_split(config, "train")
    config = configs.replace(config, "model.class_names", tuple(source.class_names))
    setups = {
        name: build.Setup(configs.replace(config, "model.backbone", name), len(source))
        for name in backbones
    }
    annotations = source.annotations(2000 if config.data.source == "synthetic" else None)
    max_objects = max(1, int(np.diff(annotations.starts).max()))
    with setups[backbones[0]].train_batches(source, max_objects) as batches:
        batch = next(batches)
        # Batches come in bursts, one from every thread or worker: several are timed together.
        burst = 2 * min(config.data.num_workers or 8, os.cpu_count() or 1)
        images = burst * config.train.batch_size
        loader = repeat(lambda _: [next(batches) for _ in range(burst)], images)
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), config.compute_dtype)
    multiply = jax.jit(jnp.matmul, compiler_options=cpu.compiler_options())
    peak = jax.device_count() * np.median(repeat(lambda _: multiply(matrix, matrix), 2.0 * size**3))

    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores"
    table = Table(Column(no_wrap=True), title=f"{_CONFIG.name}, {config.compute_dtype}, {device}")
    for heading in ("images/s", "spread", "limit", "of limit", "GFLOP/image"):
        table.add_column(heading, justify="right")
    table.add_row("loader", *_numbers(loader))
    for backbone, setup in setups.items():
        table.add_section()
        for name, rates, flops in _measure(setup, batch):
            row = [f"{backbone} {name}", *_numbers(rates)]
            if flops:
                share = np.median(rates) * flops / peak
                row += [f"{peak / flops:,.1f}", f"{share:.0%}", f"{flops / 1e9:.3g}"]
            table.add_row(*row)
    Console().print(table)


def _measure(
    setup: build.Setup, batch: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, rates, and operations per image, if XLA counts them, of what the network is part of."""
    config, batch_size = setup.config, setup.config.train.batch_size
    on_device = shard_batch(batch, setup.over_batch)
    state = setup.create_state(jax.random.key(config.seed))
    # A copy, because the train step destroys the state that it is given.
    variables = jax.tree.map(jnp.copy, inference_variables(state))

    def flops(step: jax.stages.Lowered) -> float:
        # Not of the compiled program, which on a GPU hides its convolutions in cuDNN.
        return (step.cost_analysis() or {}).get("flops", 0.0) / batch_size

    lowered = setup.train_step.lower(state, on_device)
    step = lowered.compile()
    rates = repeat(lambda state: step(state, on_device)[0], batch_size, state)
    yield "train", rates, flops(lowered)
    lowered = setup.predict_step.lower(variables, on_device["image"])
    predict = lowered.compile()
    rates = repeat(lambda _: predict(variables, on_device["image"]), batch_size)
    yield "predict", rates, flops(lowered)
    raw = jax.tree.map(np.abs, jax.device_get(predict(variables, on_device["image"])))
    sizes = np.full((batch_size, 2), config.image_size)
    options = build.select_options(config) | {"score_threshold": 0.0}
    rates = repeat(lambda _: detections_from_predictions(raw, sizes, **options), batch_size)
    yield "decode", rates, 0.0


def _numbers(rates: np.ndarray) -> tuple[str, str]:
    low, rate, high = np.quantile(rates, [0.25, 0.5, 0.75])
    return f"{rate:,.1f}", f"± {(high - low) / 2 / rate:.0%}"


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
