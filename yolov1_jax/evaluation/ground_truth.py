"""The images that detections are scored on, with their annotations and the names they go by.

An image goes by its id ("VOC2007/000005"), by its name, the last part of the id ("000005", in the
devkit's files), or by a whole number (in COCO's files). A name that two images share is no name.
"""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov1_jax.yolo.detections import GroundTruth

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_LARGEST_NUMBER = 2**53  # of which every JSON reader keeps all digits


@dataclasses.dataclass(frozen=True)
class AnnotatedImages:
    """N images of an evaluation set, C classes.

    Boxes are in the numbers of a VOC annotation, pixels of the original image: the first pixel is
    1, and the last one belongs to the box.
    """

    image_ids: tuple[str, ...]
    sizes: np.ndarray  # int [N, 2], height and width in pixels
    class_names: tuple[str, ...]
    ground_truth: list[GroundTruth]
    # In COCO's files: `image_id` of each image and `category_id` of each class.
    image_numbers: tuple[int, ...]
    category_ids: tuple[int, ...]
    # float [objects] of each image, square pixels, where they are not those of the boxes: COCO's
    # are areas of masks.
    areas: list[np.ndarray] | None = None
    notes: tuple[str, ...] = ()  # one line each: what was left out, corrected, or is odd

    def fingerprint(self) -> str:
        """SHA-256 of what there is to find: equal for equal sets, whatever the order.

        Of image ids, and of classes by name, difficult flags and boxes to 1/100 pixel; and of areas
        that are not the boxes' own.
        """
        images = []
        for index, (image_id, truth) in enumerate(
            zip(self.image_ids, self.ground_truth, strict=True)
        ):
            areas = [""] * len(truth.labels) if self.areas is None else self._own_areas(index)
            objects = sorted(
                f"{self.class_names[label]}\t{int(difficult)}\t"
                + "\t".join(f"{value + 0.0:.2f}" for value in box)
                + area
                for box, label, difficult, area in zip(*truth, areas, strict=True)
            )
            images.append("\n".join([image_id, *objects]))
        return hashlib.sha256("\n\n".join(sorted(images)).encode()).hexdigest()

    def _own_areas(self, index: int) -> list[str]:
        """Of an image's objects: "" for the area of the box, else a column more.

        What rounding a box to 1/100 pixel makes of its area is no difference.
        """
        assert self.areas is not None
        boxes = self.ground_truth[index].boxes_xyxy
        sides = boxes[:, 2:] - boxes[:, :2] + 1  # [objects, 2]
        is_box = np.abs(self.areas[index] - sides.prod(axis=1)) <= 0.01 * np.abs(sides).sum(axis=1)
        return [
            "" if same else f"\t{area:.2f}"
            for area, same in zip(self.areas[index], is_box, strict=True)
        ]


def number_images(image_ids: Sequence[str]) -> tuple[int, ...]:
    """The whole numbers that COCO's files call images by.

    They are those of the names, or else 1, 2, 3 and so on.
    """
    return numbers_in_names(image_ids) or tuple(range(1, len(image_ids) + 1))


def numbers_in_names(image_ids: Sequence[str]) -> tuple[int, ...] | None:
    """All digits of each name, as converters of PASCAL VOC to COCO take them.

    "000005" is 5, "2008_000008" is 2008000008. None if they do not tell the images apart.
    """
    digits = ["".join(re.findall("[0-9]", image_name(image_id))) for image_id in image_ids]
    if not all(digits):
        return None
    numbers = tuple(map(int, digits))
    distinct = len(set(numbers)) == len(numbers)
    return numbers if distinct and max(numbers, default=0) <= _LARGEST_NUMBER else None


def image_name(image_id: str) -> str:
    """The last part of a path or id, without the extension of an image file."""
    name = image_id.rsplit("/", 1)[-1]
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in _EXTENSIONS else name


def short_names(image_ids: Sequence[str]) -> list[str]:
    """The name of each image, or its id where another image has the same name."""
    names = [image_name(image_id) for image_id in image_ids]
    count = collections.Counter(names)
    return [
        name if count[name] == 1 else image_id
        for name, image_id in zip(names, image_ids, strict=True)
    ]


class ImageFinder:
    """Finds images by any of their names."""

    def __init__(self, images: AnnotatedImages) -> None:
        self._image_ids = images.image_ids
        self._by_id: dict[Any, int] = dict(_positions(images.image_ids))
        self._by_number = dict(_positions(images.image_numbers))
        self._by_name: dict[str, list[int]] = collections.defaultdict(list)
        for position, image_id in enumerate(images.image_ids):
            self._by_name[image_name(image_id)].append(position)

    def find(self, name: str | int) -> int | None:
        """The position of an image, None if there is no such image.

        Raises:
          LookupError: several images go by that name.
        """
        if not isinstance(name, str):
            return self._by_number.get(name)
        if name in self._by_id:
            return self._by_id[name]
        positions = self._by_name.get(image_name(name), [])
        if len(positions) > 1:
            same = " and ".join(self._image_ids[position] for position in positions[:2])
            raise LookupError(f"image {name!r} may be {same}: write the whole id")
        return positions[0] if positions else None


def _positions(names: Sequence[Any]) -> list[tuple[Any, int]]:
    return [(name, position) for position, name in enumerate(names)]
