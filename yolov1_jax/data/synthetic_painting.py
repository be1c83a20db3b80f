"""The pixels of a synthetic image: a background, shapes with shadows, light and camera.

Lengths are fractions of the image side, so that an image looks alike at every size. Noise and
patterns are computed once per process, the same in every run, and then cut, warped and coloured.
"""

import colorsys
import functools
import math

import cv2
import numpy as np
from numpy.random import Generator

from yolov1_jax.data.synthetic_shapes import CLASS_NAMES, Shape

# Standard deviation of a shape's hue around that of its class, in turns; classes are 1/6 apart.
HUE_SPREAD = 0.035
GROUNDS = (  # dark, middle, light
    ((48, 62, 30), (92, 112, 56), (150, 160, 92)),  # grass
    ((88, 78, 52), (146, 134, 92), (192, 184, 140)),  # dry grass
    ((132, 110, 82), (190, 168, 134), (226, 210, 182)),  # sand
    ((58, 46, 36), (104, 84, 66), (152, 130, 108)),  # earth
    ((62, 64, 68), (112, 114, 118), (164, 166, 168)),  # asphalt
    ((30, 58, 76), (66, 104, 122), (142, 172, 182)),  # water
    ((176, 184, 196), (214, 220, 228), (246, 248, 250)),  # snow
    ((88, 56, 34), (138, 96, 62), (184, 144, 104)),  # wood
    ((96, 88, 82), (148, 140, 132), (196, 190, 182)),  # stone
)
SKIES = (  # top, middle, at the horizon
    ((74, 122, 176), (136, 174, 208), (232, 238, 242)),  # clear
    ((112, 124, 138), (160, 170, 180), (214, 218, 222)),  # overcast
    ((70, 78, 112), (168, 138, 142), (240, 206, 164)),  # evening
    ((36, 46, 70), (66, 80, 108), (118, 130, 150)),  # dusk
    ((150, 140, 122), (188, 178, 160), (222, 214, 200)),  # plaster
    ((92, 112, 104), (136, 154, 146), (190, 202, 194)),  # wall
)
_BANK_SIDE = 512  # of noise and patterns, in pixels
_PERIOD = 24  # of patterns, in pixels
_WARP = None, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT  # dst, flags, border
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def paint(rng: Generator, shapes: list[Shape], size: int) -> np.ndarray:
    """An image with the given shapes, later ones over earlier ones. -> uint8 RGB [size, size, 3]"""
    # The background is painted smaller and enlarged: out of focus, and cheap.
    side = round(size * rng.uniform(0.4, 0.8))
    if rng.random() < 0.35:  # a surface seen from above; streaks look like fibres or wood
        height = int(rng.integers(96, 320))
        noise = _noise(rng, height, height // (1, 1, 3, 8)[int(rng.integers(4))], side, side)
        noise = np.ascontiguousarray(noise.T) if rng.random() < 0.5 else noise
        image = _colored(rng, noise, GROUNDS)
    else:
        image = _landscape(rng, side)
    for _ in range(int(rng.integers(4))):
        _paint_clutter(rng, image)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    angle = rng.uniform(0, 2 * math.pi)
    light = np.array([math.cos(angle), math.sin(angle)])
    for shape in shapes:
        paint_shape(rng, image, shape, light)

    # The photograph: uneven light, exposure and colour cast, focus, sensor noise.
    _multiply(image, rng.integers(140, 256, size=(3, 3), dtype=np.uint8), 200)
    gain, offset = rng.uniform(0.75, 1.15) * rng.uniform(0.93, 1.07, 3), rng.uniform(-10, 25)
    image = cv2.transform(image, np.column_stack([np.diag(gain), np.full(3, offset)]))
    if rng.random() < 0.3:
        width = 2 * round(size * rng.uniform(0, 0.01)) + 1
        image = cv2.GaussianBlur(image, (width, width), 0)
    amplitude = 2 * rng.uniform(0, 0.06)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.addWeighted(image, 1.0, noise, amplitude, -128 * amplitude)


def paint_shape(rng: Generator, image: np.ndarray, shape: Shape, light: np.ndarray) -> None:
    """Paints a shape and its shadow, which falls in the direction `light` [2], over the image."""
    hue = shape.label / len(CLASS_NAMES) + HUE_SPREAD * rng.standard_normal()
    size = image.shape[0]
    low, high = shape.contours[0].min(axis=0), shape.contours[0].max(axis=0)
    margin = 0.05  # room for the shadow and the soft edge
    left, top = (max(0, math.floor(v * size)) for v in (low - margin).tolist())
    right, bottom = (max(0, math.ceil(v * size)) for v in (high + margin).tolist())
    image = image[top:bottom, left:right]  # a view; only this part changes
    height, width = image.shape[:2]
    contours = [contour - np.array([left, top]) / size for contour in shape.contours]

    # A third of the resolution is enough for the shadow, which is soft.
    offset = light * rng.uniform(0.012, 0.03)
    shadow = np.full((height // 3 + 1, width // 3 + 1), 255, np.uint8)
    moved = _fixed_point([c + offset for c in contours], size / 3)
    cv2.fillPoly(shadow, moved, int(rng.integers(110, 190)), shift=_SHIFT)
    _multiply(image, cv2.blur(shadow, (3, 3)), 255)

    surface = _texture(rng, height, width, hue, period=max(high - low) * size / rng.uniform(2, 5))
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) @ light  # [4]
    _multiply(surface, _to_uint8(200 - 30 * corners).reshape(2, 2), 200)  # lit side, dark side
    if rng.random() < 0.5:
        edge = [0.4 * v for v in cv2.mean(surface)[:3]]
        points, thickness = _fixed_point(contours, size), max(1, round(size / 90))
        cv2.polylines(surface, points, True, edge, thickness, cv2.LINE_AA, _SHIFT)

    # fillPoly paints half a pixel more on each side, so it works at four times the resolution.
    fine = np.zeros((4 * height, 4 * width), np.uint8)
    cv2.fillPoly(fine, _fixed_point(contours, 4 * size), 255, shift=_SHIFT)
    cover = cv2.merge([cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)] * 3)
    cv2.multiply(surface, cover, surface, scale=1 / 255)
    cv2.multiply(image, cv2.bitwise_not(cover), image, scale=1 / 255)
    cv2.add(image, surface, image)


def _landscape(rng: Generator, side: int) -> np.ndarray:
    """Sky over ground, or a wall behind a table, with up to two rows of hills or trees."""
    horizon = round(side * rng.uniform(0.3, 0.65))
    height, width = (int(v) for v in rng.integers(60, 250, 2))
    clouds = _noise(rng, height, width, horizon, side)
    haze = np.linspace(0, 255, horizon, dtype=np.uint8)[:, None].repeat(side, axis=1)
    share = rng.uniform(0.1, 0.6)
    sky = _colored(rng, cv2.addWeighted(clouds, share, haze, 1 - share, 0), SKIES)

    # The ground is noise in perspective: a point y rows below the horizon is 1 / d away, where
    # d = y + far (1 / y would be infinite at y = 0). The matrix maps (x, y) to
    # (u + zoom (x / side - 1/2) / 2d, v + 0.3 zoom / d).
    rows = side - horizon
    far, zoom = 0.15 * rows, rng.uniform(60, 160) * rows  # zoom: in pixels of the bank
    u, v = rng.uniform(150, 350), rng.uniform(0, 100)
    across = [zoom / (2 * side), u, u * far - zoom / 4]
    matrix = np.array([across, [0, v, v * far + 0.3 * zoom], [0, 1, far]])
    ground = cv2.warpPerspective(rng.choice(_noise_bank()), matrix, (side, rows), *_WARP)
    ground = _colored(rng, ground, GROUNDS)
    image = np.concatenate([sky, ground])

    back, front = sky[-1].mean(axis=0), 0.6 * ground[0].mean(axis=0)  # colours
    for nearness in sorted(rng.uniform(0.2, 0.8, int(rng.integers(3))).tolist()):
        ridge = _noise(rng, 1, int(rng.integers(60, 300)), 1, side)[0] / 255  # [side]
        ridge = horizon - ridge * side * (1 - nearness) * rng.uniform(0.2, 0.5)
        outline = np.column_stack([np.arange(side), ridge])
        outline = np.concatenate([outline, [[side, horizon], [0, horizon]]])
        color = (back + nearness * (front - back)).tolist()
        cv2.fillPoly(image, [np.rint(outline).astype(np.int32)], color)
    return image


def _paint_clutter(rng: Generator, image: np.ndarray) -> None:
    """A bent line or an irregular blob, lighter or darker than what is around it."""
    side = image.shape[0]
    center = rng.random(2)
    x, y = (center * side).astype(int)
    color = (image[y, x] * rng.uniform(0.6, 1.3)).tolist()
    if rng.random() < 0.5:
        start, end = rng.uniform(-0.1, 1.1, (2, 2))
        t = np.linspace(0, 1, 16)[:, None]
        line = start * (1 - t) + end * t + rng.normal(0, 0.6, 2) * t * (1 - t)
        width = max(1, round(side * rng.uniform(0.004, 0.014)))
        cv2.polylines(image, _fixed_point([line], side), False, color, width, cv2.LINE_AA, _SHIFT)
    else:
        angle = np.arange(40) * (2 * math.pi / 40)
        waves = np.cos(np.array([[2], [3], [5]]) * angle + rng.uniform(0, 2 * math.pi, (3, 1)))
        radius = 1 + np.array([0.35, 0.25, 0.15]) @ waves  # [40]
        ray = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.02, 0.1, 2)
        blob = center + radius[:, None] * ray
        cv2.fillPoly(image, _fixed_point([blob], side), color, cv2.LINE_AA, _SHIFT)


def _texture(rng: Generator, height: int, width: int, hue: float, period: float) -> np.ndarray:
    """One strong colour, plain or with a second tone in a pattern. -> uint8 [height, width, 3]"""
    saturation, value = rng.uniform(0.6, 1.0), rng.uniform(0.45, 1.0)
    second_hue = hue + rng.uniform(-0.08, 0.08)
    second_value = value + rng.uniform(0.2, 0.5) * (1 if value < 0.6 else -1)
    tone = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
    second_tone = 255 * np.array(colorsys.hsv_to_rgb(second_hue % 1, saturation, second_value))
    if rng.random() < 1 / (len(_pattern_bank()) + 1):
        return np.full((height, width, 3), tone, np.uint8)

    angle, zoom = rng.uniform(0, 2 * math.pi), _PERIOD / period
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    center = _BANK_SIDE / 2 + rng.uniform(-_PERIOD, _PERIOD, 2)
    affine = np.column_stack([linear, center - linear @ [width / 2, height / 2]])
    pattern = cv2.warpAffine(rng.choice(_pattern_bank()), affine, (width, height), *_WARP)
    # The patterns are smooth waves; a steep ramp gives them crisp edges at every zoom.
    level = 0.5 + rng.uniform(2, 6) * (np.arange(256) / 255 - 0.5)
    ramp = tone + np.clip(level, 0, 1)[:, None] * (second_tone - tone)  # [256, 3]
    return cv2.applyColorMap(pattern, _to_uint8(ramp)[:, None])


def _colored(rng: Generator, grey: np.ndarray, palettes: tuple) -> np.ndarray:
    """Grey values in the colours of one palette, varied a little. uint8 [H, W] -> [H, W, 3]"""
    stops = rng.choice(palettes) * rng.uniform(0.85, 1.1) + rng.normal(0, 6, (3, 3))
    ramp = [np.interp(np.arange(256), (30, 128, 225), channel) for channel in stops.T]
    return cv2.applyColorMap(grey, _to_uint8(np.stack(ramp, axis=1))[:, None])


def _noise(rng: Generator, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """A [height, width] cut of fractal noise, enlarged to uint8 [rows, columns]."""
    y, x = int(rng.integers(_BANK_SIDE - height)), int(rng.integers(_BANK_SIDE - width))
    cut = rng.choice(_noise_bank())[y : y + height, x : x + width]
    return cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_LINEAR)


@functools.cache
def _noise_bank() -> np.ndarray:
    """Fractal noise of several roughnesses. -> uint8 [4, side, side]"""
    frequency = np.hypot(np.fft.fftfreq(_BANK_SIDE)[:, None], np.fft.rfftfreq(_BANK_SIDE)[None])
    frequency[0, 0] = np.inf  # no constant part
    exponents = np.array([1.0, 1.25, 1.5, 1.8])[:, None, None]
    white = np.random.default_rng(0).normal(size=(4, _BANK_SIDE, _BANK_SIDE))
    noise = np.fft.irfft2(np.fft.rfft2(white) / frequency**exponents)
    return _to_uint8(128 + 50 * noise / noise.std(axis=(1, 2), keepdims=True))


@functools.cache
def _pattern_bank() -> np.ndarray:
    """Stripes, checks, dots and mottle as grey waves. -> uint8 [4, side, side]"""
    wave = np.sin(np.arange(_BANK_SIDE) * (2 * math.pi / _PERIOD))
    x, y = np.meshgrid(wave, wave)
    waves = [_to_uint8(128 + 127 * grey) for grey in (x, x * y, (x + y - 0.9) / 2)]
    return np.stack([*waves, _noise_bank()[0]])


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _multiply(image: np.ndarray, factor: np.ndarray, one: int) -> None:
    """image *= factor / one in place; `factor`, uint8 [h, w], is enlarged to the image."""
    factor = cv2.resize(factor, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image, cv2.merge([factor] * 3), image, scale=1 / one)


def _fixed_point(contours: list[np.ndarray], size: float) -> list[np.ndarray]:
    """Fractions of the image -> OpenCV's fixed point, where pixel 0 spans -0.5 to 0.5."""
    return [np.rint((points * size - 0.5) * (1 << _SHIFT)).astype(np.int32) for points in contours]
