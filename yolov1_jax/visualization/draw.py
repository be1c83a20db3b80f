"""Detections and ground truth drawn on an image.

Boxes come in pixels of the image as given. Detections are solid lines in the colour of their class,
captioned with class and score; ground truth is white and dashed, dotted where `difficult`, and
captioned with its class only where no detection of that class found it (IoU 0.5): the misses.

Lines and text are sized to the image, small images are enlarged first, and captions are moved until
they lie inside the image and beside each other. What cannot be placed readably, or without hiding
the image, keeps its box and loses its caption; the highest scores come first.
"""

import functools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from yolov1_jax.visualization.class_colours import class_colour, text_colour
from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.detections import Detections, GroundTruth

# Detections below this score are not worth a line on a picture: the threshold with which Darknet
# draws YOLOv1's. An evaluation takes far fainter ones, which would hide the image.
DRAWN_SCORE = 0.2
# Side of a square of the image's area, in pixels. Below this a caption would cover the objects: the
# image is enlarged.
MIN_MEAN_SIDE = 400
_MIN_TEXT = 12  # pixels
_WHITE = (255, 255, 255)
_EDGE_OPACITY = 150  # of the black or white edge that keeps a line visible on its own colour
_MAX_COVERED = 0.15  # share of a caption that may lie on earlier ones
# Share of the image that captions may take, those of detections and those of misses each: the boxes
# of a crowd tell by their colour what they are.
_MAX_CAPTIONED = 0.12
_FOUND_IOU = 0.5

_Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


class _Caption(NamedTuple):
    text: str
    colour: tuple[int, int, int]
    box: _Rectangle


def draw_objects(
    image: np.ndarray,
    class_names: Sequence[str],
    *,
    detections: Detections | None = None,
    ground_truth: GroundTruth | None = None,
    size: tuple[int, int] | None = None,
    text_size: int | None = None,
) -> np.ndarray:
    """Returns a copy of the image with the objects drawn on it.

    Args:
      image: uint8 RGB, [H, W, 3].
      class_names: the name of each label.
      detections, ground_truth: in pixels of `image`; boxes that are not finite or lie outside the
        image are left out, the others are clipped to it.
      size: (width, height) in pixels to scale the image to before drawing. Without it only an
        image smaller than MIN_MEAN_SIDE is scaled, by the smallest whole factor that reaches it.
      text_size: height of the text in pixels; by default 1/30 of the mean side.

    Returns:
      uint8 RGB, [H', W', 3].
    """
    height, width = image.shape[:2]
    if size is None:
        factor = max(1, math.ceil(MIN_MEAN_SIDE / math.sqrt(height * width)))
        size = (factor * width, factor * height)
    canvas = Image.fromarray(image)
    if size != (width, height):
        canvas = canvas.resize(size, Image.Resampling.LANCZOS)
    scale = np.array([size[0] / width, size[1] / height] * 2)
    mean_side = math.sqrt(size[0] * size[1])
    line = max(2, round(mean_side / 150))
    font = text_font(text_size or max(_MIN_TEXT, round(mean_side / 30)))

    draw = ImageDraw.Draw(canvas, "RGBA")
    captions, misses = [], []
    if detections is not None:
        ascending = np.argsort(detections.scores, kind="stable")  # the best end up on top
        boxes = _visible(detections.boxes_xyxy, scale, size, line)
        for i in ascending:
            if (box := boxes[i]) is None:
                continue
            label, score = int(detections.labels[i]), float(detections.scores[i])
            solid_box(draw, box, line, class_colour(label))
            text = f"{class_names[label]} {score:.2f}"
            captions.append(_Caption(text, class_colour(label), box))
    captions.reverse()  # the best are placed first
    if ground_truth is not None:
        missed = _missed(ground_truth, detections)
        for i, box in enumerate(_visible(ground_truth.boxes_xyxy, scale, size, line)):
            if box is None:
                continue
            dashed_box(draw, box, max(2, line - 1), dotted=bool(ground_truth.difficult[i]))
            if missed[i]:
                name = class_names[int(ground_truth.labels[i])]
                misses.append(_Caption(name, _WHITE, box))
    placed = _draw_captions(draw, captions, font, size, [])
    _draw_captions(draw, misses, font, size, placed)
    return np.asarray(canvas)


def _missed(ground_truth: GroundTruth, detections: Detections | None) -> np.ndarray:
    """Whether no detection of an object's class overlaps it; difficult ones are not missed. [N]"""
    found = np.asarray(ground_truth.difficult, bool).copy()
    if detections is not None and len(detections.labels) and len(found):
        iou = iou_xyxy(
            np.asarray(ground_truth.boxes_xyxy, np.float64)[:, None],
            np.asarray(detections.boxes_xyxy, np.float64)[None],
        )  # [N, D]
        same_class = np.asarray(ground_truth.labels)[:, None] == np.asarray(detections.labels)[None]
        found |= ((iou >= _FOUND_IOU) & same_class).any(axis=1)
    return ~found


def _visible(
    boxes_xyxy: np.ndarray, scale: np.ndarray, size: tuple[int, int], line: int
) -> list[_Rectangle | None]:
    """Boxes in canvas pixels, clipped so that the whole line lies inside; None if out of sight."""
    margin = line / 2 + 1
    visible: list[_Rectangle | None] = []
    for box in np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) * scale:
        left, top = max(box[0], 0), max(box[1], 0)
        right, bottom = min(box[2], size[0]), min(box[3], size[1])
        if not np.isfinite(box).all() or left >= right or top >= bottom:
            visible.append(None)
            continue
        left, right = np.clip([left, right], margin, max(margin, size[0] - margin))
        top, bottom = np.clip([top, bottom], margin, max(margin, size[1] - margin))
        visible.append((left, top, right, bottom))
    return visible


def solid_box(
    draw: ImageDraw.ImageDraw, box: _Rectangle, line: int, colour: tuple[int, int, int]
) -> None:
    for rectangle in _sides(box, line):
        draw.rectangle(_grown(rectangle, 1), fill=(*text_colour(colour), _EDGE_OPACITY))
    for rectangle in _sides(box, line):
        draw.rectangle(_grown(rectangle, 0), fill=colour)


def dashed_box(draw: ImageDraw.ImageDraw, box: _Rectangle, line: int, *, dotted: bool) -> None:
    dash, gap = (line, 2 * line) if dotted else (3 * line, 4 * line)
    dashes = [part for side in _sides(box, line) for part in _cut(side, dash, gap)]
    for rectangle in dashes:
        draw.rectangle(_grown(rectangle, 1), fill=(*text_colour(_WHITE), _EDGE_OPACITY))
    for rectangle in dashes:
        draw.rectangle(_grown(rectangle, 0), fill=_WHITE)


def _sides(box: _Rectangle, line: int) -> list[_Rectangle]:
    left, top, right, bottom = box
    half = line / 2
    return [
        (left - half, top - half, right + half, top + half),
        (left - half, bottom - half, right + half, bottom + half),
        (left - half, top + half, left + half, bottom - half),
        (right - half, top + half, right + half, bottom - half),
    ]


def _cut(side: _Rectangle, dash: int, gap: int) -> Iterator[_Rectangle]:
    left, top, right, bottom = side
    if right - left >= bottom - top:
        for start in np.arange(left, right, dash + gap):
            yield start, top, min(start + dash, right), bottom
    else:
        for start in np.arange(top, bottom, dash + gap):
            yield left, start, right, min(start + dash, bottom)


def _grown(rectangle: _Rectangle, by: int) -> _Rectangle:
    """Pillow's rectangles include their last pixel; empty ones are widened to one pixel."""
    left, top, right, bottom = (round(value) for value in rectangle)
    return left - by, top - by, max(left, right - 1) + by, max(top, bottom - 1) + by


def _draw_captions(
    draw: ImageDraw.ImageDraw,
    captions: Sequence[_Caption],
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    placed: Sequence[_Rectangle],
) -> list[_Rectangle]:
    """Draws captions beside those `placed` before; returns all of them."""
    ascent, descent = font.getmetrics()
    pad = max(2, round(font.size / 5))
    height = ascent + descent + 2 * (pad // 2)
    placed = list(placed)
    room = _MAX_CAPTIONED * size[0] * size[1]
    for number, caption in enumerate(captions):
        text = _shortened(caption.text, font, size[0] - 2 * pad)
        width = font.getlength(text) + 2 * pad
        if number and width * height > room:
            break
        spot = _place(_grown(caption.box, 1), width, height, size, placed)
        if spot is None:
            continue
        placed.append(spot)
        room -= width * height
        draw.rectangle(_grown(spot, 0), fill=caption.colour)
        draw.text((spot[0] + pad, spot[1] + pad // 2), text, text_colour(caption.colour), font)
    return placed


def _place(
    box: _Rectangle,
    width: float,
    height: float,
    size: tuple[int, int],
    placed: Sequence[_Rectangle],
) -> _Rectangle | None:
    """The first free spot at the box: above, inside at the top, below, then down its sides."""
    left, top, right, bottom = box
    heights = [top - height, top, bottom, bottom - height]
    heights += list(np.arange(top + height, bottom - 2 * height, height))
    best, best_covered = None, _MAX_COVERED * width * height
    for y in heights:
        for x in (left, right - width):
            x = min(max(x, 0), size[0] - width)
            if x < 0 or y < 0 or y + height > size[1]:
                continue
            spot = (x, y, x + width, y + height)
            covered = sum(_overlap(spot, other) for other in placed)
            if covered == 0:
                return spot
            if covered < best_covered:
                best, best_covered = spot, covered
    return best


def _overlap(a: _Rectangle, b: _Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, cut in the middle of its class name where it is wider than the image."""
    if font.getlength(text) <= room:
        return text
    name, _, score = text.rpartition(" ")
    for length in range(len(name) - 1, 0, -1):
        short = f"{name[:length]}… {score}"
        if font.getlength(short) <= room:
            return short
    return "…" if font.getlength(score) > room else score


@functools.cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib: the same picture on every machine.
    path = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
