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
    objects: list[list[AnnotatedObject]]  # of each image; no class if there is no such category
    strays: list[AnnotatedObject]  # of no image


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Reads a JSON file, or raises a UserError which says that `what` was expected."""
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
    try:
        images, categories = content["images"], content["categories"]
        places = {image["id"]: place for place, image in enumerate(images)}
        classes = {one["id"]: class_name(one["name"]) for one in categories}
        pairs = ((one.get("supercategory"), one["name"]) for one in categories)
        parents = {str(parent) for parent, name in pairs if parent != name}
        objects: list[list[AnnotatedObject]] = [[] for _ in images]
        strays: list[AnnotatedObject] = []
        for number, row in enumerate(content["annotations"], start=1):
            box, area = _box_and_area(row)
            name = classes.get(row.get("category_id"), "")
            item = AnnotatedObject(number, name, box, row.get("iscrowd") not in (None, 0), area)
            place = places.get(row.get("image_id"))
            (strays if place is None else objects[place]).append(item)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"expected images with id, categories with id and name, and annotations in {path}, as "
            f"COCO has them, found {type(error).__name__} {shortened(str(error))}; correct the "
            "program that wrote it"
        ) from None
    if len(places) < len(images) or len(classes) < len(categories):
        raise UserError(f"expected an id of its own for each image and category in {path}")
    return CocoFile(images, classes, parents, objects, strays)


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
    objects = [item for one in file.objects for item in one]
    wrong = [one for one in objects if not (one.class_name and math.isfinite(sum(one.box_xyxy)))]
    if wrong := [*file.strays, *wrong]:
        raise UserError(
            f"expected image_id, category_id and bbox as COCO has them in {path}, annotation "
            f"{wrong[0].number}, found an unknown id or no four numbers; correct the program that "
            "wrote it"
        )
    return Annotations(
        class_names=names,
        image_ids=tuple(map(_file_name, file.images)),
        sizes=np.array([_size(image) for image in file.images], np.int32).reshape(-1, 2),
        starts=np.cumsum([0, *map(len, file.objects)], dtype=np.int64),
        boxes_xyxy=np.array([item.box_xyxy for item in objects], np.float64).reshape(-1, 4),
        labels=np.array([labels[item.class_name] for item in objects], np.int32),
        difficult=np.array([item.difficult for item in objects], bool),
        image_numbers=tuple(image["id"] for image in file.images),
        category_ids=tuple(file.classes),
        areas=np.array([item.area for item in objects], np.float64),
    )


def _size(image: dict[str, Any]) -> tuple[int, int]:
    """Height and width; 0 where the file does not say, or says what no image has."""
    sides = (image.get(key) for key in ("height", "width"))
    numbers = (one if isinstance(one, int | float) else 0 for one in sides)
    height, width = (int(one) if 1 <= one < 2**31 else 0 for one in numbers)
    return height, width


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if there is no annotations JSON among them."""
    paths = [file for file in files if has_extension(file, (".json",)) and _is_coco(root, file)]
    if not paths:
        return None
    # Beside them COCO has the same images with keypoints and with "stuff".
    paths = [one for one in paths if one.rsplit("/", 1)[-1].startswith("instances")] or paths
    parts: dict[str, list[str]] = {}
    for path in paths:
        words = re.split(r"[^a-z0-9]+", os.path.splitext(path.rsplit("/", 1)[-1])[0].lower())
        named = next(filter(None, map(split_of_name, words)), "")
        parts.setdefault(named or split_of(path), []).append(path)
    lookup = Lookup(filter(has_extension, files))
    report = Report()

    @functools.cache  # two splits may be parts of one
    def read_split(split: str) -> Split:
        images, category_ids = list[ListedImage](), dict[str, int]()
        for path in parts[split]:
            file = read_coco(os.path.join(root, path))
            images += _images(file, path, split, lookup, report)
            used = {item.class_name for one in file.objects for item in one}
            for number, name in file.classes.items():
                # Roboflow's first category has no objects: it is the parent of all others.
                if name in used or name not in file.parents:
                    category_ids.setdefault(name, number)
        are_numbers = all(isinstance(one, int) for one in category_ids.values())
        return Split(images, tuple(category_ids), category_ids if are_numbers else None)

    why = shortened(", ".join(path for part in parts.values() for path in part))
    splits = {split: functools.partial(read_split, split) for split in parts}
    return Found("COCO JSON", why, splits, paths, report=report)


def _is_coco(root: str, file: str) -> bool:
    content = pathlib.Path(root, file).read_bytes()  # one that is cut short is COCO's, and refused
    return b'"images"' in content and b'"file_name"' in content


def _images(
    file: CocoFile, path: str, split: str, lookup: Lookup, report: Report
) -> Iterator[ListedImage]:
    """The images of a JSON, which is at `path` and has this split."""
    for item in file.strays:
        report.skipped_objects["no image of that id"].append(f"{path} annotation {item.number}")
    for image, objects in zip(file.images, file.objects, strict=True):
        written = _file_name(image).replace("\\", "/").lstrip("/")
        found = lookup.find(written, folder=os.path.dirname(path), split=split)
        height, width = (side or math.nan for side in _size(image))
        annotation = Annotation((height, width), objects)
        yield ListedImage(
            image_id(found or shortened(written)),
            found,
            functools.partial(_annotation, annotation),
            number=image["id"] if isinstance(image["id"], int) else None,
        )


def _annotation(annotation: Annotation, _: object) -> Annotation:
    return annotation


def _file_name(image: dict[str, Any]) -> str:
    return str(image.get("file_name", image["id"])).encode(errors="replace").decode()
