"""PASCAL VOC annotations: an XML file per image. Boxes are its numbers as they stand."""

import contextlib
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import ImageInfo

_SWAPS_SIDES = (5, 6, 7, 8)  # EXIF orientations under which height and width change places
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = {"": False, "0": False, "false": False, "1": True, "true": True}


class VocObject(NamedTuple):
    """An object of an annotation, usable or not."""

    number: int  # 1 for the first of the file
    class_name: str  # "" where missing
    box_xyxy: tuple[float, ...]  # 4 pixels; NaN where a corner is missing or no number
    difficult: bool | None  # False where missing, None where neither 0 nor 1


class VocAnnotation(NamedTuple):
    """The content of an annotation file."""

    size: tuple[float, float]  # height and width of the image; NaN where the file does not say
    objects: list[VocObject]


def read_annotation(path: str | os.PathLike[str]) -> VocAnnotation:
    """Reads an annotation file; the body parts that VOC nests inside a person are no objects.

    Raises:
      UserError: the file declares entities, which may expand without bound or read other files.
      UnusableFile: the file is missing, not XML, or not an annotation.
    """
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except DefusedXmlException:
        raise UserError(
            f"{path}: expected no XML entities, found some: remove its DOCTYPE"
        ) from None
    except OSError:
        raise UnusableFile("annotation is missing or cannot be read", path) from None
    except (ParseError, ValueError, LookupError):  # the latter two: unknown encodings
        raise UnusableFile("annotation is not well-formed XML", path) from None
    if root.tag != "annotation":
        raise UnusableFile("annotation is not in VOC format", path)
    objects = [
        VocObject(
            number=number,
            class_name=_text(item, "name"),
            box_xyxy=tuple(_number(item, f"bndbox/{corner}") for corner in _CORNERS),
            difficult=_DIFFICULT.get(_text(item, "difficult").lower()),
        )
        for number, item in enumerate(root.findall("object"), start=1)
    ]
    return VocAnnotation((_number(root, "size/height"), _number(root, "size/width")), objects)


def turn(annotation: VocAnnotation, info: ImageInfo) -> tuple[bool, str | None]:
    """Whether the image is turned as its EXIF orientation asks, and a note for the report.

    VOC annotations refer to the pixels as stored. But an annotation tool that obeys EXIF measures a
    turned image: then the size in the annotation is the stored one with its sides swapped, and the
    image is turned to match. Any other difference of size leaves the boxes as they are.
    """
    if info.orientation in _SWAPS_SIDES and annotation.size == info.size[::-1] != info.size:
        return True, "EXIF rotation applied, as in the annotation"
    if annotation.size != info.size:
        return False, "size missing or wrong in the annotation, image's own used"
    if info.orientation != 1:
        return False, "EXIF orientation ignored, as in the annotation"
    return False, None


def problem(item: VocObject, height: int, width: int) -> str | None:
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


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _number(element: Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan


def class_names_of(root: str | os.PathLike[str], splits: Sequence[str]) -> tuple[str, ...] | None:
    """The classes of all annotations of these splits' data sets, sorted; None without objects."""
    names: set[str] = set()
    for dataset in {split.partition(":")[0] for split in splits}:
        for path in pathlib.Path(os.path.expanduser(root), dataset, "Annotations").glob("*.xml"):
            with contextlib.suppress(UnusableFile):
                names |= {item.class_name for item in read_annotation(path).objects}
    return tuple(sorted(names - {""})) or None
