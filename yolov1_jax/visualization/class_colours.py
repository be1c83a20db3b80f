"""One colour per class index, told apart by eye, with and without colour blindness.

The palette is grown, not listed, so that it has no end: each next colour is the candidate farthest
from every colour before it. Distances are Euclidean in OKLab (Ottosson 2020), the smallest of three
views: full colour vision, protanopia and deuteranopia (Viénot, Brettel & Mollon 1999). So no two
early colours differ in red against green alone: one of them is lighter, or bluer.
The first n colours do not depend on how many are asked for: a class keeps its colour.
"""

import functools

import numpy as np

# Classes beyond share colours with the first ones; no figure can show more than these anyway.
NUM_COLOURS = 128
_FIRST = (0.00, 0.45, 0.70)  # a blue that reads well on white, and as a line on a photograph
# OKLab units. Too dark vanishes in shadows, too light on white paper.
_LIGHTNESS_RANGE = (0.45, 0.88)
# Too grey hides in any photograph, too pure glares.
_CHROMA_RANGE = (0.09, 0.22)
# Colour-blind views count this much longer: their colours fill two dimensions, not three, and with
# equal weight they would leave full vision with blues and greens only.
_COLOUR_BLIND_WEIGHT = 2.0

_XYZ_LIKE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)  # linear RGB -> cone response
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)  # cube root of the cone response -> OKLab
# Linear RGB as seen without the long-wave (protanopia) or medium-wave cones (deuteranopia).
_COLOUR_BLIND = (
    np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
)


def class_colour(index: int) -> tuple[int, int, int]:
    """The colour of a class, as 8-bit sRGB."""
    red, green, blue = _palette()[index % NUM_COLOURS]
    return int(red), int(green), int(blue)


def text_colour(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has the larger contrast ratio on the background (WCAG 2.1)."""
    luminance = float(_linear(np.asarray(background) / 255) @ (0.2126, 0.7152, 0.0722))
    on_white, on_black = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05
    return (0, 0, 0) if on_black >= on_white else (255, 255, 255)


@functools.cache
def _palette() -> np.ndarray:
    """The first NUM_COLOURS colours, uint8 [NUM_COLOURS, 3]."""
    levels = np.linspace(0, 1, 16)
    candidates = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    candidates = np.concatenate([[_FIRST], candidates])
    lab = _oklab(_linear(candidates))
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    keep = _within(lab[:, 0], _LIGHTNESS_RANGE) & _within(chroma, _CHROMA_RANGE)
    candidates = candidates[keep]

    linear = _linear(candidates)
    views = [_oklab(linear)]
    for matrix in _COLOUR_BLIND:
        views.append(_COLOUR_BLIND_WEIGHT * _oklab(np.clip(linear @ matrix.T, 0, 1)))
    lab_views = np.stack(views)  # [3 views, candidates, 3]

    chosen = [0]  # _FIRST
    distance = np.full(len(candidates), np.inf)
    while len(chosen) < NUM_COLOURS:
        to_last = np.linalg.norm(lab_views - lab_views[:, chosen[-1], None], axis=-1)
        distance = np.minimum(distance, to_last.min(axis=0))
        chosen.append(int(distance.argmax()))
    return np.round(candidates[chosen] * 255).astype(np.uint8)


def _within(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (values >= limits[0]) & (values <= limits[1])


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _oklab(linear_rgb: np.ndarray) -> np.ndarray:
    return np.cbrt(linear_rgb @ _XYZ_LIKE.T) @ _LAB.T
