"""Detections, ground truth and the S x S grid, drawn on images.

Boxes are in pixels of the image as given. Detections are solid lines in the colour of their class,
with a caption of class and score. Ground truth is white and dashed, dotted where `difficult`, and
has a caption only where it was missed: where no detection of its class has an IoU of at least 0.5.
"""

import functools
import logging
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import matplotlib.ft2font
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from yolov1_jax.data.dataset import GroundTruth, shortened
from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import cell_of

log = logging.getLogger(__name__)

# Darknet draws detections of YOLOv1 from this score on; fainter ones would hide the image.
DRAWN_SCORE = 0.2
# Pixels: the root of the area to which a smaller image is enlarged, so that captions leave room.
MIN_MEAN_SIDE = 400
# Okabe & Ito (2008); from the seventh on, each the farthest in OKLab from all before it, as seen
# with full, protanopic and deuteranopic vision.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#960F69"),
    *("#2DF096", "#8778FF", "#874B00", "#692DB4", "#C3D200", "#00693C", "#69E1E1"),
    *("#C32D4B", "#3CC35A", "#B43CA5", "#FF96A5", "#FF87F0", "#5A5AE1"),
)
_EDGE = "#000000A0"  # around a line, so that it is seen on a background of its own colour
_PAGE_WIDTH, _GAP = 1200, 6  # pixels
_ROW_ASPECT = 4.4  # width over height of a row of images: three or four photographs

_Box = tuple[int, int, int, int]  # left, top, right, bottom


def class_colour(label: int) -> str:
    """The colour of a class as "#RRGGBB". The 21st class has that of the first again."""
    return COLOURS[label % len(COLOURS)]


def draw_objects(
    image: np.ndarray,
    class_names: Sequence[str],
    *,
    detections: Detections | None = None,
    ground_truth: GroundTruth | None = None,
    scale: float | None = None,
) -> Image.Image:
    """A resized copy of the image, uint8 RGB [H, W, 3], with the objects drawn on it.

    Args:
      class_names: the name of each label.
      detections, ground_truth: in pixels of `image`. Boxes are cut at its border.
      scale: to resize the image by; None enlarges one below MIN_MEAN_SIDE by a whole factor.
    """
    canvas = _Canvas(image, scale)
    captions: list[tuple[_Box, str, str, str]] = []  # the first ones find the best places
    if detections is not None:
        for i in np.argsort(detections.scores, kind="stable"):  # the best is drawn last, on top
            if box := canvas.visible(detections.boxes_xyxy[i]):
                label, score = int(detections.labels[i]), detections.scores[i]
                canvas.outline(box, class_colour(label))
                captions.insert(0, (box, class_names[label], class_colour(label), f" {score:.2f}"))
    if ground_truth is not None:
        missed = ~ground_truth.difficult
        if detections is not None:
            iou = iou_xyxy(ground_truth.boxes_xyxy[:, None], detections.boxes_xyxy[None])  # [N, D]
            same_class = ground_truth.labels[:, None] == detections.labels
            missed &= ~((iou >= 0.5) & same_class).any(axis=1)
        for i, (box_xyxy, label, difficult) in enumerate(zip(*ground_truth, strict=True)):
            if box := canvas.visible(box_xyxy):
                canvas.dashes(box, length=(1 if difficult else 3) * canvas.line)
                if missed[i]:
                    captions.append((box, class_names[label], "#FFFFFF", ""))
    for caption in captions:
        canvas.caption(*caption)
    return canvas.image


def draw_page(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
) -> np.ndarray:
    """Draws images of any size in rows that fill the page. -> uint8 RGB [height, 1200, 3].

    Arguments as of `draw_objects`, of each image; detections below DRAWN_SCORE are not drawn.
    """
    aspects = [image.shape[1] / image.shape[0] for image in images]
    rows: list[list[int]] = [[]]
    for i, aspect in enumerate(aspects):
        if sum(aspects[j] for j in rows[-1]) + aspect / 2 > _ROW_ASPECT:
            rows.append([])
        rows[-1].append(i)

    strips = [Image.new("RGB", (_PAGE_WIDTH, 32), "white")]
    key = (
        f"solid: detection with a score of at least {DRAWN_SCORE}     dashed: ground truth, named "
        "where missed     dotted: difficult ground truth"
    )
    ImageDraw.Draw(strips[0]).text((_GAP, 16), key, "#333333", _font(14), anchor="lm")
    for row in rows:
        room = _PAGE_WIDTH - _GAP * (len(row) + 1)
        # A row of few images is not blown up to fill the page.
        height = room / max(sum(aspects[i] for i in row), 0.7 * _ROW_ASPECT)
        strips.append(Image.new("RGB", (_PAGE_WIDTH, max(1, round(height)) + _GAP), "white"))
        left = _GAP
        for i in row:
            keep = detections[i].scores >= DRAWN_SCORE
            drawn = draw_objects(
                images[i],
                class_names,
                detections=Detections(*(part[keep] for part in detections[i])),
                ground_truth=ground_truth[i],
                scale=height / images[i].shape[0],
            )
            strips[-1].paste(drawn, (left, 0))
            left += drawn.width + _GAP
    return np.concatenate([np.asarray(strip) for strip in strips])


def draw_grid(
    image: np.ndarray, ground_truth: GroundTruth, class_names: Sequence[str], grid_size: int
) -> np.ndarray:
    """Draws the S x S grid, the objects, their centres and the cells that must predict them.

    Arguments and image as of `draw_objects`; `grid_size` is S.
    """
    canvas = _Canvas(image)
    size = np.array(canvas.image.size)  # width, height
    centres = (ground_truth.boxes_xyxy[:, :2] + ground_truth.boxes_xyxy[:, 2:]) / 2
    centres = centres * canvas.scale[:2] / size  # [N, 2] in [0, 1]
    for i in range(1, grid_size):
        x, y = (size * i / grid_size).round().tolist()
        for colour, width in ((_EDGE, 3), ("white", 1)):
            canvas.draw.line((x, 0, x, size[1]), colour, width)
            canvas.draw.line((0, y, size[0], y), colour, width)
    objects = [
        (canvas.visible(box_xyxy), class_names[label], class_colour(label))
        for box_xyxy, label in zip(*ground_truth[:2], strict=True)
    ]
    for cell, (box, _, colour) in zip(cell_of(centres, grid_size), objects, strict=True):
        corners = np.concatenate([cell, cell + 1]) * np.tile(size / grid_size, 2)
        canvas.draw.rectangle(corners.round().tolist(), colour + "A0", colour, canvas.line)
        if box:
            canvas.outline(box, colour)
    for centre, (box, name, colour) in zip((centres * size).tolist(), objects, strict=True):
        canvas.draw.circle(centre, 1.5 * canvas.line, "white", "black")
        if box:
            canvas.caption(box, name, colour)
    return np.asarray(canvas.image)


class _Canvas:
    """A resized copy of an image, with lines and text that suit its size."""

    def __init__(self, image: np.ndarray, scale: float | None = None) -> None:
        height, width = image.shape[:2]
        if scale is None:
            scale = max(1, math.ceil(MIN_MEAN_SIDE / math.sqrt(height * width)))
        size = max(1, round(scale * width)), max(1, round(scale * height))
        self.image = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        self.scale = np.array([size[0] / width, size[1] / height] * 2)
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.line = max(2, round(min(size) / 120))
        self.font_size = max(12, round(min(size) / 24))
        self.captions: list[_Box] = []

    def visible(self, box_xyxy: np.ndarray) -> _Box | None:
        """A box of the image in pixels of the canvas, cut at its border, or None."""
        box = np.clip(box_xyxy * self.scale, 0, self.image.size * 2)
        if not (box[2:] > box[:2]).all():
            return None
        left, top, right, bottom = box.round().astype(int).tolist()
        return left, top, max(left, right - 1), max(top, bottom - 1)

    def outline(self, box: _Box, colour: str) -> None:
        around = box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1
        self.draw.rectangle(around, outline=_EDGE, width=self.line + 2)
        self.draw.rectangle(box, outline=colour, width=self.line)

    def dashes(self, box: _Box, length: int) -> None:
        left, top, right, bottom = box
        thick, step = self.line - 2, length + 3 * self.line
        rows, columns = (top, bottom - thick), (left, right - thick)
        x_starts, y_starts = range(left, right, step), range(top, bottom, step)
        dashes = [(x, y, min(x + length, right), y + thick) for x in x_starts for y in rows]
        dashes += [(x, y, x + thick, min(y + length, bottom)) for y in y_starts for x in columns]
        for left, top, right, bottom in dashes:
            self.draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), "white", _EDGE)

    def caption(self, box: _Box, name: str, colour: str, score: str = "") -> None:
        """Writes above the box, below its upper edge or below the box, where there is room."""
        name, path, _ = printable(name)
        text, font = name + score, _font(self.font_size, path)
        pad = round(self.font_size / 4)
        width = math.ceil(font.getlength(text)) + 2 * pad
        height = sum(font.getmetrics()) + pad
        left = max(0, min(box[0], self.image.width - width))
        for top in (box[1] - height, box[1], box[3]):
            right, bottom = left + width, top + height
            inside = top >= 0 and right <= self.image.width and bottom <= self.image.height
            if inside and not any(
                left < other[2] and right > other[0] and top < other[3] and bottom > other[1]
                for other in self.captions
            ):
                self.captions.append((left, top, right, bottom))
                self.draw.rectangle((left, top, right - 1, bottom - 1), colour)
                # Black or white, whichever has more contrast (relative luminance of WCAG 2.1).
                rgb = np.array(ImageColor.getrgb(colour)) / 255
                ink = "black" if rgb**2.2 @ (0.2126, 0.7152, 0.0722) > 0.18 else "white"
                self.draw.text((left + pad, top + pad // 2), text, ink, font)
                return


class Printable(NamedTuple):
    text: str
    font: str  # path of a file that has its characters
    family: str


@functools.cache
def printable(name: str) -> Printable:
    """Finds a font for a name: that of matplotlib, else one of the system that has its characters.

    Where there is none, they are written as Python's escapes, "\\u72d7". Shortens a long name.
    """
    name = shortened(name, 60)
    wanted = set(map(ord, f"{name}0123456789.,() "))
    if wanted <= _characters(_OWN_FONT):
        return Printable(name, _OWN_FONT, "DejaVu Sans")
    from matplotlib.font_manager import fontManager  # lists the system's fonts, which takes long

    # "Last Resort" has a box for every character there is.
    fonts = [one for one in fontManager.ttflist if "LastResort" not in one.name.replace(" ", "")]
    for font in sorted(fonts, key=lambda one: ("Sans" not in one.name, one.weight != 400)):
        if wanted <= _characters(font.fname):
            return Printable(name, font.fname, font.name)
    text = "".join(c if ord(c) in _characters(_OWN_FONT) else ascii(c)[1:-1] for c in name)
    log.warning("no font here has all characters of %s: install one, such as Noto Sans CJK", text)
    return Printable(shortened(text, 60), _OWN_FONT, "DejaVu Sans")


@functools.cache
def _characters(font: str) -> frozenset[int]:
    """The characters of a font; none if it cannot be drawn with, as those of coloured bitmaps."""
    try:
        _font(12, font)
        return frozenset(matplotlib.ft2font.FT2Font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


# The font that comes with matplotlib: the same picture on every machine.
_OWN_FONT = str(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _font(size: int, path: str = _OWN_FONT) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
