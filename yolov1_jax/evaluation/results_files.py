"""Files of detections: the devkit's text files and COCO's results JSON, to write and, from any
program, to read.

`devkit_results.py` and `coco_files.py` say what each looks like, `results.py` what is refused.
"""

import json
import os
import pathlib
from collections.abc import Sequence

from yolov1_jax.evaluation.coco_files import coco_annotations, coco_results, read_coco_results
from yolov1_jax.evaluation.devkit_results import read_devkit_results, write_devkit_results
from yolov1_jax.evaluation.ground_truth import AnnotatedImages
from yolov1_jax.evaluation.results import Results, ResultsFileError
from yolov1_jax.yolo.detections import Detections

FORMATS = ("coco", "devkit", "both")


def write_results(
    folder: pathlib.Path,
    detections: Sequence[Detections],
    images: AnnotatedImages,
    *,
    results_format: str,
    set_name: str,
    competition: str,
) -> list[pathlib.Path]:
    """Writes detections, with what they are to be read with.

    <folder>/detections.json                                  COCO's results
    <folder>/annotations.json                                 COCO's annotations
    <folder>/devkit/<competition>_det_<set_name>_<class>.txt  the devkit's

    Args:
      detections: of the images, in their order.
      results_format: one of FORMATS.
      set_name, competition: see `write_devkit_results`.

    Returns:
      The paths to read the detections from.
    """
    if results_format not in FORMATS:
        raise ValueError(f"results_format must be one of {FORMATS}, got {results_format!r}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if results_format in ("coco", "both"):
        written.append(folder / "detections.json")
        written[-1].write_text(json.dumps(coco_results(detections, images)) + "\n")
        (folder / "annotations.json").write_text(json.dumps(coco_annotations(images)) + "\n")
    if results_format in ("devkit", "both"):
        written.append(folder / "devkit")
        write_devkit_results(
            written[-1], detections, images, set_name=set_name, competition=competition
        )
    return written


def read_results(
    path: str | os.PathLike[str],
    images: AnnotatedImages,
    *,
    unknown_classes: str = "refuse",
    unknown_images: str = "refuse",
) -> Results:
    """Reads the detections of `images`.

    Args:
      path: a COCO results JSON, or the folder of the devkit's text files, or the common beginning
        of their paths ("results/comp4_det_test").
      unknown_classes, unknown_images: "refuse" the file, or "skip" the detection, where its class
        or its image is not in `images`.

    Raises:
      ResultsFileError: there is no such file, or something in it cannot be scored.
    """
    path = pathlib.Path(path)
    policies = {"unknown_classes": unknown_classes, "unknown_images": unknown_images}
    if os.path.isfile(path):  # False, too, for a path that is too long to be one
        if path.suffix == ".txt" and "_det_" in path.name:
            raise ResultsFileError(
                f"expected the folder of the devkit's files, found the file {path}: give "
                f"{path.parent}, which holds those of the other classes too"
            )
        return read_coco_results(path, images, **policies)
    if os.path.isdir(path) or (
        os.path.isdir(path.parent) and any(path.parent.glob(f"{path.name}_*.txt"))
    ):
        return read_devkit_results(path, images, **policies)
    raise ResultsFileError(
        f"expected detections in {path}, found nothing there: give a COCO results JSON or a folder "
        "of the devkit's text files"
    )
