"""Switches, random and adversarial cells for the tests of the loss, and how they are run.

Shapes are written (B, S, S, K, C): images, grid side twice, boxes per cell, classes.
"""

import functools
import itertools

import jax
import numpy as np
from slow_loss import SlowTargets, slow_encode, slow_iou

from yolov1_jax.yolo.grid import GridTargets, Predictions
from yolov1_jax.yolo.loss import yolo_loss

SWITCHES = {
    "objectness_target": ("iou", "one"),
    "no_object_boxes": ("all", "empty_cells"),
    "xy_unit": ("image", "cell"),
    "class_loss": ("squared", "softmax"),
}
COMBINATIONS = [
    dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())
]
WEIGHTS = {  # coefficient: the terms it scales
    "coordinate_weight": ("xy", "wh"),
    "object_weight": ("object",),
    "no_object_weight": ("no_object",),
    "class_weight": ("class",),
}


@functools.cache
def compiled(switch_sets):
    """One compilation for several sets of switches, because each one alone costs as much.

    Args:
      switch_sets: tuple of tuples of (name, value).

    Returns:
      (predictions, targets), both with a leading axis of cases -> [(terms, gradient), ...].
    """

    def total(predictions, targets, switches):
        terms = yolo_loss(predictions, targets, **switches)
        return sum(terms.values()), terms

    def run(predictions, targets):
        results = []
        for switches in map(dict, switch_sets):
            function = functools.partial(total, switches=switches)
            function = jax.vmap(jax.value_and_grad(function, has_aux=True))
            (_, terms), gradient = function(predictions, targets)
            results.append((terms, gradient))
        return results

    return jax.jit(run)


def losses_and_gradients(predictions, targets, switch_sets):
    """[(terms, gradient), ...], one for each set of switches, as NumPy arrays."""
    key = tuple(tuple(switches.items()) for switches in switch_sets)
    return jax.tree.map(np.asarray, compiled(key)(predictions, targets))


def terms_by_case(cases, switch_sets):
    """The terms of some cases (predictions, targets): [set of switches][case][name]."""
    batch = jax.tree.map(lambda *arrays: np.stack(arrays), *cases)
    return [
        [{name: term[index] for name, term in terms.items()} for index in range(len(cases))]
        for terms, _ in losses_and_gradients(*batch, switch_sets)
    ]


def random_targets(rng, shape, full=False):
    """Cells [B, S, S] with an object each, or with half of them empty; some are multi-hot."""
    batch, side, _, _, num_classes = shape
    mask = rng.random((batch, side, side)) < (1.0 if full else 0.5)
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), axis=-1)
    centres = (place + rng.uniform(0.02, 0.98, (batch, side, side, 2))) / side
    sizes = rng.uniform(0.05, 0.9, (batch, side, side, 2))
    classes = rng.random((batch, side, side, num_classes)) < 1.5 / num_classes
    one_class = rng.integers(0, num_classes, (batch, side, side))
    classes |= np.arange(num_classes) == one_class[..., None]
    return SlowTargets(
        mask,
        np.where(mask[..., None], np.concatenate([centres, sizes], axis=-1), 0.0),
        np.where(mask[..., None], classes, 0.0),
    )


def colliding_targets(rng, shape, collision, class_target, edge=False):
    """Crowded scenes through the slow encoding: multi-hot cells, identical boxes, padded rows."""
    batch, side, _, _, num_classes = shape
    num_rows = 3 * side
    centres = rng.choice(rng.uniform(0.3, 0.7, (side, 2)), (batch, num_rows))
    centres += rng.uniform(-0.05, 0.05, centres.shape)
    half = rng.uniform(0.05, 0.2, centres.shape)
    if edge:  # centres on the right, the lower, or both edges of the image; sizes 0 and more
        on_edge = rng.random(centres.shape) < 0.5
        centres, half = np.where(on_edge, 1.0, centres), np.where(on_edge, 0.0, half)
    boxes_xyxy = np.concatenate([centres - half, centres + half], axis=-1)
    labels = rng.integers(0, num_classes, (batch, num_rows))
    valid = rng.random((batch, num_rows)) < 0.7
    boxes_xyxy[:, 1], valid[:, :2] = boxes_xyxy[:, 0], True  # the same box
    labels[:, 1] = (labels[:, 0] + 1) % num_classes  # as something else
    return slow_encode(
        boxes_xyxy,
        labels,
        valid,
        grid_size=side,
        num_classes=num_classes,
        collision=collision,
        class_target=class_target,
    )


def boxes_near(rng, targets, shape, unit, noise):
    """Predicted boxes whose IoU with the target is high, in the given unit."""
    batch, side, _, num_boxes, _ = shape
    target = np.repeat(targets.boxes_cxcywh[..., None, :], num_boxes, axis=-2)
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), axis=-1)
    offset = target[..., :2] - place[:, :, None] / side
    boxes = np.concatenate([offset, target[..., 2:]], axis=-1)
    boxes += noise * rng.normal(size=(batch, side, side, num_boxes, 4)) * 0.1
    boxes[..., :2] *= side if unit == "cell" else 1
    return boxes


def adversarial_cases(seed, shape, unit):
    """{name: (predictions, targets)}, all of one shape (B, S, S, K, C), in float64."""
    rng = np.random.default_rng(seed)
    batch, side, _, num_boxes, num_classes = shape
    cases = {}

    def case(name, targets, boxes, confidence=None, class_scores=None):
        if confidence is None:
            confidence = rng.normal(size=(batch, side, side, num_boxes))
        if class_scores is None:
            class_scores = rng.normal(size=(batch, side, side, num_classes))
        cases[name] = (Predictions(boxes, confidence, class_scores), targets)

    def near(targets, noise=1.0):
        return boxes_near(rng, targets, shape, unit, noise)

    targets = random_targets(rng, shape)
    boxes_shape = (batch, side, side, num_boxes, 4)
    case("random", targets, rng.normal(size=boxes_shape))
    case("near the target", targets, near(targets))
    case("almost at the target", targets, near(targets, 0.01))
    full = random_targets(rng, shape, full=True)
    case("full grid", full, near(full))
    none = SlowTargets(*(np.zeros_like(array) for array in targets))
    case("no object", none, rng.normal(size=boxes_shape))

    equal = near(full)
    case("all boxes equal", full, np.repeat(equal[..., :1, :], num_boxes, axis=-2))
    away = near(full)
    away[..., :2] += rng.choice([-9.0, 9.0], away[..., :2].shape)
    case("no box meets the object", full, away)

    for name, axes in (("width", [2]), ("height", [3]), ("width and height", [2, 3])):
        for which, index in (("one box", slice(0, 1)), ("all boxes", slice(None))):
            boxes = near(full)
            boxes[..., index, axes] *= -1
            case(f"{name} of {which} negative", full, boxes)
    for name, size in (("zero", 0.0), ("minus zero", -0.0), ("tiny", 1e-12), ("tiny -", -1e-12)):
        for axes in ([2], [3], [2, 3]):
            boxes = near(full)
            boxes[..., -1, axes] = size
            case(f"{name} size {axes} of one box", full, boxes)
        boxes = np.repeat(near(full)[..., :1, :], num_boxes, axis=-2)
        boxes[..., 2:] = size
        case(f"{name} size of all boxes", full, boxes)
    boxes = near(full)
    boxes[..., 2:] *= 10.0 ** (4 * np.arange(num_boxes)[:, None])
    case("huge boxes", full, boxes)
    boxes = np.repeat(near(full)[..., :1, :], num_boxes, axis=-2)
    boxes[..., 2:] = 1e15
    case("all boxes enormous", full, boxes)

    case(
        "huge scores",
        targets,
        near(targets),
        confidence=1e4 * rng.normal(size=boxes_shape[:-1]),
        class_scores=1e4 * rng.normal(size=(batch, side, side, num_classes)),
    )
    for collision, class_target in itertools.product(("last", "first"), ("all", "winner")):
        crowd = colliding_targets(rng, shape, collision, class_target)
        case(f"collisions, {collision}, {class_target}", crowd, near(crowd))
    edge = colliding_targets(rng, shape, "last", "all", edge=True)
    case("centres on the edge of the image", edge, near(edge))
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), axis=-1)
    corner = np.broadcast_to(place / side, (batch, side, side, 2))
    border = full._replace(boxes_cxcywh=np.concatenate([corner, full.boxes_cxcywh[..., 2:]], -1))
    case("centres on cell borders", border, near(border))
    return cases


def rounded(cases, dtype):
    """All cases in one precision, so that both sides start from the same numbers."""

    def cast(array):
        return array if array.dtype == bool else array.astype(dtype)

    return {name: jax.tree.map(cast, arrays) for name, arrays in cases.items()}


def without_close_calls(predictions, targets, unit, ties=False):
    """Empties the cells where rounding may decide which of two different boxes is responsible.

    With `ties`, also those where the order of the boxes decides, as where none meets the object.
    """
    single = predictions.boxes.dtype == np.float32
    mask = targets.object_mask.copy()
    side = mask.shape[1]
    for at in map(tuple, np.argwhere(mask)):
        target = targets.boxes_cxcywh[at].tolist()
        scale = 1 if unit == "image" else 1 / side
        ious = [-1.0]
        for x, y, w, h in {tuple(box) for box in predictions.boxes[at].tolist()}:
            box = (x * scale + at[2] / side, y * scale + at[1] / side, w, h)
            ious.append(slow_iou(box, target))
        *_, second, best = sorted(ious)
        close = 0 < best - second < min(1e-5 if single else 1e-12, best / 2)
        # In single precision a box of width 1e-12 has no inside.
        close |= single and 0 < best < 1e-9 and second == 0
        if close or (ties and best == second):
            mask[at] = False
    classes = np.where(mask[..., None], targets.classes, 0)
    return targets._replace(object_mask=mask, classes=classes)


SIDE, BOXES, CLASSES, BATCH = 4, 2, 3, 3


def random_case(seed, unit):
    """Predictions and targets [B, ...] in float32, some boxes near their objects, some far off."""
    rng = np.random.default_rng(seed)
    shape = (BATCH, SIDE, SIDE, BOXES, CLASSES)
    targets = random_targets(rng, shape)
    predictions = Predictions(
        boxes_near(rng, targets, shape, unit, noise=rng.choice([0.1, 1.0, 10.0])),
        rng.normal(size=shape[:-1]),
        rng.normal(size=(*shape[:3], CLASSES)),
    )
    ((predictions, targets),) = rounded({"": (predictions, targets)}, np.float32).values()
    return predictions, GridTargets(*targets)
