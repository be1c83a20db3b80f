"""PASCAL VOC annotations: one XML file per image.

Frame: boxes_xyxy are the file's numbers as they stand, pixels of the image the annotator saw,
1-based; `place_boxes` divides them by the image's size into [0, 1].
"""

import math
import os
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.errors import UserError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = {"": False, "0": False, "false": False, "1": True, "true": True}


class Annotation(NamedTuple):
    """What one file says. N objects, those without a usable box or name included."""

    height: int  # of the annotated image, in pixels; 0 where the file does not say
    width: int
    boxes_xyxy: np.ndarray  # float64 [N, 4] pixels; NaN where a corner is missing or no number
    names: tuple[str, ...]  # N classes; "" where missing
    difficult: tuple[bool | None, ...]  # N; False where missing, None where neither 0 nor 1


class PlacedBoxes(NamedTuple):
    """Boxes in [0, 1] and what became of each of N."""

    boxes_xyxy: np.ndarray  # float64 [N, 4]; meaningless where `problem` is set
    problem: tuple[str | None, ...]  # N; why a box cannot be used
    clipped: np.ndarray  # bool [N]; True where a part outside the image was cut off


def read_annotation(path: str | os.PathLike) -> Annotation:
    """Reads one annotation file of unknown origin.

    Only the objects at the top level count: the body parts that VOC nests inside a person are not
    objects of their own.

    Raises:
      UserError: the file declares entities, or refers to others. Those expand without bound or read
        files of this machine; no annotation tool writes them.
      UnusableFile: the file is missing, is not XML or is not an annotation.
    """
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except DefusedXmlException as error:
        raise UserError(
            f"{os.fspath(path)}: expected a plain VOC annotation, found XML that declares entities"
            f" ({type(error).__name__}), which is not read for safety; remove its DOCTYPE"
        ) from None
    except FileNotFoundError:
        raise UnusableFile("annotation is missing") from None
    except OSError:
        raise UnusableFile("annotation cannot be read") from None
    except (ParseError, ValueError, LookupError):  # the latter two: unknown encodings
        raise UnusableFile("annotation is not well-formed XML") from None
    if root.tag != "annotation":
        raise UnusableFile("annotation is not in VOC format")

    objects = root.findall("object")
    corners = [[_number(item, f"bndbox/{corner}") for corner in _CORNERS] for item in objects]
    return Annotation(
        height=_side(root, "size/height"),
        width=_side(root, "size/width"),
        boxes_xyxy=np.array(corners, np.float64).reshape(-1, 4),  # [N, 4], also for N = 0
        names=tuple(_text(item, "name") for item in objects),
        difficult=tuple(_DIFFICULT.get(_text(item, "difficult").lower()) for item in objects),
    )


def place_boxes(boxes_xyxy: np.ndarray, height: int, width: int) -> PlacedBoxes:
    """Pixels -> [0, 1] by division, without a shift; what sticks out of the image is cut off.

    Args:
      boxes_xyxy: float64 [N, 4] in pixels, as an annotation has them.
      height, width: of the image, in pixels.
    """
    size = np.array([width, height, width, height], np.float64)  # [4]
    clipped = np.clip(boxes_xyxy, 0.0, size[None])  # [N, 4]
    problem = tuple(_problem(*box, *size[:2]) for box in boxes_xyxy.tolist())
    moved = (clipped != boxes_xyxy).any(axis=1)  # [N]
    usable = np.array([reason is None for reason in problem], bool)  # [N]
    return PlacedBoxes(clipped / size[None], problem, moved & usable)


def _problem(
    left: float, top: float, right: float, bottom: float, width: float, height: float
) -> str | None:
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
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


def _side(root: Element, path: str) -> int:
    side = _number(root, path)
    return int(side) if math.isfinite(side) and side > 0 else 0
