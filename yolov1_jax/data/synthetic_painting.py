"""The pixels of a synthetic scene: a background, shapes with their shadows, light and camera.

Lengths are fractions of the image side, so that a scene looks alike at every size. The
hue of a shape is given; its texture says nothing about its class.
"""

import math

import cv2
import numpy as np

from yolov1_jax.data.synthetic_textures import (
    GROUNDS,
    SKIES,
    colored,
    noise_cut,
    noise_plane,
    textured,
    to_uint8,
)

# What makes the pictures easy or hard to read.
MAX_CLUTTER = 3  # lines and blobs that are no object
MAX_BLUR = 0.01  # radius of the focus; three in ten images are blurred
MAX_NOISE = 0.06  # half width of the sensor noise, of the brightness range

_SUPERSAMPLING = 4
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def paint_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A view with a horizon or one flat surface, with clutter. -> uint8 [size, size, 3]

    Painted smaller and enlarged: what lies behind the subject is out of focus, and that is cheap.
    """
    side = round(size * rng.uniform(0.4, 0.8))
    image = _flat_surface(rng, side) if rng.random() < 0.35 else _view(rng, side)
    for _ in range(int(rng.integers(MAX_CLUTTER + 1))):
        _paint_clutter(rng, image)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def paint_shape(
    rng: np.random.Generator,
    image: np.ndarray,
    contours: tuple[np.ndarray, ...],
    light: np.ndarray,
    hue: float,
) -> None:
    """Paints one shape and its shadow over `image`, in place.

    Args:
      rng: decides on shades and texture.
      image: uint8 RGB [size, size, 3].
      contours: each [P, 2] in fractions of the image, the outer one first; the others are holes.
      light: unit vector [2], the direction in which shadows fall.
      hue: of the shape, in turns.
    """
    size = image.shape[0]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    margin = 0.05  # room for the shadow and the soft edge
    left, top = (max(0, math.floor(v * size)) for v in (low - margin).tolist())
    right, bottom = (max(0, math.ceil(v * size)) for v in (high + margin).tolist())
    image = image[top:bottom, left:right]  # a view: the rest of the image is left alone
    corner = np.array([left, top]) / size
    points = [_fixed_point(c - corner, size) for c in contours]
    height, width = image.shape[:2]

    # The shadow is soft, so a third of the resolution is enough.
    offset = light * rng.uniform(0.012, 0.03) - corner
    shadow = np.full((height // 3 + 1, width // 3 + 1), 255, np.uint8)
    shadow_points = [_fixed_point(c + offset, size / 3) for c in contours]
    cv2.fillPoly(shadow, shadow_points, int(rng.integers(110, 190)), shift=_SHIFT)
    _multiply(image, cv2.blur(shadow, (3, 3)), 255)

    paint = textured(rng, height, width, hue, period=max(high - low) * size / rng.uniform(2, 5))
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) @ light  # [4]
    _multiply(paint, to_uint8(200 - 30 * corners).reshape(2, 2), 200)  # lit side, dark side
    if rng.random() < 0.5:
        edge = [0.4 * v for v in cv2.mean(paint)[:3]]
        cv2.polylines(paint, points, True, edge, max(1, round(size / 90)), cv2.LINE_AA, _SHIFT)

    # fillPoly paints half a pixel more on each side, so it works at a multiple of the resolution.
    fine = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    fine_points = [_fixed_point(c - corner, size * _SUPERSAMPLING) for c in contours]
    cv2.fillPoly(fine, fine_points, 255, shift=_SHIFT)
    mask = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    cover = cv2.merge([mask] * 3)
    cv2.multiply(paint, cover, paint, scale=1 / 255)
    cv2.multiply(image, cv2.bitwise_not(cover), image, scale=1 / 255)
    cv2.add(image, paint, image)


def take_picture(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light, exposure, colour cast, focus and sensor noise. uint8 [size, size, 3]"""
    image = image.copy()
    _multiply(image, rng.integers(140, 256, size=(3, 3), dtype=np.uint8), 200)
    gain, offset = rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3), rng.uniform(-10, 25)
    image = cv2.transform(image, np.column_stack([np.diag(gain), np.full(3, offset)]))
    if rng.random() < 0.3:
        width = 2 * round(image.shape[0] * rng.uniform(0, MAX_BLUR)) + 1
        image = cv2.GaussianBlur(image, (width, width), 0)
    amplitude = 2 * rng.uniform(0, MAX_NOISE)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1.0, noise, amplitude, -128 * amplitude)


def _flat_surface(rng: np.random.Generator, side: int) -> np.ndarray:
    """Seen from above: ground, a wall, a table; streaks look like fibres or wood."""
    height = int(rng.integers(96, 320))
    width = height // (1, 1, 3, 8)[int(rng.integers(4))]
    noise = noise_cut(rng, height, width, side, side)
    if rng.random() < 0.5:
        noise = np.ascontiguousarray(noise.T)
    return colored(rng, noise, GROUNDS)


def _view(rng: np.random.Generator, side: int) -> np.ndarray:
    """Sky over ground, or a wall behind a table, with up to two rows of hills or trees."""
    horizon = round(side * rng.uniform(0.3, 0.65))
    height, width = (int(v) for v in rng.integers(60, 250, 2))
    clouds = noise_cut(rng, height, width, horizon, side)
    haze = np.linspace(0, 255, horizon, dtype=np.uint8)[:, None].repeat(side, axis=1)
    share = rng.uniform(0.1, 0.6)
    sky = colored(rng, cv2.addWeighted(clouds, share, haze, 1 - share, 0), SKIES)
    ground = colored(rng, noise_plane(rng, side - horizon, side), GROUNDS)
    image = np.concatenate([sky, ground])

    far, near = sky[-1].mean(axis=0), 0.6 * ground[0].mean(axis=0)  # colours
    for nearness in sorted(rng.uniform(0.2, 0.8, int(rng.integers(3))).tolist()):
        ridge = noise_cut(rng, 1, int(rng.integers(60, 300)), 1, side)[0] / 255  # [side]
        ridge = horizon - ridge * side * (1 - nearness) * rng.uniform(0.2, 0.5)
        outline = np.column_stack([np.arange(side), ridge])
        outline = np.concatenate([outline, [[side, horizon], [0, horizon]]])
        color = far + nearness * (near - far)
        cv2.fillPoly(image, [np.rint(outline).astype(np.int32)], color.tolist())
    return image


def _paint_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """A bent line or an irregular blob in a lighter or darker tone of what is around it."""
    side = image.shape[0]
    center = rng.random(2)
    x, y = (center * side).astype(int)
    color = (image[y, x] * rng.uniform(0.6, 1.3)).tolist()
    if rng.random() < 0.5:
        start, end = rng.uniform(-0.1, 1.1, (2, 2))
        t = np.linspace(0, 1, 16)[:, None]
        line = start * (1 - t) + end * t + rng.normal(0, 0.6, 2) * t * (1 - t)
        thickness = max(1, round(side * rng.uniform(0.004, 0.014)))
        points = [_fixed_point(line, side)]
        cv2.polylines(image, points, False, color, thickness, cv2.LINE_AA, _SHIFT)
    else:
        angle = np.arange(40) * (2 * math.pi / 40)
        waves = np.cos(np.array([[2], [3], [5]]) * angle + rng.uniform(0, 2 * math.pi, (3, 1)))
        radius = 1 + np.array([0.35, 0.25, 0.15]) @ waves  # [40]
        ray = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.02, 0.1, 2)
        points = [_fixed_point(center + radius[:, None] * ray, side)]
        cv2.fillPoly(image, points, color, cv2.LINE_AA, _SHIFT)


def _multiply(image: np.ndarray, factor: np.ndarray, one: int) -> None:
    """image *= factor / one in place; `factor`, uint8 [h, w], is enlarged to the image."""
    factor = cv2.resize(factor, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image, cv2.merge([factor] * 3), image, scale=1 / one)


def _fixed_point(points: np.ndarray, size: float) -> np.ndarray:
    """Fractions of the image -> OpenCV's fixed point, where pixel 0 spans -0.5 to 0.5."""
    return np.rint((points * size - 0.5) * (1 << _SHIFT)).astype(np.int32)
