"""Runs the network over a whole source, on all devices of all processes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track as track_on_console

from yolov1_jax.data.dataset import Source
from yolov1_jax.data.pipeline import eval_batches
from yolov1_jax.training import build as experiment
from yolov1_jax.training.sharding import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    replicated_sharding,
    shard_batch,
)
from yolov1_jax.training.step import make_predict_step
from yolov1_jax.yolo.grid import Predictions


def predict_with(
    config: ConfigDict, variables: Any, source: Source, console: Console
) -> tuple[Predictions[np.ndarray], np.ndarray]:
    """Runs the network of a config over a source, on all devices; see `predict_source`.

    Args:
      config: of a run.
      variables: of its network, replicated on the devices.
      console: where to draw a bar, if it is a terminal.

    Raises:
      UserError: the devices cannot share a batch.
    """
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    mesh = data_mesh()
    model = experiment.build_model(config, len(config.model.class_names))
    predict = jax.jit(
        make_predict_step(model, class_loss=config.loss.class_loss),
        in_shardings=(replicated_sharding(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
    return predict_source(
        functools.partial(predict, variables),
        source,
        image_size=config.image_size,
        batch_size=config.eval.batch_size,
        num_workers=config.data.num_workers,
        sharding=batch_sharding(mesh),
        track=functools.partial(
            track_on_console, console=console, transient=True, disable=not console.is_terminal
        ),
    )


def predict_source(
    predict: Callable[[jax.Array], Predictions[jax.Array]],
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    num_workers: int,
    sharding: NamedSharding,
    track: Callable[..., Any] = lambda batches, description, total: batches,
) -> tuple[Predictions[np.ndarray], np.ndarray]:
    """Runs the network over a whole source, every process over its share.

    Args:
      predict: jitted, uint8 images [B, H, W, 3], sharded as `sharding` says -> Predictions.
      batch_size: images at once, over all processes.
      track: see `MetricWriter.track`.

    Returns:
      On every process: Predictions of all N images (NumPy), and their sizes, int [N, 2].
    """
    num_batches = math.ceil(len(source) / batch_size)
    collected: list[Any] = []
    with eval_batches(
        source,
        image_size=image_size,
        batch_size=batch_size,
        num_workers=num_workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ) as batches:
        for batch in track(batches, "evaluating", num_batches):
            on_device = shard_batch(
                {name: batch[name] for name in ("image", "index", "size")}, sharding
            )
            predictions = predict(on_device["image"])
            row = (predictions, on_device["index"], on_device["size"])
            # Read while the device works on the next batch: one batch is in flight.
            if collected:
                collected[-1] = _gather(collected[-1])
            collected.append(row)
    collected[-1] = _gather(collected[-1])
    predictions, index, size = jax.tree.map(lambda *parts: np.concatenate(parts), *collected)
    real = index >= 0  # the rows that pad the last batch have index -1
    order = np.argsort(index[real])
    return jax.tree.map(lambda array: array[real][order], predictions), size[real][order]


def _gather(row: Any) -> Any:
    if jax.process_count() == 1:
        return jax.device_get(row)
    return multihost_utils.process_allgather(row, tiled=True)
