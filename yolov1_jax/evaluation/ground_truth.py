"""Ground truth as COCO's annotations JSON, and the names and numbers that images go by.

data/coco_json.py has the format, and reads it.

An image goes by its id ("VOC2007/000005"), by its name, the last part of the id ("000005", in the
devkit's files), or by a whole number (in COCO's files).
"""

import collections
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov1_jax.data.dataset import Annotations
from yolov1_jax.data.images import EXTENSIONS

_LARGEST_NUMBER = 2**53  # larger ones lose digits in JSON readers that know doubles only


def to_coco_boxes(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Boxes in VOC's pixels -> COCO's x, y, width, height. [N, 4] -> float64 [N, 4]."""
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2] - 1, boxes[:, 2:] - boxes[:, :2] + 1], axis=-1)


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
