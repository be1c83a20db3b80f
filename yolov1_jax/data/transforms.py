"""Resizing and augmentation of one image and its boxes, in NumPy and OpenCV.

Frames: boxes are in [0, 1] of the image they belong to, before (the stored image) and after (the
network input). The network input is the stored image stretched to a square, so a resize alone
leaves relative boxes as they are. Images are uint8 RGB [height, width, 3]; N objects.

The recipe is that of the PyTorch reference (gitE0Z9/pytorch-implementations, notebook yolov1-v2 of
2021-09; albumentations 1.0): resize, colour jitter, horizontal flip, shift and scale with a
reflected border, and a filter of the boxes behind each of them. Where this differs from it:
  - Resize, flip, shift and scale are one matrix and one interpolation, not two in a row, so the
    image is a little sharper. The reflection is about the edge pixels of the stored image.
  - The image is scaled about its centre; the reference is half an input pixel beside it.
  - Colours are changed behind the warp, so that the cost does not grow with the stored image. Only
    contrast could tell: it pulls towards the mean of what the warp left in view.
"""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np

from yolov1_jax.errors import UserError

# ITU-R BT.601, the grey of torchvision and OpenCV.
_LUMA = np.array([0.299, 0.587, 0.114])
_HUE_STEPS = 180  # OpenCV's 8-bit hue: steps of 2 degrees


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to its images; the defaults are the PyTorch reference's.

    Attributes:
      enabled: False leaves out flip, colour and affine. `min_area` and `min_visibility` hold
        either way, so that switching augmentation off does not change which objects are learned.
      flip_probability: of a mirror image, left and right swapped.
      color_probability: of all four colour changes, in random order.
      brightness, contrast, saturation: factors are uniform in [1 - value, 1 + value].
      hue: turn is uniform in [-value, value], as a fraction of the colour circle.
      affine_probability: of shift and scale together.
      shift: uniform in [-value, value] for each axis, as a fraction of the image side.
      scale: one factor for both axes about the centre, uniform in [1 - value, 1 + value].
      min_area: an object must cover more than this many pixels of the network input, after the
        resize and again after shift and scale. 1024 belongs to an input of 448 x 448; for another
        side multiply by (side / 448)^2 to remove the same objects. 0 keeps all.
      min_visibility: an object must keep more than this fraction of its area inside the image.
    """

    enabled: bool = True
    flip_probability: float = 0.5
    color_probability: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.2
    affine_probability: float = 0.5
    shift: float = 0.0625
    scale: float = 0.1
    min_area: float = 1024.0
    min_visibility: float = 0.3

    def __post_init__(self) -> None:
        highest = {"hue": 0.5, "scale": 0.99, "min_area": math.inf}
        for field in dataclasses.fields(self):
            if field.name == "enabled":
                continue
            value, high = getattr(self, field.name), highest.get(field.name, 1.0)
            if not 0 <= value <= high:
                raise UserError(
                    f"augmentation.{field.name}: expected a number from 0 to {high}, found {value}"
                )


class Affine(NamedTuple):
    """An axis-aligned map of relative coordinates: `scale * point + offset` for (x, y)."""

    scale: tuple[float, float]  # negative x: mirrored
    offset: tuple[float, float]


class Draw(NamedTuple):
    """The random choices for one image."""

    affine: Affine
    color: tuple[tuple[str, float], ...]  # (name of the adjustment, amount), in order; may be empty


IDENTITY = Affine(scale=(1.0, 1.0), offset=(0.0, 0.0))


def flip_scale_shift(flip: bool, scale: float, shift: tuple[float, float]) -> Affine:
    """Mirror left and right if `flip`, then scale about the centre, then shift by (x, y)."""
    scale_x = -scale if flip else scale
    return Affine(
        scale=(scale_x, scale),
        offset=(0.5 - 0.5 * scale_x + shift[0], 0.5 - 0.5 * scale + shift[1]),
    )


def draw(rng: np.random.Generator, augmentation: Augmentation) -> Draw:
    """Draws what happens to one image.

    The same numbers are drawn whatever the settings, so that changing one of them (say, the flip
    probability) leaves all other choices of a run as they were.
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
        return Draw(IDENTITY, ())
    flip = bool(chance[0] < a.flip_probability)
    if chance[1] >= a.affine_probability:
        scale, shift_x, shift_y = 1.0, 0.0, 0.0
    return Draw(
        affine=flip_scale_shift(flip, scale, (shift_x, shift_y)),
        color=tuple(color[i] for i in order) if chance[2] < a.color_probability else (),
    )


def augment(
    image: np.ndarray, boxes_xyxy: np.ndarray, drawn: Draw, image_size: int, limits: Augmentation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stored image and its boxes -> a network input and the boxes that remain.

    Args:
      image: uint8 [height, width, 3].
      boxes_xyxy: [N, 4], relative to the stored image, which have passed `filter_boxes` as they
        are (the reference filters after the resize as well as after shift and scale).
      drawn: the random choices.
      image_size: side of the network input in pixels.
      limits: its `min_area` and `min_visibility` are used.

    Returns:
      image uint8 [image_size, image_size, 3]; all boxes [N, 4], relative to it and clipped; keep
      bool [N].
    """
    image = adjust_color(warp_image(image, drawn.affine, image_size), drawn.color)
    boxes_xyxy, keep = filter_boxes(
        warp_boxes(boxes_xyxy, drawn.affine),
        image_size,
        min_area=limits.min_area,
        min_visibility=limits.min_visibility,
    )
    return image, boxes_xyxy, keep


# --- Geometry ---------------------------------------------------------------------------------


def resize_image(image: np.ndarray, image_size: int) -> np.ndarray:
    """Stretches to a square of `image_size` pixels: what evaluation and prediction do.

    Linear without a low-pass filter, also where the image shrinks a lot: it is what the reference
    trained and was tested with, and what `warp_image` does.
    """
    return cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)


def pixel_matrix(affine: Affine, height: int, width: int, image_size: int) -> np.ndarray:
    """The [2, 3] matrix for OpenCV that stretches to `image_size` and applies `affine`.

    OpenCV puts the integer coordinates at the centres of pixels, so the relative x of the pixel
    in column i is (i + 0.5) / width, in the stored image as in the network input.
    """
    matrix = np.zeros((2, 3))
    for axis, side in enumerate((width, height)):
        zoom = image_size * affine.scale[axis] / side
        matrix[axis, axis] = zoom
        matrix[axis, 2] = 0.5 * zoom + image_size * affine.offset[axis] - 0.5
    return matrix


def warp_image(image: np.ndarray, affine: Affine, image_size: int) -> np.ndarray:
    """Resizes and transforms in one interpolation. -> uint8 [image_size, image_size, 3].

    What comes into view from outside mirrors the image about its edge pixels.
    """
    height, width = image.shape[:2]
    return cv2.warpAffine(
        image,
        pixel_matrix(affine, height, width, image_size),
        (image_size, image_size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def warp_boxes(boxes_xyxy: np.ndarray, affine: Affine) -> np.ndarray:
    """Relative boxes [N, 4] -> the same objects after `affine`, not clipped. [N, 4]."""
    corners = boxes_xyxy.reshape(-1, 2, 2) * affine.scale + affine.offset  # [N, 2, 2]
    # A mirrored box has its left and right swapped.
    return np.sort(corners, axis=1).reshape(-1, 4)  # [N, 4]


def filter_boxes(
    boxes_xyxy: np.ndarray, image_size: int, *, min_area: float, min_visibility: float
) -> tuple[np.ndarray, np.ndarray]:
    """Clips boxes to the image and says which are still worth learning.

    Args:
      boxes_xyxy: [N, 4], relative; may reach outside of [0, 1].
      image_size: side of the network input in pixels.
      min_area: in pixels of the network input.
      min_visibility: fraction of the box's area that lies inside.

    Returns:
      Clipped boxes [N, 4], and keep, bool [N]: the clipped area is over `min_area` and the visible
      fraction over `min_visibility`; equal is too little, as in albumentations.
    """
    clipped = np.clip(boxes_xyxy, 0.0, 1.0)
    area, visible = _area(boxes_xyxy), _area(clipped)  # [N]
    keep = (visible * image_size**2 > min_area) & (visible > min_visibility * area)
    return clipped, keep


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return np.prod(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], axis=-1)


# --- Colour -----------------------------------------------------------------------------------
#
# Each adjustment rounds and clips to uint8, as torchvision's and albumentations' do on uint8
# images: what has become white stays white in the adjustments behind it.


def adjust_color(image: np.ndarray, steps: tuple[tuple[str, float], ...]) -> np.ndarray:
    """Applies (name, amount) one after the other. uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    for name, amount in steps:
        image = _ADJUSTMENTS[name](image, amount)
    return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with black: factor * image."""
    return _linear(image, factor * np.eye(3), 0.0)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the image's mean grey: factor * image + (1 - factor) * mean."""
    mean = float(_LUMA @ cv2.mean(image)[:3])
    return _linear(image, factor * np.eye(3), (1 - factor) * mean)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with each pixel's grey: factor * image + (1 - factor) * grey."""
    return _linear(image, factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1)), 0.0)


def adjust_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turns the hue by `turn` of the colour circle, keeping HSV saturation and value.

    Through OpenCV's 8-bit HSV like albumentations: the turn is rounded to a step of 2 degrees, and
    so are the hues themselves, which for a strong colour is up to 6 grey levels in one channel.
    """
    steps = round(turn * _HUE_STEPS)
    if steps == 0:  # spares the rounding of the way to HSV and back
        return image
    table = ((np.arange(256) + steps) % _HUE_STEPS).astype(np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _linear(image: np.ndarray, matrix: np.ndarray, offset: float) -> np.ndarray:
    """matrix @ pixel + offset, rounded and clipped."""
    return cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))


_ADJUSTMENTS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
