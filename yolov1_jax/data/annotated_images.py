"""Images with annotations on disk, whatever their format: what all readers of folders share.

A reader (`voc_folder.py` and others) only lists the images, each with a function that reads its
annotation. All files are read and checked once, when the source is built. What cannot be used is
left out then, so that an index stays the same image whatever happens to the files.
"""

import concurrent.futures
import dataclasses
import difflib
import math
import os
import pathlib
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
_LONGEST_CLASS_NAME = 200  # characters; longer ones come from damaged files


class AnnotatedObject(NamedTuple):
    """An object of an annotation, usable or not."""

    number: int  # 1 for the first of the file
    class_name: str  # "" where missing
    # VOC's pixel numbers: the first pixel is 1, the last one belongs to the box; NaN where missing
    box_xyxy: tuple[float, ...]
    difficult: bool | None  # None where neither 0 nor 1


class Annotation(NamedTuple):
    """What is annotated in an image."""

    size: tuple[float, float]  # height and width of the image; NaN where the file does not say
    objects: list[AnnotatedObject]
    notes: tuple[str, ...] = ()  # corrections for the report, such as "relative coordinates"


class ListedImage(NamedTuple):
    """An image that a reader found, before any file is read."""

    image_id: str  # "VOC2012/2008_000008"
    path: str  # absolute; it need not exist
    annotation_path: str  # for messages
    # (height, width) of the image, None if it is not there -> its annotation. Raises UnusableFile.
    read: Callable[[tuple[int, int] | None], Annotation]
    # Whether boxes refer to the image as its EXIF orientation turns it, whatever the size in the
    # annotation; `read` is given the size of that image.
    upright: bool = False
    number: int | None = None  # in the COCO JSON that lists it


class AnnotatedImages:
    """The usable images of a list with their usable objects; a `Source`."""

    def __init__(
        self,
        images: Sequence[ListedImage],
        report: Report,
        class_names: Sequence[str] | None = None,
        *,
        file_classes: Sequence[str] | None = None,
        category_ids: Mapping[str, int] | None = None,
        unknown_classes: str = "refuse",
        images_required: bool = True,
        where: str,
    ) -> None:
        """Reads all annotations and checks all images.

        Args:
          images: in the order of the data set.
          report: what the reader noted while it listed the images; more is added.
          class_names: index = label, as the user gives them; None for those of the data set.
          file_classes: the names that the data set states, in its order; None: sorted names of the
            objects.
          category_ids: of each class, its number in the COCO JSON.
          unknown_classes: "refuse" objects of other classes, or "skip" them.
          images_required: False also takes annotations without an image, to evaluate detections.
          where: the data, for messages: "own:train of /data".

        Raises:
          UserError: no usable image, or an unknown class.
        """
        used = _read_images(images, report, images_required)
        if not used:
            raise UserError(
                f"expected usable images in {where}, found none: "
                + ("; ".join(report.notes()) or "the lists are empty")
            )
        given = file_classes if class_names is None else class_names
        self.class_names = _class_names(given, used, unknown_classes)
        labels = {name: label for label, name in enumerate(self.class_names)}
        #: Of each image, what tells its file from others: length and checksum; None: no file.
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


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """Sorted paths of all files below a folder, relative to it, with "/" between their parts.

    Hidden files and folders are left out. Links are followed, each folder is listed once.
    """
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(one for one in folders if not one.startswith(".") and real not in seen)
        if real not in seen:
            seen.add(real)
            below = pathlib.Path(os.path.relpath(place, folder))
            found += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


class _UsedImage(NamedTuple):
    listed: ListedImage
    info: ImageInfo
    size: tuple[int, int]  # height and width of the pixels that are used
    upright: bool  # whether it is turned as its EXIF orientation asks
    objects: list[AnnotatedObject]  # the usable ones


def _read_images(images: Sequence[ListedImage], report: Report, required: bool) -> list[_UsedImage]:
    """The usable ones of several images, in order."""

    def read(image: ListedImage) -> tuple[ImageInfo, Annotation] | UnusableFile:
        try:
            return _read_one(image, required)
        except UnusableFile as error:
            return error

    listed: dict[str, ListedImage] = {}
    for image in images:
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", image.image_id):
            report.skip("file name has control characters or is no UTF-8", ascii(image.image_id))
        elif image.image_id in listed:
            report.correct("listed more than once, used once", image.image_id)
        else:
            listed[image.image_id] = image
    used = []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # a slow disk is waited for
        for image, found in zip(listed.values(), pool.map(read, listed.values()), strict=True):
            if isinstance(found, UnusableFile):
                report.skip(found.reason, image.image_id)
            else:
                used.append(_settle(image, *found, report))
    return used


def _read_one(image: ListedImage, required: bool) -> tuple[ImageInfo, Annotation]:
    if required or os.path.exists(image.path):
        info = check_image(image.path)
        turned = image.upright and info.orientation in _SWAPS_SIDES
        return info, image.read(info.size[::-1] if turned else info.size)
    annotation = image.read(None)
    height, width = annotation.size
    if not (1 <= height < 2**31 and 1 <= width < 2**31):
        raise UnusableFile("image is missing, and its size in the annotation", image.path)
    return ImageInfo((int(height), int(width))), annotation


def _settle(
    image: ListedImage, info: ImageInfo, annotation: Annotation, report: Report
) -> _UsedImage:
    """Settles which pixels and which objects are used; `report` notes the rest."""
    upright, correction = _turn(annotation, info, image.upright)
    for note, applies in (
        ("transparency dropped", info.has_alpha),
        ("16-bit image, high 8 bits used", info.is_16_bit),
        (correction, correction),
        *((note, True) for note in annotation.notes),
    ):
        if note and applies:
            report.correct(note, image.image_id)
    swapped = upright and info.orientation in _SWAPS_SIDES
    height, width = size = info.size[::-1] if swapped else info.size
    objects = []
    seen: set[tuple[object, ...]] = set()
    for item in annotation.objects:
        if reason := _problem(item, height, width):
            report.skip_object(reason, _name(image, item))
            continue
        if (item.class_name, item.box_xyxy) in seen:
            report.correct("repeated object (same class and box), used once", _name(image, item))
            continue
        seen.add((item.class_name, item.box_xyxy))
        left, top, right, bottom = item.box_xyxy
        inside = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        if inside != item.box_xyxy:
            report.correct("box clipped to the image", _name(image, item))
        if item.difficult is None:
            report.correct("difficult is neither 0 nor 1, taken as 0", _name(image, item))
        objects.append(item._replace(box_xyxy=inside))
    return _UsedImage(image, info, size, upright, objects)


def _turn(annotation: Annotation, info: ImageInfo, upright: bool) -> tuple[bool, str | None]:
    """Whether the image is turned as its EXIF orientation asks, and a note for the report.

    Annotations are taken to refer to the pixels as stored. But an annotation tool that obeys EXIF
    measures a turned image: then the size in the annotation is the stored one with its sides
    swapped, and the image is turned to match. Any other difference of size leaves the boxes as
    they are.
    """
    applied = "EXIF rotation applied, as in the annotation"
    if upright:
        return True, applied if info.orientation != 1 else None
    if info.orientation in _SWAPS_SIDES and annotation.size == info.size[::-1] != info.size:
        return True, applied
    if annotation.size != info.size:
        return False, "size missing or wrong in the annotation, image's own used"
    if info.orientation != 1:
        return False, "EXIF orientation ignored, as in the annotation"
    return False, None


def _problem(item: AnnotatedObject, height: int, width: int) -> str | None:
    """Why an object of an image of this size cannot be used; None if it can."""
    left, top, right, bottom = item.box_xyxy
    if not item.class_name:
        return "object without a class name"
    if len(item.class_name) > _LONGEST_CLASS_NAME:
        return f"class name of more than {_LONGEST_CLASS_NAME} characters"
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
    files: dict[str, str] = {}  # the first annotation of each class
    for image in images:
        for item in image.objects:
            files.setdefault(item.class_name, image.listed.annotation_path)
    names = tuple(sorted(files) if given is None else given)
    if not names or len(set(names)) < len(names):
        found = shortened(", ".join(names)) or "none, and no object to collect them from"
        raise UserError(f"expected each class once in model.class_names, found {found}")
    known = set(names)
    unknown = [name for name in files if name not in known]
    if unknown and unknown_classes == "refuse":
        by_lower = {name.lower(): name for name in names}  # the case is a likely mistake
        nearest = difflib.get_close_matches(unknown[0].lower(), by_lower, n=1, cutoff=0.0)[0]
        raise UserError(
            f"{files[unknown[0]]}: expected classes of model.class_names, found {unknown[0]!r}"
            f" (nearest: {by_lower[nearest]!r}; unknown in all: {shortened(', '.join(unknown))});"
            ' correct either, or leave such objects out with data.unknown_classes="skip"'
        )
    return names


def _ground_truth(image: _UsedImage, labels: Mapping[str, int], report: Report) -> GroundTruth:
    known = []
    for item in image.objects:
        if item.class_name in labels:
            known.append(item)
        else:
            report.skip_object("class is not in class_names", _name(image.listed, item))
    return GroundTruth(
        np.array([item.box_xyxy for item in known], np.float64).reshape(-1, 4),
        np.array([labels[item.class_name] for item in known], np.int32),
        np.array([item.difficult for item in known], bool),  # None is taken as False
    )
