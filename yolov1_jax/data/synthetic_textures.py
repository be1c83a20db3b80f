"""What the surfaces of a synthetic scene look like: fractal noise, patterns, colours.

Noise and patterns cost time: they are computed once per process, the same in every run, and then
only cut, warped and recoloured.
"""

import colorsys
import functools
import math

import cv2
import numpy as np

TEXTURE_CONTRAST = (0.2, 0.5)  # between the two tones of a pattern, of the brightness range

_Color = tuple[int, int, int]
Palette = tuple[_Color, _Color, _Color]
# (dark, middle, light)
GROUNDS: tuple[Palette, ...] = (
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
# (top, middle, at the horizon)
SKIES: tuple[Palette, ...] = (
    ((74, 122, 176), (136, 174, 208), (232, 238, 242)),  # clear
    ((112, 124, 138), (160, 170, 180), (214, 218, 222)),  # overcast
    ((70, 78, 112), (168, 138, 142), (240, 206, 164)),  # evening
    ((36, 46, 70), (66, 80, 108), (118, 130, 150)),  # dusk
    ((150, 140, 122), (188, 178, 160), (222, 214, 200)),  # plaster
    ((92, 112, 104), (136, 154, 146), (190, 202, 194)),  # painted wall
)
_BANK_SIDE = 512  # pixels
_PATTERN_PERIOD = 24  # pixels in the bank


def colored(
    rng: np.random.Generator, grey: np.ndarray, palettes: tuple[Palette, ...]
) -> np.ndarray:
    """Grey values in the colours of one palette, varied a little. uint8 [H, W] -> [H, W, 3]"""
    stops = np.array(palettes[int(rng.integers(len(palettes)))]) * rng.uniform(0.85, 1.1)
    stops = stops + rng.normal(0, 6, (3, 3))
    levels = np.arange(256)
    ramp = np.stack([np.interp(levels, (30, 128, 225), channel) for channel in stops.T], axis=1)
    return cv2.applyColorMap(grey, to_uint8(ramp)[:, None])


def noise_cut(
    rng: np.random.Generator, height: int, width: int, rows: int, columns: int
) -> np.ndarray:
    """A [height, width] cut of fractal noise, scaled to uint8 [rows, columns].

    The smaller the cut, the coarser the result; unequal sides give streaks.
    """
    y, x = int(rng.integers(_BANK_SIDE - height)), int(rng.integers(_BANK_SIDE - width))
    cut = _any_of(rng, _noise_bank())[y : y + height, x : x + width]
    return cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_LINEAR)


def noise_plane(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Fractal noise on the ground, seen in perspective from the horizon down. [rows, columns]"""
    # A point y rows below the horizon is 1 / y away. The horizon itself would be infinitely far,
    # so the plane ends a little before.
    far = 0.15 * rows
    zoom = rng.uniform(60, 160) * rows  # pixels of the bank
    u, v = rng.uniform(150, 350), rng.uniform(0, 100)
    # (x, y, 1) -> (u + zoom (x / columns - 1/2) / 2d, v + 0.3 zoom / d) where d = y + far
    plane = [
        [zoom / (2 * columns), u, u * far - zoom / 4],
        [0, v, v * far + 0.3 * zoom],
        [0, 1, far],
    ]
    return cv2.warpPerspective(
        _any_of(rng, _noise_bank()),
        np.array(plane),
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )


def textured(
    rng: np.random.Generator, height: int, width: int, hue: float, period: float
) -> np.ndarray:
    """One strong colour, plain or with a second tone in a pattern. -> uint8 [height, width, 3]

    `hue` is in turns, `period` of the pattern in pixels.
    """
    saturation, value = rng.uniform(0.6, 1.0), rng.uniform(0.45, 1.0)
    second_hue = hue + rng.uniform(-0.08, 0.08)
    second_value = value + rng.uniform(*TEXTURE_CONTRAST) * (1 if value < 0.6 else -1)
    tone = 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))
    second_tone = 255 * np.array(colorsys.hsv_to_rgb(second_hue % 1, saturation, second_value))
    patterns = _pattern_bank()
    if rng.random() < 1 / (len(patterns) + 1):
        return np.full((height, width, 3), tone, np.uint8)

    angle, zoom = rng.uniform(0, 2 * math.pi), _PATTERN_PERIOD / period
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    center = _BANK_SIDE / 2 + rng.uniform(-_PATTERN_PERIOD, _PATTERN_PERIOD, 2)
    affine = np.column_stack([linear, center - linear @ [width / 2, height / 2]])
    pattern = cv2.warpAffine(
        _any_of(rng, patterns),
        affine,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    # The patterns are smooth waves; a steep ramp gives them crisp edges at every zoom.
    level = 0.5 + rng.uniform(2, 6) * (np.arange(256) / 255 - 0.5)
    ramp = tone + np.clip(level, 0, 1)[:, None] * (second_tone - tone)  # [256, 3]
    return cv2.applyColorMap(pattern, to_uint8(ramp)[:, None])


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Rounded and clipped to [0, 255]."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _any_of(rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
    return bank[int(rng.integers(len(bank)))]


@functools.cache
def _noise_bank() -> np.ndarray:
    """Fractal noise of several roughnesses. -> uint8 [4, side, side]"""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(_BANK_SIDE)[:, None], np.fft.rfftfreq(_BANK_SIDE)[None])
    frequency[0, 0] = np.inf  # no constant part
    tiles = []
    for exponent in (1.0, 1.25, 1.5, 1.8):
        spectrum = np.fft.rfft2(rng.normal(size=(_BANK_SIDE, _BANK_SIDE))) / frequency**exponent
        tile = np.fft.irfft2(spectrum)
        tiles.append(to_uint8(128 + 50 * tile / tile.std()))
    return np.stack(tiles)


@functools.cache
def _pattern_bank() -> np.ndarray:
    """Stripes, checks, dots and mottle as grey waves. -> uint8 [4, side, side]"""
    wave = np.sin(np.arange(_BANK_SIDE) * (2 * math.pi / _PATTERN_PERIOD))
    x, y = np.meshgrid(wave, wave)
    waves = [to_uint8(128 + 127 * grey) for grey in (x, x * y, (x + y - 0.9) / 2)]
    return np.stack([*waves, _noise_bank()[0]])
