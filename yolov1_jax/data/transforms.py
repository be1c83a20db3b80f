"""Resizing and augmentation of one image and its boxes, in NumPy and OpenCV.

The network input is the original image stretched to a square. Boxes come in pixels of the original
image, are divided by its size first, and are relative to the network input, in [0, 1], at the end.
Images are uint8 RGB [height, width, 3]; an image has n objects.

The recipe is that of the PyTorch reference (gitE0Z9/pytorch-implementations, notebook yolov1-v2 of
2021-09; albumentations 1.0): resize, colour jitter, horizontal flip, shift and scale with a
reflected border, and a filter of the boxes after the resize and again at the end. Differences:
  - Resize, flip, shift and scale are one matrix and one interpolation, not two in a row, so the
    image is a little sharper. The reflection is about the edge pixels of the original image.
  - The image is scaled about its centre; the reference is half an input pixel beside it.
  - Colours change after the warp, so that the cost does not grow with the original image. Only
    contrast depends on the order: it pulls towards the mean of what the warp left in view.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the grey of torchvision and OpenCV


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to its images; the defaults are the PyTorch reference's."""

    enabled: bool = True  # False: neither flip nor colour nor affine, but the limits below
    flip_probability: float = 0.5  # of left and right swapped
    color_probability: float = 0.5  # of all four colour changes, in random order
    brightness: float = 0.2  # factor uniform in [1 - value, 1 + value]; so are the next two
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.2  # turn uniform in [-value, value], as a fraction of the colour circle
    affine_probability: float = 0.5  # of shift and scale together
    shift: float = 0.0625  # uniform in [-value, value] for each axis, in image sides
    scale: float = 0.1  # one factor about the centre, uniform in [1 - value, 1 + value]
    # An object must cover more pixels of the network input than this, after the resize and again
    # after shift and scale. 1024 is for 448 x 448: for another side, times (side / 448)^2.
    min_area: float = 1024.0
    min_visibility: float = 0.3  # an object must keep more than this of its area in the image


class Affine(NamedTuple):
    """An axis-aligned map of relative coordinates: `scale * point + offset` for (x, y)."""

    scale: tuple[float, float]  # negative x: mirrored
    offset: tuple[float, float]


Color = tuple[tuple[str, float], ...]  # (name of the adjustment, amount), in order; may be empty


def sample_parameters(rng: np.random.Generator, augmentation: Augmentation) -> tuple[Affine, Color]:
    """Decides what happens to one image.

    The same numbers are drawn whatever the settings, so that changing one of them leaves all other
    choices of a run as they were.
    """
    a = augmentation
    chance = rng.random(3)
    scale = 1 + a.scale * rng.uniform(-1, 1)
    shift_x, shift_y = a.shift * rng.uniform(-1, 1, size=2)
    unit = rng.uniform(-1, 1, size=4)
    color = (
        ("brightness", 1 + a.brightness * unit[0]),
        ("contrast", 1 + a.contrast * unit[1]),
        ("saturation", 1 + a.saturation * unit[2]),
        ("hue", a.hue * unit[3]),
    )
    order = rng.permutation(4)
    if not a.enabled:
        chance[:] = 1.0  # below no probability
    if chance[1] >= a.affine_probability:
        scale, shift_x, shift_y = 1.0, 0.0, 0.0
    affine = flip_scale_shift(bool(chance[0] < a.flip_probability), scale, (shift_x, shift_y))
    return affine, tuple(color[i] for i in order) if chance[2] < a.color_probability else ()


def augment(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    affine: Affine,
    color: Color,
    image_size: int,
    augmentation: Augmentation,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns an original image and its boxes into a network input and relative boxes.

    Args:
      boxes_xyxy: float64 [n, 4], pixels of `image`.
      augmentation: its `min_area` and `min_visibility` are used.

    Returns:
      image uint8 [image_size, image_size, 3]; boxes float64 [n, 4] in [0, 1] of it, clipped; keep
      bool [n], False for objects that are too small, after the resize or at the end.
    """
    height, width = image.shape[:2]
    relative = boxes_xyxy / np.array([[width, height, width, height]])  # [n, 4]
    relative, keep_resized = filter_boxes(relative, image_size, augmentation)
    corners = relative.reshape(-1, 2, 2) * affine.scale + affine.offset  # [n, 2, 2]
    moved = np.sort(corners, axis=1).reshape(-1, 4)  # a mirrored box has left and right swapped
    moved, keep_moved = filter_boxes(moved, image_size, augmentation)
    image = adjust_color(warp_image(image, affine, image_size), color)
    return image, moved, keep_resized & keep_moved


def flip_scale_shift(flip: bool, scale: float, shift: tuple[float, float]) -> Affine:
    """Mirrors left and right if `flip`, then scales about the centre, then shifts by (x, y)."""
    scale_x = -scale if flip else scale
    offset = (0.5 - 0.5 * scale_x + shift[0], 0.5 - 0.5 * scale + shift[1])
    return Affine((scale_x, scale), offset)


def resize_image(image: np.ndarray, image_size: int) -> np.ndarray:
    """Stretches an image to a square, for evaluation and prediction. -> [image_size, image_size, 3]

    Linear without a low-pass filter, as the reference was trained and tested, and as `warp_image`.
    """
    return cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)


def warp_image(image: np.ndarray, affine: Affine, image_size: int) -> np.ndarray:
    """Resizes and transforms in one interpolation. -> uint8 [image_size, image_size, 3]

    What comes into view from outside mirrors the image about its edge pixels.
    """
    # OpenCV puts the integer coordinates at the centres of pixels, so the relative x of the pixel
    # in column i is (i + 0.5) / width, in the original image as in the network input.
    matrix = np.zeros((2, 3))
    for axis, side in enumerate((image.shape[1], image.shape[0])):
        zoom = image_size * affine.scale[axis] / side
        matrix[axis, axis] = zoom
        matrix[axis, 2] = 0.5 * zoom + image_size * affine.offset[axis] - 0.5
    border = cv2.BORDER_REFLECT_101  # and linear interpolation
    return cv2.warpAffine(image, matrix, (image_size, image_size), borderMode=border)


def filter_boxes(
    boxes_xyxy: np.ndarray, image_size: int, augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Clips relative boxes [n, 4] to [0, 1] and says which are still worth learning.

    Returns:
      Clipped boxes [n, 4]. keep, bool [n]: the clipped area is over `min_area` and the visible
      fraction over `min_visibility`; equal is too little, as in albumentations.
    """
    clipped = np.clip(boxes_xyxy, 0.0, 1.0)
    area, visible = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes_xyxy, clipped))  # [n]
    large = visible * image_size**2 > augmentation.min_area
    return clipped, large & (visible > augmentation.min_visibility * area)


def adjust_color(image: np.ndarray, color: Color) -> np.ndarray:
    """Applies the adjustments one after the other. uint8 [H, W, 3] -> uint8 [H, W, 3]

    "brightness" blends with black, "contrast" with the image's mean grey, "saturation" with each
    pixel's grey: amount * image + (1 - amount) * other. "hue" turns the colours. Each step rounds
    and clips to uint8, as in torchvision and albumentations: what is white then stays white.
    """
    for name, amount in color:
        if name == "hue":
            image = adjust_hue(image, amount)
            continue
        matrix, offset = amount * np.eye(3), 0.0
        if name == "contrast":
            offset = (1 - amount) * float(_LUMA @ cv2.mean(image)[:3])
        elif name == "saturation":
            matrix += (1 - amount) * np.tile(_LUMA, (3, 1))
        image = cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))
    return image


def adjust_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turns the hue by `turn` of the colour circle, keeping HSV saturation and value.

    In OpenCV's 8-bit HSV, like albumentations: turn and hues are rounded to steps of 2 degrees,
    which for a strong colour is up to 6 grey levels in one channel.
    """
    steps = round(turn * 180)
    if steps == 0:  # spares the rounding of the way to HSV and back
        return image
    table = ((np.arange(256) + steps) % 180).astype(np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
