"""Switches, random and adversarial cells for the tests of the loss, and how they are run.

Shapes are written (B, S, S, K, C): images, grid side twice, boxes per cell, classes.
"""

import functools
import itertools

import jax
import numpy as np
from slow_loss import SlowTargets, slow_iou

from yolov1_jax.yolo.grid import GridTargets, Predictions, encode_boxes
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


def with_offsets(targets, xy_unit):
    """SlowTargets, whose boxes are relative to the image -> the package's own."""
    boxes = encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit=xy_unit)[..., 0, :]
    return GridTargets(targets.object_mask, boxes, targets.classes)


@functools.cache
def compiled(switch_sets):
    """(predictions, targets), both with a leading axis of cases -> [(terms, gradient), ...].

    Several sets of switches, each a tuple of (name, value), share a compilation. It leaves out
    LLVM's optimisations: they take longer than these small cases.
    """

    def total(predictions, targets, switches):
        targets = with_offsets(targets, switches.get("xy_unit", "image"))
        loss = yolo_loss(predictions, targets, **switches)
        return loss.total, loss.terms

    def run(predictions, targets):
        results = []
        for switches in map(dict, switch_sets):
            function = functools.partial(total, switches=switches)
            function = jax.vmap(jax.value_and_grad(function, has_aux=True))
            (_, terms), gradient = function(predictions, targets)
            results.append((terms, gradient))
        return results

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


def losses_and_gradients(cases, switch_sets):
    """Some cases (predictions, targets) -> [(terms, gradient), ...], one for each set of switches.

    The arrays are NumPy's and have a leading axis of cases.
    """
    batch = jax.tree.map(lambda *arrays: np.stack(arrays), *cases)
    key = tuple(tuple(switches.items()) for switches in switch_sets)
    return jax.tree.map(np.asarray, compiled(key)(*batch))


def places(side):
    """Column and row of every cell: [S, S, 2]."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), axis=-1)


def random_targets(rng, shape, full=False):
    """Cells [B, S, S] with an object each, or with half of them empty; some are multi-hot."""
    batch, side, _, _, num_classes = shape
    mask = rng.random((batch, side, side)) < (1.0 if full else 0.5)
    centres = (places(side) + rng.uniform(0.02, 0.98, (batch, side, side, 2))) / side
    sizes = rng.uniform(0.05, 0.9, (batch, side, side, 2))
    classes = rng.random((batch, side, side, num_classes)) < 1.5 / num_classes
    one_class = rng.integers(0, num_classes, (batch, side, side))
    classes |= np.arange(num_classes) == one_class[..., None]
    return SlowTargets(
        mask,
        np.where(mask[..., None], np.concatenate([centres, sizes], axis=-1), 0.0),
        np.where(mask[..., None], classes, 0.0),
    )


def boxes_near(rng, targets, shape, unit, noise=1.0):
    """Predicted boxes whose IoU with the target is high, in the given unit."""
    _, side, _, num_boxes, _ = shape
    target = np.repeat(targets.boxes_cxcywh[..., None, :], num_boxes, axis=-2)
    offset = target[..., :2] - places(side)[:, :, None] / side
    boxes = np.concatenate([offset, target[..., 2:]], axis=-1)
    boxes += noise * rng.normal(size=boxes.shape) * 0.1
    boxes[..., :2] *= side if unit == "cell" else 1
    return boxes


def cast(tree, dtype):
    """All but booleans in one precision, so that both sides start from the same numbers."""
    return jax.tree.map(lambda array: array if array.dtype == bool else array.astype(dtype), tree)


def adversarial_cases(seed, shape, unit, dtype):
    """{name: (predictions, targets)}, all of one shape (B, S, S, K, C)."""
    rng = np.random.default_rng(seed)
    batch, side, _, num_boxes, num_classes = shape
    cases = {}

    def case(name, targets, boxes, scale=1.0):
        confidence = scale * rng.normal(size=(batch, side, side, num_boxes))
        class_scores = scale * rng.normal(size=(batch, side, side, num_classes))
        cases[name] = cast((Predictions(boxes, confidence, class_scores), targets), dtype)

    def near(targets, noise=1.0):
        return boxes_near(rng, targets, shape, unit, noise)

    def equal():
        return np.repeat(near(full)[..., :1, :], num_boxes, axis=-2)

    targets, full = random_targets(rng, shape), random_targets(rng, shape, full=True)
    boxes_shape = (batch, side, side, num_boxes, 4)
    case("random", targets, rng.normal(size=boxes_shape))
    case("near the target", targets, near(targets))
    case("almost at the target", targets, near(targets, 0.01))
    case("huge scores", targets, near(targets), scale=1e4)
    case("full grid", full, near(full))
    case("no object", jax.tree.map(np.zeros_like, targets), rng.normal(size=boxes_shape))
    case("all boxes equal", full, equal())
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
        boxes = equal()
        boxes[..., 2:] = size
        case(f"{name} size of all boxes", full, boxes)
    boxes = near(full)
    boxes[..., 2:] *= 10.0 ** (4 * np.arange(num_boxes)[:, None])
    case("huge boxes", full, boxes)
    boxes = equal()
    boxes[..., 2:] = 1e15
    case("all boxes enormous", full, boxes)

    # Centres on the upper left corner of the cell, and empty objects on its lower right one.
    for name, shift, factor in (("corners", 0, 1), ("empty objects", 1, 0)):
        corner = np.broadcast_to((places(side) + shift) / side, (batch, side, side, 2))
        border = np.concatenate([corner, factor * full.boxes_cxcywh[..., 2:]], axis=-1)
        border = full._replace(boxes_cxcywh=border)
        case(f"{name} on cell borders", border, near(border))
    return cases


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
