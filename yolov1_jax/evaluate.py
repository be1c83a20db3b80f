"""Evaluates a run: run folder -> detections -> average precision.

    python -m yolov1_jax.evaluate --workdir=runs/r34 [--step=best|latest|N] [--protocol=voc07]

Protocols: voc07 (the official 11-point rule), voc10 (the official area rule) and seed (the PyTorch
reference's own rule, its faults included; comparable with its published numbers only). The result
is printed and written to <workdir>/eval/, next to the pictures in <workdir>/report/.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from rich.console import Console

from yolov1_jax import command_line, experiment, run_folder
from yolov1_jax import config as configs
from yolov1_jax.data.images import decode_image
from yolov1_jax.data.pipeline import eval_batches
from yolov1_jax.data.records import Source
from yolov1_jax.detector import detections_from_predictions, restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.detections import Detections, GroundTruth
from yolov1_jax.evaluation.mean_ap import Evaluation, evaluate_detections
from yolov1_jax.evaluation.seed_protocol import evaluate_seed
from yolov1_jax.grid import Predictions, decode_boxes
from yolov1_jax.report import ap_table, write_report
from yolov1_jax.sharding import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    replicated_sharding,
    shard_batch,
)
from yolov1_jax.train_step import make_predict_step

PROTOCOLS = ("voc07", "voc10", "seed")


class Result(NamedTuple):
    """An evaluation and what it was computed from, all of it in the order of the source."""

    protocol: str
    evaluation: Evaluation
    detections: list[Detections]
    ground_truth: list[GroundTruth]


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


def ground_truth_of(source: Source) -> list[GroundTruth]:
    """Annotations in the pixels of the original images."""
    truths = []
    for index in range(len(source)):
        record = source.annotation(index)
        width, height = record["width"], record["height"]
        boxes = np.asarray(record["boxes_xyxy"], np.float64) * [width, height, width, height]
        # Annotations are mostly whole pixels: give back the very numbers that division has blurred.
        whole = np.round(boxes)
        boxes = np.where(np.abs(boxes - whole) < 1e-3, whole, boxes)
        truths.append(GroundTruth(boxes, record["labels"], record["difficult"]))
    return truths


def evaluate_predictions(
    predictions: Predictions[np.ndarray],
    sizes: np.ndarray,
    ground_truth: Sequence[GroundTruth],
    *,
    class_names: Sequence[str],
    protocol: str,
    select_options: dict[str, Any],
) -> Result:
    """Scores the network's output on the host.

    Args:
      predictions: of N images, NumPy, in the order of `ground_truth`.
      sizes: int [N, 2], height and width of the original images.
      protocol: one of PROTOCOLS. "seed" has its own thresholds and ignores those of
        `select_options`; its detections here are those of the official rule.
      select_options: keyword arguments of `detections_from_predictions`.
    """
    detections = detections_from_predictions(predictions, sizes, **select_options)
    evaluation: Evaluation
    if protocol == "seed":
        evaluation = evaluate_seed(
            decode_boxes(predictions.boxes, xy_unit=select_options["xy_unit"]),
            predictions.confidence,
            predictions.class_scores,
            [
                truth._replace(boxes_xyxy=truth.boxes_xyxy / size[[1, 0, 1, 0]])
                for truth, size in zip(ground_truth, sizes, strict=True)
            ],
            class_names,
        )
    else:
        evaluation = evaluate_detections(detections, ground_truth, class_names, protocol=protocol)
    return Result(protocol, evaluation, detections, list(ground_truth))


def summary(result: Result, step: int) -> dict[str, Any]:
    """What <workdir>/eval/<step>.json holds. AP of a class without objects is null."""
    classes = result.evaluation.classes
    return {
        "step": step,
        "protocol": result.protocol,
        "mAP": result.evaluation.mean_ap,
        "ap": {name: (None if math.isnan(one.ap) else one.ap) for name, one in classes.items()},
        "num_images": len(result.ground_truth),
        "num_objects": sum(one.num_objects for one in classes.values()),
        "num_difficult": int(sum(truth.difficult.sum() for truth in result.ground_truth)),
        "num_detections": sum(len(found.scores) for found in result.detections),
    }


def report(
    workdir: pathlib.Path, result: Result, step: int, source: Source, class_names: Sequence[str]
) -> list[pathlib.Path]:
    """Draws <workdir>/report/, with a few images spread over the source."""
    shown = np.unique(np.linspace(0, len(source) - 1, 12).round().astype(int))
    images = []
    for index in shown:
        record = source[int(index)]
        image = record["image"]
        images.append(
            decode_image(image, record["image_id"]) if isinstance(image, bytes) else image
        )
    return write_report(
        workdir,
        evaluation=result.evaluation,
        history_path=run_folder.metrics_path(workdir),
        images=images,
        detections=[result.detections[index] for index in shown],
        ground_truth=[result.ground_truth[index] for index in shown],
        class_names=class_names,
    )


def evaluate_run(
    workdir: pathlib.Path,
    *,
    step: str | int = "best",
    protocol: str | None = None,
    splits: Sequence[str] | None = None,
    root: str | None = None,
) -> tuple[Result, int]:
    """Evaluates a checkpoint of a run, writes <workdir>/eval/<step>[-<protocol>].json.

    Args:
      workdir: the run folder.
      step: "best", "latest" or a number.
      protocol: one of PROTOCOLS; None for the run's own.
      splits, root: of other data than the run's config names.

    Returns:
      The result, and the number of the step.
    """
    config = run_folder.read_config(workdir)
    protocol = protocol or config.eval.protocol
    if splits:
        config = configs.replace(config, "data.eval", tuple(splits))
    if root is not None:
        config = configs.replace(config, "data.root", root)
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    mesh = data_mesh()
    variables, step_number = restore_variables(workdir, step, replicated_sharding(mesh))
    source = experiment.open_eval_source(config)
    model = experiment.build_model(config, len(config.model.class_names))
    predict = jax.jit(
        make_predict_step(model, class_loss=config.loss.class_loss),
        in_shardings=(replicated_sharding(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
    predictions, sizes = predict_source(
        lambda images: predict(variables, images),
        source,
        image_size=config.image_size,
        batch_size=config.eval.batch_size,
        num_workers=config.data.num_workers,
        sharding=batch_sharding(mesh),
    )
    result = evaluate_predictions(
        predictions,
        sizes,
        ground_truth_of(source),
        class_names=config.model.class_names,
        protocol=protocol,
        select_options=experiment.select_options(config),
    )
    suffix = "" if protocol == config.eval.protocol and not splits else f"-{protocol}"
    run_folder.write_json(
        workdir / "eval" / f"{step_number}{suffix}.json", summary(result, step_number)
    )
    report(workdir, result, step_number, source, config.model.class_names)
    return result, step_number


def main(_: list[str]) -> None:
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing: give the folder of a run")
    workdir = pathlib.Path(_WORKDIR.value)
    result, step = evaluate_run(
        workdir,
        step=_STEP.value,
        protocol=_PROTOCOL.value,
        splits=_SPLITS.value,
        root=_ROOT.value,
    )
    console = Console()
    console.print(ap_table(result.evaluation, step=step))
    console.print(
        f"results in {workdir / 'eval'}, pictures in {workdir / 'report'}", soft_wrap=True
    )


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "run folder")
    _STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
    _PROTOCOL = flags.DEFINE_enum("protocol", None, PROTOCOLS, "by default the run's own")
    _SPLITS = flags.DEFINE_list("splits", None, "evaluate on these splits, not on the run's")
    _ROOT = flags.DEFINE_string("root", None, "config.data.root of those splits")
    command_line.run(main)
