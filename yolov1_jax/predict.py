"""Draws what a trained run detects in your images, and writes it to a file.

    yolov1 predict --workdir=runs/r34 IMAGE_OR_FOLDER... [--output=DIR] [--json=PATH]
        [--score_threshold=0.2] [--step=best|latest|N]

Folders are searched with their subfolders. Images with an EXIF orientation are turned upright, and
boxes are those of the upright image. Annotated images go to --output, by default
<workdir>/predictions; originals are never replaced. Files that cannot be read are skipped and named
on stderr, and so are files in a folder that are no images. If no image can be read, or a path does
not exist, the exit code is 2. If an image cannot be written, it is 1, and the detections of all
are still printed and written to --json.

--json writes one object:
    {"class_names": ["aeroplane", ...],
     "images": [{"file": "holiday/dog.jpg",        as given, or below the folder given
                 "annotated": "out/dog.jpg",         null if it could not be written
                 "width": 500, "height": 375,      pixels of the upright image
                 "detections": [{"class": "dog", "label": 11, "score": 0.87,
                                 "box_xyxy": [left, top, right, bottom]}]}],   in those pixels
     "skipped": [{"file": "holiday/broken.jpg", "reason": "image is empty"}]}
Detections are in descending order of their scores.
"""

import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from yolov1_jax import command_line
from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.detector import image_files, load, notes_on
from yolov1_jax.training import run_folder
from yolov1_jax.visualization.draw import DRAWN_SCORE

FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder")
_OUTPUT = _string("output", None, "folder for annotated images; else <workdir>/predictions")
_JSON = _string("json", None, "file to write the detections to")
_STEP = _string("step", "best", "checkpoint: best, latest or a step number")
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    DRAWN_SCORE,
    "lowest score of what is drawn and written",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)


def plan(
    paths: Sequence[str], output: pathlib.Path
) -> tuple[dict[pathlib.Path, pathlib.Path], list[pathlib.Path]]:
    """Finds the images, and the path of the annotated image of each; writes nothing.

    An annotated image keeps the name of its image, and the place below a folder that was given.
    JPEG stays JPEG, anything else becomes PNG. A name that is taken gets a number. An `output`
    below a folder that was given is left out of the search.

    Returns:
      The annotated image of each image, and the files in folders that are no images.

    Raises:
      UserError: a path does not exist, a folder holds no image, or an annotated image would replace
        one of the images given.
    """
    planned: dict[pathlib.Path, pathlib.Path] = {}
    passed_over: list[pathlib.Path] = []
    taken: set[pathlib.Path] = set()
    for path in map(local_path, paths):
        if not path.exists():
            raise UserError(f"expected an image or a folder at {path}, found nothing there")
        folder, files = path.parent, [path]
        if path.is_dir():
            folder, (files, others) = path, image_files(path, without=output)
            passed_over += others
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
    return planned, passed_over


def run(paths: list[str]) -> None:
    if _WORKDIR.value is None or not paths:
        missing = "--workdir=RUN" if _WORKDIR.value is None else "image"
        raise UserError(f"expected --workdir=RUN and images or folders, found no {missing}")
    workdir = local_path(_WORKDIR.value)
    output = local_path(_OUTPUT.value) if _OUTPUT.value else workdir / "predictions"
    json = local_path(_JSON.value) if _JSON.value else None
    if json is not None and json.is_dir():
        raise UserError(f"expected a file to write --json to, found the folder {json}: add a name")
    planned, passed_over = plan(paths, output)
    detector = load(workdir, _STEP.value)
    for folder in (output, json.parent if json else output):
        run_folder.make(folder)  # an impossible path fails before the work

    images: list[dict[str, Any]] = []
    skipped = [{"file": str(file), "reason": "its format is not read"} for file in passed_over]
    _print_error(*notes_on(passed_over))

    def skip(error: UnusableFile) -> None:
        skipped.append({"file": str(error.args[1]), "reason": error.reason})
        _print_error(f"skipped {error.args[1]}: {error.reason}")

    names = detector.class_names
    failed: Exception | None = None
    for found in detector.stream(
        [*planned], score_threshold=_SCORE_THRESHOLD.value, on_unusable=skip
    ):
        file = found.image
        assert isinstance(file, pathlib.Path)  # as planned
        annotated: pathlib.Path | None = None
        # Where nothing can be written, as on a full disk, the JSON still gets all detections.
        if failed is None:
            try:
                with run_folder.replacing(planned[file]) as temporary:
                    found.plot().save(temporary, quality=92)
                annotated = planned[file]
            except (OSError, UnusableFile) as error:
                failed = error
                _print_error(f"{file} and all that follow are not drawn: {error}")
        rows = [
            {
                "class": names[label],
                "label": int(label),
                "score": round(float(score), 4),
                "box_xyxy": [round(float(value), 2) for value in box],
            }
            for box, score, label in zip(*found, strict=True)
        ]
        entry = {"file": str(file), "annotated": annotated and str(annotated)}
        width, height = found.size
        images.append({**entry, "width": width, "height": height, "detections": rows})
        classes = ", ".join(f"{row['class']} {row['score']:.2f}" for row in rows)
        drawn = f" -> {annotated}" if annotated else ""
        print(f"{file}{drawn}: {classes or 'nothing'}", flush=True)
    if json is not None:
        content = {"class_names": names, "images": images, "skipped": skipped}
        run_folder.write_json(json, content)
    if failed is not None:
        raise failed
    if not images:
        raise UserError(f"expected images that can be read, found none of {len(planned)} files")


def _print_error(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
