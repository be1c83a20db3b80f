"""The PyTorch reference's target grid and loss, as a PyTorch program of our own.

Written from the formulas of the notebook behind the published numbers
(gitE0Z9/pytorch-implementations, yolov1-v2 of 2021-09). Everything is relative to the image; x and
y are offsets from the left and the top of the cell. B batch, S grid side, C classes; the network's
channels are [confidence, x, y, w, h] of two boxes and C class scores.
"""

import torch
from golden.scenes import Scenes

NUM_BOXES = 2


def target_grid(scenes: Scenes, grid_size: int, num_classes: int) -> torch.Tensor:
    """Object by object: [B, 5 + C, S, S] of 1, x, y, w, h and the classes; 0 in empty cells.

    The last object of a cell owns its box; the classes of all its objects are marked.
    """
    grid = torch.zeros(len(scenes.boxes_xyxy), 5 + num_classes, grid_size, grid_size)
    grid = grid.to(torch.float64)
    for image, (boxes, labels, valid) in enumerate(zip(*scenes, strict=True)):
        for (left, top, right, bottom), label, is_valid in zip(boxes, labels, valid, strict=True):
            if not is_valid:
                continue
            cx, cy = (left + right) / 2, (top + bottom) / 2
            cell = grid[image, :, int(cy * grid_size), int(cx * grid_size)]
            box = [1, cx % (1 / grid_size), cy % (1 / grid_size), right - left, bottom - top]
            cell[:5] = torch.tensor(box, dtype=grid.dtype)
            cell[5 + label] = 1
    return grid


def intersection_over_union(
    boxes: tuple[torch.Tensor, ...], truth: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """IoU of (x, y, w, h) in cells, [..., S, S] each, that broadcast."""

    def corners(x, y, w, h):
        side = x.shape[-1]
        index = torch.arange(side, dtype=x.dtype) / side
        x, y = x + index, y + index[:, None]
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2

    left, top, right, bottom = corners(*boxes)
    true_left, true_top, true_right, true_bottom = corners(*truth)
    across = torch.minimum(right, true_right) - torch.maximum(left, true_left)
    down = torch.minimum(bottom, true_bottom) - torch.maximum(top, true_top)
    intersection = across.clamp(min=0) * down.clamp(min=0)
    union = (boxes[2] * boxes[3]).abs() + truth[2] * truth[3] - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(union))


def choose_boxes(raw: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU of both boxes of every cell, and which box is responsible (0 or 1): [B, 2, S, S] each."""
    with torch.no_grad():
        boxes = raw[:, : 5 * NUM_BOXES].unflatten(1, (NUM_BOXES, 5))  # [B, 2, 5, S, S]
        truth = target[:, None, 1:5]  # [B, 1, 4, S, S]
        iou = intersection_over_union(boxes[:, :, 1:].unbind(2), truth.unbind(2))
        best = iou.max(dim=1).indices  # the first of equals
        chosen = torch.nn.functional.one_hot(best, NUM_BOXES).movedim(-1, 1)
        return iou, chosen * target[:, :1]


def loss_terms(raw: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """The five weighted terms, summed over the batch.

    Args:
      raw: [B, 10 + C, S, S], the network's output.
      target: [B, 5 + C, S, S] of `target_grid`.
    """
    iou, responsible = choose_boxes(raw, target)
    has_object, truth, classes = target[:, :1], target[:, None, 1:5], target[:, 5:]
    boxes = raw[:, : 5 * NUM_BOXES].unflatten(1, (NUM_BOXES, 5))
    confidence, xy, wh = boxes[:, :, 0], boxes[:, :, 1:3], boxes[:, :, 3:5]
    root = wh.sign() * (wh.abs() + 1e-5).sqrt()
    xy_error = (xy - truth[:, :, :2]).square().sum(dim=2)  # [B, 2, S, S]
    wh_error = (root - truth[:, :, 2:].sqrt()).square().sum(dim=2)
    best_iou = iou.amax(dim=1, keepdim=True)
    return {
        "xy": 5 * (responsible * xy_error).sum(),
        "wh": 5 * (responsible * wh_error).sum(),
        "object": (responsible * (confidence - best_iou).square()).sum(),
        "no_object": 0.5 * ((1 - responsible) * confidence.square()).sum(),
        "class": (has_object * (raw[:, 5 * NUM_BOXES :] - classes).square()).sum(),
    }
