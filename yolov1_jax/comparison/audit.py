"""Why two protocols disagree about the same detections, object by object and rule by rule."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.comparison.rules import (
    STEPS,
    Found,
    Objects,
    Outcome,
    Rules,
    evaluate_under,
    replace_rule,
    rules_of,
    targets_under,
)
from yolov1_jax.comparison.selection import Selection
from yolov1_jax.errors import UserError

AUDITED_PROTOCOLS = ("voc07", "voc10", "seed")
_AREA_TEXT = {
    "voc07": "mean of the precision at 11 recall levels",
    "voc10": "area under the curve",
}


class Verdict(NamedTuple):
    """What a protocol makes of an object or a detection."""

    side: str  # objects: found, missed, ignored, removed, vanished;
    # detections: true positive, false positive, ignored, not selected
    why: str


class Line(NamedTuple):
    """An object or a detection, and what each protocol makes of it."""

    kind: str  # "object" or "detection"
    image_id: str
    number: int  # of an object in its image's annotation, from 1; the box or line of a detection
    class_name: str
    box_xyxy: tuple[float, ...]  # pixels of the original image
    difficult: bool | None  # of objects
    score: float | None  # of detections
    first: Verdict
    second: Verdict

    @property
    def changes_side(self) -> bool:
        return self.first.side != self.second.side


class Change(NamedTuple):
    """One rule changed, all those before it changed already."""

    text: str
    mean_ap: float  # after it
    gain: float  # of the mAP, by it
    ap: np.ndarray  # float64 [C] after it, NaN where there is none


@dataclasses.dataclass(frozen=True)
class Audit:
    """Two protocols on the same detections."""

    protocols: tuple[str, str]
    class_names: tuple[str, ...]
    first: Outcome
    second: Outcome
    changes: tuple[Change, ...]  # the gains add up to the difference of the mAPs
    objects: tuple[Line, ...]
    detections: tuple[Line, ...]
    not_replayed: tuple[str, ...]  # rules that a results file cannot be asked about

    @property
    def names(self) -> tuple[str, str]:
        """Of the protocols, for a reader: one that is not replayed whole says so."""
        part = " (in part)" if self.not_replayed else ""
        first, second = (name + part * (name == "seed") for name in self.protocols)
        return first, second


def audit(
    protocols: Sequence[str],
    selection: Selection,
    objects: Objects,
    *,
    image_ids: Sequence[str],
    class_names: Sequence[str],
    grid_size: int,
) -> Audit:
    """Compares two protocols.

    Args:
      protocols: two of AUDITED_PROTOCOLS.
      selection: of the network's boxes, or of a file's detections.
      objects, image_ids: of the N images; `class_names` of the labels.
      grid_size: side of the grid from which the seed protocol reads its ground truth.

    Raises:
      UserError: these are not two different protocols that can be audited.
    """
    if (
        len(protocols) != 2
        or len(set(protocols)) != 2
        or not set(protocols) <= set(AUDITED_PROTOCOLS)
    ):
        raise UserError(
            f"expected two protocols of {', '.join(AUDITED_PROTOCOLS)} such as --audit=voc07,seed, "
            f"found {','.join(protocols)!r}: COCO's cannot be audited"
        )
    # From the official rules to the seed protocol; the other way the same steps are gone back.
    backward = protocols[0] == "seed"
    start, end = protocols[::-1] if backward else protocols
    path = _path(
        rules_of(start, with_network=selection.has_network),
        rules_of(end, with_network=selection.has_network),
    )
    outcomes = [
        evaluate_under(
            rules,
            selection.select(rules),
            targets_under(rules, objects, grid_size, len(class_names)),
            len(class_names),
        )
        for rules in path
    ]
    if backward:
        path, outcomes = path[::-1], outcomes[::-1]
    texts = [_text(before, after) for before, after in itertools.pairwise(path)]
    changes = tuple(
        Change(text, after.mean_ap, after.mean_ap - before.mean_ap, after.ap)
        for text, before, after in zip(texts, outcomes[:-1], outcomes[1:], strict=True)
    )
    ends = ((path[0], outcomes[0]), (path[-1], outcomes[-1]))
    return Audit(
        protocols=(protocols[0], protocols[1]),
        class_names=tuple(class_names),
        first=outcomes[0],
        second=outcomes[-1],
        changes=changes,
        objects=_object_lines(ends, objects, image_ids, class_names),
        detections=_detection_lines(ends, selection, objects, image_ids, class_names),
        not_replayed=tuple(
            step.text
            for step in STEPS
            if step.needs_network and not selection.has_network and "seed" in protocols
        ),
    )


def _path(start: Rules, end: Rules) -> list[Rules]:
    """From one to the other, a rule at a time, in the order of STEPS."""
    path = [start]
    for step in STEPS:
        value = getattr(end, step.field)
        if getattr(start, step.field) != value:
            path.append(replace_rule(path[-1], step.field, value))
    return path


def _text(before: Rules, after: Rules) -> str:
    """The rule in which they differ, in words."""
    (step,) = (step for step in STEPS if getattr(before, step.field) != getattr(after, step.field))
    if step.field == "area":
        return _AREA_TEXT.get(after.area, step.text)
    return step.text if getattr(after, step.field) else step.back


def _object_lines(
    ends: Sequence[tuple[Rules, Outcome]],
    objects: Objects,
    image_ids: Sequence[str],
    class_names: Sequence[str],
) -> tuple[Line, ...]:
    verdicts = [_object_verdicts(rules, outcome, objects, class_names) for rules, outcome in ends]
    return tuple(
        Line(
            "object",
            image_ids[objects.image[index]],
            int(objects.number[index]),
            class_names[objects.labels[index]],
            tuple(objects.original_xyxy[index].tolist()),
            bool(objects.difficult[index]),
            None,
            first,
            second,
        )
        for index, (first, second) in enumerate(zip(*verdicts, strict=True))
    )


def _object_verdicts(
    rules: Rules, outcome: Outcome, objects: Objects, class_names: Sequence[str]
) -> list[Verdict]:
    targets, found = outcome.targets, outcome.found
    verdicts = []
    for index in range(len(objects.image)):
        if objects.difficult[index]:
            verdicts.append(Verdict("removed" if rules.no_difficult else "ignored", "difficult"))
            continue
        target = targets.target_of[index]
        owner, heir = targets.box_of[target], targets.stands_for[target]
        if heir != index:
            why = f"shares a cell with {_object_name(owner, objects, class_names)}"
            if heir != owner:
                why += f", and there its class with {_object_name(heir, objects, class_names)}"
            verdicts.append(Verdict("vanished", why))
            continue
        reasons = []
        detection = outcome.found_by[target]
        if detection >= 0:
            score, iou = found.scores[detection], outcome.overlap[detection]
            reasons.append(f"score {score:.3f}, IoU {iou:.3f}")
        if owner != index:
            name = _object_name(owner, objects, class_names)
            reasons.append(f"has the box of {name}, which shares its cell")
        verdicts.append(Verdict("found" if detection >= 0 else "missed", "; ".join(reasons)))
    return verdicts


def _detection_lines(
    ends: Sequence[tuple[Rules, Outcome]],
    selection: Selection,
    objects: Objects,
    image_ids: Sequence[str],
    class_names: Sequence[str],
) -> tuple[Line, ...]:
    """Everything that at least one of the two selects."""
    places = [_places(outcome.found) for _, outcome in ends]
    lines = []
    for row, label in sorted(places[0].keys() | places[1].keys()):
        image, score, box = selection.describe(row, label)
        verdicts = []
        for (rules, outcome), place in zip(ends, places, strict=True):
            detection = place.get((row, label))
            if detection is None:
                verdicts.append(Verdict("not selected", selection.why_not(rules, row, label)))
            else:
                verdicts.append(_detection_verdict(outcome, detection, objects))
        lines.append(
            Line(
                "detection",
                image_ids[image],
                row,
                class_names[label],
                tuple(float(value) for value in box),
                None,
                score,
                verdicts[0],
                verdicts[1],
            )
        )
    return tuple(lines)


def _places(found: Found) -> dict[tuple[int, int], int]:
    pairs = zip(found.row.tolist(), found.labels.tolist(), strict=True)
    return {pair: index for index, pair in enumerate(pairs)}


def _detection_verdict(outcome: Outcome, detection: int, objects: Objects) -> Verdict:
    target, iou = outcome.nearest[detection], outcome.overlap[detection]
    if target < 0:
        return Verdict("false positive", "no object of its class in the image")
    number = objects.number[outcome.targets.stands_for[target]]
    if iou == 0:
        return Verdict("false positive", "meets no object of its class")
    text = f"object {number}, IoU {iou:.3f}"
    if outcome.true_positive[detection]:
        return Verdict("true positive", text)
    if outcome.ignored[detection]:
        return Verdict("ignored", f"difficult {text}")
    if outcome.repeats[detection]:
        return Verdict("false positive", f"repeat of {text}")
    return Verdict("false positive", f"too far from {text}")


def _object_name(index: int, objects: Objects, class_names: Sequence[str]) -> str:
    return f"object {objects.number[index]} ({class_names[objects.labels[index]]})"
