"""Draws what a trained run detects in your images, and writes it down.

    python -m yolov1_jax.predict --workdir=runs/r34 IMAGE_OR_FOLDER... [--output=DIR]
        [--json=PATH] [--score_threshold=0.2] [--step=best|latest|N]

Folders are searched with their subfolders. Photographs with an EXIF orientation are shown, and
their boxes given, upright. Annotated images go to --output, by default <workdir>/predictions,
under the name of the image; originals are never written to. Files that cannot be read are skipped
with a note; where none can, or a path does not exist, the exit code is 2.

--json writes one object:
    {"class_names": ["aeroplane", ...],
     "images": [{"file": "holiday/dog.jpg",        as given, or below the folder given
                 "annotated": "out/dog.jpg",
                 "width": 500, "height": 375,      pixels of the upright image
                 "detections": [{"class": "dog", "label": 11, "score": 0.87,
                                 "box_xyxy": [left, top, right, bottom]}]}],   in those pixels
     "skipped": [{"file": "holiday/broken.jpg", "reason": "image is empty"}]}
Detections are in descending order of their score.
"""

import io
import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from yolov1_jax import command_line
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import EXTENSIONS, read_upright
from yolov1_jax.detector import load
from yolov1_jax.errors import UserError
from yolov1_jax.training.run_folder import read_config, write_json
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_objects
from yolov1_jax.yolo.detections import Detections

_IMAGES_AT_ONCE = 32  # decoded images held in memory


class Task(NamedTuple):
    """An image to look at, and where to draw what was found."""

    file: pathlib.Path
    annotated: pathlib.Path


def plan(paths: Sequence[str], output: pathlib.Path) -> list[Task]:
    """Finds the images and names the annotated ones; touches no file.

    An image keeps its name, and its place below a folder that was given. JPEG stays JPEG, anything
    else becomes PNG. Of two images that would get one name, the second gets a number. An `output`
    below a folder that was given is left out of the search.

    Raises:
      UserError: a path does not exist, a folder holds no image, or an annotated image would replace
        one of the images given.
    """
    found: list[tuple[pathlib.Path, pathlib.Path]] = []  # image, name below `output`
    for path in map(pathlib.Path, paths):
        if os.path.isdir(path):  # unlike that of pathlib, for names of any length
            inside = _images_in(path)
            if path.resolve() in output.resolve().parents:
                inside = [file for file in inside if output.resolve() not in file.resolve().parents]
            if not inside:
                raise UserError(
                    f"expected images in {path}, found none whose name ends in "
                    f"{', '.join(EXTENSIONS)}: give another folder, or the files one by one"
                )
            found += [(file, file.relative_to(path)) for file in inside]
        elif os.path.exists(path):
            found.append((path, pathlib.Path(path.name)))
        else:
            raise UserError(f"expected an image or a folder at {path}, found nothing there")

    tasks: dict[pathlib.Path, Task] = {}
    sources = {file.resolve() for file, _ in found}
    for file, name in dict(found).items():
        suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png"
        candidates = itertools.chain(
            [name.with_suffix(suffix)],
            (name.with_name(f"{name.stem}_{i}{suffix}") for i in itertools.count(2)),
        )
        annotated = next(path for path in candidates if output / path not in tasks)
        annotated = output / annotated
        if annotated.resolve() in sources:
            raise UserError(
                f"the annotated image would replace {annotated}: choose another --output"
            )
        tasks[annotated] = Task(file, annotated)
    return list(tasks.values())


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in EXTENSIONS and file.is_file() and not file.name.startswith(".")
    )


def predict_files(
    detect: Callable[[list[np.ndarray]], list[Detections]],
    class_names: Sequence[str],
    tasks: Sequence[Task],
) -> Iterator[dict[str, Any]]:
    """Detects, draws and saves.

    Args:
      detect: uint8 RGB images of any size -> the detections of each, in its pixels.
      class_names: the name of each label.
      tasks: see `plan`.

    Yields:
      For each task, in order, its entry in "images" or in "skipped" of the JSON file.
    """
    for start in range(0, len(tasks), _IMAGES_AT_ONCE):
        entries: list[dict[str, Any]] = []
        images: dict[int, np.ndarray] = {}
        for i, task in enumerate(tasks[start : start + _IMAGES_AT_ONCE]):
            entries.append({"file": str(task.file)})
            try:
                images[i] = read_upright(task.file)
            except UnusableFile as error:
                entries[i]["reason"] = str(error)
        detections = detect(list(images.values())) if images else []
        for (i, image), found in zip(images.items(), detections, strict=True):
            found = _with_area(found)
            annotated = tasks[start + i].annotated
            annotated.parent.mkdir(parents=True, exist_ok=True)
            drawn = draw_objects(image, class_names, detections=found)
            Image.fromarray(drawn).save(annotated, quality=92)
            entries[i] |= {
                "annotated": str(annotated),
                "width": image.shape[1],
                "height": image.shape[0],
                "detections": _as_json(found, class_names),
            }
        yield from entries


def _with_area(detections: Detections) -> Detections:
    """Without empty and inverted boxes: nothing keeps the network from a negative width."""
    left, top, right, bottom = detections.boxes_xyxy.T
    keep = (right > left) & (bottom > top)
    return Detections(*(part[keep] for part in detections))


def _as_json(detections: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    order = np.argsort(-detections.scores, kind="stable")
    return [
        {
            "class": class_names[label],
            "label": int(label),
            "score": round(float(score), 4),
            "box_xyxy": [round(float(value), 2) for value in box],
        }
        for box, score, label in zip(*(part[order] for part in detections), strict=True)
    ]


def _check_writable(output: pathlib.Path, json: pathlib.Path | None) -> None:
    """Makes the folders of the results, and refuses what could not be written after the work."""
    if json is not None and os.path.exists(json) and not os.path.isfile(json):
        raise UserError(f"expected the path of a file in --json, found {json}, which is none")
    folders = {"--output": output} | ({} if json is None else {"--json": json.parent})
    for flag, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(
                f"expected to write into the folder {folder}, found: {error.strerror}; choose "
                f"another {flag}"
            ) from None


def main(paths: list[str]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing: give the folder of a run")
    if not paths:
        raise UserError("no image is given: name images, or folders of images, after the flags")
    workdir = pathlib.Path(_WORKDIR.value)
    output = pathlib.Path(_OUTPUT.value or workdir / "predictions")
    json = None if _JSON.value is None else pathlib.Path(_JSON.value)
    read_config(workdir)  # a wrong folder is told of first
    tasks = plan(paths, output)
    _check_writable(output, json)
    detector = load(workdir, step=_STEP.value)

    images, skipped = [], []
    for entry in predict_files(
        lambda pixels: detector(pixels, score_threshold=_SCORE_THRESHOLD.value),
        detector.class_names,
        tasks,
    ):
        if "reason" in entry:
            skipped.append(entry)
            print(f"skipped {entry['file']}: {entry['reason']}", file=sys.stderr, flush=True)
            continue
        images.append(entry)
        found = [f"{one['class']} {one['score']:.2f}" for one in entry["detections"]]
        print(f"{entry['annotated']}: {', '.join(found) or 'nothing'}", flush=True)
    if not images:
        raise UserError(
            f"expected an image that can be read, found none among {len(skipped)} files "
            f"({skipped[0]['file']}: {skipped[0]['reason']})"
        )
    if json is not None:
        content = {"class_names": detector.class_names, "images": images, "skipped": skipped}
        write_json(json, content)


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "run folder")
    _OUTPUT = flags.DEFINE_string(
        "output", None, "folder for the annotated images; by default <workdir>/predictions"
    )
    _JSON = flags.DEFINE_string("json", None, "file to write the detections to")
    _SCORE_THRESHOLD = flags.DEFINE_float(
        "score_threshold",
        DRAWN_SCORE,
        "lowest score of a detection that is drawn and written",
        lower_bound=0.0,
    )
    _STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
    command_line.run(main)
