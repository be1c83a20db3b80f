"""The published numbers that are shipped with the package (published.toml), as entries."""

import functools
import importlib.resources
import tomllib
from collections.abc import Sequence
from typing import Any

from yolov1_jax.comparison.entries import Curve, Entry, EvaluationSet, Score
from yolov1_jax.errors import UserError

CHOSEN_ON_TEST = "The epoch was chosen by its mAP on this very test set."


@functools.cache
def all_published() -> tuple[Entry, ...]:
    """Every published result, in the order of the file."""
    file = importlib.resources.files("yolov1_jax.comparison") / "published.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    sets = {key: EvaluationSet(**fields) for key, fields in content["data"].items()}
    return tuple(_entry(row, sets[row["data"]]) for row in content["entry"])


def published(names: Sequence[str]) -> list[Entry]:
    """Published results by name; "all" gives every one.

    Raises:
      UserError: there is none of a name.
    """
    known = {entry.name: entry for entry in all_published()}
    chosen: dict[str, Entry] = {}
    for name in names:
        if name == "all":
            chosen |= known
        elif name in known:
            chosen[name] = known[name]
        else:
            raise UserError(
                f"expected names of published results, found {name!r}: write --published=all, or "
                f"some of {', '.join(known)}"
            )
    return list(chosen.values())


def _entry(row: dict[str, Any], data: EvaluationSet) -> Entry:
    chosen_on_test = row.get("chosen_on_test", False)
    notes = [row["protocol_note"]] if "protocol_note" in row else []
    score = Score(
        protocol=row["protocol"],
        data=data,
        mean_ap=row["mean_ap"] / 100,
        ap={name: value / 100 for name, value in row.get("ap", {}).items()},
        notes=tuple(notes + [CHOSEN_ON_TEST] * chosen_on_test),
    )
    curves = []
    if "by_epoch" in row:
        epochs, values = row["by_epoch"]["epoch"], row["by_epoch"]["mean_ap"]
        points = tuple(
            (float(epoch), value / 100) for epoch, value in zip(epochs, values, strict=True)
        )
        curves.append(Curve(row["protocol"], data, points))
    return Entry(
        name=row["name"],
        kind="published",
        origin=f"{row['what']}; {row['source']}",
        trained_on=row["trained_on"],
        epoch=row.get("epoch"),
        chosen="the best by mAP on the test set itself" if chosen_on_test else None,
        scores=(score,),
        curves=tuple(curves),
        notes=tuple([row["training_note"]] if "training_note" in row else []),
    )
