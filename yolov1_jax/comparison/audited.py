"""What can be audited: a run, whose network is asked once, or the detections of a results file."""

import pathlib
from typing import NamedTuple

import numpy as np
from rich.console import Console

from yolov1_jax.comparison.rules import Objects, join_objects
from yolov1_jax.comparison.selection import FileDetections, NetworkBoxes, Selection
from yolov1_jax.detector import restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.evaluator import PROTOCOLS, annotated_images, evaluate_predictions
from yolov1_jax.evaluation.ground_truth import AnnotatedImages
from yolov1_jax.evaluation.results import ResultsFileError
from yolov1_jax.evaluation.results_files import read_results
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.training.inference import predict_with
from yolov1_jax.training.sharding import data_mesh, replicated_sharding


class Audited(NamedTuple):
    """Detections to audit, and what they are of."""

    about: str
    selection: Selection
    objects: Objects
    images: AnnotatedImages
    grid_size: int
    mean_ap: dict[str, float]  # by protocol, as the evaluation has it; empty for a file


def open_run(workdir: pathlib.Path, *, step: str | int, console: Console) -> Audited:
    """Predicts a run's own evaluation data.

    Raises:
      UserError: there is no such run, checkpoint or data.
    """
    config = run_folder.read_config(workdir)
    variables, step, reason = restore_variables(workdir, step, replicated_sharding(data_mesh()))
    source = experiment.open_eval_source(config)
    predictions, sizes = predict_with(config, variables, source, console)
    images = annotated_images(source)
    options = experiment.select_options(config)
    result = evaluate_predictions(
        predictions,
        sizes,
        images,
        protocol="voc07",
        select_options=options,
        others=[name for name in PROTOCOLS if name != "coco"],
    )
    return Audited(
        about=f"{workdir}: step {step:,}, {reason}; {', '.join(config.data.eval)}, "
        f"{len(source):,} images",
        selection=NetworkBoxes(predictions, sizes, options),
        objects=join_objects(images.ground_truth, sizes),
        images=images,
        grid_size=config.model.grid_size,
        mean_ap={name: one.mean_ap for name, one in result.evaluations.items()},
    )


def open_results_file(
    path: str,
    images: AnnotatedImages,
    *,
    grid_size: int,
    unknown_classes: str = "refuse",
    unknown_images: str = "refuse",
) -> Audited:
    """Reads the detections of any program.

    Args:
      path, unknown_classes, unknown_images: see `read_results`.
      images: what they are of.
      grid_size: of the seed protocol's ground truth.

    Raises:
      UserError: the file cannot be read, or the size of an image is not known.
    """
    sizes = np.asarray(images.sizes)
    unsized = np.flatnonzero((sizes <= 0).any(axis=-1))
    if len(unsized):  # the seed protocol measures in the network's input, a resized image
        raise UserError(
            f"expected the width and height of every image to audit {path}, found none of "
            f"{images.image_ids[unsized[0]]}: add them to the annotations"
        )
    try:
        results = read_results(
            path, images, unknown_classes=unknown_classes, unknown_images=unknown_images
        )
    except ResultsFileError as error:
        raise UserError(str(error)) from None
    return Audited(
        about=f"{path}: {len(images.image_ids):,} images",
        selection=FileDetections(results.detections, sizes, results.file_order),
        objects=join_objects(images.ground_truth, sizes),
        images=images,
        grid_size=grid_size,
        mean_ap={},
    )
