"""Measures images per second of loading, training and prediction, beside the machine's limits.

    python -m yolov1_jax.benchmark
    python -m yolov1_jax.benchmark --config=configs/r34.py --config.compute_dtype=bfloat16 \
        --seconds=10 --json=r34.json

Each row is measured alone, after a warm-up that takes in the compilation: the median of repeated
timings and, as spread, half the distance between their quartiles. The limits:

  loader         what the train step takes: a loader below it holds training up. On a CPU the two
                 share the cores, so both are slower in a run than here.
  train step,    floating point operations of an image, as XLA counts them in the compiled step
  predict step   (those with padding left out), at the rate of the fastest of some square matrix
                 products in the same type, measured in the same minute on the same devices
  decode + NMS   what the predict step gives; every box passes the score threshold, so that there
                 is more to suppress than in any evaluation
"""

import functools
import math
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich import box
from rich.console import Console
from rich.table import Table

from yolov1_jax import command_line
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.pipeline import train_batches
from yolov1_jax.data.summary import summarise
from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.errors import RunError
from yolov1_jax.timing import Timing, loader_rate, matmul_flops, repeat
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.training.sharding import (
    batch_sharding,
    data_mesh,
    replicated_sharding,
    shard_batch,
)
from yolov1_jax.training.step import (
    create_train_state,
    inference_variables,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.yolo.grid import Predictions


def flops_of(compiled: jax.stages.Compiled) -> float:
    """Floating point operations of a compiled function, over all devices; XLA's own count."""
    costs = compiled.cost_analysis()
    if not costs or "flops" not in costs:
        raise RunError("XLA does not count floating point operations on this kind of device")
    return costs["flops"] * jax.device_count()


def random_predictions(
    model: ConfigDict, num_classes: int, num_images: int
) -> Predictions[np.ndarray]:
    """Of which every box is as good as another. `model`: config.model."""
    rng = np.random.default_rng(0)
    grid = (num_images, model.grid_size, model.grid_size)
    return Predictions(
        boxes=rng.uniform(0, 1, (*grid, model.boxes_per_cell, 4)).astype(np.float32),
        confidence=rng.uniform(0, 1, (*grid, model.boxes_per_cell)).astype(np.float32),
        class_scores=rng.uniform(0, 1, (*grid, num_classes)).astype(np.float32),
    )


def measure_loader(
    config: ConfigDict, source: Source, seconds: float
) -> tuple[Timing, dict[str, np.ndarray]]:
    """The loader's speed, and one of its batches."""
    # Synthetic scenes are endless: a sample stands for them.
    limit = 2000 if config.data.source == "synthetic" else None
    with train_batches(
        source,
        image_size=config.image_size,
        batch_size=config.train.batch_size,
        max_objects=max(
            1, summarise(source, config.model.grid_size, max_images=limit).most_objects
        ),
        seed=config.seed,
        augmentation=experiment.augmentation(config),
        train_difficult=config.data.train_difficult,
        num_workers=config.data.num_workers,
    ) as batches:
        batch = next(batches)
        made_ahead = 3 * (config.data.num_workers or min(8, os.cpu_count() or 1))
        return loader_rate(batches, made_ahead, config.train.batch_size, seconds), batch


def measure_steps(
    config: ConfigDict, source: Source, batch: dict[str, np.ndarray], seconds: float
) -> dict[str, tuple[Timing, float]]:
    """The speed of both steps on a batch in the device's memory, and their FLOPs per image."""
    mesh = data_mesh()
    over_batch, replicated = batch_sharding(mesh), replicated_sharding(mesh)
    model = experiment.build_model(config, len(source.class_names))
    optimizer = experiment.optimizer(config, experiment.duration(config, len(source)))
    create = functools.partial(
        create_train_state, model=model, optimizer=optimizer, image_size=config.image_size
    )
    state = jax.jit(create, out_shardings=replicated)(jax.random.key(config.seed))
    # A copy, because the train step destroys the state that it is given.
    variables = jax.tree.map(jnp.copy, inference_variables(state))

    predict_step = jax.jit(
        make_predict_step(model, class_loss=config.loss.class_loss),
        in_shardings=(replicated, over_batch),
        out_shardings=over_batch,
    )
    eval_size = config.eval.batch_size
    images = np.resize(batch["image"], (eval_size, *batch["image"].shape[1:]))
    images = jax.device_put(images, over_batch)
    predict = predict_step.lower(variables, images).compile()
    prediction = repeat(lambda: predict(variables, images), eval_size, seconds)

    train_step = jax.jit(
        make_train_step(
            model,
            optimizer,
            target_options=experiment.target_options(config),
            loss_options=experiment.loss_options(config),
        ),
        in_shardings=(replicated, over_batch),
        out_shardings=(replicated, replicated),
        donate_argnums=0,
    )
    used = {name: batch[name] for name in ("image", "boxes_xyxy", "labels", "valid")}
    on_device = shard_batch(used, over_batch)
    train = train_step.lower(state, on_device).compile()

    def train_on() -> Any:
        nonlocal state
        state, metrics = train(state, on_device)
        return state, metrics

    training = repeat(train_on, config.train.batch_size, seconds)
    return {
        "train step": (training, flops_of(train) / config.train.batch_size),
        "predict step": (prediction, flops_of(predict) / eval_size),
    }


def measure_selection(config: ConfigDict, num_classes: int, seconds: float) -> Timing:
    """The speed of everything between the predict step and the detections."""
    num_images = config.eval.batch_size
    return repeat(
        functools.partial(
            detections_from_predictions,
            random_predictions(config.model, num_classes, num_images),
            np.full((num_images, 2), config.image_size),
            **{**experiment.select_options(config), "score_threshold": 0.0},
        ),
        num_images,
        seconds,
    )


def benchmark(config: ConfigDict, seconds: float) -> dict[str, Any]:
    """Measures everything.

    Args:
      config: of a run that could be trained.
      seconds: of each timing, besides compilation and warm-up.

    Returns:
      What --json writes: the conditions, "matmul", and a dict for each of "rows".
    """
    experiment.check(config)
    source = experiment.open_train_source(config)
    loader, batch = measure_loader(config, source, seconds)
    matmul, size = matmul_flops(config.compute_dtype, seconds / 4)
    steps = measure_steps(config, source, batch, seconds)
    selection = measure_selection(config, len(source.class_names), seconds / 4)

    rows = {"loader": _row(loader, "train step", steps["train step"][0].per_second)}
    for name, (timing, flops) in steps.items():
        rows[name] = _row(timing, "matmul", matmul.per_second / flops, flops)
    rows["decode + NMS"] = _row(selection, "predict step", steps["predict step"][0].per_second)
    return {
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_cpus": os.cpu_count(),
        "jax": jax.__version__,
        "compute_dtype": config.compute_dtype,
        "image_size": config.image_size,
        "train_batch_size": config.train.batch_size,
        "eval_batch_size": config.eval.batch_size,
        "num_workers": config.data.num_workers,
        "matmul": {
            "size": size,
            "flops_per_second": matmul.per_second,
            "spread": matmul.spread,
            "repeats": matmul.repeats,
        },
        "rows": rows,
    }


def _row(
    timing: Timing, limited_by: str, limit: float, flops_per_image: float | None = None
) -> dict[str, Any]:
    return {
        "images_per_second": timing.per_second,
        "spread": timing.spread,
        "repeats": timing.repeats,
        "flops_per_image": flops_per_image,
        "limited_by": limited_by,
        "limit_images_per_second": limit,
        "fraction_of_limit": timing.per_second / limit,
    }


def header(numbers: dict[str, Any]) -> str:
    """The conditions and the matrix product, a few lines of up to 80 characters."""
    matmul, workers = numbers["matmul"], numbers["num_workers"]
    return (
        f"{numbers['num_devices']} x {numbers['device']}, {numbers['num_cpus']} CPU cores, jax "
        f"{numbers['jax']}, {numbers['compute_dtype']}\n"
        f"{numbers['image_size']} px, batch {numbers['train_batch_size']} (training), "
        f"{numbers['eval_batch_size']} (prediction), loader in "
        f"{f'{workers} processes' if workers else 'threads'}\n"
        f"matmul {_three_digits(matmul['flops_per_second'] / 1e9)} GFLOP/s "
        f"± {matmul['spread']:.0%} ({matmul['size']} x {matmul['size']})"
    )


def table(numbers: dict[str, Any]) -> Table:
    """A row for each part; fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for title in ("images/s", "spread", "GFLOP/image", "limit", "of limit"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("limit set by", no_wrap=True)
    for name, row in numbers["rows"].items():
        flops = row["flops_per_image"]
        table.add_row(
            name,
            _three_digits(row["images_per_second"]),
            f"± {row['spread']:.0%}",
            "" if flops is None else _three_digits(flops / 1e9),
            _three_digits(row["limit_images_per_second"]),
            f"{row['fraction_of_limit']:,.0%}",
            row["limited_by"],
        )
    return table


def verdict(numbers: dict[str, Any]) -> str:
    ahead = numbers["rows"]["loader"]["fraction_of_limit"]
    if ahead >= 1:
        return f"The loader is ahead: it makes {ahead:.1f} times what the train step takes."
    return (
        f"The loader is behind: it makes {ahead:.0%} of what the train step takes. Raise "
        "config.data.num_workers if there are cores left."
    )


def _three_digits(value: float) -> str:
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def main(_: list[str]) -> None:
    numbers = benchmark(_CONFIG.value, _SECONDS.value)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    numbers = {"config": name, **numbers}
    console = Console()
    console.print(f"{name}: {header(numbers)}", highlight=False)
    console.print("", table(numbers), "", sep="\n")
    console.print(verdict(numbers), highlight=False)
    if _JSON.value is not None:
        run_folder.write_json(pathlib.Path(_JSON.value), numbers)


if __name__ == "__main__":
    _CONFIG = command_line.define_config()
    _SECONDS = flags.DEFINE_float("seconds", 5.0, "time of each measurement", lower_bound=0.0)
    _JSON = flags.DEFINE_string("json", None, "file to write the numbers to")
    command_line.run(main, takes_arguments=False)
