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
from collections.abc import Sequence
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


class CocoObject(NamedTuple):
    """A row of "annotations", usable or not."""

    number: int  # 1 for the first of the file
    image: int | None  # place in `CocoFile.images`; None: there is no such image
    label: int | None  # place in `CocoFile.class_names`; None: there is no such category
    box_xyxy: tuple[float, ...]  # 4 pixels as VOC numbers them; NaN where missing or no number
    is_crowd: bool
    area: float


class CocoFile(NamedTuple):
    """The content of an annotations JSON."""

    images: list[dict[str, Any]]  # with "id"
    image_numbers: tuple[int, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    parents: frozenset[str]  # "supercategory" of any other category
    objects: list[CocoObject]  # in the order of the file


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Reads a JSON file; half of a surrogate pair in a text, which no encoding has, becomes "?".

    Raises:
      UserError: it is none. The message says that `what` was expected.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        content = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            text = json.dumps(content, ensure_ascii=False)
            content = json.loads(text.encode(errors="replace"))
        return content
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
        images, categories, rows = (content[key] for key in ("images", "categories", "annotations"))
        places = {image["id"]: index for index, image in enumerate(images)}
        labels = {category["id"]: index for index, category in enumerate(categories)}
        names = tuple(class_name(category["name"]) for category in categories)
        pairs = ((one.get("supercategory"), one["name"]) for one in categories)
        parents = frozenset(str(parent) for parent, name in pairs if parent != name)
        objects = [_object(number, row, places, labels) for number, row in enumerate(rows, 1)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"expected images, categories and annotations as COCO has them in {path}, found "
            f"{type(error).__name__}: {shortened(str(error))}; correct the program that wrote it"
        ) from None
    for what, ids, given in (("image", places, images), ("category", labels, categories)):
        if len(ids) < len(given):
            raise UserError(f"expected an id of its own for each {what} in {path}, found one twice")
    return CocoFile(images, tuple(places), names, tuple(labels), parents, objects)


def _object(
    number: int, row: dict[str, Any], places: dict[Any, int], labels: dict[Any, int]
) -> CocoObject:
    try:
        x, y, width, height = finite_numbers(row["bbox"], 4)
        area = float(row.get("area", width * height))
        box = x + 1, y + 1, x + width, y + height
    except (KeyError, TypeError, ValueError, OverflowError):
        area, box = math.nan, (math.nan,) * 4
    is_crowd = row.get("iscrowd") not in (None, 0)
    image, label = places.get(row.get("image_id")), labels.get(row.get("category_id"))
    return CocoObject(number, image, label, box, is_crowd, area)


def read_coco_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Reads an annotations JSON as ground truth, without images.

    Classes come in the order of "categories", images in that of "images"; the id of an image is its
    file_name, or its number if it has none. Its size is 0 where the file does not say.

    Raises:
      UserError: it is no such file, or one of its objects is of no image or class, or has no box.
    """
    file = read_coco(path)
    for one in file.objects:
        if one.image is None or one.label is None or not math.isfinite(sum(one.box_xyxy)):
            raise UserError(
                f"expected image_id, category_id and bbox as COCO has them in {path}, annotation "
                f"{one.number}, found an unknown id or no four numbers; correct the program that "
                "wrote it"
            )
    if len(set(file.class_names)) < len(file.class_names):
        names = shortened(", ".join(file.class_names))
        raise UserError(f"expected each category once in {path}, found {names}")
    # By image; the order in the file stays within one.
    objects = sorted(file.objects, key=lambda one: one.image or 0)
    image_index = [one.image or 0 for one in objects]
    return Annotations(
        class_names=file.class_names,
        image_ids=tuple(str(image.get("file_name", image["id"])) for image in file.images),
        sizes=np.array([_size(image) for image in file.images], np.int32).reshape(-1, 2),
        starts=np.searchsorted(image_index, np.arange(len(file.images) + 1)),
        boxes_xyxy=np.array([one.box_xyxy for one in objects], np.float64).reshape(-1, 4),
        labels=np.array([one.label for one in objects], np.int32),
        difficult=np.array([one.is_crowd for one in objects], bool),
        image_numbers=file.image_numbers,
        category_ids=file.category_ids,
        areas=np.array([one.area for one in objects], np.float64),
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
    # Beside them COCO has the same images with keypoints and with "stuff".
    instances = [one for one in paths if one.rsplit("/", 1)[-1].startswith("instances")]
    parts: dict[str, list[str]] = {}
    for path in instances or paths:
        words = re.split(r"[^a-z0-9]+", os.path.splitext(path.rsplit("/", 1)[-1])[0].lower())
        named = next(filter(None, map(split_of_name, words)), "")
        parts.setdefault(named or split_of(path), []).append(path)
    lookup = Lookup(file for file in files if has_extension(file))
    splits = {
        split: functools.partial(_read_split, root, part, lookup) for split, part in parts.items()
    }
    why = ", ".join(path for part in parts.values() for path in part)
    return Found("COCO JSON", shortened(why), splits)


def _is_coco(root: str, file: str) -> bool:
    content = pathlib.Path(root, file).read_bytes()
    return all(f'"{key}"'.encode() in content for key in ("images", "categories", "annotations"))


def _read_split(root: str, paths: Sequence[str], lookup: Lookup, report: Report) -> Split:
    """The images of one or several JSONs, and their classes."""
    listed, category_ids = [], dict[str, int]()
    for path in paths:
        json_path = os.path.join(root, path)
        file = read_coco(json_path)
        used = collections.Counter(one.label for one in file.objects)
        # Roboflow's first category has no objects: it is the parent of all others.
        for label, (name, number) in enumerate(
            zip(file.class_names, file.category_ids, strict=True)
        ):
            if used[label] or name not in file.parents:
                category_ids.setdefault(name, number)
        objects: dict[int, list[AnnotatedObject]] = collections.defaultdict(list)
        for one in file.objects:
            if one.image is None:
                report.skip_object("no image of that id", f"{path} annotation {one.number}")
                continue
            name = "" if one.label is None else file.class_names[one.label]
            objects[one.image].append(AnnotatedObject(one.number, name, one.box_xyxy, one.is_crowd))
        for index, image in enumerate(file.images):
            written = str(image.get("file_name", image["id"])).replace("\\", "/").lstrip("/")
            found = lookup.find(written, beside=path)
            height, width = (side or math.nan for side in _size(image))
            annotation = Annotation((height, width), objects[index])
            number = file.image_numbers[index]
            listed.append(
                ListedImage(
                    image_id(found or shortened(written)),
                    os.path.join(root, found or f"{path}/{index}"),  # there is no such file
                    json_path,
                    functools.partial(_annotation, annotation),
                    number=number if isinstance(number, int) else None,
                )
            )
    are_numbers = all(isinstance(one, int) for one in category_ids.values())
    return Split(listed, tuple(category_ids), category_ids if are_numbers else None)


def _annotation(annotation: Annotation, size: tuple[int, int] | None) -> Annotation:
    return annotation
