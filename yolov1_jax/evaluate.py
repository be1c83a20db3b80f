"""Evaluates a run: run folder -> detections -> average precision.

    python -m yolov1_jax.evaluate --workdir=runs/r34 [--step=best|latest|N] [--protocol=voc07]

Protocols: voc07 (the official 11-point rule), voc10 (the official area rule) and seed (the PyTorch
reference's own rule, its faults included; comparable with its published numbers only). The result
is printed and written to <workdir>/eval/<step>.json, the pictures to <workdir>/report/.

--splits and --root evaluate on other data than the run's own; its result and pictures are written
below <workdir>/eval/ under a name with the splits. --unknown_classes=skip leaves out objects of
classes that the run has not learned.
"""

import functools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import track

from yolov1_jax import command_line, experiment, run_folder
from yolov1_jax import config as configs
from yolov1_jax.data.images import decode_image
from yolov1_jax.data.records import Source
from yolov1_jax.detector import detections_from_predictions, restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.detections import Detections, GroundTruth
from yolov1_jax.evaluation.mean_ap import Evaluation, evaluate_detections
from yolov1_jax.evaluation.seed_protocol import evaluate_seed
from yolov1_jax.grid import Predictions, decode_boxes
from yolov1_jax.inference import predict_source
from yolov1_jax.report import ap_table, write_report
from yolov1_jax.sharding import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    replicated_sharding,
)
from yolov1_jax.train_step import make_predict_step

PROTOCOLS = ("voc07", "voc10", "seed")


class Result(NamedTuple):
    """An evaluation and what it was computed from, all of it in the order of the source."""

    protocol: str
    evaluation: Evaluation
    detections: list[Detections]
    ground_truth: list[GroundTruth]


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
    """What <workdir>/eval/<step>.json holds. AP of a class without objects is null.

    So is the mAP if no class has any.
    """
    classes = result.evaluation.classes
    return {
        "step": step,
        "protocol": result.protocol,
        "mAP": _none_if_nan(result.evaluation.mean_ap),
        "ap": {name: _none_if_nan(one.ap) for name, one in classes.items()},
        "num_images": len(result.ground_truth),
        "num_objects": sum(one.num_objects for one in classes.values()),
        "num_difficult": int(sum(truth.difficult.sum() for truth in result.ground_truth)),
        "num_detections": sum(len(found.scores) for found in result.detections),
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def report(
    workdir: pathlib.Path,
    result: Result,
    step: int,
    source: Source,
    class_names: Sequence[str],
    *,
    folder: pathlib.Path | None = None,
) -> list[pathlib.Path]:
    """Draws <folder>/report/, with a few images spread over the source. `folder`: the workdir."""
    shown = np.unique(np.linspace(0, len(source) - 1, 12).round().astype(int))
    images = []
    for index in shown:
        record = source[int(index)]
        image = record["image"]
        images.append(
            decode_image(image, record["image_id"]) if isinstance(image, bytes) else image
        )
    return write_report(
        folder or workdir,
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
    unknown_classes: str | None = None,
    console: Console | None = None,
) -> tuple[Result, int]:
    """Evaluates a checkpoint of a run; writes its result and its pictures.

    Args:
      workdir: the run folder.
      step: "best", "latest" or a number.
      protocol: one of PROTOCOLS; None for the run's own.
      splits, root: of other data than the run's config names.
      unknown_classes: "refuse" or "skip" objects of classes that the run does not know; None for
        what the run does.
      console: where to say what is done, and the result; None says nothing.

    Returns:
      The result, and the number of the step.

    Raises:
      UserError: there is no such run, checkpoint or split; an unknown class.
    """
    console = console or Console(quiet=True)
    config = run_folder.read_config(workdir)
    own_protocol = config.eval.protocol
    other_data = bool(splits) or root is not None
    asked = {
        "eval.protocol": protocol,
        "data.eval": tuple(splits) if splits else None,
        "data.root": root,
        "data.unknown_classes": unknown_classes,
    }
    for key, value in asked.items():
        if value is not None:
            config = configs.replace(config, key, value)
    # Not the whole config: a run that is older than one of the keys can still be evaluated.
    if config.eval.protocol not in PROTOCOLS:
        raise UserError(f"protocol must be one of {PROTOCOLS}, got {config.eval.protocol!r}")
    if not configs.split_list(config.data.eval):
        raise UserError("splits is empty: name at least one")
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    mesh = data_mesh()
    variables, step, reason = restore_variables(workdir, step, replicated_sharding(mesh))
    source = experiment.open_eval_source(config)
    _say(console, f"{workdir}: step {step:,}, {reason}")
    _say(console, f"data: {', '.join(config.data.eval)}, {len(source):,} images")
    model = experiment.build_model(config, len(config.model.class_names))
    predict = jax.jit(
        make_predict_step(model, class_loss=config.loss.class_loss),
        in_shardings=(replicated_sharding(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
    predictions, sizes = predict_source(
        functools.partial(predict, variables),
        source,
        image_size=config.image_size,
        batch_size=config.eval.batch_size,
        num_workers=config.data.num_workers,
        sharding=batch_sharding(mesh),
        track=functools.partial(
            track, console=console, transient=True, disable=not console.is_terminal
        ),
    )
    result = evaluate_predictions(
        predictions,
        sizes,
        ground_truth_of(source),
        class_names=config.model.class_names,
        protocol=config.eval.protocol,
        select_options=experiment.select_options(config),
    )
    for note in _class_differences(source, result.evaluation):
        _say(console, note)
    console.print(ap_table(result.evaluation, step=step))

    name = str(step)
    if other_data:
        name += "-" + re.sub(r"[^\w+-]+", "_", ",".join(config.data.eval))
    if config.eval.protocol != own_protocol:
        name += f"-{config.eval.protocol}"
    path = workdir / "eval" / f"{name}.json"
    run_folder.write_json(path, {**summary(result, step), "splits": list(config.data.eval)})
    folder = workdir / "eval" / name if other_data else workdir
    report(workdir, result, step, source, config.model.class_names, folder=folder)
    _say(console, f"result in {path}, pictures in {folder / 'report'}")
    return result, step


def _class_differences(source: Source, evaluation: Evaluation) -> list[str]:
    """A line each about classes that only the data or only the run knows."""
    notes = []
    if evaluation.classes_without_objects:
        absent = ", ".join(evaluation.classes_without_objects)
        notes.append(f"no object to find, therefore not in the mAP: {absent}")
    for reason, names in source.report.skipped_objects.items():
        notes.append(f"{len(names):,} objects left out, {reason}: {names[0]}, ...")
    return notes


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def main(_: list[str]) -> None:
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing: give the folder of a run")
    evaluate_run(
        pathlib.Path(_WORKDIR.value),
        step=_STEP.value,
        protocol=_PROTOCOL.value,
        splits=_SPLITS.value,
        root=_ROOT.value,
        unknown_classes=_UNKNOWN_CLASSES.value,
        console=Console(),
    )


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "run folder")
    _STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
    _PROTOCOL = flags.DEFINE_enum("protocol", None, PROTOCOLS, "by default the run's own")
    _SPLITS = flags.DEFINE_list("splits", None, "evaluate on these splits, not on the run's")
    _ROOT = flags.DEFINE_string("root", None, "config.data.root of those splits")
    _UNKNOWN_CLASSES = flags.DEFINE_enum(
        "unknown_classes", None, ("refuse", "skip"), "objects of classes that the run lacks"
    )
    command_line.run(main)
