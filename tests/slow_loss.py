"""The target grid and the YOLOv1 loss as slow loops over images, cells, boxes and classes.

Written from the formulas (Redmon et al. 2016, section 2 and equation 3, in the form of the PyTorch
reference: the IoU as the objectness target and a signed square root). It imports nothing of the
package and is plain Python in float64, so that a reader can check each line against the formula.

Letters: B images, M padded objects of an image, S grid side, K boxes per cell, C classes.
"""

import math
from typing import NamedTuple

import numpy as np

TERMS = ("xy", "wh", "object", "no_object", "class")


class SlowTargets(NamedTuple):
    """What a cell has to predict."""

    object_mask: np.ndarray  # bool [B, S, S]
    boxes_cxcywh: np.ndarray  # [B, S, S, 4] in [0, 1] of the image
    classes: np.ndarray  # [B, S, S, C]


class SlowLoss(NamedTuple):
    """The loss of a batch and its gradient.

    `scales` is `gradients` with every difference (p - t) replaced by the size of its operands: the
    rounding error of a gradient is a few ulps of its scale, and 0 where the scale is 0.
    """

    terms: dict[str, float]
    gradients: dict[str, np.ndarray]  # "boxes", "confidence", "class_scores"
    scales: dict[str, np.ndarray]
    responsible: np.ndarray  # int [B, S, S]: the responsible box of a cell, -1 without object
    objectness: np.ndarray  # [B, S, S]: the target of that box's confidence


def slow_encode(
    boxes_xyxy, labels, valid, *, grid_size, num_classes, collision="last", class_target="all"
) -> SlowTargets:
    """Objects [B, M, ...] into their cells, one after the other in the order of the list.

    The cell is found in the precision of `boxes_xyxy`: on a border, rounding decides.
    """
    num_images, num_rows = valid.shape
    object_mask = np.zeros((num_images, grid_size, grid_size), bool)
    boxes_cxcywh = np.zeros((num_images, grid_size, grid_size, 4), boxes_xyxy.dtype)
    classes = np.zeros((num_images, grid_size, grid_size, num_classes), boxes_xyxy.dtype)
    for image in range(num_images):
        for row in range(num_rows):
            if not valid[image, row]:
                continue
            left, top, right, bottom = boxes_xyxy[image, row]
            centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
            # A centre on the right or lower edge of the image belongs to the last cell.
            i = min(int(centre_y * grid_size), grid_size - 1)
            j = min(int(centre_x * grid_size), grid_size - 1)
            owns = collision == "last" or not object_mask[image, i, j]
            if owns:
                boxes_cxcywh[image, i, j] = centre_x, centre_y, right - left, bottom - top
            if class_target == "all":
                classes[image, i, j, labels[image, row]] = 1
            elif owns:
                classes[image, i, j] = 0
                classes[image, i, j, labels[image, row]] = 1
            object_mask[image, i, j] = True
    return SlowTargets(object_mask, boxes_cxcywh, classes)


def slow_iou(a, b) -> float:
    """IoU of two boxes (centre x, centre y, w, h), 0 where they do not meet."""
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    intersection = max(0.0, width) * max(0.0, height)
    if intersection <= 0:
        return 0.0
    return intersection / (abs(a[2] * a[3]) + b[2] * b[3] - intersection)


def signed_sqrt(z: float, epsilon: float) -> tuple[float, float]:
    """S(z) = sign(z) sqrt(|z| + epsilon) with sign(0) = 0, and its derivative.

    S jumps at 0; the derivative there is that of the formula taken factor by factor, as automatic
    differentiation does: sign' = 0 and |z|' = sign(0) = 0, so 0.
    """
    if z == 0:
        return 0.0, 0.0
    root = math.sqrt(abs(z) + epsilon)
    return math.copysign(root, z), 1 / (2 * root)


def slow_loss(
    boxes,
    confidence,
    class_scores,
    targets: SlowTargets,
    *,
    coordinate_weight=5.0,
    object_weight=1.0,
    no_object_weight=0.5,
    class_weight=1.0,
    objectness_target="iou",
    no_object_boxes="all",
    xy_unit="image",
    class_loss="squared",
    sqrt_epsilon=1e-5,
    reduction="sum",
    frozen: SlowLoss | None = None,
) -> SlowLoss:
    """The five terms and the gradient of their sum.

    Args:
      boxes: [B, S, S, K, 4] x, y, w, h as the network puts them out.
      confidence: [B, S, S, K].
      class_scores: [B, S, S, C].
      targets: what the cells have to predict.
      frozen: take the responsible boxes and the objectness targets from this result, which is how
        the gradient sees them: constants.
    """
    boxes, confidence, class_scores, target_boxes, target_classes = (
        np.asarray(array, np.float64)
        for array in (boxes, confidence, class_scores, targets.boxes_cxcywh, targets.classes)
    )
    num_images, side, _, num_boxes = confidence.shape
    terms = dict.fromkeys(TERMS, 0.0)
    arrays = {"boxes": boxes, "confidence": confidence, "class_scores": class_scores}
    gradients = {name: np.zeros_like(array) for name, array in arrays.items()}
    scales = {name: np.zeros_like(array) for name, array in arrays.items()}
    responsible = np.full((num_images, side, side), -1)
    objectness = np.zeros((num_images, side, side))
    cell = 1 / side if xy_unit == "image" else 1.0  # the side of a cell in the unit of x and y

    def add_square(term, weight, name, index, value, target, slope=1.0, scale=None):
        terms[term] += weight * (value - target) ** 2
        gradients[name][index] += 2 * weight * (value - target) * slope
        size = abs(value) + abs(target) if scale is None else scale
        scales[name][index] += 2 * weight * size * slope

    for image, i, j in np.ndindex(num_images, side, side):
        at = (image, i, j)
        has_object = bool(targets.object_mask[at])
        target = target_boxes[at].tolist()

        if has_object:
            best_iou = -1.0
            for k in range(num_boxes):
                x, y, w, h = boxes[(*at, k)].tolist()
                centre_x = (x + j * cell) * (1 / side) / cell
                centre_y = (y + i * cell) * (1 / side) / cell
                iou = slow_iou((centre_x, centre_y, w, h), target)
                if iou > best_iou:  # the first of equals
                    best_iou, responsible[at] = iou, k
            objectness[at] = best_iou if objectness_target == "iou" else 1.0
            if frozen is not None:
                responsible[at] = frozen.responsible[at]
                objectness[at] = frozen.objectness[at]

        for k in range(num_boxes):
            index = (*at, k)
            value = float(confidence[index])
            if k != responsible[at]:
                if no_object_boxes == "all" or not has_object:
                    add_square("no_object", no_object_weight, "confidence", index, value, 0.0)
                continue
            goal = float(objectness[at])
            # An IoU is a number between 0 and 1 whose rounding error does not shrink with it.
            size = abs(value) + 1
            add_square("object", object_weight, "confidence", index, value, goal, scale=size)
            for axis, place in ((0, j), (1, i)):
                value, centre = float(boxes[(*index, axis)]), target[axis] * side * cell
                goal, size, at_axis = centre - place * cell, abs(value) + centre, (*index, axis)
                add_square("xy", coordinate_weight, "boxes", at_axis, value, goal, scale=size)
            for axis in (2, 3):
                root, slope = signed_sqrt(float(boxes[(*index, axis)]), sqrt_epsilon)
                goal = math.sqrt(target[axis])
                add_square("wh", coordinate_weight, "boxes", (*index, axis), root, goal, slope)

        if not has_object:
            continue
        scores, goals = class_scores[at].tolist(), target_classes[at].tolist()
        if class_loss == "squared":
            for c, (value, goal) in enumerate(zip(scores, goals, strict=True)):
                add_square("class", class_weight, "class_scores", (*at, c), value, goal)
        else:
            top = max(scores)
            total = sum(math.exp(score - top) for score in scores)
            for c, (value, goal) in enumerate(zip(scores, goals, strict=True)):
                share = goal / sum(goals)
                log_probability = value - top - math.log(total)
                probability = math.exp(log_probability)
                terms["class"] -= class_weight * share * log_probability
                gradients["class_scores"][(*at, c)] = class_weight * (probability - share)
                # Rounding enters through the scores that the logarithm adds up, so not below 1.
                scales["class_scores"][(*at, c)] = class_weight * (1 + share)

    if reduction == "mean":
        terms = {name: value / num_images for name, value in terms.items()}
        gradients = {name: array / num_images for name, array in gradients.items()}
        scales = {name: array / num_images for name, array in scales.items()}
    return SlowLoss(terms, gradients, scales, responsible, objectness)


class SlowRecipe(NamedTuple):
    """The terms of `slow_recipe`, and what is a constant for the gradient."""

    terms: dict[str, float]
    constants: dict[tuple, float]  # by cell and box


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def corners(box) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def slow_giou(a, b) -> float:
    """Rezatofighi et al. 2019, algorithm 1: IoU - (|C| - |union|) / |C|, C the box around both."""
    left, top, right, bottom = zip(corners(a), corners(b), strict=True)
    around = (max(right) - min(left)) * (max(bottom) - min(top))
    width, height = max(0, min(right) - max(left)), max(0, min(bottom) - max(top))
    union = a[2] * a[3] + b[2] * b[3] - width * height
    return width * height / union - (around - union) / around


def slow_aspect(a, b) -> float:
    """Zheng et al. 2020, equation 9."""
    return 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2


def slow_alpha(a, b) -> float:
    """Zheng et al. 2020, equation 11."""
    v = slow_aspect(a, b)
    return v / ((1 - slow_iou(a, b)) + v) if v > 0 else 0.0


def slow_ciou(a, b, alpha) -> float:
    """Zheng et al. 2020, equations 7 and 10."""
    left, top, right, bottom = zip(corners(a), corners(b), strict=True)
    diagonal = (max(right) - min(left)) ** 2 + (max(bottom) - min(top)) ** 2
    distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    return slow_iou(a, b) - distance / diagonal - alpha * slow_aspect(a, b)


def slow_recipe(
    boxes,
    confidence,
    class_scores,
    targets: SlowTargets,
    *,
    box="squared_roots",
    squared_confidence=False,
    class_loss="softmax",
    ignore_iou=None,
    label_smoothing=0.0,
    constants=None,
) -> SlowRecipe:
    """The unweighted terms for sigmoid predictions, x and y in cells.

    Arguments and `targets` as of `slow_loss`, but the first three are the network's outputs, logits
    of all but the classes. `constants` of another result stand for the responsible boxes, the
    targets of the confidence, the ignored boxes and alpha.
    """
    num_images, side, _, num_boxes = confidence.shape
    terms = dict.fromkeys(("xy", "wh", "box", "object", "no_object", "class"), 0.0)
    found = {} if constants is None else constants

    def constant(key, value):
        return found.setdefault(key, value)

    def cross_entropy(logit, target):
        p = sigmoid(logit)
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    for image, i, j in np.ndindex(num_images, side, side):
        at = (image, i, j)
        in_cell = [[sigmoid(z) for z in boxes[(*at, k)]] for k in range(num_boxes)]
        in_image = [((j + x) / side, (i + y) / side, w, h) for x, y, w, h in in_cell]
        responsible = -1
        if targets.object_mask[at]:
            target = targets.boxes_cxcywh[at].tolist()
            ious = [slow_iou(one, target) for one in in_image]
            responsible = constant((at, "responsible"), ious.index(max(ious)))
        for k in range(num_boxes):
            logit = float(confidence[(*at, k)])
            if k != responsible:
                objects = targets.boxes_cxcywh[image][targets.object_mask[image]].tolist()
                largest = max([slow_iou(in_image[k], one) for one in objects], default=0.0)
                ignored = ignore_iou is not None and largest > ignore_iou
                if not constant((at, k, "ignored"), ignored):
                    squared = sigmoid(logit) ** 2
                    terms["no_object"] += squared if squared_confidence else cross_entropy(logit, 0)
                continue
            goal = constant((at, k, "iou"), slow_iou(in_image[k], target))
            squared = (sigmoid(logit) - goal) ** 2
            terms["object"] += squared if squared_confidence else cross_entropy(logit, goal)
            x, y, w, h = in_cell[k]
            if box == "squared_roots":
                terms["xy"] += (x - (target[0] * side - j)) ** 2 + (y - (target[1] * side - i)) ** 2
                for size, right_size in ((w, target[2]), (h, target[3])):
                    terms["wh"] += (signed_sqrt(size, 1e-5)[0] - math.sqrt(right_size)) ** 2
            elif box == "giou":
                terms["box"] += 1 - slow_giou(in_image[k], target)
            else:
                alpha = constant((at, k, "alpha"), slow_alpha(in_image[k], target))
                terms["box"] += 1 - slow_ciou(in_image[k], target, alpha)
        if targets.object_mask[at]:
            scores, goals = class_scores[at].tolist(), targets.classes[at].tolist()
            total = sum(math.exp(score) for score in scores)
            for score, goal in zip(scores, goals, strict=True):
                share = goal / sum(goals) * (1 - label_smoothing) + label_smoothing / len(scores)
                softmax = -share * (score - math.log(total))
                terms["class"] += softmax if class_loss == "softmax" else cross_entropy(score, goal)
    return SlowRecipe(terms, found)
