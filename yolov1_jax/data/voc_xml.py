"""PASCAL VOC annotations: an XML file per image. Boxes are its numbers as they stand."""

import math
import os
import pathlib
import posixpath
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree

from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation
from yolov1_jax.data.dataset import UnusableFile

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MOST_BYTES = 2 * 2**20  # an object has 200 bytes and more


def read_annotation(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> Annotation:
    """Reads an annotation file; the body parts that VOC nests inside a person are no objects.

    Coordinates that are all within [0, 1] are taken as fractions of the image's sides.

    Args:
      path: of the XML.
      size: height and width of the image.

    Raises:
      UnusableFile: the file is missing, too large, not XML, or not an annotation; or it declares
        entities, which may expand without bound or read other files.
    """
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise UnusableFile(f"annotation is larger than {_MOST_BYTES // 2**20} MiB", path)
        # Some programs write an empty line in front, which XML does not allow.
        root = defusedxml.ElementTree.fromstring(pathlib.Path(path).read_bytes().lstrip())
    except OSError:
        raise UnusableFile("annotation is missing or cannot be read", path) from None
    except (ParseError, ValueError, LookupError):  # the latter two: entities, unknown encodings
        raise UnusableFile(
            "annotation is not well-formed XML, or declares entities", path
        ) from None
    if root.tag != "annotation":
        raise UnusableFile("annotation is not in VOC format", path)
    objects = [
        AnnotatedObject(
            number=number,
            class_name=_text(item, "name"),
            box_xyxy=tuple(_number(item, f"bndbox/{corner}") for corner in _CORNERS),
            difficult=_text(item, "difficult").lower() in ("1", "true"),
        )
        for number, item in enumerate(root.findall("object"), start=1)
    ]
    stated = _number(root, "size/height"), _number(root, "size/width")
    notes = []
    named = _text(root, "filename")
    if named and _stem(named) != _stem(os.fspath(path)):
        notes.append("another file name in the annotation, ignored")
    numbers = [value for item in objects for value in item.box_xyxy]
    if numbers and all(0 <= value <= 1 for value in numbers):
        height, width = stated if min(stated) > 0 else size or stated
        objects = [_in_pixels(item, height, width) for item in objects]
        notes.append("relative coordinates, multiplied by the size of the image")
    return Annotation(stated, objects, tuple(notes))


def _in_pixels(item: AnnotatedObject, height: float, width: float) -> AnnotatedObject:
    left, top, right, bottom = item.box_xyxy
    box = left * width + 1, top * height + 1, right * width, bottom * height
    return item._replace(box_xyxy=box)


def _stem(path: str) -> str:
    """The name of a file, on any system, in lower case and without the extension."""
    return posixpath.splitext(posixpath.basename(path.replace("\\", "/")))[0].lower()


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _number(element: Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan
