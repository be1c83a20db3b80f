"""Files of detections: COCO's results JSON and the devkit's text files, of this and other programs.

COCO: a list of {"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}.
The numbers are those of the annotations JSON (`number_images`, `category_ids`); names are read as
well. A file may also bring "images" and "categories" as the annotations JSON does, with the list
under "annotations": then its numbers mean what these say.

PASCAL VOC's development kit: a file comp4_det_<set>_<class>.txt for each class, with lines

    <image name> <confidence> <xmin> <ymin> <xmax> <ymax>

in pixels from 1, both ends included. Numbers are written with all their digits. The order of rows
or lines decides between equal scores. Images and classes that are not in a file have no detections.
Darknet's `yolo valid` writes the same files with six decimals, in the pixels of its labels.
"""

import collections
import difflib
import glob
import json
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.coco_json import finite_numbers, read_json
from yolov1_jax.data.dataset import Annotations, first_of, shortened
from yolov1_jax.evaluation import ground_truth
from yolov1_jax.yolo.detections import Detections

FORMATS = ("coco", "devkit", "both", "darknet")


class Results(NamedTuple):
    """The detections of N images, read from a file."""

    detections: list[Detections]
    file_order: list[np.ndarray]  # int [D] of each image: the place of a detection in the file
    notes: list[str]  # what is odd or was left out, one line each


# Image (id, name or number), name of the class, [score, *box_xyxy] in VOC's pixels, file and line.
_Rows = Iterator[tuple[Any, str, list[float], str]]


def coco_results(
    detections: Sequence[Detections], annotations: Annotations
) -> list[dict[str, Any]]:
    """The content of a results JSON, in the order of the images and of their detections."""
    categories = ground_truth.category_ids(annotations)
    return [
        {"image_id": number, "category_id": categories[label], "bbox": box, "score": score}
        for number, found in zip(ground_truth.number_images(annotations), detections, strict=True)
        for box, score, label in zip(
            ground_truth.to_coco_boxes(found.boxes_xyxy).tolist(),
            np.asarray(found.scores, np.float64).tolist(),
            found.labels,
            strict=True,
        )
    ]


def results_files(
    detections: Sequence[Detections],
    annotations: Annotations,
    *,
    results_format: str,
    set_name: str,
) -> dict[str, str]:
    """Detections of each image as the texts of files, by their paths in a folder.

    "coco" gives detections.json and, for COCO's programs to read with it, annotations.json;
    "devkit" gives devkit/comp4_det_<set_name>_<class>.txt; "both" gives both; "darknet" gives the
    devkit's files in darknet/, with the digits of Darknet's.
    """
    files = {}
    if results_format in ("coco", "both"):
        files["detections.json"] = json.dumps(coco_results(detections, annotations)) + "\n"
        files["annotations.json"] = json.dumps(ground_truth.coco_annotations(annotations)) + "\n"
    if results_format in ("devkit", "both", "darknet"):
        folder, digits = ("darknet", "{:f}") if results_format == "darknet" else ("devkit", "{!r}")
        lines: list[list[str]] = [[] for _ in annotations.class_names]
        names = ground_truth.short_names(annotations.image_ids)
        for name, found in zip(names, detections, strict=True):
            for box, score, label in zip(*found, strict=True):
                numbers = np.array([score, *box], np.float64).tolist()
                lines[label].append(" ".join([name, *map(digits.format, numbers)]) + "\n")
        for class_name, of_class in zip(annotations.class_names, lines, strict=True):
            path = f"{folder}/comp4_det_{set_name}_{_file_part(class_name)}.txt"
            files[path] = "".join(of_class)
    return files


def read_results(
    path: str | os.PathLike[str],
    annotations: Annotations,
    *,
    unknown_classes: str = "refuse",
    unknown_images: str = "refuse",
) -> Results:
    """Reads the detections of the annotated images.

    Args:
      path: a COCO results JSON; or the folder of the devkit's files, or the common beginning of
        their paths ("results/comp4_det_test").
      unknown_classes, unknown_images: "refuse" the file, or "skip" the detection, where its class
        or its image is not in the annotations.

    Raises:
      UserError: there is no such file, or something in it cannot be evaluated.
    """
    path = pathlib.Path(path)
    notes: list[str] = []
    if os.path.isfile(path):
        rows = _coco_rows(path, annotations)
    else:
        rows = _devkit_rows(path, annotations.class_names, notes)
    places = ground_truth.image_places(annotations)
    label_of = {name: label for label, name in enumerate(annotations.class_names)}
    skipped: dict[str, list[str]] = collections.defaultdict(list)
    found: list[list[float]] = []  # image, label, score and box of each detection
    for image, class_name, score_and_box, where in rows:
        label, place = label_of.get(class_name), places.get(image)
        if place is None and isinstance(image, str):
            place = places.get(ground_truth.image_name(image))
        if label is not None and place is not None:
            found.append([place, label, *score_and_box])
            continue
        unknown, name, known = "images", image, annotations.image_ids
        if label is None:
            unknown, name, known = "classes", class_name, annotations.class_names
        name = shortened(str(name), 100)
        skipped[unknown].append(name)
        if {"images": unknown_images, "classes": unknown_classes}[unknown] == "refuse":
            near = difflib.get_close_matches(name, known[:5000], 2, cutoff=0.0)
            raise UserError(
                f"{where}: expected one of the {unknown} of the annotations, found {name!r} "
                f"(nearest: {shortened(', '.join(near))}); correct either, or leave such "
                f"detections out with --unknown_{unknown}=skip"
            )

    table = np.array(found, np.float64).reshape(-1, 7)
    image_index, labels = table[:, :2].astype(np.int64).T
    scores, boxes = table[:, 2], table[:, 3:]
    by_image = np.argsort(image_index, kind="stable")
    ends = np.searchsorted(image_index[by_image], range(1, len(annotations)))
    file_order = np.split(by_image, ends)
    for unknown, names in skipped.items():
        notes.append(f"{len(names):,} detections left out, unknown {unknown}: {first_of(names)}")
    if inverted := np.count_nonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1)):
        notes.append(f"{inverted:,} boxes end before they begin: are they width and height?")
    sizes = annotations.sizes[image_index, ::-1]  # [D, 2] width and height; 0 where unknown
    outside = np.count_nonzero(((boxes[:, 2:] > 1.1 * sizes) & (sizes > 0)).any(axis=1))
    if outside > len(boxes) / 4:
        notes.append(f"{outside:,} boxes end outside of their image: are they two corners?")
    if num_empty := sum(len(rows) == 0 for rows in file_order):
        notes.append(f"{num_empty:,} of {len(annotations):,} images have no detections")
    detections = [Detections(boxes[rows], scores[rows], labels[rows]) for rows in file_order]
    return Results(detections, file_order, notes)


def _coco_rows(path: pathlib.Path, annotations: Annotations) -> _Rows:
    content = read_json(path, "a COCO results JSON or a folder of the devkit's files")
    tables = content if isinstance(content, dict) else {"annotations": content}
    names = zip(ground_truth.category_ids(annotations), annotations.class_names, strict=True)
    try:
        image_names = {one["id"]: str(one["file_name"]) for one in tables.get("images", ())}
        own = {one["id"]: str(one["name"]) for one in tables.get("categories", ())}
        rows = list(enumerate(tables["annotations"], start=1))
    except (KeyError, TypeError):
        raise UserError(
            f"expected a list of detections in {path}, found none, or images or categories "
            "without ids and names: give a COCO results JSON"
        ) from None
    class_names = own or dict(names)
    for number, row in rows:
        where = f"{path}, detection {number}"
        try:
            image, category = row["image_id"], row["category_id"]
            image = image_names.get(image, f"image_id {image}") if image_names else image
            hash(image)  # no id is a list or a dict
            score, x, y, width, height = finite_numbers([row["score"], *row["bbox"]], 5)
            class_name = class_names.get(category, category)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"{where}: expected image_id, category_id, score and bbox [x, y, width, height], "
                f"found {reprlib.repr(row)}; correct the program that wrote it"
            ) from None
        if not isinstance(class_name, str):
            class_name = f"category_id {class_name}"
        yield image, class_name, [score, x + 1, y + 1, x + width, y + height], where


def _devkit_rows(path: pathlib.Path, class_names: Sequence[str], notes: list[str]) -> _Rows:
    files = _devkit_files(path, class_names)
    if missing := [name for name in class_names if name not in files]:
        notes.append(f"no file, so no detections, of: {shortened(', '.join(missing), 500)}")
    for class_name, file in files.items():
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            # From the right, because names of images may contain spaces.
            image, *fields = line.strip().rsplit(maxsplit=5) or [""]
            try:
                if line.strip():
                    yield image, class_name, finite_numbers(fields, 5), where
            except ValueError:
                raise UserError(
                    f"{where}: expected '<image> <confidence> <xmin> <ymin> <xmax> <ymax>', found "
                    f"{line.strip()[:80]!r}; correct the program that wrote it"
                ) from None


def _devkit_files(path: pathlib.Path, class_names: Sequence[str]) -> dict[str, pathlib.Path]:
    """The file of each class, those of classes that are not in `class_names` included."""
    parts = {_file_part(name): name for name in class_names}
    folder, pattern, beginnings = path.parent, f"{glob.escape(path.name)}_*.txt", {path.name}
    if os.path.isdir(path):
        folder, pattern = path, "comp*_det_*.txt"
    stems = [file.removesuffix(".txt") for file in sorted(glob.glob(pattern, root_dir=folder))]
    if folder == path:
        # "comp4_det_test_blood_cell" is of the longest class name that it ends with.
        known = re.compile(f"(.+?)_(?:{'|'.join(map(re.escape, parts))})")
        beginnings = {match[1] for stem in stems if (match := known.fullmatch(stem))}
        known_beginnings = tuple(f"{one}_" for one in beginnings)
        beginnings |= {stem for stem in stems if not stem.startswith(known_beginnings)}
    if len(beginnings) != 1 or not stems:
        raise UserError(
            f"expected a COCO results JSON or the files comp4_det_<set>_<class>.txt of one set in "
            f"{path}, found {', '.join(sorted(beginnings)) if stems else 'none'}: give the folder "
            f"that holds them, or the beginning of their paths, as {folder / 'comp4_det_test'}"
        )
    (beginning,) = beginnings
    by_part = {stem.removeprefix(f"{beginning}_"): folder / f"{stem}.txt" for stem in stems}
    return {parts.get(part, part): file for part, file in by_part.items()}


def _file_part(class_name: str) -> str:
    """A class name as part of a file's name: what is not allowed there is written as %2F."""
    return re.sub(r'[/\\:*?"<>|%\x00-\x1f]', lambda match: f"%{ord(match[0]):02X}", class_name)
