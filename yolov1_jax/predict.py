"""Draws what a trained run detects in your images, and writes it to a file.

    yolov1 predict --workdir=runs/r34 IMAGE_OR_FOLDER... [--output=DIR] [--json=PATH]
        [--score_threshold=0.2] [--step=best|latest|N]

Folders are searched with their subfolders. Images with an EXIF orientation are turned upright, and
boxes are those of the upright image. Annotated images go to --output, by default
<workdir>/predictions; originals are never replaced. Files that cannot be read are skipped and named
on stderr. If none can be read, or a path does not exist, the exit code is 2.

--json writes one object:
    {"class_names": ["aeroplane", ...],
     "images": [{"file": "holiday/dog.jpg",        as given, or below the folder given
                 "annotated": "out/dog.jpg",
                 "width": 500, "height": 375,      pixels of the upright image
                 "detections": [{"class": "dog", "label": 11, "score": 0.87,
                                 "box_xyxy": [left, top, right, bottom]}]}],   in those pixels
     "skipped": [{"file": "holiday/broken.jpg", "reason": "image is empty"}]}
Detections are in descending order of their scores.
"""

import functools
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from yolov1_jax import command_line
from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import EXTENSIONS, read_image
from yolov1_jax.detector import load
from yolov1_jax.training.run_folder import write_json
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_objects

FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder")
_OUTPUT = _string("output", None, "folder for annotated images; else <workdir>/predictions")
_JSON = _string("json", None, "file to write the detections to")
_STEP = _string("step", "best", "checkpoint: best, latest or a step number")
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold", DRAWN_SCORE, "lowest score of what is drawn and written", flag_values=FLAGS
)


def plan(paths: Sequence[str], output: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
    """Finds the images, and the path of the annotated image of each; writes nothing.

    An annotated image keeps the name of its image, and the place below a folder that was given.
    JPEG stays JPEG, anything else becomes PNG. A name that is taken gets a number. An `output`
    below a folder that was given is left out of the search.

    Raises:
      UserError: a path does not exist, a folder holds no image, or an annotated image would replace
        one of the images given.
    """
    planned: dict[pathlib.Path, pathlib.Path] = {}
    taken: set[pathlib.Path] = set()
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise UserError(f"expected an image or a folder at {path}, found nothing there")
        folder, files = path.parent, [path]
        if path.is_dir():
            folder, files = path, _images_in(path, output)
        if not files:
            raise UserError(
                f"expected images in {path}, found no file whose name ends in "
                f"{', '.join(EXTENSIONS)}: give another folder, or the files one by one"
            )
        for file in files:
            if file not in planned:
                name = output / file.relative_to(folder)
                suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png"
                annotated, number = name.with_suffix(suffix), 2
                while annotated in taken:
                    annotated, number = name.with_name(f"{name.stem}_{number}{suffix}"), number + 1
                taken.add(annotated)
                planned[file] = annotated
    if replaced := {file.resolve() for file in planned} & {path.resolve() for path in taken}:
        raise UserError(f"annotated images would replace {min(replaced)}: choose another --output")
    return planned


def _images_in(folder: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
    """The images below a folder, without those of an `output` below it."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS)
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if folder.resolve() in output.resolve().parents:
        files = [file for file in files if output.resolve() not in file.resolve().parents]
    return files


def run(paths: list[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    if _WORKDIR.value is None or not paths:
        raise UserError(
            f"expected a --workdir and images or folders, found {_WORKDIR.value} and {paths}"
        )
    workdir = pathlib.Path(_WORKDIR.value)
    output = pathlib.Path(_OUTPUT.value or workdir / "predictions")
    planned = plan(paths, output)
    detector = load(workdir, _STEP.value)
    output.mkdir(parents=True, exist_ok=True)
    if _JSON.value is not None:
        json = pathlib.Path(_JSON.value)
        json.parent.mkdir(parents=True, exist_ok=True)
        json.open("a").close()  # an impossible path fails before the work

    images: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    files, names = list(planned), detector.class_names
    for start in range(0, len(files), detector.batch_size):
        pixels: dict[pathlib.Path, np.ndarray] = {}
        for file in files[start : start + detector.batch_size]:
            try:
                pixels[file] = read_image(file)
            except UnusableFile as error:
                skipped.append({"file": str(file), "reason": error.reason})
                print(f"skipped {file}: {error.reason}", file=sys.stderr, flush=True)
        found = detector(list(pixels.values()), score_threshold=_SCORE_THRESHOLD.value)
        for (file, image), detections in zip(pixels.items(), found, strict=True):
            planned[file].parent.mkdir(parents=True, exist_ok=True)
            drawn = draw_objects(image, names, detections=detections)
            Image.fromarray(drawn).save(planned[file], quality=92)
            rows = [
                {
                    "class": names[label],
                    "label": int(label),
                    "score": round(float(score), 4),
                    "box_xyxy": [round(float(value), 2) for value in box],
                }
                for box, score, label in zip(*detections, strict=True)
            ]
            entry = {"file": str(file), "annotated": str(planned[file])}
            size = {"width": image.shape[1], "height": image.shape[0]}
            images.append({**entry, **size, "detections": rows})
            classes = ", ".join(f"{row['class']} {row['score']:.2f}" for row in rows)
            print(f"{planned[file]}: {classes or 'nothing'}", flush=True)
    if _JSON.value is not None:
        write_json(json, {"class_names": names, "images": images, "skipped": skipped})
    if not images:
        raise UserError(f"expected images that can be read, found none of {len(planned)} files")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
