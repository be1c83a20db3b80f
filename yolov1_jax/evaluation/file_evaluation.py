"""Evaluates detections from files: finds the annotations that they are scored against.

These are the data of a run, of a source, or a COCO annotations JSON.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from rich.console import Console

from yolov1_jax import config as configs
from yolov1_jax.data.source import open_source
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.coco_files import read_coco_annotations
from yolov1_jax.evaluation.evaluator import (
    Result,
    annotated_images,
    evaluate_results_file,
    evaluation_summary,
    with_class_names,
)
from yolov1_jax.evaluation.ground_truth import AnnotatedImages
from yolov1_jax.evaluation.results import ResultsFileError
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.visualization.report import ap_table, protocol_table

# What else may be said of each of the three; the rest would be ignored, and is refused instead.
_OPTIONS = {
    "workdir": ("root", "splits"),
    "source": ("root", "splits", "class_names", "image_size"),
    "annotations": ("class_names",),
}


@dataclasses.dataclass(frozen=True)
class DetectionsOf:
    """What detections are scored against, as the flags have it: a run, a source, or annotations.

    Exactly one of `workdir`, `source` and `annotations` is given.
    """

    workdir: pathlib.Path | None = None  # a run folder; `splits`, `root` override its config
    source: str | None = None  # as config.data.source; with `splits`
    annotations: str | os.PathLike[str] | None = None  # a COCO annotations JSON
    root: str | None = None
    splits: Sequence[str] | None = None
    class_names: Sequence[str] | None = None  # None: the run's, or those of the annotations
    image_size: int | None = None  # of synthetic scenes, pixels
    unknown_classes: str | None = None  # "refuse", "skip", None: as the run does, or refuse


def open_annotations(of: DetectionsOf) -> tuple[AnnotatedImages, str, tuple[str, ...], str]:
    """Reads the annotations.

    Returns:
      They, the source's name ("coco" for a JSON) and its splits, and what to do about unknown
      classes.

    Raises:
      UserError: not one of the three is given, or it cannot be opened.
    """
    given = [name for name in _OPTIONS if getattr(of, name) is not None]
    if len(given) != 1:
        raise UserError(
            f"--detections needs one of {', '.join(f'--{name}' for name in _OPTIONS)} to be scored "
            f"against, got {' and '.join(f'--{name}' for name in given) or 'none'}"
        )
    for option in ("root", "splits", "class_names", "image_size"):
        if getattr(of, option) is not None and option not in _OPTIONS[given[0]]:
            raise UserError(f"--{option} says nothing about --{given[0]}: leave it out")
    unknown_classes = of.unknown_classes or "refuse"
    if of.annotations is not None:
        try:
            images = read_coco_annotations(pathlib.Path(of.annotations))
        except ResultsFileError as error:
            raise UserError(str(error)) from None
        if of.class_names:
            images = with_class_names(images, tuple(of.class_names))
        return images, "coco", (str(of.annotations),), unknown_classes
    if of.workdir is not None:
        config = run_folder.read_config(of.workdir)
        asked = {
            "data.eval": tuple(of.splits) if of.splits else None,
            "data.root": of.root,
            "data.unknown_classes": of.unknown_classes,
        }
        for key, value in asked.items():
            if value is not None:
                config = configs.replace(config, key, value)
        source = experiment.open_eval_source(config)
        splits = configs.split_list(config.data.eval)
        unknown_classes = config.data.unknown_classes
        return annotated_images(source), config.data.source, splits, unknown_classes
    assert of.source is not None
    splits = configs.split_list(tuple(of.splits or ()))
    if not splits:
        raise UserError("--splits is missing: name what --detections are of, such as VOC2007:test")
    if of.source == "synthetic" and of.image_size is None:
        raise UserError("--image_size is missing: boxes are in pixels of the painted scenes")
    source = open_source(
        of.source,
        root=of.root,
        splits=splits,
        class_names=of.class_names,
        unknown_classes=unknown_classes,
        image_size=of.image_size or 0,
        seed=0,  # no matter: scenes of "eval" and "test" do not depend on it
    )
    return annotated_images(source), of.source, splits, unknown_classes


def evaluate_file(
    path: str | os.PathLike[str],
    of: DetectionsOf,
    *,
    protocol: str | None = None,
    unknown_images: str = "refuse",
    output: pathlib.Path | None = None,
    console: Console | None = None,
) -> Result:
    """Scores detections of any program.

    Args:
      path: see `read_results`.
      of: what they are scored against.
      protocol: whose mAP comes first; None for that of the run, else voc07.
      unknown_images: "refuse" or "skip" detections of images without annotations.
      output: where to write the `evaluation_summary`, with the "detections" path and the "notes";
        None: nowhere.
      console: where to say what is done, and the result; None says nothing.

    Raises:
      UserError: the annotations cannot be opened, or the detections cannot be scored.
    """
    console = console or Console(quiet=True)
    images, source_name, splits, unknown_classes = open_annotations(of)
    if protocol is None:
        own = None if of.workdir is None else run_folder.read_config(of.workdir).eval.protocol
        protocol = own if own not in (None, "seed") else "voc07"
    result, notes = evaluate_results_file(
        path,
        images,
        protocol=protocol,
        unknown_classes=unknown_classes,
        unknown_images=unknown_images,
    )
    _say(console, f"detections: {path}")
    _say(console, f"data: {', '.join(splits)}, {len(images.image_ids):,} images")
    print_result(console, result, notes)
    if output is not None:
        numbers = evaluation_summary(result, source=source_name, splits=splits)
        run_folder.write_json(output, {**numbers, "detections": str(path), "notes": notes})
        _say(console, f"result in {output}")
    return result


def print_result(
    console: Console, result: Result, notes: Sequence[str], step: int | None = None
) -> None:
    """Prints what there is to know before the numbers, and the numbers."""
    for note in notes:
        _say(console, note)
    if result.evaluation.classes_without_objects:
        absent = ", ".join(result.evaluation.classes_without_objects)
        _say(console, f"no object to find, therefore not in the mAP: {absent}")
    console.print(ap_table(result.evaluation, step=step))
    console.print(protocol_table(result.evaluations))


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
