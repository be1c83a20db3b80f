"""COCO's files: results JSON (detections), and annotations JSON (what there is to find).

    [{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}, ...]

    {"images": [{"id": 139, "file_name": "000139.jpg", "width": 640, "height": 426}, ...],
     "categories": [{"id": 1, "name": "person"}, ...],
     "annotations": [{"id": 1, "image_id": 139, "category_id": 1, "bbox": [...], "area": 12.3,
                      "iscrowd": 0}, ...]}

COCO measures a box from the left edge of its first pixel, at 0, to the right edge of its last; VOC
numbers these pixels, from 1. So x = xmin - 1 and width = xmax - xmin + 1, and areas and overlaps
by COCO's rule are those of VOC's. `difficult` objects are `iscrowd`, the only kind that COCO's
evaluation leaves out.

In a bare list of results, `image_id` and `category_id` are numbers of the annotations JSON that is
scored against; without one, images go by the digits of their names (see `number_images`) and
classes by 1, 2, 3 in their order. Both may be names instead. Results may also bring their own
"images" and "categories", as the annotations JSON does, with the list of detections under
"annotations" or "detections": then their numbers mean what these say.
"""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov1_jax.evaluation.ground_truth import AnnotatedImages, numbers_in_names
from yolov1_jax.evaluation.results import Results, ResultsCollector, ResultsFileError
from yolov1_jax.yolo.detections import Detections, GroundTruth


def to_coco_boxes(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Boxes of pixels -> x, y, width, height. [N, 4] -> float64 [N, 4]."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2] - 1, boxes[:, 2:] - boxes[:, :2] + 1], axis=-1)


def from_coco_boxes(boxes_xywh: np.ndarray) -> np.ndarray:
    """The inverse of `to_coco_boxes`."""
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]], axis=-1)


def coco_results(detections: Sequence[Detections], images: AnnotatedImages) -> list[dict[str, Any]]:
    """The content of a results JSON, in the order of the images and of their detections."""
    return [
        {"image_id": number, "category_id": images.category_ids[label], "bbox": box, "score": score}
        for number, found in zip(images.image_numbers, detections, strict=True)
        for box, score, label in zip(
            to_coco_boxes(found.boxes_xyxy).tolist(),
            np.asarray(found.scores, np.float64).tolist(),
            found.labels,
            strict=True,
        )
    ]


def coco_annotations(images: AnnotatedImages) -> dict[str, Any]:
    """The content of an annotations JSON. `file_name` is the id of the image."""
    annotations: list[dict[str, Any]] = []
    for index, truth in enumerate(images.ground_truth):
        boxes = to_coco_boxes(truth.boxes_xyxy)
        areas = boxes[:, 2] * boxes[:, 3] if images.areas is None else images.areas[index]
        for box, area, label, difficult in zip(
            boxes.tolist(), areas.tolist(), truth.labels, truth.difficult, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would count as "no object" when matching
                    "image_id": images.image_numbers[index],
                    "category_id": images.category_ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(difficult),
                }
            )
    return {
        "images": [
            {"id": number, "file_name": image_id, "width": int(width), "height": int(height)}
            for number, image_id, (height, width) in zip(
                images.image_numbers, images.image_ids, images.sizes, strict=True
            )
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(images.category_ids, images.class_names, strict=True)
        ],
        "annotations": annotations,
    }


def read_coco_results(path: pathlib.Path, images: AnnotatedImages, **policies: str) -> Results:
    """Reads a results JSON.

    Args:
      policies: see `ResultsCollector`.

    Raises:
      ResultsFileError: it is no such file, or something in it cannot be scored.
    """
    collector = ResultsCollector(images, **policies)
    content = _read_json(path)
    image_names: dict[Any, Any] = {}
    class_names: dict[Any, str] = dict(zip(images.category_ids, images.class_names, strict=True))
    rows = content
    if isinstance(content, dict):
        rows = content.get("annotations", content.get("detections"))
        if "images" in content:
            image_names = _table(content, "images", "file_name", path)
        if "categories" in content:
            class_names = _table(content, "categories", "name", path)
    if not isinstance(rows, list):
        raise ResultsFileError(
            f"expected a list of detections in {path}, found none: give a COCO results JSON"
        )
    by_position = False
    for number, row in enumerate(rows, start=1):
        where = f"{path}, detection {number}"
        try:
            image, category = _id(row["image_id"]), _id(row["category_id"])
            x, y, width, height = _box(row["bbox"])
            score = _number(row["score"])
            if image_names:
                image = image_names.get(image, f"image_id {image}")
            class_name = class_names.get(category, category)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ResultsFileError(
                f"{where}: expected image_id, category_id, bbox [x, y, width, height] and score, "
                f"found {json.dumps(row)[:120]}; correct the program that wrote it"
            ) from None
        if not isinstance(class_name, str):
            class_name = f"category_id {class_name}"
        by_position |= not isinstance(image, str)
        collector.add(image, class_name, score, (x + 1, y + 1, x + width, y + height), where)
    if by_position and images.areas is None and numbers_in_names(images.image_ids) is None:
        collector.note(
            "the images have no numbers in their names: image_id 1, 2, 3 was taken as their order"
        )
    return collector.results()


def read_coco_annotations(path: pathlib.Path) -> AnnotatedImages:
    """Reads an annotations JSON as what there is to find.

    Classes come in the order of "categories", images in that of "images"; an image is called by its
    file_name, or by its number if it has none.

    Raises:
      ResultsFileError: it is no such file.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not {"images", "categories", "annotations"} <= set(content):
        raise ResultsFileError(
            f"expected images, categories and annotations in {path}, found "
            f"{sorted(content) if isinstance(content, dict) else type(content).__name__}: give a "
            "COCO annotations JSON"
        )
    for key in ("images", "categories", "annotations"):
        if not isinstance(content[key], list) or (not content[key] and key != "annotations"):
            raise ResultsFileError(
                f"expected a list of {key} in {path}, found an empty one or none"
            )
    image_ids = _table(content, "images", "file_name", path)
    classes = _table(content, "categories", "name", path)
    positions = {number: position for position, number in enumerate(image_ids)}
    labels = {number: label for label, number in enumerate(classes)}
    objects: list[list[tuple[list[float], int, bool, float]]] = [[] for _ in image_ids]
    empty = []  # the numbers of the annotations
    for number, row in enumerate(content["annotations"], start=1):
        try:
            position, label = positions[_id(row["image_id"])], labels[_id(row["category_id"])]
            box = _box(row["bbox"])
            area = _number(row.get("area", box[2] * box[3]))
            crowd = row.get("iscrowd", 0)
            if crowd not in (0, 1) or not all(map(math.isfinite, [*box, area])):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            raise ResultsFileError(
                f"{path}, annotation {number}: expected the image_id and the category_id of an "
                "image and a category of the file, bbox [x, y, width, height], and iscrowd 0 or 1 "
                f"if it has one, found {json.dumps(row)[:120]}"
            ) from None
        objects[position].append((box, label, bool(crowd), area))
        if min(box[2:]) <= 0:
            empty.append(number)
    notes = []
    if empty:  # COCO's own evaluation counts them, too
        notes.append(
            f"{len(empty):,} objects have no width or no height, so that nothing can find them: "
            f"annotation {empty[0]}" + ", ..." * (len(empty) > 1)
        )
    return AnnotatedImages(
        image_ids=tuple(image_ids.values()),
        sizes=_sizes(content["images"], path),
        class_names=tuple(classes.values()),
        ground_truth=[
            GroundTruth(
                from_coco_boxes(np.array([one[0] for one in of_image])),
                np.array([one[1] for one in of_image], np.int64),
                np.array([one[2] for one in of_image], bool),
            )
            for of_image in objects
        ],
        image_numbers=tuple(image_ids),
        category_ids=tuple(classes),
        areas=[np.array([one[3] for one in of_image], np.float64) for of_image in objects],
        notes=tuple(notes),
    )


def _id(value: Any) -> Any:
    """A whole number or a text; true and false, which Python takes for 1 and 0, are neither."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return float(value)


def _box(value: Any) -> list[float]:
    """x, y, width, height."""
    if not isinstance(value, list) or len(value) != 4:
        raise TypeError(value)
    return list(map(_number, value))


def _sizes(images: list[dict[str, Any]], path: pathlib.Path) -> np.ndarray:
    """int [N, 2], height and width in pixels; 0 where the file does not say."""
    sides = ("height", "width")
    for image in images:
        for side in sides:
            value = image.get(side, 1)
            if type(value) is not int or not 1 <= value < 2**31:  # bool is an int, too
                raise ResultsFileError(
                    f"expected a whole number of pixels for the {side} of image {image['id']!r} in "
                    f"{path}, found {json.dumps(value)[:40]}; correct it, or leave it out"
                )
    return np.array([[image.get(side, 0) for side in sides] for image in images], np.int64)


def _table(content: dict[str, Any], key: str, name: str, path: pathlib.Path) -> dict[Any, str]:
    """{"id": name} of the images or categories; one without a name is called by its id.

    Raises:
      ResultsFileError: an id or a name is there twice, or is none.
    """
    try:
        table = {_id(row["id"]): str(row.get(name, row["id"])) for row in content[key]}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ResultsFileError(
            f"expected an id and a {name} for each of {key!r} in {path}: correct the file"
        ) from None
    if len(table) < len(content[key]):
        raise ResultsFileError(f"expected every id of {key!r} once in {path}, found one twice")
    if len(set(table.values())) < len(table):
        raise ResultsFileError(f"expected every {name} of {key!r} once in {path}, found one twice")
    return table


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsFileError(f"expected JSON in {path}, found: {error}") from None
