"""Entries as tables: one for the mAP and one for the AP by class of each evaluation set.

A table never mixes evaluation sets, and a column never mixes protocols. What a number may need
saying besides (its step was chosen on this data, the data is known by name only) is a note of the
number.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from yolov1_jax.comparison.entries import (
    NO_FINGERPRINT,
    PROTOCOL_MEANING,
    DataGroup,
    Entry,
    Score,
    key_of,
    measured_on,
    protocols_of,
)

_PART_NAMES = {"AP_small": "small", "AP_medium": "medium", "AP_large": "large"}


class Cell(NamedTuple):
    """What stands in a place of a table; `notes` are numbered and explained below it."""

    text: str
    strong: bool = False
    notes: tuple[str, ...] = ()


class Table(NamedTuple):
    """The first `num_labels` columns say what a row is; they are repeated if a table is split."""

    title: str
    head: list[Cell]
    rows: list[list[Cell]]
    num_labels: int = 1
    footnotes: tuple[str, ...] = ()
    last_row_is_sum: bool = False
    wraps: bool = False  # values are texts, not numbers


def percent(value: float | None) -> str:
    """A fraction as it is printed."""
    # The tiny amount rounds 66.85, which is a little less in binary, as a reader would.
    return "-" if value is None else f"{100 * value + 1e-9:.1f}"


def entries_table(entries: Sequence[Entry]) -> Table:
    """Which letter is what."""
    rows = []
    for index, entry in enumerate(entries):
        about = f"{entry.kind}: {entry.origin}."
        if entry.trained_on:
            about += f" Trained on {entry.trained_on}."
        if entry.step is not None:
            epoch = f" (epoch {entry.epoch:.4g})" if entry.epoch is not None else ""
            about += f" Step {entry.step:,}{epoch}"
            about += f", {entry.chosen}." if entry.chosen else "."
        elif entry.chosen:
            epoch = f" Epoch {entry.epoch:g}:" if entry.epoch is not None else ""
            about += f"{epoch} {entry.chosen}."
        rows.append([Cell(key_of(index)), Cell(entry.name, notes=entry.notes), Cell(about)])
    return Table(
        "What is compared", [Cell(""), Cell("name"), Cell("what")], rows, num_labels=2, wraps=True
    )


def result_tables(entries: Sequence[Entry]) -> list[Table]:
    """The mAP, then the AP by class, on each evaluation set."""
    tables = []
    for group in measured_on(entries):
        scores = scores_on(entries, group)
        tables.append(_mean_ap_table(entries, group, scores))
        if any(score.ap for _, score in scores):
            tables.append(_class_table(entries, group, scores))
    return tables


def scores_on(entries: Sequence[Entry], group: DataGroup) -> list[tuple[int, Score]]:
    """The scores on an evaluation set, with the index of their entry."""
    return [
        (index, score)
        for index, entry in enumerate(entries)
        for score in entry.scores
        if score.data in group.members
    ]


def score_notes(score: Score, group: DataGroup) -> tuple[str, ...]:
    """What must be said beside a number of this score."""
    has_others = group.num_entries > 1 or group.data.fingerprint is not None
    unproven = score.data.fingerprint is None and has_others
    return score.notes + (NO_FINGERPRINT,) * unproven


def _mean_ap_table(
    entries: Sequence[Entry], group: DataGroup, scores: Sequence[tuple[int, Score]]
) -> Table:
    """Entries by protocols; of coco also its parts."""
    columns: list[tuple[str, str | None]] = []
    for protocol in protocols_of(score for _, score in scores):
        found = [score for _, score in scores if score.protocol == protocol]
        parts = dict.fromkeys(part for score in found for part in score.parts)
        columns += [(protocol, None), *((protocol, part) for part in parts)]
    shown = list(dict.fromkeys(index for index, _ in scores))
    by_place = {(index, score.protocol): score for index, score in scores}
    # What is true of all numbers of an entry is said once, at its name.
    common = {index: _common_notes(scores, index, group) for index in shown}
    filled = []
    for protocol, part in columns:
        cells = _column([by_place.get((index, protocol)) for index in shown], group, part)
        filled.append(
            [
                cell._replace(notes=tuple(set(cell.notes) - set(common[index])))
                for index, cell in zip(shown, cells, strict=True)
            ]
        )
    head = [
        Cell(_PART_NAMES.get(part, part)) if part else Cell(protocol, notes=_meaning(protocol))
        for protocol, part in columns
    ]
    return Table(
        f"mAP (%) on {group.label}",
        [Cell(""), Cell("name"), *head],
        [
            [Cell(key_of(index)), Cell(entries[index].name, notes=common[index]), *cells]
            for index, *cells in zip(shown, *filled, strict=True)
        ],
        num_labels=2,
    )


def _common_notes(
    scores: Sequence[tuple[int, Score]], index: int, group: DataGroup
) -> tuple[str, ...]:
    notes = [score_notes(score, group) for one, score in scores if one == index]
    return tuple(note for note in notes[0] if all(note in others for others in notes))


def _column(scores: Sequence[Score | None], group: DataGroup, part: str | None) -> list[Cell]:
    """The mAP, or a part of it, of each; the best of several stands out."""
    values = [
        None if score is None else score.parts.get(part) if part else score.mean_ap
        for score in scores
    ]
    best = _best_of(values)
    return [
        Cell("")
        if score is None
        else Cell(percent(value), percent(value) == best, score_notes(score, group))
        for score, value in zip(scores, values, strict=True)
    ]


def _class_table(
    entries: Sequence[Entry], group: DataGroup, scores: Sequence[tuple[int, Score]]
) -> Table:
    """Classes by entries; the columns of a protocol stand together."""
    ordered = [
        (protocol, [one for one in scores if one[1].protocol == protocol and one[1].ap])
        for protocol in protocols_of(score for _, score in scores)
    ]
    shown = [(protocol, *one) for protocol, some in ordered for one in some]
    names = dict.fromkeys(name for _, _, score in shown for name in score.ap)

    def row(label: str, values: list[float | None], cells: list[str]) -> list[Cell]:
        best = {
            protocol: _best_of(
                [v for (p, *_), v in zip(shown, values, strict=True) if p == protocol]
            )
            for protocol in protocols_of(score for _, _, score in shown)
        }
        return [
            Cell(label),
            *(
                Cell(text, text == best[protocol])
                for (protocol, *_), text in zip(shown, cells, strict=True)
            ),
        ]

    rows = []
    for name in names:
        values = [score.ap.get(name) for _, _, score in shown]
        known = [name in score.ap for _, _, score in shown]
        cells = [percent(value) if here else "" for value, here in zip(values, known, strict=True)]
        rows.append(row(name, values, cells))
    means = [score.mean_ap for _, _, score in shown]
    rows.append(row("mAP", means, [percent(mean) for mean in means]))
    head = [
        Cell(f"{protocol}\n{key_of(index)}\n{entries[index].name}", notes=score_notes(score, group))
        for protocol, index, score in shown
    ]
    return Table(
        f"AP by class (%) on {group.label}", [Cell("class"), *head], rows, last_row_is_sum=True
    )


def _best_of(values: Iterable[float | None]) -> str | None:
    """The largest, as it is printed; None unless there are several to choose from."""
    known = [value for value in values if value is not None]
    return percent(max(known)) if len(known) > 1 else None


def _meaning(protocol: str) -> tuple[str, ...]:
    if protocol in PROTOCOL_MEANING:
        return (f"{protocol}: {PROTOCOL_MEANING[protocol]}.",)
    return ()
