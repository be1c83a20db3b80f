"""Detects objects in images and videos, and writes them drawn, or as files of labels.

    yolov1 predict --workdir=runs/r34 SOURCE... [--output=DIR] [--save=drawn,json]
    yolov1 predict --model=r34.onnx SOURCE...

A SOURCE is an image, a video, a folder (with its subfolders), a pattern such as 'photos/*.jpg', or
the number of a camera, which is read until Ctrl-C. Results go to --output, by default
<workdir>/predictions, under the name of the image and its place below the folder given; of a frame
under the name of its video and its number, from 1: clip_000001. --save names what is written:

    drawn   images with their detections; of a video an .mp4 of its size and frame rate, no sound
    json    detections.jsonl, a line per image or frame: {"file": "holiday/dog.jpg", "width": 500,
            "height": 375, "detections": [{"class": "dog", "label": 11, "score": 0.87,
            "box_xyxy": [left, top, right, bottom]}]}, in pixels, with "frame" in a video
    coco    coco.json: an annotations JSON, each annotation with its "score"
    voc     voc/Annotations/dog.xml
    yolo    yolo/labels/dog.txt, yolo/classes.txt
    crops   crops/<class>/dog_1.jpg

Images are turned upright as their EXIF orientation asks. What cannot be read is named on stderr and
left out; the exit code is then 1. Ctrl-C ends after the batch, and what is written stays.
"""

import collections
import contextlib
import functools
import glob
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import cv2
import numpy as np
from absl import flags
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from yolov1_jax import command_line
from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.dataset import Annotations, GroundTruth, UnusableFile
from yolov1_jax.data.images import EXTENSIONS, read_image
from yolov1_jax.data.own_folder import files_below, has_extension
from yolov1_jax.detector import Detected, load
from yolov1_jax.evaluation.ground_truth import coco_annotations, to_coco_boxes
from yolov1_jax.training import run_folder
from yolov1_jax.training.preemption import StopSignal
from yolov1_jax.visualization.draw import DRAWN_SCORE

FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_list = functools.partial(flags.DEFINE_list, flag_values=FLAGS)
_fraction = functools.partial(flags.DEFINE_float, lower_bound=0, upper_bound=1, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder")
_MODEL = _string("model", None, "FILE.onnx, .stablehlo or .tflite of `yolov1 export`")
_OUTPUT = _string("output", None, "folder to write to; else <workdir>/predictions")
_SAVE = _list("save", ["drawn"], "what to write: drawn, json, coco, voc, yolo, crops")
_STEP = _string("step", "best", "checkpoint: best, latest or a step number")
_SCORE_THRESHOLD = _fraction("score_threshold", DRAWN_SCORE, "lowest score of a detection")
_NMS_IOU_THRESHOLD = _fraction("nms_iou_threshold", None, "largest overlap; else the run's")
_CLASSES = _list("classes", None, "names of the classes to keep; else all")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "images at once", 1, flag_values=FLAGS)

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
# Files, or numbers of cameras, and the path of the results of each: below the output, no suffix.
Inputs = dict[pathlib.Path | int, pathlib.Path]


class Item(NamedTuple):
    """An image, or a frame of a video. np.asarray gives its pixels, uint8 RGB [H, W, 3]."""

    file: str  # the image or the video
    image_name: str  # of a frame, as a program would name it that writes all frames
    stem: str  # of the results, below the output, no suffix
    drawn: str  # of the drawn image or video
    frame: int = 0  # from 1
    frame_rate: float = 0.0  # per second
    pixels: np.ndarray | None = None  # of a frame

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return read_image(self.file) if self.pixels is None else self.pixels


def find_inputs(sources: Sequence[str], output: pathlib.Path) -> tuple[Inputs, dict[str, int]]:
    """Finds images and videos; counts other files in folders by ending.

    Below a folder, and where a pattern begins, `output` is left out: an earlier call has filled it.
    Raises UserError if there is nothing at a source, or if what is drawn would replace an input.
    """
    inputs, others, output = Inputs(), collections.Counter[str](), output.resolve()
    for source in sources:
        path, found = local_path(source), Inputs()
        root = pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        holds_output = root.resolve() in output.parents
        matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        if not matches and source.isdecimal():
            found[int(source)] = pathlib.Path(f"camera_{source}")
        for place in map(pathlib.Path, matches):
            for name in files_below(place) if place.is_dir() else [""]:
                entry, below = place / name, pathlib.Path(name or place.name)
                if holds_output and entry.resolve().is_relative_to(output):
                    continue
                if not name or has_extension(name, (*EXTENSIONS, *VIDEOS)):
                    found.setdefault(entry, below.with_suffix(""))
                else:
                    others[below.suffix.lower() or name] += 1
        if not found:
            raise UserError(f"expected images or videos at {path}, found none")
        inputs = {**inputs, **found, **inputs}  # a file keeps its first name
    taken = set[pathlib.Path]()
    for file, stem in inputs.items():
        numbered = (stem.with_name(f"{stem.name}_{i}") for i in itertools.count(2))
        inputs[file] = next(one for one in itertools.chain([stem], numbered) if one not in taken)
        taken.add(inputs[file])
    # In lower case: to some file systems a.PNG and a.png are the same file.
    files = {str(file.resolve()).lower(): file for file in inputs if isinstance(file, pathlib.Path)}
    for pair in inputs.items():
        drawn = str((output / _drawn_name(*pair)).resolve()).lower()
        if drawn in files:
            raise UserError(f"what is drawn would replace {files[drawn]}: choose another --output")
    return inputs, others


def _drawn_name(file: pathlib.Path | int, stem: pathlib.Path) -> str:
    """JPEG stays JPEG, another image becomes PNG."""
    if isinstance(file, int) or has_extension(file.name, VIDEOS):
        return f"{stem}.mp4"
    return f"{stem}{file.suffix if has_extension(file.name, ('.jpg', '.jpeg')) else '.png'}"


def read_items(inputs: Inputs, skip: Callable[[UnusableFile], None]) -> Iterator[Item]:
    """The images, which are read later, and all frames; `skip` is called for a broken video."""
    names = set[str]()
    for file, stem in inputs.items():
        drawn = _drawn_name(file, stem)
        if isinstance(file, pathlib.Path) and not drawn.endswith(".mp4"):
            name = stem.with_name(file.name).as_posix()
            if name in names:  # of an image in another folder
                name = f"{stem.as_posix()}{file.suffix}"
            names.add(name)
            yield Item(str(file), name, str(stem), drawn)
            continue
        name = f"camera {file}" if isinstance(file, int) else str(file)
        capture = cv2.VideoCapture(file if isinstance(file, int) else name)
        frame_rate, frame = capture.get(cv2.CAP_PROP_FPS) or 30.0, 0
        while (pixels := capture.read()[1]) is not None:
            frame += 1
            one = f"{stem.as_posix()}_{frame:06d}"
            yield Item(name, f"{one}.png", one, drawn, frame, frame_rate, pixels[..., ::-1])
        if not frame:
            skip(UnusableFile("no frame can be read", name))


class Results:
    """Writes the detections of one item after the other in the formats asked for."""

    FORMATS = ("drawn", "json", "coco", "voc", "yolo", "crops")

    def __init__(self, output: pathlib.Path, formats: list[str], names: Sequence[str]) -> None:
        self.output, self.formats, self.class_names = output, formats, names
        self.video = cv2.VideoWriter()
        self.coco: list[tuple[str, tuple[int, int], GroundTruth, np.ndarray]] = []
        if "json" in formats:
            run_folder.write_text(output / "detections.jsonl", "")

    def write(self, item: Item, found: Detected) -> None:
        for name in self.formats:
            getattr(self, f"_{name}")(item, found)

    def close(self) -> None:
        """Ends the video, and writes the files that are of all items."""
        self.video.release()
        if "yolo" in self.formats:
            names = "".join(f"{name}\n" for name in self.class_names)
            run_folder.write_text(self.output / "yolo" / "classes.txt", names)
        if "coco" in self.formats:
            ids, sizes, objects, scores = zip(*self.coco, strict=True) if self.coco else [()] * 4
            content = coco_annotations(Annotations.build(self.class_names, ids, sizes, objects))
            for row, score in zip(content["annotations"], itertools.chain(*scores), strict=True):
                row["score"] = score
            run_folder.write_json(self.output / "coco.json", content)

    def _drawn(self, item: Item, found: Detected) -> None:
        path = self.output / item.drawn
        if not item.frame:
            with run_folder.replacing(path) as temporary:
                found.plot().save(temporary, quality=92)
            return
        if item.frame == 1:
            path.parent.mkdir(parents=True, exist_ok=True)
            mp4v = cv2.VideoWriter.fourcc(*"mp4v")
            if not self.video.open(str(path), mp4v, item.frame_rate, found.size):
                raise OSError(f"no video can be written to {path}")
        self.video.write(np.asarray(found.plot(scale=1))[..., ::-1])

    def _json(self, item: Item, found: Detected) -> None:
        frame = {"frame": item.frame} if item.frame else {}
        row = {**found.to_dict(), "file": item.file, **frame}
        with (self.output / "detections.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps(row), file=file)

    def _coco(self, item: Item, found: Detected) -> None:
        objects = GroundTruth(_voc_boxes(found), found.labels, np.zeros(len(found.labels), bool))
        self.coco.append((item.image_name, found.size[::-1], objects, found.scores.tolist()))

    def _voc(self, item: Item, found: Detected) -> None:
        width, height = found.size
        corners = "".join(f"<{name}>{{:.2f}}</{name}>" for name in ("xmin", "ymin", "xmax", "ymax"))
        objects = [
            f"  <object><name>{escape(name)}</name><difficult>0</difficult>"
            f"<bndbox>{corners.format(*box)}</bndbox></object>\n"
            for name, box in zip(found.names, _voc_boxes(found), strict=True)
        ]
        text = (
            f"<annotation>\n  <filename>{escape(item.image_name.rpartition('/')[2])}</filename>\n"
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
            f"{''.join(objects)}</annotation>\n"
        )
        run_folder.write_text(self.output / "voc" / "Annotations" / f"{item.stem}.xml", text)

    def _yolo(self, item: Item, found: Detected) -> None:
        boxes = to_coco_boxes(_voc_boxes(found))  # x, y, width, height
        boxes[:, :2] += boxes[:, 2:] / 2
        rows = zip(found.labels, boxes / (found.size * 2), strict=True)
        text = "".join(f"{label} {' '.join(map('{:.6f}'.format, box))}\n" for label, box in rows)
        run_folder.write_text(self.output / "yolo" / "labels" / f"{item.stem}.txt", text)

    def _crops(self, item: Item, found: Detected) -> None:
        image, boxes = Image.fromarray(found.pixels()), _voc_boxes(found) - [1, 1, 0, 0]
        for number, (box, name) in enumerate(zip(boxes, found.names, strict=True), start=1):
            folder = re.sub(r'[/\\:*?"<>|]', "_", name)  # not allowed in names of files
            path = self.output / "crops" / folder / f"{item.stem}_{number}.jpg"
            with run_folder.replacing(path) as temporary:
                image.crop((*np.floor(box[:2]), *np.ceil(box[2:]))).save(temporary, quality=95)


def _voc_boxes(found: Detected) -> np.ndarray:
    """In VOC's pixel numbers, the first of which is 1, within the image. float64 [D, 4]"""
    return np.clip(found.boxes_xyxy, 1, found.size * 2).astype(np.float64)


def run(sources: list[str]) -> int:
    if (_WORKDIR.value is None) == (_MODEL.value is None) or not sources:
        raise UserError(
            "expected either --workdir=RUN or --model=FILE, and images, videos or a camera"
        )
    if unknown := {*_SAVE.value} - {*Results.FORMATS}:
        raise UserError(f"expected --save of {', '.join(Results.FORMATS)}, found {min(unknown)!r}")
    place = local_path(_WORKDIR.value or _MODEL.value)
    output = local_path(_OUTPUT.value or pathlib.Path(_WORKDIR.value or "", "predictions"))
    inputs, others = find_inputs(sources, output)
    if others:
        texts = [f"{number:,} x {kind}" for kind, number in others.items()]
        print(f"not read: {', '.join(texts)}", file=sys.stderr)
    detector = load(place, _STEP.value)
    detector.batch_size = _BATCH_SIZE.value
    if unknown := {*(_CLASSES.value or ())} - {*detector.class_names}:
        raise UserError(
            f"expected --classes of {', '.join(detector.class_names)}; found {min(unknown)!r}"
        )
    run_folder.make(output)  # an impossible path fails before the work
    skipped: list[UnusableFile] = []

    def skip(error: UnusableFile) -> None:
        skipped.append(error)
        print(f"skipped {error.args[1]}: {error.reason}", file=sys.stderr, flush=True)

    is_endless = any(isinstance(file, int) for file in inputs)
    videos = (cv2.VideoCapture(str(file)) for file in inputs if has_extension(str(file), VIDEOS))
    more = sum(max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)) - 1) for video in videos)
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}"
    is_shown, shows_errors = sys.stdout.isatty(), sys.stderr.isatty()  # not those for a file
    progress = Progress(*columns, redirect_stderr=shows_errors, disable=not is_shown)
    results = Results(output, _SAVE.value, detector.class_names)
    with contextlib.closing(results), StopSignal() as stop, progress:
        bar = progress.add_task("", total=None if is_endless else len(inputs) + more)
        num_detections = 0
        for found in detector.stream(
            itertools.takewhile(lambda _: not stop.received(), read_items(inputs, skip)),
            score_threshold=_SCORE_THRESHOLD.value,
            nms_iou_threshold=_NMS_IOU_THRESHOLD.value,
            classes=_CLASSES.value,
            on_unusable=skip,
        ):
            item: Any = found.image
            results.write(item, found)
            speed = progress.tasks[bar].speed or 0
            progress.update(bar, advance=1, description=f"{speed:.1f} images/s")
            num_detections += len(found.labels)
            if not item.frame:
                text = ", ".join(map("{} {:.2f}".format, found.names, found.scores))
                print(f"{item.file}: {text or 'nothing'}")
    num_images = f"{progress.tasks[bar].completed:,.0f} images and frames"
    print(f"{num_images}, {num_detections:,} detections, {len(skipped):,} skipped: {output}")
    return stop.exit_code or bool(skipped)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
