"""Evaluates a run, or detections of any program: average precision by all protocols at once.

    python -m yolov1_jax.evaluate --workdir=runs/r34 [--step=best|latest|N] [--protocol=voc07]

The result is printed and written to <workdir>/eval/<step>.json, the pictures to <workdir>/report/,
the detections to <workdir>/eval/<step>/ (--results_format: coco, devkit or both). --splits and
--root evaluate on other data than the run's own, --protocol puts another mAP first than the run's;
the results of either have names of their own, with the folder and splits or the protocol in it,
and their pictures are in the folder of that name. --unknown_classes=skip leaves out objects of
classes that the run has not learned.

    python -m yolov1_jax.evaluate --detections=PATH --workdir=runs/r34
    python -m yolov1_jax.evaluate --detections=PATH --source=folder --root=VOC --splits=VOC2007:test
    python -m yolov1_jax.evaluate --detections=PATH --annotations=instances.json

PATH is a COCO results JSON, a folder of the devkit's comp4_det_<set>_<class>.txt, or the beginning
of their paths (results/comp4_det_test). It is scored against the data of a run, of a source, or
against a COCO annotations JSON; --output=FILE.json writes the numbers.

Protocols: voc07 (the official 11-point rule), voc10 (the official area rule), coco (COCO's AP) and
seed (the PyTorch reference's own rule, its faults included; comparable with its published numbers
only, and computed from the network's output, not from detections).
"""

import pathlib
import re
from collections.abc import Sequence

import numpy as np
from absl import flags
from rich.console import Console

from yolov1_jax import command_line
from yolov1_jax import config as configs
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.images import decode_image
from yolov1_jax.detector import restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.evaluator import (
    PROTOCOLS,
    Result,
    annotated_images,
    evaluate_predictions,
    evaluation_summary,
)
from yolov1_jax.evaluation.file_evaluation import DetectionsOf, evaluate_file, print_result
from yolov1_jax.evaluation.results_files import FORMATS, write_results
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.training.inference import predict_with
from yolov1_jax.training.sharding import data_mesh, replicated_sharding
from yolov1_jax.visualization.report import write_report


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
    results_format: str = "coco",
    output: pathlib.Path | None = None,
    console: Console | None = None,
) -> tuple[Result, int]:
    """Evaluates a checkpoint of a run; writes its result, its detections and its pictures.

    Args:
      workdir: the run folder.
      step: "best", "latest" or a number.
      protocol: one of PROTOCOLS, whose mAP comes first; None for the run's own.
      splits, root: of other data than the run's config names.
      unknown_classes: "refuse" or "skip" objects of classes that the run does not know; None for
        what the run does.
      results_format: one of FORMATS.
      output: a further file for the result.
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
    splits = configs.split_list(config.data.eval)
    if not splits:
        raise UserError("splits is empty: name at least one")
    variables, step, reason = restore_variables(workdir, step, replicated_sharding(data_mesh()))
    source = experiment.open_eval_source(config)
    _say(console, f"{workdir}: step {step:,}, {reason}")
    _say(console, f"data: {', '.join(splits)}, {len(source):,} images")
    predictions, sizes = predict_with(config, variables, source, console)
    result = evaluate_predictions(
        predictions,
        sizes,
        annotated_images(source),
        protocol=config.eval.protocol,
        select_options=experiment.select_options(config),
        others=PROTOCOLS,
    )
    print_result(console, result, result.images.notes, step)

    name = str(step)
    if other_data:
        parts = [*([pathlib.Path(root).resolve().name] if root else []), *splits]
        name += "-" + re.sub(r"[^\w+-]+", "_", ",".join(parts))
    if config.eval.protocol != own_protocol:
        name += f"-{config.eval.protocol}"
    path = workdir / "eval" / f"{name}.json"
    numbers = evaluation_summary(result, source=config.data.source, splits=splits, step=step)
    for file in (path, *([output] if output else [])):
        run_folder.write_json(file, numbers)
    try:
        written = write_results(
            path.with_suffix(""),
            result.detections,
            result.images,
            results_format=results_format,
            set_name=_set_name(config.data.source, splits),
            # The devkit's comp3 is for detectors that have seen nothing but VOC's own data.
            competition="comp3" if config.model.pretrained is None else "comp4",
        )
    except OSError as error:
        raise UserError(
            f"expected to write detections in {path.with_suffix('')}, found: {error.strerror}; "
            "make room for them there"
        ) from error
    # The run's own pictures are of its own data and protocol.
    folder = workdir if name == str(step) else path.with_suffix("")
    report(workdir, result, step, source, config.model.class_names, folder=folder)
    for file in written:
        _say(console, f"detections in {file}")
    _say(console, f"result in {path}, pictures in {folder / 'report'}")
    return result, step


def _set_name(source: str, splits: Sequence[str]) -> str:
    """("VOC2007:test",) -> "test", as the devkit's files are named."""
    if source != "synthetic":  # whose "eval:100" has a number of scenes behind the colon
        splits = [split.split(":")[-1] for split in splits]
    return re.sub(r"[^\w+-]+", "_", "+".join(splits))


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def main(_: list[str]) -> None:
    workdir = None if _WORKDIR.value is None else pathlib.Path(_WORKDIR.value)
    output = None if _OUTPUT.value is None else pathlib.Path(_OUTPUT.value)
    if _DETECTIONS.value is not None:
        for of_runs in (_STEP, _RESULTS_FORMAT):
            if of_runs.present:
                raise UserError(
                    f"--{of_runs.name} is of a run that is evaluated, and --detections are there "
                    "already: leave one of the two out"
                )
        evaluate_file(
            _DETECTIONS.value,
            DetectionsOf(
                workdir=workdir,
                annotations=_ANNOTATIONS.value,
                source=_SOURCE.value,
                root=_ROOT.value,
                splits=_SPLITS.value,
                class_names=_CLASS_NAMES.value,
                image_size=_IMAGE_SIZE.value,
                unknown_classes=_UNKNOWN_CLASSES.value,
            ),
            protocol=_PROTOCOL.value,
            unknown_images=_UNKNOWN_IMAGES.value,
            output=output,
            console=Console(),
        )
        return
    if workdir is None:
        raise UserError("--workdir is missing: give the folder of a run, or --detections")
    for flag in (_ANNOTATIONS, _SOURCE, _CLASS_NAMES, _IMAGE_SIZE):
        if flag.value is not None:
            raise UserError(
                f"--{flag.name} is of --detections, which is missing: a run has its own; give "
                "--splits and --root to evaluate it on other data"
            )
    evaluate_run(
        workdir,
        step=_STEP.value,
        protocol=_PROTOCOL.value,
        splits=_SPLITS.value,
        root=_ROOT.value,
        unknown_classes=_UNKNOWN_CLASSES.value,
        results_format=_RESULTS_FORMAT.value,
        output=output,
        console=Console(),
    )


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "run folder")
    _STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
    _PROTOCOL = flags.DEFINE_enum(
        "protocol", None, PROTOCOLS, "whose mAP comes first; by default the run's own, else voc07"
    )
    _SPLITS = flags.DEFINE_list("splits", None, "evaluate on these splits, not on the run's")
    _ROOT = flags.DEFINE_string("root", None, "config.data.root of those splits")
    _UNKNOWN_CLASSES = flags.DEFINE_enum(
        "unknown_classes", None, ("refuse", "skip"), "objects of classes that the run lacks"
    )
    _RESULTS_FORMAT = flags.DEFINE_enum(
        "results_format", "coco", FORMATS, "of the detections that a run's evaluation writes"
    )
    _OUTPUT = flags.DEFINE_string("output", None, "a (further) JSON file for the result")
    _DETECTIONS = flags.DEFINE_string("detections", None, "score these files instead of a run")
    _SOURCE = flags.DEFINE_enum(
        "source", None, ("folder", "tfds", "synthetic"), "annotations that --detections are of"
    )
    _ANNOTATIONS = flags.DEFINE_string("annotations", None, "or else a COCO annotations JSON")
    _CLASS_NAMES = flags.DEFINE_list("class_names", None, "of --source=folder; else its own")
    _IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "of --source=synthetic, pixels")
    _UNKNOWN_IMAGES = flags.DEFINE_enum(
        "unknown_images", "refuse", ("refuse", "skip"), "--detections of images without annotations"
    )
    command_line.run(main, takes_arguments=False)
