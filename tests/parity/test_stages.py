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
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy, iou_xyxy
from yolov1_jax.yolo.grid import boxes_around_cell, encode_boxes, encode_targets, split_predictions
from yolov1_jax.yolo.loss import responsible_boxes, yolo_loss

GRID, NUM_CLASSES, NUM_IMAGES = 7, 20, 64
PRECISIONS = {"float64": 1e-12, "float32": 1e-5}
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


@pytest.fixture(scope="module")
def target():
    return torch_loss.target_grid(OBJECTS, GRID, NUM_CLASSES)


@pytest.fixture(scope="module")
def output(target):
    return made_up_output(target.numpy())


def our_targets(dtype):
    return encode_targets(
        jnp.asarray(OBJECTS.boxes_xyxy, dtype),
        jnp.asarray(OBJECTS.labels),
        jnp.asarray(OBJECTS.valid),
        grid_size=GRID,
        num_classes=NUM_CLASSES,
        **TARGET_OPTIONS,
    )


def channels_last(array):
    return np.moveaxis(np.asarray(array), 1, -1)


@pytest.mark.parametrize("case", [CASES[0], FULL_CASES[0]], ids=["ImageNet's mean", "plain"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_pixels(compare, case, dtype):
    with jax.enable_x64(dtype == "float64"):
        pixels = fixed_numbers.images(case.name, case.image_shape)
        ours = normalize(pixels, case.pixel_mean, case.pixel_std, dtype)
    images = torch_detector.images(case, getattr(torch, dtype))
    theirs = channels_last(torch_detector.normalize(images, case))
    stage = "pixels / 255" if case.pixel_mean[0] == 0 else "pixels by mean and std"
    bound = {"float64": 1e-15, "float32": 5e-7}[dtype]
    compare(f"{stage}, {dtype}", "any", "input", largest(ours, theirs), bound)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_target_grid(compare, target, dtype):
    with jax.enable_x64(dtype == "float64"):
        targets = our_targets(dtype)
        boxes = encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit="image")[..., 0, :]
    theirs = channels_last(target)
    has_object = theirs[..., :1]
    assert has_object.sum() < OBJECTS.valid.sum()  # there are shared cells
    different = np.sum(np.asarray(targets.object_mask)[..., None] != has_object)
    different += np.sum(np.asarray(targets.classes) != theirs[..., 5:])
    compare(f"target grid, {dtype}", "any", "cells and classes that differ", int(different), 0)
    difference = largest(np.where(has_object, boxes, 0), theirs[..., 1:5])
    bound = {"float64": 1e-14, "float32": 1e-6}[dtype]
    compare(f"target grid, {dtype}", "any", "x, y, w, h", difference, bound)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_responsible_boxes(compare, target, output, dtype):
    iou, responsible = torch_loss.choose_boxes(
        torch.from_numpy(output).to(getattr(torch, dtype)), target.to(getattr(torch, dtype))
    )
    has_object = target[:, 0].numpy() == 1
    with jax.enable_x64(dtype == "float64"):
        targets = our_targets(dtype)
        raw = jnp.asarray(channels_last(output), dtype)
        boxes = split_predictions(raw, boxes_per_cell=2, num_classes=NUM_CLASSES).boxes
        truth = encode_boxes(targets.boxes_cxcywh[..., None, :], xy_unit="image")
        ours = iou_xyxy(
            cxcywh_to_xyxy(boxes_around_cell(boxes, xy_unit="image")),
            cxcywh_to_xyxy(boxes_around_cell(truth, xy_unit="image")),
        )
        chosen = responsible_boxes(ours, targets.object_mask)
    theirs = channels_last(iou)[has_object]  # [N, 2]
    assert np.mean(theirs[:, 0] == theirs[:, 1]) > 0.1  # ties
    assert np.mean(theirs[:, 1] > theirs[:, 0]) > 0.1
    difference = largest(np.asarray(ours)[has_object], theirs)
    compare(f"IoU, {dtype}", "any", "of both boxes of object cells", difference, PRECISIONS[dtype])
    different = int(np.sum(np.asarray(chosen) != channels_last(responsible)))
    compare(f"responsible box, {dtype}", "any", "cells that differ", different, 0)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_loss(compare, target, output, dtype):
    raw = torch.from_numpy(output).to(getattr(torch, dtype)).requires_grad_()
    terms = torch_loss.loss_terms(raw, target.to(raw.dtype))
    sum(terms.values()).backward()

    with jax.enable_x64(dtype == "float64"):
        targets = our_targets(dtype)

        def loss(raw):
            predictions = split_predictions(raw, boxes_per_cell=2, num_classes=NUM_CLASSES)
            ours = yolo_loss(predictions, targets, **LOSS_OPTIONS)
            return sum(ours.values()), ours

        ours_raw = jnp.asarray(channels_last(output), dtype)
        gradient, ours = jax.jit(jax.grad(loss, has_aux=True))(ours_raw)
    assert ours.keys() == terms.keys()
    for name, term in terms.items():
        difference = largest(ours[name], term.detach().numpy())
        compare(f"loss, {dtype}", "any", f"term {name}", difference, PRECISIONS[dtype])
    difference = largest(gradient, channels_last(raw.grad))
    compare(f"loss, {dtype}", "any", "gradient", difference, PRECISIONS[dtype])
