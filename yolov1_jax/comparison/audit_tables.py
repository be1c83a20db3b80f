"""An audit as tables, and object by object as CSV."""

import collections
import csv
import math
import pathlib
import re

import numpy as np

from yolov1_jax.comparison.audit import Audit, Line, Verdict
from yolov1_jax.comparison.tables import Cell, Table
from yolov1_jax.evaluation.average_precision import recall_and_precision

_EXAMPLES_OF_A_KIND = 2
_LINE_COLUMNS = (
    *("kind", "image_id", "number", "class"),
    *("xmin", "ymin", "xmax", "ymax", "difficult", "score"),
)
_SIDES = {
    "object": ("found", "missed", "ignored", "removed", "vanished"),
    "detection": ("true positive", "false positive", "ignored", "not selected"),
}


def audit_tables(audit: Audit, *, complete: bool) -> list[Table]:
    """What is worth reading; `complete`: with the AP by class after each rule."""
    tables = [_rules_table(audit), _sides_table(audit, "object"), _sides_table(audit, "detection")]
    if {audit.protocols[0], audit.protocols[1]} == {"voc07", "voc10"}:
        tables.append(_recall_table(audit))
    examples = _examples_table(audit)
    if examples is not None:
        tables.append(examples)
    if complete:
        tables.append(_class_table(audit))
    return tables


def _rules_table(audit: Audit) -> Table:
    first, second = audit.names
    rows = [[Cell("0"), Cell(first), Cell(_points(audit.first.mean_ap)), Cell("")]]
    for number, change in enumerate(audit.changes, 1):
        rows.append(
            [
                Cell(str(number)),
                Cell(change.text),
                Cell(_points(change.mean_ap)),
                Cell(_points(change.gain, signed=True)),
            ]
        )
    difference = audit.second.mean_ap - audit.first.mean_ap
    notes = []
    if audit.not_replayed:
        notes.append(
            "The file holds detections, not the network's output: of seed, not replayed: "
            f"{'; '.join(audit.not_replayed)}. The numbers are not those of seed."
        )
    rows.append(
        [
            Cell(""),
            Cell(second),
            Cell(_points(audit.second.mean_ap)),
            Cell(_points(difference, signed=True)),
        ]
    )
    notes.append(
        "Each rule is changed while those above stay changed: in another order single gains "
        "differ, the sum does not."
    )
    return Table(
        f"From {first} to {second}, one rule after the other",
        [Cell(""), Cell("rule"), Cell("mAP (%)"), Cell("gain")],
        rows,
        num_labels=2,
        footnotes=tuple(notes),
        last_row_is_sum=True,
    )


def _sides_table(audit: Audit, kind: str) -> Table:
    lines = audit.objects if kind == "object" else audit.detections
    counts = collections.Counter((line.first.side, line.second.side) for line in lines)
    first_sides, second_sides = (
        [side for side in _SIDES[kind] if any(pair[end] == side for pair in counts)]
        for end in (0, 1)
    )
    first, second = audit.names
    rows = [
        [
            Cell(side),
            *(Cell(_count(counts[side, other])) for other in second_sides),
            Cell(_count(sum(counts[side, other] for other in second_sides))),
        ]
        for side in first_sides
    ]
    totals = [sum(counts[side, other] for side in first_sides) for other in second_sides]
    rows.append([Cell("all"), *(Cell(_count(total)) for total in totals), Cell(_count(len(lines)))])
    changed = sum(line.changes_side for line in lines)
    noun = "Objects of the ground truth" if kind == "object" else "Detections"
    return Table(
        f"{noun}: {changed:,} of {len(lines):,} change side",
        [
            Cell(f"{first} ↓  {second} →"),
            *(Cell(side) for side in second_sides),
            Cell("all"),
        ],
        rows,
        last_row_is_sum=True,
    )


def _examples_table(audit: Audit) -> Table | None:
    """A few of every kind of change; objects first."""
    shown: list[Line] = []
    kinds: collections.Counter[tuple[str, ...]] = collections.Counter()
    for line in (*audit.objects, *audit.detections):
        kind = (line.kind, *_kind_of(line.first), *_kind_of(line.second))
        if line.changes_side and kinds[kind] < _EXAMPLES_OF_A_KIND:
            kinds[kind] += 1
            shown.append(line)
    if not shown:
        return None
    first, second = audit.names
    rows = []
    for line in shown:
        what = f"object {line.number}" if line.kind == "object" else f"score {line.score:.3f}"
        rows.append(
            [
                Cell(line.image_id),
                Cell(f"{line.class_name}, {what}"),
                Cell(_verdict(line.first)),
                Cell(_verdict(line.second)),
            ]
        )
    return Table(
        "Some that change side",
        [Cell("image"), Cell("what"), Cell(first), Cell(second)],
        rows,
        num_labels=4,
        footnotes=("Objects are numbered as in their annotation, from 1. All are in audit.csv.",),
        wraps=True,
    )


def _kind_of(verdict: Verdict) -> tuple[str, str]:
    """A verdict without its numbers and names."""
    why = re.sub(r"\([^)]*\)|[\d.]+", "", verdict.why)
    # Why an object is found or lost says which one; why a box is not selected says which rule.
    return verdict.side, why if verdict.side in ("not selected", "false positive") else ""


def _verdict(verdict: Verdict) -> str:
    return f"{verdict.side}: {verdict.why}" if verdict.why else verdict.side


def _recall_table(audit: Audit) -> Table:
    """Where the two official areas differ: what each stretch of recall adds to the mAP."""
    points, areas = np.zeros(11), np.zeros(11)
    num_classes = 0
    outcome = audit.first
    for label in range(len(audit.class_names)):
        found = np.flatnonzero(outcome.found.labels == label)
        found = found[np.argsort(-outcome.found.scores[found], kind="stable")]
        true = outcome.targets.labels == label
        num_objects = int(np.sum(true & ~outcome.targets.difficult))
        if not num_objects:
            continue
        num_classes += 1
        hit = outcome.true_positive[found]
        recall, precision = recall_and_precision(hit, ~hit & ~outcome.ignored[found], num_objects)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        for k in range(11):
            from_here = envelope[recall >= k * 0.1]
            points[k] += (from_here[0] if len(from_here) else 0.0) / 11
        steps = np.diff(recall, prepend=0.0)
        band = np.clip(np.ceil(recall * 10 - 1e-9).astype(int), 0, 10)
        np.add.at(areas, band, steps * envelope)
    points, areas = points / max(num_classes, 1), areas / max(num_classes, 1)
    rows_of = {"voc07": points, "voc10": areas}
    first, second = audit.names
    rows = [
        [
            Cell(f"{k / 10:.1f}" if k == 0 else f"{(k - 1) / 10:.1f} to {k / 10:.1f}"),
            Cell(_points(rows_of[first][k])),
            Cell(_points(rows_of[second][k])),
            Cell(_points(rows_of[second][k] - rows_of[first][k], signed=True)),
        ]
        for k in range(11)
    ]
    sums = rows_of[first].sum(), rows_of[second].sum()
    rows.append(
        [
            Cell("mAP"),
            Cell(_points(sums[0])),
            Cell(_points(sums[1])),
            Cell(_points(sums[1] - sums[0], signed=True)),
        ]
    )
    return Table(
        "What each stretch of recall adds to the mAP (points)",
        [Cell("recall"), Cell(first), Cell(second), Cell("difference")],
        rows,
        footnotes=(
            "The matching is the same, only the area differs: voc07 adds the best precision from "
            "the end of each stretch on, a recall of 0 included, divided by 11; voc10 the area.",
        ),
        last_row_is_sum=True,
    )


def _class_table(audit: Audit) -> Table:
    columns = [audit.first.ap, *(change.ap for change in audit.changes)]
    rows = [
        [Cell(name), *(Cell(_points(column[label])) for column in columns)]
        for label, name in enumerate(audit.class_names)
    ]
    means = [audit.first.mean_ap, *(change.mean_ap for change in audit.changes)]
    rows.append([Cell("mAP"), *(Cell(_points(mean)) for mean in means)])
    return Table(
        "AP by class (%) after each rule, numbered as above",
        [Cell("class"), *(Cell(str(number)) for number in range(len(columns)))],
        rows,
        last_row_is_sum=True,
    )


def write_audit_csv(path: pathlib.Path, audit: Audit) -> None:
    """A row for each object, then for each detection, in the order of the images."""
    first, second = audit.names
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        verdicts = [first, f"{first}: why", second, f"{second}: why", "changes"]
        writer.writerow([*_LINE_COLUMNS, *verdicts])
        for line in (*audit.objects, *audit.detections):
            writer.writerow(
                [line.kind, line.image_id, line.number, line.class_name]
                + [f"{value:.2f}" for value in line.box_xyxy]
                + ["" if line.difficult is None else int(line.difficult)]
                + ["" if line.score is None else f"{line.score:.6f}"]
                + [*line.first, *line.second, int(line.changes_side)]
            )


def _points(value: float, *, signed: bool = False) -> str:
    if math.isnan(value):
        return "-"
    text = f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"
    return text.replace("-0.00", "+0.00") if signed else text


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
