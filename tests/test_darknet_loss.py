"""Darknet's loss against a slow loop over cells and boxes, its boxes against a hand-worked cell.

B images, S grid side, K boxes per cell, C classes.
"""

import functools
import math

import jax
import numpy as np
import pytest

from yolov1_jax.yolo.darknet_loss import darknet_loss, match_or_nearest
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.grid import GridTargets, Predictions, finish_predictions

B, S, K, C = 2, 3, 3, 4
SCALES = {"coordinate_weight": 4.0, "object_weight": 1.5, "no_object_weight": 0.3}
SCALES["class_weight"] = 0.7
QUICK = {"xla_backend_optimization_level": 0}  # small cases take longer to compile than to run


def overlap(centre_a, side_a, centre_b, side_b):
    right = min(centre_a + side_a / 2, centre_b + side_b / 2)
    return right - max(centre_a - side_a / 2, centre_b - side_b / 2)


def box_iou(a, b):
    """src/box.c; NaN, for two boxes without area, compares as False there."""
    width, height = overlap(a[0], a[2], b[0], b[2]), overlap(a[1], a[3], b[1], b[3])
    intersection = 0.0 if width < 0 or height < 0 else width * height
    union = a[2] * a[3] + b[2] * b[3] - intersection
    return intersection / union if union > 0 else math.nan


def slow_deltas(outputs, targets, *, rescore=True, softmax=False):
    """`delta` of forward_detection_layer, which is -gradient, the responsible boxes and the loss.

    Written from src/detection_layer.c of f6afaab, in float64. The loss is 1/2 sum(scale * err^2).
    """
    boxes, confidence, scores = (np.asarray(one, np.float64) for one in outputs)
    delta = Predictions(*map(np.zeros_like, (boxes, confidence, scores)))
    chosen, terms = {}, dict.fromkeys(("xy", "wh", "object", "no_object", "class"), 0.0)
    for cell in np.ndindex(B, S, S):
        for j in range(K):
            delta.confidence[cell][j] = SCALES["no_object_weight"] * (0 - confidence[cell][j])
        if targets.object_mask[cell]:
            p = scores[cell]
            if softmax:
                p = np.exp(p - p.max()) / np.exp(p - p.max()).sum()
                likelihood = (targets.classes[cell] * np.log(p)).sum()
                terms["class"] -= SCALES["class_weight"] * likelihood
            else:
                terms["class"] += (
                    SCALES["class_weight"] * ((targets.classes[cell] - p) ** 2).sum() / 2
                )
            delta.class_scores[cell][:] = SCALES["class_weight"] * (targets.classes[cell] - p)

            tx, ty, tw, th = np.asarray(targets.boxes[cell], np.float64).tolist()
            truth = (tx / S, ty / S, tw, th)
            best_index, best_iou, best_rmse = -1, 0.0, 20.0
            for j in range(K):
                x, y, w, h = boxes[cell][j].tolist()
                out = (x / S, y / S, w * w, h * h)
                iou, rmse = box_iou(out, truth), math.dist(out, truth)
                if best_iou > 0 or iou > 0:
                    if iou > best_iou:
                        best_iou, best_index = iou, j
                elif rmse < best_rmse:
                    best_rmse, best_index = rmse, j
            j = chosen[cell] = best_index
            x, y, w, h = boxes[cell][j].tolist()
            iou = box_iou((x / S, y / S, w * w, h * h), truth)
            goal = (0.0 if math.isnan(iou) else iou) if rescore else 1.0
            delta.confidence[cell][j] = SCALES["object_weight"] * (goal - confidence[cell][j])
            terms["object"] += SCALES["object_weight"] * (goal - confidence[cell][j]) ** 2 / 2
            error = np.array([tx - x, ty - y, math.sqrt(tw) - w, math.sqrt(th) - h])
            delta.boxes[cell][j] = SCALES["coordinate_weight"] * error
            for name, part in (("xy", error[:2]), ("wh", error[2:])):
                terms[name] += SCALES["coordinate_weight"] * (part**2).sum() / 2
        for j in range(K):
            if j != chosen.get(cell, -1):
                terms["no_object"] += SCALES["no_object_weight"] * confidence[cell][j] ** 2 / 2
    return delta, chosen, terms


@functools.cache
def cases():
    """{name: (outputs, targets)}, float64."""
    rng = np.random.default_rng(0)
    made = {}

    def case(name, change, mask_rate=0.6, noise=0.15):
        size = rng.uniform(0.1, 0.6, (B, S, S, 2))
        targets = GridTargets(
            rng.random((B, S, S)) < mask_rate,
            np.concatenate([rng.uniform(0.1, 0.9, (B, S, S, 2)), size], axis=-1),
            np.eye(C)[rng.integers(0, C, (B, S, S))],
        )
        boxes = np.concatenate([targets.boxes[..., :2], np.sqrt(size)], axis=-1)
        boxes = boxes[..., None, :] + noise * rng.normal(size=(B, S, S, K, 4))
        boxes[..., 2:] *= rng.choice([-1, 1], (B, S, S, K, 2))  # roots of either sign
        change(boxes, targets.boxes)
        others = rng.normal(size=(B, S, S, K)), rng.normal(size=(B, S, S, C))
        made[name] = Predictions(boxes, *others), targets

    def away(boxes, _):
        boxes[..., 0] += 3 * S  # no box meets its object

    def tie_of_distances(boxes, _):
        away(boxes, _)
        boxes[...] = boxes[..., :1, :]

    def tie_of_ious(boxes, _):
        boxes[..., 2, :] = boxes[..., 1, :]
        boxes[..., 0, 0] += 3 * S

    def only_one_meets(boxes, targets):  # the others are nearer to nothing
        away(boxes, targets)
        boxes[..., 2, :] = np.concatenate([targets[..., :2], np.sqrt(targets[..., 2:])], axis=-1)
        boxes[..., 2, 0] += 0.2

    def without_area(boxes, _):
        boxes[..., :2, 2:] = 0.0

    def all_without_area(boxes, targets):
        boxes[..., 2] = 0.0
        targets[..., 2] = 0.0  # 0 / 0 in the IoU where both have no area

    def huge(boxes, _):
        boxes[..., 2:] *= 3.0

    case("near", lambda *_: None)
    case("random", lambda boxes, _: boxes.__setitem__(..., rng.normal(size=boxes.shape)))
    case("no object", lambda *_: None, mask_rate=0.0)
    for change in (away, tie_of_distances, tie_of_ious, only_one_meets, without_area):
        case(change.__name__, change, mask_rate=1.0)
    case("all_without_area", all_without_area, mask_rate=1.0)
    case("huge", huge)
    case("perfect", lambda *_: None, noise=0.0)
    # What an empty cell holds as its box is of no matter.
    targets = made["near"][1]
    targets.boxes[~targets.object_mask] = 0.0
    return made


@functools.cache
def compiled(**options):
    def total(outputs, targets):
        loss = darknet_loss(outputs, targets, **SCALES, **options)
        return loss.total, loss.terms

    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICK)


match = jax.jit(functools.partial(match_or_nearest, xy_unit="cell"), compiler_options=QUICK)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("name", list(cases()))
def test_loss_and_gradient_are_darknets(name, rescore, softmax):
    outputs, targets = cases()[name]
    delta, chosen, terms = slow_deltas(outputs, targets, rescore=rescore, softmax=softmax)
    with jax.enable_x64(True):
        run = compiled(
            objectness_target="iou" if rescore else "one",
            class_loss="softmax" if softmax else "squared",
        )
        (total, found), gradient = run(outputs, targets)
        responsible = np.asarray(match(outputs, targets).responsible)
    assert {cell: list(responsible[cell]) for cell in chosen} == {
        cell: [j == one for j in range(K)] for cell, one in chosen.items()
    }
    assert responsible.sum() == len(chosen)
    assert found == pytest.approx(terms, rel=1e-10, abs=1e-14)
    assert float(total) == pytest.approx(sum(terms.values()), rel=1e-10)
    for part, expected in zip(gradient, delta, strict=True):
        np.testing.assert_allclose(part, -expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["near", "random", "away", "without_area", "huge"])
def test_float32_keeps_a_millionth(name):
    single = [
        jax.tree.map(lambda one: one if one.dtype == bool else one.astype(np.float32), part)
        for part in cases()[name]
    ]
    delta, _, terms = slow_deltas(*single)
    (_, found), gradient = compiled(objectness_target="iou", class_loss="squared")(*single)
    assert jax.tree.map(float, found) == pytest.approx(terms, rel=1e-6)
    for part, expected in zip(gradient, delta, strict=True):
        # The difference of two numbers keeps their rounding, not its own.
        np.testing.assert_allclose(part, -expected, rtol=1e-6, atol=1e-6)


def test_the_mean_is_the_sum_over_the_images():
    outputs, targets = cases()["near"]
    (mean, terms), _ = compiled(reduction="mean")(outputs, targets)
    expected = slow_deltas(outputs, targets)[2]
    assert jax.tree.map(lambda term: B * float(term), terms) == pytest.approx(expected, rel=1e-5)
    assert B * float(mean) == pytest.approx(sum(expected.values()), rel=1e-5)


def test_a_nearer_box_does_not_beat_one_that_meets():
    """A thin object: the wide box overlaps it, the square one beside it has the smaller RMSE."""
    targets = GridTargets(
        np.ones((1, 1, 1), bool), np.array([[[[0.5, 0.5, 0.02, 0.02]]]]), np.ones((1, 1, 1, 1))
    )
    boxes = np.array([[0.47, 0.5, 0.1, 0.1], [0.5, 0.5, 0.9, 0.9], [0.45, 0.5, 0.1, 0.1]])
    outputs = Predictions(boxes[None, None, None], np.zeros((1, 1, 1, 3)), np.ones((1, 1, 1, 1)))
    found = match(outputs, targets)
    assert found.responsible.ravel().tolist() == [False, True, False]
    assert found.iou.ravel().tolist() == pytest.approx([0, 0.02**2 / 0.81**2, 0], rel=1e-5)


def test_detections_of_yolo_valid():
    """get_detection_detections, do_nms_sort and print_yolo_detections of examples/yolo.c, by hand.

    One cell, 200 x 100 pixels, x, y, w', h' of four boxes, their confidence, scores of two classes.
    """
    raw = [[0.1, 0.5, -0.8, 0.6], [0.12, 0.5, 0.8, 0.6], [-0.9, 0.5, 0.3, 0.3]]
    raw.append([0.1 - 0.2115, 0.5, 0.8, 0.6])
    confidence, class_scores = [0.5, -0.6, 0.4, 0.45], [0.9, -0.2]
    one_cell = (np.array(one, np.float32)[None, None, None] for one in (raw, confidence))
    outputs = Predictions(*one_cell, np.array(class_scores, np.float32)[None, None, None])
    predictions = finish_predictions(outputs, prediction="darknet", xy_unit="cell")
    (found,) = detections_from_predictions(
        jax.device_get(predictions),
        np.array([[100, 200]]),
        xy_unit="cell",
        score_threshold=0.001,
        nms_iou_threshold=0.5,
        classes_per_box="all",
        clip="after_nms",
    )
    # The second box has two negative numbers, which make a score of the second class. The third
    # lies left of the image, where its right end stays. The last overlaps the first by 0.503 (by
    # 0.496 inside of the image).
    expected = [[0.0, 32.0, 84.0, 68.0], [0.0, 45.5, -171.0, 54.5], [0.0, 32.0, 88.0, 68.0]]
    np.testing.assert_allclose(found.boxes_xyxy, expected, rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.45, 0.36, 0.12], rtol=1e-6)
    assert found.labels.tolist() == [0, 0, 1]
