"""Where the shapes of a synthetic image are: outlines, places, occlusion, boxes. No pixels.

Lengths are fractions of the image, x to the right and y down. A contour is float64 [P, 2]. A shape
is one outer contour and any number of holes.
"""

import dataclasses
import math

import cv2
import numpy as np
from numpy.linalg import matrix_power
from numpy.random import Generator

# How hard the objects are to find.
MAX_OBJECTS = 4
MIN_SIDE, MAX_SIDE = 0.28, 0.6  # longer side of the box, log-uniform
MAX_STRETCH = 1.2  # along one axis; the other shrinks as much
MAX_OVERHANG = 0.15  # part of a box's side that may lie outside the image
MAX_OVERLAP = 0.6  # part of the smaller of two boxes, when a new shape looks for a place
GROUPED = 0.25  # share of the shapes that must overlap another by GROUP_OVERLAP or more
GROUP_OVERLAP = 0.15
DIFFICULT_BELOW = 0.4  # visible part of the area; VOC's annotators judged by eye
HIDDEN_BELOW = 0.1

_RASTER = 160  # side of the image in the occlusion test, in pixels
_MARGIN = 40  # room for what lies outside, at most MAX_OVERHANG * MAX_SIDE of the image


@dataclasses.dataclass(frozen=True)
class Shape:
    """One object. The first contour is the outer one."""

    label: int
    contours: tuple[np.ndarray, ...]
    visible: float = 1.0  # part of the area inside the image and not covered by other shapes

    @property
    def box_xyxy(self) -> np.ndarray:
        """Tight box of the part inside the image, as if nothing covered it. [4]"""
        outer = self.contours[0]
        if outer.min() < 0 or outer.max() > 1:
            outer = _clip_to_image(outer)
        return np.concatenate([outer.min(axis=0), outer.max(axis=0)])


def _polygon(radii: list[float]) -> np.ndarray:
    """Points at equal angles, the first one at the top. -> [P, 2]"""
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1) * np.array(radii)[:, None]


_CORNER = np.array([[0.36, -1.0], [0.36, -0.36], [1.0, -0.36]])  # of the cross
_QUARTER_TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])  # for row vectors

OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "disc": (_polygon([1.0] * 48),),
    "ring": (_polygon([1.0] * 48), _polygon([0.55] * 48)),
    "square": (_polygon([1.0] * 4),),
    "triangle": (_polygon([1.0] * 3),),
    "star": (_polygon([1.0, 0.45] * 5),),
    "cross": (np.concatenate([_CORNER @ matrix_power(_QUARTER_TURN, k) for k in range(4)]),),
}
CLASS_NAMES = tuple(OUTLINES)


def sample_shapes(rng: Generator) -> list[Shape]:
    """The objects of one image, at least one, in the order of painting: later ones cover earlier.

    A shape without a place, or hidden, is left out: all that is painted is in the ground truth.
    """
    shapes: list[Shape] = []
    boxes: list[np.ndarray] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        label = int(rng.integers(len(CLASS_NAMES)))
        contours = _transform(rng, OUTLINES[CLASS_NAMES[label]])
        low, high = contours[0].min(axis=0), contours[0].max(axis=0)
        size = high - low
        room = 1 - size * (1 - 2 * MAX_OVERHANG)
        least = GROUP_OVERLAP if boxes and rng.random() < GROUPED else 0.0
        for _ in range(20):
            corner = -MAX_OVERHANG * size + rng.random(2) * room
            box = np.concatenate([corner, corner + size])
            if least <= max((_overlap(box, other) for other in boxes), default=0) <= MAX_OVERLAP:
                boxes.append(box)
                shapes.append(Shape(label, tuple(c + (corner - low) for c in contours)))
                break
    visible = visible_parts(shapes)
    if min(visible) < HIDDEN_BELOW:
        shapes = [s for s, v in zip(shapes, visible, strict=True) if v >= HIDDEN_BELOW]
        visible = visible_parts(shapes)  # those that were left out cover nothing
    return [dataclasses.replace(s, visible=v) for s, v in zip(shapes, visible, strict=True)]


def visible_parts(shapes: list[Shape]) -> list[float]:
    """For each shape, the part of its area that lies inside the image and under no later shape.

    Counted on a small raster, on which every shape is half a pixel larger: good to about 0.03.
    """
    scene = np.zeros((_RASTER + 2 * _MARGIN, _RASTER + 2 * _MARGIN), np.uint8)
    areas = []
    for number, shape in enumerate(shapes, start=1):
        points = [np.rint(c * _RASTER + _MARGIN).astype(np.int32) for c in shape.contours]
        areas.append(cv2.countNonZero(cv2.fillPoly(np.zeros_like(scene), points, 1)))
        cv2.fillPoly(scene, points, number)
    inside = scene[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    seen = np.bincount(inside.ravel(), minlength=len(shapes) + 1)[1:]
    return [float(s / a) for s, a in zip(seen, areas, strict=True)]


def _transform(rng: Generator, contours: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Turned, stretched, turned again (every linear map is of this form), and given a size."""
    angles = rng.uniform(0, 2 * math.pi, 2)
    (c, s), (c2, s2) = ((math.cos(angle), math.sin(angle)) for angle in angles)
    stretch = math.exp(rng.uniform(0, math.log(MAX_STRETCH)))
    side = math.exp(rng.uniform(math.log(MIN_SIDE), math.log(MAX_SIDE)))
    linear = np.array([[c, s], [-s, c]]) @ np.diag([stretch, 1 / stretch])
    linear = linear @ np.array([[c2, s2], [-s2, c2]])
    linear *= side / np.ptp(contours[0] @ linear, axis=0).max()
    return tuple(c @ linear for c in contours)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two boxes_xyxy over the area of the smaller one."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(width * height / min(areas)) if width > 0 and height > 0 else 0.0


def _clip_to_image(contour: np.ndarray) -> np.ndarray:
    """The polygon's part inside the image (Sutherland and Hodgman 1974). [P, 2] -> [Q, 2]"""
    for axis, border, sign in ((0, 0.0, 1.0), (0, 1.0, -1.0), (1, 0.0, 1.0), (1, 1.0, -1.0)):
        depth = (contour[:, axis] - border) * sign  # positive inside
        depth_following = np.roll(depth, -1)
        crosses = (depth >= 0) != (depth_following >= 0)
        at = depth / np.where(crosses, depth - depth_following, 1.0)
        crossing = contour + at[:, None] * (np.roll(contour, -1, axis=0) - contour)
        crossing[:, axis] = border
        both = np.stack([contour, crossing], axis=1)  # [P, 2, 2]
        contour = both[np.stack([depth >= 0, crosses], axis=1)]  # [Q, 2]
    return contour
