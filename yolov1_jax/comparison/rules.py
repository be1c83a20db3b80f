"""An evaluation as a list of rules, each of which can be the official one or the seed protocol's.

With all rules official this is `evaluate_detections`, with all those of the seed protocol it is
`evaluate_seed`, to the last bit; in between it is neither, which shows what each rule is worth.

Frames: pixels of the original images ("original") for the official rules, pixels of the network
input ("input") for those of the seed protocol. Axes: T objects or D detections of all images.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolov1_jax.evaluation.average_precision import (
    AVERAGE_PRECISION,
    inclusive_overlap,
    most_overlapped,
    recall_and_precision,
)
from yolov1_jax.evaluation.grid_objects import grid_objects
from yolov1_jax.evaluation.reference_protocol import average_precision_trapezoid
from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.detections import GroundTruth, join_ground_truth

INPUT_SIZE = 448  # pixels of the input frame; IoU does not depend on it
SEED_SCORE_THRESHOLD = 0.3
IOU_THRESHOLD = 0.5
AREAS = {**AVERAGE_PRECISION, "seed": average_precision_trapezoid}


@dataclasses.dataclass(frozen=True)
class Rules:
    """False is the official rule, True the seed protocol's."""

    area: str  # the average precision of this protocol, one of AREAS
    no_difficult: bool = False
    grid: bool = False
    whole_boxes: bool = False
    threshold: bool = False
    drop_high: bool = False
    drop_last: bool = False
    plain_overlap: bool = False
    repeats_by_iou: bool = False
    all_classes: bool = False


class Step(NamedTuple):
    """A rule that changes on the way from an official protocol to the seed protocol."""

    field: str
    text: str
    back: str  # the same step, taken back
    needs_network: bool = False  # cannot be replayed on the detections of a results file


STEPS = (
    Step(
        "no_difficult",
        "difficult objects do not exist (they were ignored)",
        "difficult objects are ignored (they did not exist)",
    ),
    Step(
        "grid",
        "objects that share a grid cell vanish, or get the last one's box",
        "objects that share a grid cell are all there, with their own boxes",
    ),
    Step(
        "whole_boxes",
        "boxes are not cut at the image's border, NMS at IoU 0.5, one class a box",
        "boxes are cut at the image's border, NMS and classes as the run has them",
        needs_network=True,
    ),
    Step(
        "threshold",
        f"scores below {SEED_SCORE_THRESHOLD} are dropped",
        f"scores below {SEED_SCORE_THRESHOLD} count, down to the run's own threshold",
    ),
    Step(
        "drop_high",
        "scores of 1 and more are dropped",
        "scores of 1 and more count",
        needs_network=True,
    ),
    Step(
        "drop_last",
        "the last candidate of a class in an image is dropped",
        "the last candidate of a class in an image counts",
        needs_network=True,
    ),
    Step(
        "plain_overlap",
        "IoU > 0.5 finds (was: >= 0.5 of boxes that are a pixel larger)",
        "IoU >= 0.5 of boxes that are a pixel larger finds (was: > 0.5)",
    ),
    Step(
        "repeats_by_iou",
        "of repeats the highest IoU counts (was: the highest score)",
        "of repeats the highest score counts (was: the highest IoU)",
    ),
    Step("area", "trapezoids up to the last recall but one", ""),
    Step(
        "all_classes",
        "classes without objects count as 0 (were left out)",
        "classes without objects are left out (counted as 0)",
    ),
)


def rules_of(protocol: str, *, with_network: bool = True) -> Rules:
    """Those of "voc07", "voc10" or "seed"; without a network those that can be replayed."""
    rules = Rules(area=protocol)
    if protocol == "seed":
        for step in STEPS:
            if step.field != "area" and (with_network or not step.needs_network):
                rules = replace_rule(rules, step.field, True)
    return rules


def replace_rule(rules: Rules, field: str, value: Any) -> Rules:
    """The same rules but for one."""
    changed: dict[str, Any] = {field: value}
    return dataclasses.replace(rules, **changed)


class Objects(NamedTuple):
    """T annotated objects of all images, in their order."""

    image: np.ndarray  # int [T]
    number: np.ndarray  # int [T], place in the image's annotation, from 1
    original_xyxy: np.ndarray  # float64 [T, 4]
    labels: np.ndarray  # int [T]
    difficult: np.ndarray  # bool [T]
    relative: Sequence[GroundTruth]  # the same by image, boxes in [0, 1]
    sizes: np.ndarray  # int [N, 2], height and width of the images


def join_objects(ground_truth: Sequence[GroundTruth], sizes: np.ndarray) -> Objects:
    """Objects of N images. Boxes in pixels of the original images, of these sizes [N, 2]."""
    image, truth = join_ground_truth(ground_truth)
    number = np.arange(len(image)) - np.searchsorted(image, image) + 1
    relative = [
        one._replace(boxes_xyxy=one.boxes_xyxy / size[[1, 0, 1, 0]])
        for one, size in zip(ground_truth, sizes, strict=True)
    ]
    return Objects(image, number, truth.boxes_xyxy, truth.labels, truth.difficult, relative, sizes)


class Found(NamedTuple):
    """D detections of all images, in the order that decides between equal scores."""

    row: np.ndarray  # int [D], which box of the network or line of the file
    image: np.ndarray  # int [D]
    labels: np.ndarray  # int [D]
    scores: np.ndarray  # float64 [D]
    original_xyxy: np.ndarray  # float64 [D, 4]
    input_xyxy: np.ndarray  # float64 [D, 4]


class Targets(NamedTuple):
    """What there is to find under some rules. T entries by image."""

    image: np.ndarray
    original_xyxy: np.ndarray
    input_xyxy: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    stands_for: np.ndarray  # index of the object
    box_of: np.ndarray  # index of the object whose box it is
    # int [objects], the target of the object's class in its cell, or its own; -1 if it has none
    target_of: np.ndarray


class Outcome(NamedTuple):
    """An evaluation, detection by detection and target by target."""

    mean_ap: float
    ap: np.ndarray  # float64 [C], NaN where the rules give none
    found: Found
    targets: Targets
    true_positive: np.ndarray  # bool [D]
    ignored: np.ndarray  # bool [D]
    repeats: np.ndarray  # bool [D], near enough to an object that another one finds
    nearest: np.ndarray  # int [D], the target overlapped most, -1 where the image has none
    overlap: np.ndarray  # float64 [D], with that
    found_by: np.ndarray  # int [T], the true positive, -1 where there is none


def targets_under(rules: Rules, objects: Objects, grid_size: int, num_classes: int) -> Targets:
    """What there is to find."""
    relative = np.concatenate([np.empty((0, 4)), *(one.boxes_xyxy for one in objects.relative)])
    index = np.arange(len(objects.image))
    if rules.grid:
        grid = grid_objects(objects.relative, grid_size, num_classes)
        # Difficult objects are in no cell; where they still exist they stand behind the others.
        kept = index[objects.difficult] if not rules.no_difficult else index[:0]
        stands_for = np.concatenate([grid.stands_for, kept])
        box_of = np.concatenate([grid.box_of, kept])
        by_image = np.argsort(objects.image[stands_for], kind="stable")
        place = np.empty_like(by_image)
        place[by_image] = np.arange(len(by_image))
        target_of = grid.place_of.copy()
        target_of[kept] = len(grid.image) + np.arange(len(kept))
        target_of[target_of >= 0] = place[target_of[target_of >= 0]]
        stands_for, box_of = stands_for[by_image], box_of[by_image]
    else:
        stands_for = box_of = index[~objects.difficult] if rules.no_difficult else index
        target_of = np.full(len(index), -1)
        target_of[stands_for] = np.arange(len(stands_for))
    return Targets(
        image=objects.image[stands_for],
        original_xyxy=objects.original_xyxy[box_of],
        input_xyxy=relative[box_of] * INPUT_SIZE,
        labels=objects.labels[stands_for],
        difficult=objects.difficult[stands_for],
        stands_for=stands_for,
        box_of=box_of,
        target_of=target_of,
    )


def evaluate_under(rules: Rules, found: Found, targets: Targets, num_classes: int) -> Outcome:
    """Matches and averages."""
    num_found = len(found.image)
    true_positive, ignored, repeats = np.zeros((3, num_found), bool)
    nearest, overlap = np.full(num_found, -1), np.zeros(num_found)
    found_by = np.full(len(targets.image), -1)
    ap = np.full(num_classes, np.nan)
    measure: Callable[..., np.ndarray] = inclusive_overlap
    boxes, true_boxes = found.original_xyxy, targets.original_xyxy
    if rules.plain_overlap:
        measure, boxes, true_boxes = iou_xyxy, found.input_xyxy, targets.input_xyxy
    for label in range(num_classes):
        rows = np.flatnonzero(found.labels == label)
        true = np.flatnonzero(targets.labels == label)
        best, iou = most_overlapped(
            boxes[rows], found.image[rows], true_boxes[true], targets.image[true], measure
        )
        enough = iou > IOU_THRESHOLD if rules.plain_overlap else iou >= IOU_THRESHOLD
        skipped = np.zeros(len(rows), bool)
        skipped[enough] = targets.difficult[true[best[enough]]]

        # Of the detections of one object, the first in this order finds it.
        scores = found.scores[rows]
        order = np.lexsort((-scores, -iou)) if rules.repeats_by_iou else _descending(scores)
        order = order[(enough & ~skipped)[order]]
        hit, first = np.unique(best[order], return_index=True)
        finds = np.zeros(len(rows), bool)
        finds[order[first]] = True

        ranking = (
            np.lexsort((-iou, found.image[rows], -scores))
            if rules.repeats_by_iou
            else _descending(scores)
        )
        num_objects = int(np.sum(~targets.difficult[true]))
        recall, precision = recall_and_precision(
            finds[ranking], (~finds & ~skipped)[ranking], num_objects
        )
        if num_objects:
            ap[label] = AREAS[rules.area](recall, precision)
        elif rules.all_classes:
            ap[label] = 0.0
        true_positive[rows], ignored[rows], overlap[rows] = finds, skipped, iou
        repeats[rows] = enough & ~skipped & ~finds
        has = best >= 0
        nearest[rows[has]] = true[best[has]]
        found_by[true[hit]] = rows[order[first]]
    known = ap[~np.isnan(ap)]
    mean_ap = float(np.mean(known)) if len(known) else np.nan
    return Outcome(
        mean_ap, ap, found, targets, true_positive, ignored, repeats, nearest, overlap, found_by
    )


def _descending(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")
