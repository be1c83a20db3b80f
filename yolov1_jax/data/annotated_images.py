"""Images with annotations on disk, whatever their format: what all readers of folders share.

A reader (`voc_folder`, `yolo_txt`, `coco_json`) only lists the images, each with a function that
reads its annotation. All files are read and checked once, when the source is built. What cannot be
used is left out then, so that an index stays the same image whatever happens to the files.
"""

import concurrent.futures
import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, Record, Report, UnusableFile, shortened
from yolov1_jax.data.images import ImageInfo, check_image, read_image

_SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations under which height and width change places


class AnnotatedObject(NamedTuple):
    """An object of an annotation, usable or not."""

    number: int  # 1 for the first of the file
    class_name: str  # "" where missing
    # VOC's pixel numbers: the first pixel is 1, the last one belongs to the box; NaN where missing
    box_xyxy: tuple[float, ...]
    difficult: bool
    area: float = math.nan  # of the mask, in square pixels, where COCO's JSON has it


class Annotation(NamedTuple):
    """What is annotated in an image."""

    size: tuple[float, float]  # height and width of the image; NaN where the file does not say
    objects: list[AnnotatedObject]
    notes: tuple[str, ...] = ()  # corrections for the report, such as "relative coordinates"


class ListedImage(NamedTuple):
    """An image that a reader found, before any file is read."""

    image_id: str  # "VOC2012/2008_000008"
    path: str | None  # relative to the root; None where there is no file
    # Height and width of the image, None if it is not there -> its annotation, None if there is
    # none. Raises UnusableFile.
    read: Callable[[tuple[int, int] | None], Annotation | None]
    annotation: str | None = None  # relative path of its own annotation file
    notes: tuple[str, ...] = ()  # corrections for the report
    # Whether boxes refer to the image as its EXIF orientation turns it, whatever the size in the
    # annotation; `read` is given the size of that image.
    upright: bool = False
    number: int | None = None  # in the COCO JSON that lists it


class AnnotatedImages:
    """The usable images of a list with their usable objects; a `Source`."""

    def __init__(
        self,
        root: str,
        images: Sequence[ListedImage],
        report: Report,
        class_names: Sequence[str] | None = None,
        *,
        category_ids: Mapping[str, int] | None = None,
        unknown_classes: str = "refuse",
        unannotated: str = "skip",
        images_required: bool = True,
        splits: str = "all",
    ) -> None:
        """Reads all annotations and checks all images.

        Args:
          root: absolute path of the folder that the paths of images are relative to.
          images: in the order of the data set; of those with the same id, the first is used.
          report: what the reader noted while it listed the images; more is added.
          class_names: index = label; None for those that there are objects of, sorted.
          category_ids: the number of each class in the COCO JSON.
          unknown_classes: "refuse" objects of other classes, or "skip" them.
          unannotated: "skip" images without an annotation file, or take them as "background"; in
            YOLO text they are background in any case.
          images_required: False also takes annotations without an image, to evaluate detections.
          splits: their names, for messages.

        Raises:
          UserError: no usable image, or an unknown class.
        """
        background = unannotated == "background"
        used = _read_images(root, images, report, required=images_required, background=background)
        if not used:
            reasons = report.notes() if images else (*report.notes(), "no image is listed there")
            raise UserError(
                f"expected usable images in {splits} of {root}, found none: {'; '.join(reasons)}"
            )
        table = _table(used, class_names, unknown_classes, report)
        numbers = [one.listed.number for one in used if one.listed.number is not None]
        if category_ids and len(set(numbers)) == len(used):
            ids = dict(category_ids)
            for name in table.class_names:  # a class of another split gets a number that is free
                ids.setdefault(name, max(ids.values()) + 1)
            table = dataclasses.replace(
                table,
                image_numbers=tuple(numbers),
                category_ids=tuple(ids[name] for name in table.class_names),
            )
        self.class_names = table.class_names
        self.paths = tuple(os.path.join(root, one.listed.path or "") for one in used)
        #: The length and the checksum of each image's file; None where there is no file.
        self.contents = tuple(one.content for one in used)
        self._upright = [one.upright for one in used]
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
        return self._annotations.first(limit)


class _UsedImage(NamedTuple):
    listed: ListedImage
    content: tuple[int, int] | None
    size: tuple[int, int]  # height and width of the pixels that are used
    upright: bool  # whether it is turned as its EXIF orientation asks
    objects: list[AnnotatedObject]
    notes: tuple[str | None, ...]


def _read_images(
    root: str, images: Sequence[ListedImage], report: Report, *, required: bool, background: bool
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

    def read(image: ListedImage) -> _UsedImage | UnusableFile:
        try:
            return _read(root, image, required, background)
        except UnusableFile as error:
            return error

    used = []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # a slow disk is waited for
        for image, found in zip(listed.values(), pool.map(read, listed.values()), strict=True):
            if isinstance(found, UnusableFile):
                report.skipped[found.reason].append(image.image_id)
                continue
            used.append(found)
            for note in filter(None, found.notes):
                report.corrected[note].append(image.image_id)
    return used


def _read(root: str, image: ListedImage, required: bool, background: bool) -> _UsedImage:
    """Reads the annotation and checks the image; UnusableFile if one of them cannot be used."""
    path = os.path.join(root, image.path or "")
    info = check_image(path) if required or os.path.isfile(path) else None
    annotation = image.read(info and _size(info, image.upright))
    if annotation is None:
        if info is None or not background:
            raise UnusableFile("annotation is missing", image.image_id)
        annotation = Annotation(info.size, [], ("without annotation, taken as background",))
    if info is None:
        height, width = annotation.size
        if not (1 <= height < 2**31 and 1 <= width < 2**31):
            raise UnusableFile("image is missing, and its size in the annotation", image.image_id)
        info = ImageInfo((int(height), int(width)))
    upright, correction = _turn(annotation, info, image.upright)
    depth = "16-bit image, high 8 bits used" if info.is_16_bit else None
    notes = depth, correction, *image.notes, *annotation.notes
    size = _size(info, upright)
    return _UsedImage(image, info.content, size, upright, annotation.objects, notes)


def _size(info: ImageInfo, upright: bool) -> tuple[int, int]:
    """Height and width of an image, turned as its EXIF orientation asks or as stored."""
    return info.size[::-1] if upright and info.orientation in _SWAPS_SIDES else info.size


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


def _table(
    images: Sequence[_UsedImage],
    class_names: Sequence[str] | None,
    unknown_classes: str,
    report: Report,
) -> Annotations:
    """The usable objects, clipped to their images; `report` notes the others."""
    image_ids = tuple(one.listed.image_id for one in images)
    sizes = np.array([one.size for one in images], np.int32)  # [N, 2]
    objects = [item for one in images for item in one.objects]
    places = np.repeat(np.arange(len(images)), [len(one.objects) for one in images])  # [A]
    classes = np.array([item.class_name for item in objects], object)  # [A]
    boxes = np.array([item.box_xyxy for item in objects], np.float64).reshape(-1, 4)  # [A, 4]
    low, high = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], sizes[places, ::-1])
    inside = np.concatenate([low, high], axis=1)  # [A, 4]
    keys = zip(places.tolist(), classes, map(tuple, boxes.tolist()), strict=True)
    first: dict[tuple[object, ...], int] = {}

    problems = {  # of an object that has several, the first is reported
        "object without a class name": classes == "",
        "box is missing or not a number": ~np.isfinite(boxes).all(axis=1),
        "box is empty or inverted": (boxes[:, 2:] <= boxes[:, :2]).any(axis=1),
        "box is outside the image": (high <= low).any(axis=1),
    }
    usable = np.flatnonzero(~np.any([*problems.values()], axis=0))
    image_of = {classes[i]: image_ids[places[i]] for i in usable[::-1]}  # the first of each class
    names = _class_names(class_names, image_of, unknown_classes)
    problems["class is not in class_names"] = ~np.isin(classes, names)
    repeated = np.array([first.setdefault(key, i) != i for i, key in enumerate(keys)], bool)
    keep = np.ones(len(objects), bool)

    def note(reasons: dict[str, list[str]], reason: str, which: np.ndarray) -> None:
        for i in np.flatnonzero(keep & which):
            shown = f"object {objects[i].number} ({shortened(classes[i]) or '?'})"
            reasons[reason].append(f"{image_ids[places[i]]} {shown}")

    for reason, which in problems.items():
        note(report.skipped_objects, reason, which)
        keep &= ~which
    note(report.corrected, "repeated object (same class and box), used once", repeated)
    keep &= ~repeated
    note(report.corrected, "box clipped to the image", (inside != boxes).any(axis=1))
    labels = {name: label for label, name in enumerate(names)}
    return Annotations(
        class_names=names,
        image_ids=image_ids,
        sizes=sizes,
        starts=np.searchsorted(places[keep], np.arange(len(images) + 1)),
        boxes_xyxy=inside[keep],
        labels=np.array([labels[name] for name in classes[keep]], np.int32),
        difficult=np.array([item.difficult for item in objects], bool)[keep],
        report=report,
    )


def _class_names(
    given: Sequence[str] | None, image_of: Mapping[str, str], unknown_classes: str
) -> tuple[str, ...]:
    """The given names, or the sorted names of all objects' classes; an image of each is given."""
    names = tuple(sorted(image_of) if given is None else given)
    if not names or len(set(names)) < len(names):
        found = shortened(", ".join(names)) or "none, and no object to collect them from"
        raise UserError(f"expected each class once in model.class_names, found {found}")
    unknown = sorted(image_of.keys() - set(names))
    if unknown and unknown_classes == "refuse":
        raise UserError(
            f"{image_of[unknown[0]]}: expected the classes {shortened(', '.join(names))}, found"
            f" {shortened(', '.join(unknown))}; correct either model.class_names or the"
            ' annotations, or leave such objects out with data.unknown_classes="skip"'
        )
    return names
