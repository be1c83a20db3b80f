"""Images with annotations on disk, whatever their format: what all readers of folders share.

A reader (`voc_folder`, `yolo_txt`, `coco_json`) only lists the images, each with a function that
reads its annotation. All files are read and checked once, when the source is built. What cannot be
used is left out then, so that an index stays the same image whatever happens to the files.
"""

import concurrent.futures
import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import (
    Annotations,
    GroundTruth,
    Record,
    Report,
    UnusableFile,
    shortened,
)
from yolov1_jax.data.images import ImageInfo, check_image, read_image

_SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations under which height and width change places


class AnnotatedObject(NamedTuple):
    """An object of an annotation, usable or not."""

    number: int  # 1 for the first of the file
    class_name: str  # "" where missing
    # VOC's pixel numbers: the first pixel is 1, the last one belongs to the box; NaN where missing
    box_xyxy: tuple[float, ...]
    difficult: bool


class Annotation(NamedTuple):
    """What is annotated in an image."""

    size: tuple[float, float]  # height and width of the image; NaN where the file does not say
    objects: list[AnnotatedObject]
    notes: tuple[str, ...] = ()  # corrections for the report, such as "relative coordinates"


class ListedImage(NamedTuple):
    """An image that a reader found, before any file is read."""

    image_id: str  # "VOC2012/2008_000008"
    path: str  # absolute; it need not exist
    # (height, width) of the image, None if it is not there -> its annotation, None if it has none.
    # Raises UnusableFile.
    read: Callable[[tuple[int, int] | None], Annotation | None]
    notes: tuple[str, ...] = ()  # corrections for the report
    # Whether boxes refer to the image as its EXIF orientation turns it, whatever the size in the
    # annotation; `read` is given the size of that image.
    upright: bool = False
    number: int | None = None  # in the COCO JSON that lists it
    annotation: str | None = None  # absolute path of its own annotation file


class AnnotatedImages:
    """The usable images of a list with their usable objects; a `Source`."""

    def __init__(
        self,
        images: Sequence[ListedImage],
        report: Report,
        class_names: Sequence[str] | None = None,
        *,
        category_ids: Mapping[str, int] | None = None,
        unknown_classes: str = "refuse",
        unannotated: str = "skip",
        images_required: bool = True,
        where: str,
    ) -> None:
        """Reads all annotations and checks all images.

        Args:
          images: in the order of the data set; of those with the same id, the first is used.
          report: what the reader noted while it listed the images; more is added.
          class_names: index = label; None: the sorted names of the objects.
          category_ids: the number of each class in the COCO JSON.
          unknown_classes: "refuse" objects of other classes, or "skip" them.
          unannotated: "skip" images without an annotation, or take them as "background".
          images_required: False also takes annotations without an image, to evaluate detections.
          where: the data, for messages: "own:train of /data".

        Raises:
          UserError: no usable image, or an unknown class.
        """
        used = _read_images(images, report, images_required, unannotated == "background")
        if not used:
            reasons = report.notes() if images else (*report.notes(), "no image is listed there")
            raise UserError(f"expected usable images in {where}, found none: {'; '.join(reasons)}")
        self.class_names = _class_names(class_names, used, unknown_classes)
        labels = {name: label for label, name in enumerate(self.class_names)}
        #: The length and the checksum of each image's file; None where there is no file.
        self.contents = tuple(one.info.content for one in used)
        self.paths = tuple(one.listed.path for one in used)
        self._upright = [one.upright for one in used]
        table = Annotations.build(
            self.class_names,
            [one.listed.image_id for one in used],
            [one.size for one in used],
            [_ground_truth(one, labels, report) for one in used],
            report,
        )
        numbers = [one.listed.number for one in used if one.listed.number is not None]
        if category_ids and len(set(numbers)) == len(used):
            ids = dict(category_ids)
            for name in self.class_names:  # a class of another split gets a number that is free
                ids.setdefault(name, max(ids.values()) + 1)
            table = dataclasses.replace(
                table,
                image_numbers=tuple(numbers),
                category_ids=tuple(ids[name] for name in self.class_names),
            )
        self._annotations = table

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        """The image, decoded, with its objects.

        Raises:
          UnusableFile: the file has gone, or no longer decodes, since the source was built.
        """
        image = read_image(self.paths[index], upright=self._upright[index], checked=True)
        return Record(image, self._annotations.image_ids[index], *self._annotations[index])

    def annotations(self, limit: int | None = None) -> Annotations:
        """The objects of the first `limit` images, of all for None."""
        table = self._annotations
        if limit is None:
            return table
        objects = [table[index] for index in range(len(self))[:limit]]
        ids, sizes = table.image_ids[:limit], table.sizes[:limit]
        return Annotations.build(self.class_names, ids, sizes, objects, table.report)


class _UsedImage(NamedTuple):
    listed: ListedImage
    info: ImageInfo
    size: tuple[int, int]  # height and width of the pixels that are used
    upright: bool  # whether it is turned as its EXIF orientation asks
    objects: list[AnnotatedObject]  # the usable ones


def _read_images(
    images: Sequence[ListedImage], report: Report, required: bool, background: bool
) -> list[_UsedImage]:
    """The usable ones of several images, in order."""
    listed: dict[str, ListedImage] = {}
    for image in images:
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", image.image_id):
            reason = "file name has control characters or is no UTF-8"
            report.skipped[reason].append(ascii(image.image_id))
        elif image.image_id in listed:
            report.corrected["listed more than once, used once"].append(image.image_id)
        else:
            listed[image.image_id] = image
    read = functools.partial(_read, required=required, background=background)
    used = []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # a slow disk is waited for
        for image, found in zip(listed.values(), pool.map(read, listed.values()), strict=True):
            if isinstance(found, UnusableFile):
                report.skipped[found.reason].append(image.image_id)
            else:
                used.append(_settle(image, *found, report))
    return used


def _read(
    image: ListedImage, *, required: bool, background: bool
) -> tuple[ImageInfo, Annotation] | UnusableFile:
    info = None
    try:
        if required or os.path.exists(image.path):
            info = check_image(image.path)
        annotation = image.read(info and _size(info, image.upright))
    except UnusableFile as error:
        return error
    if annotation is None:
        if info is None or not background:
            return UnusableFile("annotation is missing", image.path)
        annotation = Annotation(info.size, [], ("without annotation, taken as background",))
    if info is None:
        height, width = annotation.size
        if not (1 <= height < 2**31 and 1 <= width < 2**31):
            return UnusableFile("image is missing, and its size in the annotation", image.path)
        info = ImageInfo((int(height), int(width)))
    return info, annotation


def _size(info: ImageInfo, upright: bool) -> tuple[int, int]:
    """Height and width of an image, turned as its EXIF orientation asks or as stored."""
    return info.size[::-1] if upright and info.orientation in _SWAPS_SIDES else info.size


def _settle(
    image: ListedImage, info: ImageInfo, annotation: Annotation, report: Report
) -> _UsedImage:
    """Settles which pixels and which objects are used; `report` notes the rest."""
    upright, correction = _turn(annotation, info, image.upright)
    notes = [
        "transparency dropped" if info.has_alpha else None,
        "16-bit image, high 8 bits used" if info.is_16_bit else None,
        correction,
        *image.notes,
        *annotation.notes,
    ]
    for note in filter(None, notes):
        report.corrected[note].append(image.image_id)
    height, width = size = _size(info, upright)
    objects: dict[tuple[object, ...], AnnotatedObject] = {}
    for item in annotation.objects:
        if reason := _problem(item, height, width):
            report.skipped_objects[reason].append(_name(image, item))
            continue
        if (item.class_name, item.box_xyxy) in objects:
            reason = "repeated object (same class and box), used once"
            report.corrected[reason].append(_name(image, item))
            continue
        left, top, right, bottom = item.box_xyxy
        inside = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        if inside != item.box_xyxy:
            report.corrected["box clipped to the image"].append(_name(image, item))
        objects[item.class_name, item.box_xyxy] = item._replace(box_xyxy=inside)
    return _UsedImage(image, info, size, upright, list(objects.values()))


def _turn(annotation: Annotation, info: ImageInfo, upright: bool) -> tuple[bool, str | None]:
    """Whether the image is turned as its EXIF orientation asks, and a note for the report.

    Annotations are taken to refer to the pixels as stored. But an annotation tool that obeys EXIF
    measures a turned image: then the size in the annotation is the stored one with its sides
    swapped, and the image is turned to match. Any other difference of size leaves the boxes as
    they are.
    """
    is_turned = info.orientation != 1
    if upright or info.size != annotation.size == _size(info, True):
        return True, "EXIF rotation applied, as in the annotation" if is_turned else None
    if annotation.size != info.size:
        return False, "size missing or wrong in the annotation, image's own used"
    return False, "EXIF orientation ignored, as in the annotation" if is_turned else None


def _problem(item: AnnotatedObject, height: int, width: int) -> str | None:
    """Why an object of an image of this size cannot be used; None if it can."""
    left, top, right, bottom = item.box_xyxy
    if not item.class_name:
        return "object without a class name"
    if not all(map(math.isfinite, item.box_xyxy)):
        return "box is missing or not a number"
    if right <= left or bottom <= top:
        return "box is empty or inverted"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return "box is outside the image"
    return None


def _name(image: ListedImage, item: AnnotatedObject) -> str:
    return f"{image.image_id} object {item.number} ({shortened(item.class_name) or '?'})"


def _class_names(
    given: Sequence[str] | None, images: Sequence[_UsedImage], unknown_classes: str
) -> tuple[str, ...]:
    """The given names, or the sorted names of all objects' classes."""
    first: dict[str, str] = {}  # of each class the first image
    for image in images:
        for item in image.objects:
            first.setdefault(item.class_name, image.listed.image_id)
    names = tuple(sorted(first) if given is None else given)
    if not names or len(set(names)) < len(names):
        found = shortened(", ".join(names)) or "none, and no object to collect them from"
        raise UserError(f"expected each class once in model.class_names, found {found}")
    unknown = sorted(first.keys() - set(names))
    if unknown and unknown_classes == "refuse":
        raise UserError(
            f"{first[unknown[0]]}: expected the classes {shortened(', '.join(names))}, found"
            f" {shortened(', '.join(unknown))}; correct either model.class_names or the"
            ' annotations, or leave such objects out with data.unknown_classes="skip"'
        )
    return names


def _ground_truth(image: _UsedImage, labels: Mapping[str, int], report: Report) -> GroundTruth:
    known = []
    for item in image.objects:
        if item.class_name in labels:
            known.append(item)
        else:
            report.skipped_objects["class is not in class_names"].append(_name(image.listed, item))
    return GroundTruth(
        np.array([item.box_xyxy for item in known], np.float64).reshape(-1, 4),
        np.array([labels[item.class_name] for item in known], np.int32),
        np.array([item.difficult for item in known], bool),
    )
