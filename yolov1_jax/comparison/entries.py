"""What is compared: results of any origin in one form, and which of them were measured alike.

Two numbers may stand in one column only if they come from the same protocol on the same data. The
data is the same if the fingerprints of its annotations are equal. Where a fingerprint is missing,
as in published numbers, the name and every count that is known must agree, and a note says so.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from yolov1_jax.errors import UserError

# In the order of the tables; protocols of other programs follow.
PROTOCOLS = ("voc07", "voc10", "seed", "coco")
PROTOCOL_MEANING = {
    "voc07": "official PASCAL VOC rule of 2007: mean of the precision at 11 recall levels, "
    "IoU >= 0.5",
    "voc10": "official PASCAL VOC rule since 2010: area under the precision-recall curve, "
    "IoU >= 0.5",
    "seed": "the PyTorch reference's own measure, its faults included; comparable with its "
    "published numbers only",
    "coco": "COCO: mean over IoU 0.50 to 0.95; columns AP50 ... are parts of it",
}
NO_FINGERPRINT = (
    "Its data has no fingerprint: taken for the same as the others' by its name and size."
)


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The data that a number was measured on. None is unknown."""

    name: str  # "VOC2007 test"
    num_images: int | None = None
    num_objects: int | None = None  # those not difficult
    num_difficult: int | None = None
    fingerprint: str | None = None  # of the annotations

    @property
    def label(self) -> str:
        """Name and size, for the head of a table."""
        counts = []
        if self.num_images is not None:
            counts.append(_counted(self.num_images, "image"))
        if self.num_objects is not None:
            counts.append(_counted(self.num_objects, "object"))
        if self.num_difficult:
            counts.append(f"{self.num_difficult:,} difficult")
        return f"{self.name} ({', '.join(counts)})" if counts else self.name

    def agrees_with(self, other: "EvaluationSet") -> bool:
        """Whether nothing that is known of both speaks against their being the same."""
        if self.fingerprint is not None and other.fingerprint is not None:
            return self.fingerprint == other.fingerprint
        return self.name == other.name and all(
            mine is None or yours is None or mine == yours
            for mine, yours in zip(self._counts(), other._counts(), strict=True)
        )

    def _counts(self) -> tuple[int | None, ...]:
        return self.num_images, self.num_objects, self.num_difficult

    def num_known(self) -> int:
        return sum(count is not None for count in self._counts())


@dataclasses.dataclass(frozen=True)
class Score:
    """One protocol on one evaluation set. Values are fractions; None where there is none."""

    protocol: str
    data: EvaluationSet
    mean_ap: float | None
    ap: dict[str, float | None] = dataclasses.field(default_factory=dict)  # by class
    parts: dict[str, float | None] = dataclasses.field(default_factory=dict)  # of coco: AP50 ...
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Curve:
    """mAP in the course of training."""

    protocol: str
    data: EvaluationSet
    points: tuple[tuple[float, float], ...]  # (epoch, mAP)


@dataclasses.dataclass(frozen=True)
class Speed:
    """Images per second in training, and where."""

    images_per_second: float  # median of the rows
    num_rows: int
    device: str | None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run, an evaluation, a results file or a published result."""

    name: str
    kind: str  # "run", "evaluation", "detections" or "published"
    origin: str  # a path, or a citation
    trained_on: str | None = None
    step: int | None = None
    epoch: float | None = None
    chosen: str | None = None  # how the step or epoch was
    scores: tuple[Score, ...] = ()
    curves: tuple[Curve, ...] = ()
    losses: tuple[tuple[float, float], ...] = ()  # (epoch, training loss)
    speed: Speed | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # of runs; flat keys
    notes: tuple[str, ...] = ()


def key_of(index: int) -> str:
    """A, B ... Z, AA: how the tables and pictures call the entries."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


@dataclasses.dataclass
class DataGroup:
    """Evaluation sets that are taken for the same."""

    data: EvaluationSet  # the best known of them
    members: list[EvaluationSet]
    number: int = 0  # of several groups of one name, from 1; 0 where the name is the only one
    num_entries: int = 0  # that have a score on it; see `measured_on`

    @property
    def label(self) -> str:
        return self.data.label + (f" [data {self.number}]" if self.number else "")


def group_data(sets: Iterable[EvaluationSet]) -> list[DataGroup]:
    """Sorts evaluation sets into those that are the same, in the order in which they come.

    One without a fingerprint joins a group only if it agrees with that group and with no other.
    """
    unique = list(dict.fromkeys(sets))
    groups: list[DataGroup] = []
    ranked = sorted(unique, key=lambda one: (one.fingerprint is None, -one.num_known()))
    for one in ranked:
        fitting = [group for group in groups if all(map(one.agrees_with, group.members))]
        if len(fitting) == 1:
            fitting[0].members.append(one)
        else:
            groups.append(DataGroup(one, [one]))
    groups.sort(key=lambda group: min(map(unique.index, group.members)))
    # Two data sets of one name and size would have the same heading: number them.
    for group in groups:
        same = [other for other in groups if other.data.label == group.data.label]
        if len(same) > 1:
            group.number = next(i for i, other in enumerate(same, 1) if other is group)
    return groups


def measured_on(entries: Sequence[Entry]) -> list[DataGroup]:
    """The data of all scores."""
    groups = group_data(score.data for entry in entries for score in entry.scores)
    for group in groups:
        group.num_entries = sum(
            any(score.data in group.members for score in entry.scores) for entry in entries
        )
    return groups


def protocols_of(scores: Iterable[Score | Curve]) -> list[str]:
    """The protocols that occur, in the order of PROTOCOLS, then as they come."""
    found = dict.fromkeys(score.protocol for score in scores)
    return [name for name in PROTOCOLS if name in found] + [
        name for name in found if name not in PROTOCOLS
    ]


def only_protocols(entries: Sequence[Entry], protocols: Sequence[str]) -> list[Entry]:
    """Without the scores and curves of other protocols.

    Raises:
      UserError: nothing was measured by one of them.
    """
    measured: list[Score | Curve] = []
    for entry in entries:
        measured += [*entry.scores, *entry.curves]
    known = protocols_of(measured)
    for protocol in protocols:
        if protocol not in known:
            raise UserError(
                f"expected protocols that occur here ({', '.join(known) or 'none'}), found "
                f"{protocol!r}: correct --protocol"
            )
    return [
        dataclasses.replace(
            entry,
            scores=tuple(one for one in entry.scores if one.protocol in protocols),
            curves=tuple(one for one in entry.curves if one.protocol in protocols),
        )
        for entry in entries
    ]


def with_names_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Gives entries of one name a longer one, from their origin."""
    names = [entry.name for entry in entries]
    apart = []
    for entry in entries:
        name = entry.name
        if names.count(name) > 1:
            name = entry.origin if entry.kind != "published" else name
        apart.append(dataclasses.replace(entry, name=name))
    return apart


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
