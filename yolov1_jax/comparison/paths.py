"""What lies at the paths to compare, and which data detections there are scored against."""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Sequence

from yolov1_jax.comparison.evaluations import is_result, read_json
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.file_evaluation import DetectionsOf


def kind_of(path: str) -> str:
    """ "run", "evaluation" or "detections".

    Raises:
      UserError: there is nothing there, or nothing that can be compared.
    """
    place = pathlib.Path(path)
    # os.path, unlike pathlib, finds nothing where a path is too long to be one.
    if os.path.isfile(place / "config.json"):
        return "run"
    if os.path.isfile(place) and place.suffix == ".json":
        return "evaluation" if is_result(read_json(place)) else "detections"
    if os.path.isdir(place) and not any(place.glob("*_det_*.txt")):
        raise UserError(
            f"expected a run or detections in {place}, found neither a config.json nor files such "
            "as comp4_det_test_cat.txt: give the folder of a run"
        )
    beginning = f"{glob.escape(place.name)}*_*.txt"
    if os.path.exists(place) or (os.path.isdir(place.parent) and any(place.parent.glob(beginning))):
        return "detections"
    raise UserError(
        f"expected a run, an evaluation's JSON or detections at {path}, found nothing: check the "
        "path"
    )


def data_of(path: str, runs: Sequence[str], given: DetectionsOf) -> DetectionsOf:
    """What the detections in `path` are scored against.

    That is what is asked for; else the data of the run in whose folder they lie; else of the first
    of `runs`.

    Raises:
      UserError: there is none of these, or a run's data and another image size.
    """
    if given.source is not None or given.annotations is not None:
        return given
    above = [str(folder) for folder in pathlib.Path(path).resolve().parents]
    own = [folder for folder in above if (pathlib.Path(folder) / "config.json").is_file()]
    if not (own or runs):
        raise UserError(
            f"expected annotations for the detections in {path}, found none: give --source, --root "
            "and --splits, or --annotations, or compare with a run on the same data"
        )
    workdir = [*own, *runs][0]
    if given.image_size is not None:
        raise UserError(
            f"expected --image_size with --source=synthetic only, found it for {path}, which is "
            f"scored against the data of the run {workdir}: leave it out"
        )
    return dataclasses.replace(given, workdir=pathlib.Path(workdir))
