"""Pixels, target grid, responsible boxes, loss and its gradient against PyTorch, at 7 x 7 x 30.

The network's output is made up here: boxes near the objects, far from them, without and with
negative size, and pairs of equal boxes. Differences are relative to the largest value of a tensor.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")

import torch
from golden import fixed_numbers, torch_detector, torch_loss
from golden.differences import largest
from golden.jax_training import LOSS_OPTIONS, TARGET_OPTIONS
from golden.resnet_cases import CASES, FULL_CASES
from golden.scenes import scenes

from yolov1_jax.models.yolov1 import normalize
from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import match_boxes, yolo_loss

GRID, NUM_CLASSES, NUM_IMAGES = 7, 20, 64
OBJECTS = scenes("stages", NUM_IMAGES, NUM_CLASSES, num_slots=12)


def made_up_output(target: np.ndarray) -> np.ndarray:
    """float64 [B, 10 + C, S, S]; target [B, 5 + C, S, S]."""
    shape = (NUM_IMAGES, 10 + NUM_CLASSES, GRID, GRID)
    raw = fixed_numbers.uniform("made up output", shape)
    for box in (0, 1):
        distance = fixed_numbers.uniform(f"distance {box}", (NUM_IMAGES, 1, GRID, GRID), 0.0, 1.0)
        xywh = slice(5 * box + 1, 5 * box + 5)
        near = target[:, 1:5] + 0.3 * distance * raw[:, xywh]
        raw[:, xywh] = np.where(distance < 0.8, near, raw[:, xywh])
    equal = fixed_numbers.uniform("equal", (NUM_IMAGES, 1, GRID, GRID)) > 0.8
    raw[:, 5:10] = np.where(equal, raw[:, :5], raw[:, 5:10])
    return raw


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


@pytest.mark.parametrize("case", [CASES[0], FULL_CASES[0]], ids=["ImageNet's mean", "plain"])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-15), ("float32", 5e-7)])
def test_pixels(compare, case, dtype, bound):
    with jax.enable_x64(dtype == "float64"):
        pixels = fixed_numbers.images(case.name, case.image_shape)
        ours = normalize(pixels, case.pixel_mean, case.pixel_std, dtype)
    images = torch_detector.images(case, getattr(torch, dtype))
    theirs = channels_last(torch_detector.normalize(images, case))
    stage = "pixels / 255" if case.pixel_mean[0] == 0 else "pixels by mean and std"
    compare(f"{stage}, {dtype}", "any", "input", largest(ours, theirs), bound)


@jax.jit
def our_stages(objects, raw):
    """Targets, matches, terms of the loss and its gradient."""
    targets = encode_targets(*objects, grid_size=GRID, num_classes=NUM_CLASSES, **TARGET_OPTIONS)

    def total(raw):
        predictions = split_predictions(raw, boxes_per_cell=2, num_classes=NUM_CLASSES)
        loss = yolo_loss(predictions, targets, **LOSS_OPTIONS)
        return loss.total, (match_boxes(predictions, targets, xy_unit="image"), loss.terms)

    gradient, (match, terms) = jax.grad(total, has_aux=True)(raw)
    return targets, match, terms, gradient


@pytest.mark.parametrize(
    ("dtype", "box_bound", "bound"), [("float64", 1e-14, 1e-12), ("float32", 1e-6, 1e-5)]
)
def test_targets_matches_and_loss(compare, dtype, box_bound, bound):
    target = torch_loss.target_grid(OBJECTS, GRID, NUM_CLASSES)
    output = torch.from_numpy(made_up_output(target.numpy())).to(getattr(torch, dtype))
    output.requires_grad_()
    iou, responsible = map(channels_last, torch_loss.choose_boxes(output, target.to(output.dtype)))
    their_terms = torch_loss.loss_terms(output, target.to(output.dtype))
    sum(their_terms.values()).backward()
    with jax.enable_x64(dtype == "float64"):
        objects = OBJECTS._replace(boxes_xyxy=jnp.asarray(OBJECTS.boxes_xyxy, dtype))
        found = our_stages(objects, channels_last(output))
    targets, match, terms, gradient = jax.tree.map(np.asarray, found)

    has_object, boxes, classes = np.split(channels_last(target), [1, 5], axis=-1)
    assert has_object.sum() < OBJECTS.valid.sum()  # there are shared cells
    different = np.sum(targets.object_mask != (has_object[..., 0] == 1))
    different += np.sum(targets.classes != classes)
    stage = f"target grid, {dtype}"
    compare(stage, "any", "cells and classes that differ", int(different), 0)
    compare(stage, "any", "x, y, w, h", largest(has_object * targets.boxes, boxes), box_bound)

    in_cell = has_object[..., 0] == 1
    first, second = iou[in_cell].T
    assert np.mean(first == second) > 0.1  # ties
    assert np.mean(second > first) > 0.1
    difference = largest(match.iou[in_cell], iou[in_cell])
    compare(f"IoU, {dtype}", "any", "of both boxes of object cells", difference, bound)
    different = int(np.sum(match.responsible != responsible))
    compare(f"responsible box, {dtype}", "any", "cells that differ", different, 0)

    assert terms.keys() == their_terms.keys()
    for name, term in their_terms.items():
        difference = largest(terms[name], term.detach().numpy())
        compare(f"loss, {dtype}", "any", f"term {name}", difference, bound)
    difference = largest(gradient, channels_last(output.grad))
    compare(f"loss, {dtype}", "any", "gradient", difference, bound)
