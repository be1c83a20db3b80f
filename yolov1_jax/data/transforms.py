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

Off by default are expand, crop and erasing (docs/recipe.md; `pipeline` makes the mosaics), and
Darknet's jitter of the sides and its colours (docs/darknet.md). Classification has a window of the
image in place of boxes. All that moves pixels is one matrix.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the grey of torchvision and OpenCV
_FILL = (124, 116, 104)  # ImageNet's mean colour: around an expanded image, and what is erased
_NUM_CROPS = 10  # tries to find a crop that shows an object


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to its images; the defaults are the PyTorch reference's."""

    enabled: bool = True  # False: nothing of the below but the two limits
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
    expand_probability: float = 0.0  # of the image on a larger canvas (SSD: Liu et al. 2016)
    expand: float = 2.0  # side of the canvas in image sides, uniform in [1, value]
    crop_probability: float = 0.0  # of a part of the image or canvas, stretched (SSD)
    crop: float = 0.4  # width and height uniform in [value, 1], at most 2 : 1 in image sides
    mosaic_probability: float = 0.0  # of four images in one (YOLOv4: Bochkovskiy et al. 2020)
    erase_probability: float = 0.0  # of a rectangle in one colour (Zhong et al. 2020)
    erase: float = 0.2  # area of the rectangle, uniform in [0.02, value] of the image
    # Darknet's, always: each side of the window moves by a part of the image uniform in [-value,
    # value], in or out, where the edge pixels repeat; saturation and value of HSV are multiplied or
    # divided by a factor uniform from 1 to the given one, and `hue` turns with them.
    jitter: float = 0.0
    saturation_scale: float = 1.0
    value_scale: float = 1.0
    min_side: float = 0.0  # an object must be as wide and as high as this at the end, in images
    # Classification: the part of the window that is shown (Szegedy et al. 2015, section 6)
    window_area: float = 0.08  # in windows, uniform in [value, 1]
    window_ratio: float = 4 / 3  # width : height in pixels, log-uniform in [1 / value, value]


class Affine(NamedTuple):
    """An axis-aligned map of relative coordinates: `scale * point + offset` for (x, y)."""

    scale: tuple[float, float]  # negative x: mirrored
    offset: tuple[float, float]


Color = tuple[tuple[str, Any], ...]  # (name of the adjustment, amount), in order; may be empty


class Parameters(NamedTuple):
    """What happens to one image, in this order."""

    windows: np.ndarray  # xyxy [n, 4], relative to the image: what to show, see `choose_window`
    affine: Affine  # flip, scale and shift
    color: Color
    erased: np.ndarray  # xyxy [0 or 1, 4], relative to the network input

    def plain(self) -> "Parameters":
        """Without expand, crop and erasing."""
        return self._replace(windows=np.array([[0.0, 0.0, 1.0, 1.0]]), erased=self.erased[:0])


def sample_parameters(rng: np.random.Generator, augmentation: Augmentation) -> Parameters:
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
    distortion: Color = ()
    if a.enabled and (a.saturation_scale != 1 or a.value_scale != 1):
        factors = random_scale(unit[2], a.saturation_scale), random_scale(unit[0], a.value_scale)
        distortion = (("hsv", (a.hue * unit[3], *factors)),)
        color = (*color[:3], ("hue", 0.0))
    order = rng.permutation(4)
    chance = np.concatenate([chance, rng.random(3)])
    canvas = expand_window(rng.random(3), a.expand)
    crops = crop_windows(rng.random((_NUM_CROPS, 4)), a.crop)
    erased = erased_rectangle(rng.random(4), a.erase)
    jitter = a.jitter * rng.uniform(-1, 1, size=4)
    if not a.enabled:
        jitter[:] = 0.0
        chance[:] = 1.0  # below no probability
    if chance[1] >= a.affine_probability:
        scale, shift_x, shift_y = 1.0, 0.0, 0.0
    if chance[3] >= a.expand_probability:
        canvas = np.array([[0.0, 0.0, 1.0, 1.0]])
    if chance[4] >= a.crop_probability:
        crops = crops[:0]
    canvas = canvas + jitter
    sides = np.tile(canvas[:, 2:] - canvas[:, :2], 2)
    return Parameters(
        windows=np.concatenate([canvas[:, [0, 1, 0, 1]] + sides * crops, canvas]),
        affine=flip_scale_shift(bool(chance[0] < a.flip_probability), scale, (shift_x, shift_y)),
        color=(*(color[i] for i in order if chance[2] < a.color_probability), *distortion),
        erased=erased if chance[5] < a.erase_probability else erased[:0],
    )


def random_scale(number: float, scale: float) -> float:
    """Darknet's `rand_scale`: a factor between 1 and `scale`, or 1 over it. number in [-1, 1]"""
    factor = 1 + (scale - 1) * abs(number)
    return factor if number > 0 else 1 / factor


def expand_window(numbers: np.ndarray, expand: float) -> np.ndarray:
    """A canvas around the image: side in [1, expand], place from numbers [3]. -> xyxy [1, 4]"""
    side = 1 + (expand - 1) * numbers[0]
    low = -(side - 1) * numbers[1:]
    return np.concatenate([low, low + side])[None]


def crop_windows(numbers: np.ndarray, crop: float) -> np.ndarray:
    """Parts of the image: width, height and place from numbers [n, 4] in [0, 1]. -> xyxy [n, 4]"""
    sides = crop + (1 - crop) * numbers[:, :2]
    sides[:, 1] = np.clip(sides[:, 1], sides[:, 0] / 2, sides[:, 0] * 2)
    low = (1 - sides) * numbers[:, 2:]
    return np.concatenate([low, low + sides], axis=1)


def erased_rectangle(numbers: np.ndarray, erase: float) -> np.ndarray:
    """A rectangle from numbers [4] in [0, 1]. -> xyxy [1, 4]

    They choose its area in [0.02, erase], height : width in [0.3, 1 / 0.3], and place, x and y.
    """
    area, ratio = 0.02 + (erase - 0.02) * numbers[0], 0.3 ** (1 - 2 * numbers[1])
    sides = np.minimum(np.sqrt([area / ratio, area * ratio]), 1)
    low = (1 - sides) * numbers[2:]
    return np.concatenate([low, low + sides])[None]


def choose_window(windows: np.ndarray, boxes_xyxy: np.ndarray, min_visibility: float) -> np.ndarray:
    """The first window that shows an object: its centre, and enough of its area; else the last.

    Args:
      windows: xyxy [n, 4]; boxes_xyxy: [m, 4]; both relative to the image.
      min_visibility: as in `Augmentation`.
    """
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    area = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    for window in windows[:-1]:
        inside = np.all((centres > window[:2]) & (centres < window[2:]), axis=1)  # [m]
        shown = np.minimum(boxes_xyxy[:, 2:], window[2:]) - np.maximum(
            boxes_xyxy[:, :2], window[:2]
        )
        if np.any(inside & (np.prod(np.maximum(shown, 0), axis=1) > min_visibility * area)):
            return window
    return windows[-1]


def mosaic_rectangles(cut: tuple[float, float], image_size: int) -> np.ndarray:
    """The four parts of a mosaic whose corners meet at `cut`, relative x and y.

    Returns:
      int [4, 4], pixels: upper left, upper right, lower left and lower right, as xyxy.
    """
    x, y = (round(value * image_size) for value in cut)
    columns, rows = ((0, x), (x, image_size)), ((0, y), (y, image_size))
    return np.array([[left, top, right, bottom] for top, bottom in rows for left, right in columns])


def augment(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    parameters: Parameters,
    size: tuple[int, int],
    augmentation: Augmentation,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns an original image and its boxes into a network input, or a part of one.

    Args:
      boxes_xyxy: float64 [n, 4], pixels of `image`.
      size: height and width of the result in pixels.
      augmentation: its `min_area` and `min_visibility` are used.

    Returns:
      image uint8 [height, width, 3]; boxes float64 [n, 4] in [0, 1] of it, clipped; keep bool [n],
      False for objects that are too small, after the resize or at the end.
    """
    height, width = image.shape[:2]
    relative = boxes_xyxy / np.array([[width, height, width, height]])  # [n, 4]
    relative, keep_resized = filter_boxes(relative, size, augmentation)
    window = choose_window(
        parameters.windows, relative[keep_resized], augmentation.min_visibility
    ).tolist()
    affine = compose(show_window(window), parameters.affine)
    corners = relative.reshape(-1, 2, 2) * affine.scale + affine.offset  # [n, 2, 2]
    moved = np.sort(corners, axis=1).reshape(-1, 4)  # a mirrored box has left and right swapped
    moved, keep_moved = filter_boxes(moved, size, augmentation)
    keep_moved &= np.all(moved[:, 2:] - moved[:, :2] >= augmentation.min_side, axis=1)
    border = cv2.BORDER_REFLECT_101
    if augmentation.jitter > 0:
        border = cv2.BORDER_REPLICATE
    elif min(window) < 0 or max(window) > 1:
        border = cv2.BORDER_CONSTANT  # a mirror image would have objects without boxes
    image = _render(image, affine, parameters, size, border)
    return image, moved, keep_resized & keep_moved


def _render(
    image: np.ndarray, affine: Affine, parameters: Parameters, size: tuple[int, int], border: int
) -> np.ndarray:
    """The warp, and what changes colours after it. -> uint8 [*size, 3]"""
    image = adjust_color(warp_image(image, affine, size, border), parameters.color)
    for rectangle in parameters.erased:
        left, top, right, bottom = np.rint(rectangle * [*size[::-1], *size[::-1]]).astype(int)
        image[top:bottom, left:right] = _FILL
    return image


def augment_window(
    image: np.ndarray,
    window_xyxy: np.ndarray,
    parameters: Parameters,
    crops: np.ndarray,
    image_size: int,
    augmentation: Augmentation,
) -> np.ndarray:
    """A part of a window of an image, for classification. -> uint8 [image_size, image_size, 3]

    Args:
      window_xyxy: float64 [4], pixels of `image`.
      parameters: its `affine`, `color` and `erased` are used.
      crops: numbers [n, 4] in [0, 1], see `resized_crop`.
    """
    affine = parameters.affine
    if augmentation.enabled:
        width, height = window_xyxy[2:] - window_xyxy[:2]
        part = resized_crop(
            crops, augmentation.window_area, augmentation.window_ratio, width / height
        )
        affine = compose(show_window(part.tolist()), affine)
    affine = compose(_show_pixels(image, window_xyxy), affine)
    size = image_size, image_size
    return _render(image, affine, parameters, size, cv2.BORDER_REFLECT_101)


def resized_crop(numbers: np.ndarray, area: float, ratio: float, aspect: float) -> np.ndarray:
    """The part of a window that training shows, relative to it. -> xyxy [4]

    Each row of numbers [n, 4] in [0, 1] chooses area, width : height and place, x and y, as
    `window_area` and `window_ratio` of `Augmentation` say. The first that fits into the window is
    taken, or else all of it.

    Args:
      aspect: width : height of the window in pixels.
    """
    areas = area + (1 - area) * numbers[:, 0]
    stretch = ratio ** (2 * numbers[:, 1] - 1) / aspect
    sides = np.sqrt(np.stack([areas * stretch, areas / stretch], axis=1))  # [n, 2]
    fitting = np.flatnonzero(sides.max(axis=1) <= 1)
    if not len(fitting):
        return np.array([0.0, 0.0, 1.0, 1.0])
    low = (1 - sides[fitting[0]]) * numbers[fitting[0], 2:]
    return np.concatenate([low, low + sides[fitting[0]]])


def resize_window(image: np.ndarray, window_xyxy: np.ndarray, image_size: int) -> np.ndarray:
    """Stretches a window of an image, float64 [4] in pixels, to a square, for evaluation."""
    return warp_image(image, _show_pixels(image, window_xyxy), (image_size, image_size))


def _show_pixels(image: np.ndarray, window_xyxy: np.ndarray) -> Affine:
    return show_window((window_xyxy / np.tile(image.shape[1::-1], 2)).tolist())


def show_window(window: Sequence[float]) -> Affine:
    """Stretches a window, relative xyxy, to the whole."""
    left, top, right, bottom = window
    width, height = right - left, bottom - top
    return Affine((1 / width, 1 / height), (-left / width, -top / height))


def compose(first: Affine, second: Affine) -> Affine:
    """The map that does one after the other."""
    scale = [b * a for a, b in zip(first.scale, second.scale, strict=True)]
    offset = [b * a + c for a, b, c in zip(first.offset, second.scale, second.offset, strict=True)]
    return Affine((scale[0], scale[1]), (offset[0], offset[1]))


def flip_scale_shift(flip: bool, scale: float, shift: tuple[float, float]) -> Affine:
    """Mirrors left and right if `flip`, then scales about the centre, then shifts by (x, y)."""
    scale_x = -scale if flip else scale
    offset = (0.5 - 0.5 * scale_x + shift[0], 0.5 - 0.5 * scale + shift[1])
    return Affine((scale_x, scale), offset)


def resize_image(image: np.ndarray, image_size: int, rule: str = "opencv") -> np.ndarray:
    """Stretches an image to a square, for evaluation and prediction. -> [image_size, image_size, 3]

    Linear without a low-pass filter. "opencv", uint8: as the reference was trained and tested, and
    as `warp_image`. "darknet", float32: `resize_as_darknet`.
    """
    if rule == "darknet":
        return resize_as_darknet(image, (image_size, image_size))
    return cv2.resize(image, (image_size, image_size), interpolation=cv2.INTER_LINEAR)


def resize_as_darknet(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Darknet's `resize_image` (src/image.c of f6afaab), faults included. -> float32 [*size, 3]

    The corner pixels of both images coincide. Columns first, then rows; both not rounded. The last
    column is that of the image. The last row has no second tap: where float32 rounds its place to
    just above the image's last row, which it does for 44 of the heights from 100 to 1000 at 448, it
    is the row above times almost 0.
    """
    height, width = image.shape[:2]
    left, weight = _darknet_taps(width, size[1])
    right = np.minimum(left + 1, width - 1)
    left[-1], weight[-1] = width - 1, 0
    weight = weight[:, None]  # [new width, 1]
    image = image.astype(np.float32)
    image = (1 - weight) * image[:, left] + weight * image[:, right]  # [height, new width, 3]
    top, weight = _darknet_taps(height, size[0])
    bottom = np.minimum(top + 1, height - 1)
    weight = weight[:, None, None]  # [new height, 1, 1]
    resized = (1 - weight) * image[top]
    resized[:-1] += (weight * image[bottom])[:-1]
    return resized


def _darknet_taps(side: int, new_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel for each new one, int, and the weight of the one after it, float32."""
    step = np.float32(side - 1) / np.float32(new_side - 1)
    place = np.arange(new_side, dtype=np.float32) * step
    first = place.astype(int)
    return first, place - first.astype(np.float32)


def warp_image(
    image: np.ndarray, affine: Affine, size: tuple[int, int], border: int = cv2.BORDER_REFLECT_101
) -> np.ndarray:
    """Resizes and transforms in one interpolation. -> uint8 [*size, 3]

    What comes into view from outside mirrors the image about its edge pixels, repeats these
    (BORDER_REPLICATE) or is grey (BORDER_CONSTANT).
    """
    # OpenCV puts the integer coordinates at the centres of pixels, so the relative x of the pixel
    # in column i is (i + 0.5) / width, in the original image as in the network input.
    matrix = np.zeros((2, 3))
    sides = zip(image.shape[1::-1], size[::-1], strict=True)
    for axis, (side, new_side) in enumerate(sides):
        zoom = new_side * affine.scale[axis] / side
        matrix[axis, axis] = zoom
        matrix[axis, 2] = 0.5 * zoom + new_side * affine.offset[axis] - 0.5
    # Linear interpolation is the default.
    return cv2.warpAffine(image, matrix, size[::-1], borderMode=border, borderValue=_FILL)


def filter_boxes(
    boxes_xyxy: np.ndarray, size: tuple[int, int], augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Clips relative boxes [n, 4] to [0, 1] and says which are still worth learning.

    Args:
      size: height and width of the image in pixels of the network input.

    Returns:
      Clipped boxes [n, 4]. keep, bool [n]: the clipped area is over `min_area` and the visible
      fraction over `min_visibility`; equal is too little, as in albumentations.
    """
    clipped = np.clip(boxes_xyxy, 0.0, 1.0)
    area, visible = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes_xyxy, clipped))  # [n]
    large = visible * math.prod(size) > augmentation.min_area
    return clipped, large & (visible > augmentation.min_visibility * area)


def adjust_color(image: np.ndarray, color: Color) -> np.ndarray:
    """Applies the adjustments one after the other. uint8 [H, W, 3] -> uint8 [H, W, 3]

    "brightness" blends with black, "contrast" with the image's mean grey, "saturation" with each
    pixel's grey: amount * image + (1 - amount) * other. "hue" turns the colours; "hsv" is Darknet's
    `distort_image`. Each step rounds and clips to uint8, as in torchvision and albumentations: what
    is white then stays white.
    """
    for name, amount in color:
        if name in ("hue", "hsv"):
            image = adjust_hue(image, amount) if name == "hue" else distort_image(image, *amount)
            continue
        matrix, offset = amount * np.eye(3), 0.0
        if name == "contrast":
            offset = (1 - amount) * float(_LUMA @ cv2.mean(image)[:3])
        elif name == "saturation":
            matrix += (1 - amount) * np.tile(_LUMA, (3, 1))
        image = cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))
    return image


def distort_image(image: np.ndarray, turn: float, saturation: float, value: float) -> np.ndarray:
    """Turns the hue by `turn` of the colour circle and multiplies saturation and value of HSV.

    As Darknet's (src/image.c), in float32: only the result is clipped, so that a saturation over 1
    takes from the middle channel, too.
    """
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    hsv[..., 1:] *= np.array([saturation, value], np.float32)
    rgb = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


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
