"""A page of images with their ground truth and detections: what the numbers look like."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from yolov1_jax.visualization.class_colours import class_colour
from yolov1_jax.visualization.draw import dashed_box, draw_objects, solid_box, text_font
from yolov1_jax.yolo.detections import Detections, GroundTruth

_WIDTH = 1200  # pixels of the page
_GAP = 6
_TEXT_SIZE = 15
_INK = (51, 51, 51)
# Width over height of a row. VOC images are 1.33 or 0.75: three to five to a row.
_ROW_ASPECT = 4.6


def draw_gallery(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    ground_truth: Sequence[GroundTruth],
    class_names: Sequence[str],
    *,
    score_threshold: float,
) -> np.ndarray:
    """Lays the images out in rows of equal height that fill the page, below a key.

    Args:
      images: at least one, uint8 RGB [H, W, 3] of any size.
      detections, ground_truth: of each, in its pixels.
      class_names: the name of each label.
      score_threshold: detections below it are not drawn.

    Returns:
      uint8 RGB, [height of the page, _WIDTH, 3].
    """
    aspects = [image.shape[1] / image.shape[0] for image in images]
    rows = _rows_of_equal_height(aspects)
    top = 2 * _TEXT_SIZE + _GAP
    height = top + sum(row_height + _GAP for _, row_height in rows)
    page = Image.new("RGB", (_WIDTH, height), "white")
    _draw_key(page, score_threshold, any(truth.difficult.any() for truth in ground_truth))
    for indices, row_height in rows:
        left = _GAP
        for i in indices:
            drawn = Image.fromarray(
                draw_objects(
                    images[i],
                    class_names,
                    detections=_at_least(detections[i], score_threshold),
                    ground_truth=ground_truth[i],
                    size=(max(1, round(row_height * aspects[i])), row_height),
                    text_size=_TEXT_SIZE,
                )
            )
            page.paste(drawn, (left, top))
            left += drawn.width + _GAP
        top += row_height + _GAP
    return np.asarray(page)


def _rows_of_equal_height(aspects: Sequence[float]) -> list[tuple[list[int], int]]:
    """(indices of the images, height in pixels) of each row; rows of about the same height."""
    ends = np.cumsum(aspects)
    num_rows = max(1, round(ends[-1] / _ROW_ASPECT))
    # The row in which the middle of an image falls, if all stood in one line cut into equal parts.
    row_of = ((ends - np.asarray(aspects) / 2) / ends[-1] * num_rows).astype(int)
    laid_out = []
    for row in np.unique(row_of):
        indices = np.flatnonzero(row_of == row).tolist()
        room = _WIDTH - _GAP * (len(indices) + 1)
        # Few images are not blown up to fill the page.
        aspect = max(sum(aspects[i] for i in indices), _ROW_ASPECT / 2)
        laid_out.append((indices, max(1, math.floor(room / aspect))))
    return laid_out


def _at_least(detections: Detections, score: float) -> Detections:
    keep = detections.scores >= score
    return Detections(*(part[keep] for part in detections))


def _draw_key(page: Image.Image, score_threshold: float, with_difficult: bool) -> None:
    draw = ImageDraw.Draw(page, "RGBA")
    font = text_font(_TEXT_SIZE)
    entries = [
        f"detection with a score from {score_threshold:g}",
        "ground truth, named where missed",
    ]
    entries += ["difficult, not counted"] * with_difficult
    left, line = float(_GAP + 2), 3
    for kind, text in enumerate(entries):
        box = (left, _GAP + 3, left + 2 * _TEXT_SIZE, _GAP + 3 + _TEXT_SIZE)
        if kind == 0:
            solid_box(draw, box, line, class_colour(0))
        else:
            dashed_box(draw, box, line - 1, dotted=kind == 2)
        left = box[2] + _GAP
        draw.text((left, box[1] + _TEXT_SIZE / 2), text, _INK, font, anchor="lm")
        left += font.getlength(text) + 3 * _GAP
