"""Ground truth in COCO's annotations JSON, and the names and numbers that images go by.

    {"images": [{"id": 139, "file_name": "000139.jpg", "width": 640, "height": 426}, ...],
     "categories": [{"id": 1, "name": "person"}, ...],
     "annotations": [{"id": 1, "image_id": 139, "category_id": 1, "bbox": [x, y, width, height],
                      "area": 12.3, "iscrowd": 0}, ...]}

COCO measures a box from the left edge of its first pixel, at 0, to the right edge of its last; VOC
numbers these pixels, from 1. So x = xmin - 1 and width = xmax - xmin + 1, and areas and overlaps
by COCO's rule are those of VOC's. `difficult` objects are `iscrowd`, the only kind that COCO's
evaluation leaves out.

An image goes by its id ("VOC2007/000005"), by its name, the last part of the id ("000005", in the
devkit's files), or by a whole number (in COCO's files).
"""

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations
from yolov1_jax.data.images import EXTENSIONS

_LARGEST_NUMBER = 2**53  # larger ones lose digits in JSON readers that know doubles only


def to_coco_boxes(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Boxes in VOC's pixels -> COCO's x, y, width, height. [N, 4] -> float64 [N, 4]."""
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2] - 1, boxes[:, 2:] - boxes[:, :2] + 1], axis=-1)


def read_json(path: pathlib.Path, what: str) -> Any:
    """Reads a JSON file. Raises UserError, which says that `what` was expected, if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"expected {what} in {path}, found: {error}") from None


def read_coco_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Reads an annotations JSON.

    Classes come in the order of "categories", images in that of "images"; the id of an image is its
    file_name, or its number if it has none. Its size is 0 where the file does not say.

    Raises:
      UserError: it is no such file.
    """
    path = pathlib.Path(path)
    content, where = read_json(path, "a COCO annotations JSON"), str(path)
    objects = []
    try:
        images, categories, rows = (content[key] for key in ("images", "categories", "annotations"))
        place = {image["id"]: index for index, image in enumerate(images)}
        label = {category["id"]: index for index, category in enumerate(categories)}
        class_names = tuple(str(category["name"]) for category in categories)
        for number, row in enumerate(rows, start=1):
            where = f"{path}, annotation {number}"
            x, y, width, height = finite_numbers(row["bbox"], 4)
            area, crowd = float(row.get("area", width * height)), bool(row.get("iscrowd", 0))
            box = x + 1, y + 1, x + width, y + height
            objects.append((place[row["image_id"]], label[row["category_id"]], crowd, area, box))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"expected images, categories and annotations as COCO has them in {where}, found "
            f"{type(error).__name__}: {error}; correct the program that wrote it"
        ) from None
    if len(set(class_names)) < len(class_names):
        raise UserError(f"expected each category once in {path}, found {', '.join(class_names)}")
    objects.sort(key=lambda one: one[0])  # by image; the order in the file stays within one
    image_index, labels, crowds, areas, boxes = zip(*objects, strict=True) if objects else [()] * 5
    sizes = [(image.get("height") or 0, image.get("width") or 0) for image in images]
    return Annotations(
        class_names=class_names,
        image_ids=tuple(str(image.get("file_name", image["id"])) for image in images),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        starts=np.searchsorted(image_index, np.arange(len(images) + 1)),
        boxes_xyxy=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int32),
        difficult=np.array(crowds, bool),
        image_numbers=tuple(place),
        category_ids=tuple(label),
        areas=np.array(areas, np.float64),
    )


def coco_annotations(annotations: Annotations) -> dict[str, Any]:
    """The content of an annotations JSON. `file_name` is the id of the image."""
    boxes = to_coco_boxes(annotations.boxes_xyxy)
    areas = boxes[:, 2] * boxes[:, 3] if annotations.areas is None else annotations.areas
    image_numbers, categories = number_images(annotations), category_ids(annotations)
    images = zip(image_numbers, annotations.image_ids, annotations.sizes.tolist(), strict=True)
    classes = zip(categories, annotations.class_names, strict=True)
    return {
        "images": [
            {"id": number, "file_name": image_id, "width": width, "height": height}
            for number, image_id, (height, width) in images
        ],
        "categories": [{"id": number, "name": name} for number, name in classes],
        "annotations": [
            {
                "id": index + 1,  # pycocotools takes 0 for "no object"
                "image_id": image_numbers[image],
                "category_id": categories[annotations.labels[index]],
                "bbox": boxes[index].tolist(),
                "area": float(areas[index]),
                "iscrowd": int(annotations.difficult[index]),
            }
            for index, image in enumerate(annotations.image_index)
        ],
    }


def finite_numbers(values: Sequence[Any], count: int) -> list[float]:
    """`count` finite floats; ValueError or TypeError if `values` are anything else."""
    numbers = [float(value) for value in values]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected {count} finite numbers, got {values}")
    return numbers


def category_ids(annotations: Annotations) -> tuple[int, ...]:
    """The numbers of the classes in COCO's files: their own, or 1, 2, 3 ..."""
    return annotations.category_ids or tuple(range(1, len(annotations.class_names) + 1))


def number_images(annotations: Annotations) -> tuple[int, ...]:
    """The numbers of the images in COCO's files: their own, or those in their names, or 1, 2, 3 ...

    A name has all its digits as its number, as converters of PASCAL VOC to COCO take them: "000005"
    is 5, "2008_000008" is 2008000008. Names whose numbers do not tell the images apart have none.
    """
    if annotations.image_numbers:
        return annotations.image_numbers
    digits = [re.sub("[^0-9]", "", image_name(image_id)) for image_id in annotations.image_ids]
    numbers = tuple(int(one) for one in digits if one)
    if len(set(numbers)) == len(annotations) and max(numbers, default=0) <= _LARGEST_NUMBER:
        return numbers
    return tuple(range(1, len(annotations) + 1))


def image_name(image_id: str) -> str:
    """The last part of a path or id, without the extension of an image file."""
    name = image_id.rsplit("/", 1)[-1]
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS else name


def short_names(image_ids: Sequence[str]) -> list[str]:
    """The name of each image, or its id where another image has the same name."""
    names = [image_name(image_id) for image_id in image_ids]
    count = collections.Counter(names)
    pairs = zip(names, image_ids, strict=True)
    return [name if count[name] == 1 else image_id for name, image_id in pairs]


def image_places(annotations: Annotations) -> dict[str | int, int]:
    """The place of each image by its id, by its number and, if no other image has it, its name."""
    ids = annotations.image_ids
    keys: list[str | int] = [*short_names(ids), *number_images(annotations), *ids]
    return dict(zip(keys, [*range(len(ids))] * 3, strict=True))
