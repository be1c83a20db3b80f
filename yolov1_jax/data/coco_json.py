"""COCO's annotations JSON: read for evaluation, and as a data set beside its images.

    {"images": [{"id": 139, "file_name": "000139.jpg", "width": 640, "height": 426}, ...],
     "categories": [{"id": 1, "name": "person"}, ...],
     "annotations": [{"id": 1, "image_id": 139, "category_id": 1, "bbox": [x, y, width, height],
                      "area": 12.3, "iscrowd": 0}, ...]}

    annotations/instances_train2017.json, ...   and the images anywhere, as COCO and CVAT write it
    train/_annotations.coco.json, valid/...     Roboflow, images in the same folder
    result.json                                 Label Studio, images in images/

COCO measures a box from the left edge of its first pixel, at 0, to the right edge of its last; VOC
numbers these pixels, from 1. So x = xmin - 1 and width = xmax - xmin + 1, and areas and overlaps
by COCO's rule are those of VOC's. `difficult` objects are `iscrowd`, the only kind that COCO's
evaluation leaves out.
"""

import collections
import functools
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation, ListedImage
from yolov1_jax.data.dataset import Annotations, Report, shortened
from yolov1_jax.data.own_folder import (
    IMAGES,
    Found,
    Lookup,
    Split,
    class_name,
    has_extension,
    image_id,
    split_of,
    split_of_name,
)


class CocoFile(NamedTuple):
    """The content of an annotations JSON, in its order."""

    images: list[dict[str, Any]]  # with "id"
    classes: dict[Any, str]  # by the ids of the categories
    parents: set[str]  # "supercategory" of any other category
    objects: list[AnnotatedObject]  # the class is "" if there is no such category
    image_index: list[int | None]  # of each object, the place in `images`; None: not there
    areas: list[float]  # of each object


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is none. The message says that `what` was expected.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("no regular file")  # a device or a pipe may have no end
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"expected {what} in {path}, found: {shortened(str(error))}") from None


def finite_numbers(values: Sequence[Any], count: int) -> list[float]:
    """`count` finite floats; ValueError or TypeError if `values` are anything else."""
    numbers = [float(value) for value in values]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected {count} finite numbers, got {shortened(str(values))}")
    return numbers


def read_coco(path: str | os.PathLike[str]) -> CocoFile:
    """Reads an annotations JSON; classes and images stay in their order.

    Raises:
      UserError: it is none, or an id stands for two images or two categories.
    """
    content = read_json(path, "a COCO annotations JSON")
    required = {"images": ("id",), "categories": ("id", "name"), "annotations": ()}
    images, categories, rows = (
        _records(content, key, fields, path) for key, fields in required.items()
    )
    places = {image["id"]: index for index, image in enumerate(images)}
    classes = {one["id"]: class_name(one["name"]) for one in categories}
    pairs = ((one.get("supercategory"), one["name"]) for one in categories)
    parents = {str(parent) for parent, name in pairs if parent != name}
    objects, areas, image_index = [], [], []
    for number, row in enumerate(rows, start=1):
        box, area = _box_and_area(row)
        name = classes.get(_id(row, "category_id"), "")
        is_crowd = row.get("iscrowd") not in (None, 0)
        objects.append(AnnotatedObject(number, name, box, is_crowd))
        areas.append(area)
        image_index.append(places.get(_id(row, "image_id")))
    if len(places) < len(images) or len(classes) < len(categories):
        raise UserError(f"expected an id of its own for each image and category in {path}")
    return CocoFile(images, classes, parents, objects, image_index, areas)


def _records(
    content: Any, key: str, fields: Sequence[str], path: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    """The records under a key, each with a text or a number in these fields."""
    records: Any = content.get(key) if isinstance(content, dict) else None
    found = "" if isinstance(records, list) else f"no list of {key}"
    for number, record in enumerate(() if found else records, start=1):
        if not isinstance(record, dict) or any(_id(record, field) is None for field in fields):
            found = f"number {number} of {key}: {shortened(str(record))}"
            break
    if found:
        raise UserError(
            f"expected images with id, categories with id and name, and annotations in {path}, as "
            f"COCO has them, found {found}; correct the program that wrote it"
        )
    return records


def _id(record: dict[str, Any], field: str) -> str | int | float | None:
    value = record.get(field)
    return value if isinstance(value, str | int | float) else None


def _box_and_area(row: dict[str, Any]) -> tuple[tuple[float, ...], float]:
    """The box in VOC's pixel numbers; NaN where it is missing or no numbers."""
    try:
        x, y, width, height = finite_numbers(row["bbox"], 4)
        return (x + 1, y + 1, x + width, y + height), float(row.get("area", width * height))
    except (KeyError, TypeError, ValueError, OverflowError):
        return (math.nan,) * 4, math.nan


def read_coco_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Reads an annotations JSON as ground truth, without images.

    Classes come in the order of "categories", images in that of "images"; the id of an image is its
    file_name, or its number if it has none. Its size is 0 where the file does not say.

    Raises:
      UserError: it is no such file, or one of its objects is of no image or class, or has no box.
    """
    file = read_coco(path)
    names = tuple(file.classes.values())
    labels = {name: label for label, name in enumerate(names)}
    if len(labels) < len(names):
        raise UserError(
            f"expected each category once in {path}, found {shortened(', '.join(names))}"
        )
    rows = zip(file.image_index, file.objects, file.areas, strict=True)
    objects: list[tuple[int, AnnotatedObject, float]] = []
    for image, item, area in rows:
        if image is None or not item.class_name or not math.isfinite(sum(item.box_xyxy)):
            raise UserError(
                f"expected image_id, category_id and bbox as COCO has them in {path}, annotation "
                f"{item.number}, found an unknown id or no four numbers; correct the program that "
                "wrote it"
            )
        objects.append((image, item, area))
    objects.sort(key=lambda one: one[0])  # the order in the file stays within an image
    return Annotations(
        class_names=names,
        image_ids=tuple(map(_file_name, file.images)),
        sizes=np.array([_size(image) for image in file.images], np.int32).reshape(-1, 2),
        starts=np.searchsorted([one[0] for one in objects], np.arange(len(file.images) + 1)),
        boxes_xyxy=np.array([item.box_xyxy for _, item, _ in objects], np.float64).reshape(-1, 4),
        labels=np.array([labels[item.class_name] for _, item, _ in objects], np.int32),
        difficult=np.array([item.difficult for _, item, _ in objects], bool),
        image_numbers=tuple(image["id"] for image in file.images),
        category_ids=tuple(file.classes),
        areas=np.array([area for *_, area in objects], np.float64),
    )


def _size(image: dict[str, Any]) -> tuple[int, int]:
    """Height and width; 0 where the file does not say, or says what no image has."""
    sides = [image.get(key) for key in ("height", "width")]
    height, width = (
        int(one) if isinstance(one, int | float) and 1 <= one < 2**31 else 0 for one in sides
    )
    return height, width


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if there is no annotations JSON among them."""
    paths = [file for file in files if has_extension(file, (".json",)) and _is_coco(root, file)]
    if not paths:
        return None
    for file in filter(is_named_as_coco, files):  # one that is cut short would lose its split
        if file not in paths:
            read_json(os.path.join(root, file), "a COCO annotations JSON")
    # Beside them COCO has the same images with keypoints and with "stuff".
    instances = [one for one in paths if one.rsplit("/", 1)[-1].startswith("instances")]
    parts: dict[str, list[str]] = {}
    for path in instances or paths:
        words = re.split(r"[^a-z0-9]+", os.path.splitext(path.rsplit("/", 1)[-1])[0].lower())
        named = next(filter(None, map(split_of_name, words)), "")
        parts.setdefault(named or split_of(path), []).append(path)
    lookup = Lookup(file for file in files if has_extension(file, IMAGES))
    report = Report()

    @functools.cache  # two splits may be parts of one
    def read_split(split: str) -> Split:
        images, category_ids = list[ListedImage](), dict[str, int]()
        for path in parts[split]:
            file = read_coco(os.path.join(root, path))
            images += _images(file, root, path, split, lookup, report)
            used = {item.class_name for item in file.objects}
            for number, name in file.classes.items():
                # Roboflow's first category has no objects: it is the parent of all others.
                if name in used or name not in file.parents:
                    category_ids.setdefault(name, number)
        are_numbers = all(isinstance(one, int) for one in category_ids.values())
        return Split(images, tuple(category_ids), category_ids if are_numbers else None)

    why = shortened(", ".join(path for part in parts.values() for path in part))
    splits = {split: functools.partial(read_split, split) for split in parts}
    return Found("COCO JSON", why, splits, report, instances or paths)


def is_named_as_coco(file: str) -> bool:
    """Whether a file has one of the names that COCO and annotation tools give to annotations."""
    return bool(re.search(r"(coco|instances|annotations)[^/]*\.json$", file.lower()))


def _is_coco(root: str, file: str) -> bool:
    content = pathlib.Path(root, file).read_bytes()
    return all(f'"{key}"'.encode() in content for key in ("images", "categories", "annotations"))


def _images(
    file: CocoFile, root: str, path: str, split: str, lookup: Lookup, report: Report
) -> Iterator[ListedImage]:
    """The images of a JSON, which is at `path` and has this split."""
    objects: dict[int, list[AnnotatedObject]] = collections.defaultdict(list)
    for place, item in zip(file.image_index, file.objects, strict=True):
        if place is None:
            report.skipped_objects["no image of that id"].append(f"{path} annotation {item.number}")
        else:
            objects[place].append(item)
    for index, image in enumerate(file.images):
        written = _file_name(image).replace("\\", "/").lstrip("/")
        found = lookup.find(written, folder=os.path.dirname(path), split=split)
        height, width = (side or math.nan for side in _size(image))
        yield ListedImage(
            image_id(found or shortened(written)),
            os.path.join(root, found or f"{path}/image"),  # there is no such file
            functools.partial(_annotation, Annotation((height, width), objects[index])),
            number=image["id"] if isinstance(image["id"], int) else None,
        )


def _file_name(image: dict[str, Any]) -> str:
    return str(image.get("file_name", image["id"])).encode(errors="replace").decode()


def _annotation(annotation: Annotation, size: tuple[int, int] | None) -> Annotation:
    return annotation
