"""Where the shapes of a synthetic scene are: outlines, placement, occlusion, boxes. No pixels.

Frame: fractions of the image, x to the right and y down, the image is [0, 1] x [0, 1]. A contour
is float64 [P, 2]; a shape is one outer contour and any number of holes (even-odd rule).
"""

import dataclasses
import math

import cv2
import numpy as np

# What makes the scenes easy or hard to find objects in.
MAX_OBJECTS = 4  # 1 to this many, before those that find no room
MIN_SIDE, MAX_SIDE = 0.28, 0.6  # longer side of the box, log-uniform
MAX_STRETCH = 1.2  # along one axis, while the other shrinks as much
MAX_OVERHANG = 0.15  # of a box's side may lie outside the image
MAX_OVERLAP = 0.6  # of the smaller of two boxes, when a new shape looks for a place
GROUPED = 0.25  # of the shapes look for a place where they touch another: its box by GROUP_OVERLAP
GROUP_OVERLAP = 0.15
DIFFICULT_BELOW = 0.4  # visible part of the area; VOC's annotators judged by eye
HIDDEN_BELOW = 0.1

_PLACEMENT_TRIES = 20
_VISIBILITY_PIXELS = 160  # side of the image in the occlusion test
_VISIBILITY_MARGIN = 40  # room for the overhang: MAX_OVERHANG * MAX_SIDE of the image at most


@dataclasses.dataclass(frozen=True)
class Shape:
    """One object: class index, contours (the outer one first) and the part of it that is seen."""

    label: int
    contours: tuple[np.ndarray, ...]
    visible: float = 1.0  # of its area, in [0, 1]: not covered by others, not outside the image

    @property
    def box_xyxy(self) -> np.ndarray:
        """Tight box of the part inside the image, as if nothing else covered it. [4]"""
        outer = self.contours[0]
        if outer.min() < 0 or outer.max() > 1:
            outer = _clip_to_image(outer)
        return np.concatenate([outer.min(axis=0), outer.max(axis=0)])

    @property
    def difficult(self) -> bool:
        return self.visible < DIFFICULT_BELOW


def _polygon(radii: list[float]) -> np.ndarray:
    """Points at equal angles, the first one at the top. -> [P, 2]"""
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1) * np.array(radii)[:, None]


_CROSS_ARM = 0.36  # half width of an arm of half length 1
_CROSS_CORNER = np.array([[_CROSS_ARM, -1.0], [_CROSS_ARM, -_CROSS_ARM], [1.0, -_CROSS_ARM]])
_QUARTER_TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])  # for row vectors

OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "disc": (_polygon([1.0] * 48),),
    "ring": (_polygon([1.0] * 48), _polygon([0.55] * 48)),
    "square": (_polygon([1.0] * 4),),
    "triangle": (_polygon([1.0] * 3),),
    "star": (_polygon([1.0, 0.45] * 5),),
    "cross": (
        np.concatenate(
            [_CROSS_CORNER @ np.linalg.matrix_power(_QUARTER_TURN, k) for k in range(4)]
        ),
    ),
}
CLASS_NAMES = tuple(OUTLINES)


def sample_shapes(rng: np.random.Generator) -> list[Shape]:
    """The objects of one scene in the order of painting: later ones cover earlier ones.

    A shape that finds no place, or of which less than HIDDEN_BELOW would be seen, is left out of
    the scene: everything that is painted is also in the ground truth. At least one shape remains.
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
        for _ in range(_PLACEMENT_TRIES):
            corner = -MAX_OVERHANG * size + rng.random(2) * room
            box = np.concatenate([corner, corner + size])
            if least <= max((_overlap(box, other) for other in boxes), default=0) <= MAX_OVERLAP:
                boxes.append(box)
                shapes.append(Shape(label, tuple(c + (corner - low) for c in contours)))
                break
    visible = visible_parts(shapes)
    if min(visible) < HIDDEN_BELOW:
        shapes = [s for s, v in zip(shapes, visible, strict=True) if v >= HIDDEN_BELOW]
        visible = visible_parts(shapes)  # those that are gone cover nothing
    return [dataclasses.replace(s, visible=v) for s, v in zip(shapes, visible, strict=True)]


def visible_parts(shapes: list[Shape]) -> list[float]:
    """Of each shape, the part of its area that lies inside the image and under no later shape.

    Counted on a small raster, on which every shape is half a pixel larger: good to about 0.03.
    """
    side = _VISIBILITY_PIXELS + 2 * _VISIBILITY_MARGIN
    scene = np.zeros((side, side), np.uint8)
    areas = []
    for number, shape in enumerate(shapes, start=1):
        points = [
            np.rint(c * _VISIBILITY_PIXELS + _VISIBILITY_MARGIN).astype(np.int32)
            for c in shape.contours
        ]
        alone = np.zeros_like(scene)
        cv2.fillPoly(alone, points, 1)
        areas.append(cv2.countNonZero(alone))
        cv2.fillPoly(scene, points, number)
    inside = slice(_VISIBILITY_MARGIN, -_VISIBILITY_MARGIN)
    seen = np.bincount(scene[inside, inside].ravel(), minlength=len(shapes) + 1)[1:]
    return [float(s / a) for s, a in zip(seen, areas, strict=True)]


def _transform(
    rng: np.random.Generator, contours: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """Turned, stretched, turned again (every linear map is of this form), and given a size."""
    first, second = (_rotation(a) for a in rng.uniform(0, 2 * math.pi, 2))
    stretch = math.exp(rng.uniform(0, math.log(MAX_STRETCH)))
    side = math.exp(rng.uniform(math.log(MIN_SIDE), math.log(MAX_SIDE)))
    linear = first @ np.diag([stretch, 1 / stretch]) @ second
    linear *= side / np.ptp(contours[0] @ linear, axis=0).max()
    return tuple(c @ linear for c in contours)


def _rotation(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s], [-s, c]])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two boxes_xyxy over the area of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = (float((x[2] - x[0]) * (x[3] - x[1])) for x in (a, b))
    return float(width * height) / min(area_a, area_b)


def _clip_to_image(contour: np.ndarray) -> np.ndarray:
    """The polygon's part inside the image (Sutherland and Hodgman 1974). [P, 2] -> [Q, 2]"""
    for axis in (0, 1):
        for border, sign in ((0.0, 1.0), (1.0, -1.0)):
            depth = (contour[:, axis] - border) * sign  # positive inside
            inside = depth >= 0
            if inside.all():
                continue
            following = np.concatenate([contour[1:], contour[:1]])
            depth_following = np.concatenate([depth[1:], depth[:1]])
            crosses = inside != (depth_following >= 0)
            at = depth / np.where(crosses, depth - depth_following, 1.0)
            crossing = contour + at[:, None] * (following - contour)
            crossing[:, axis] = border
            both = np.stack([contour, crossing], axis=1)  # [P, 2, 2]
            contour = both[np.stack([inside, crosses], axis=1)]
    return contour
