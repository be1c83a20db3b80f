"""Every number of a comparison as a row of its own, for spreadsheets and data frames."""

import csv
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from yolov1_jax.comparison.entries import (
    Entry,
    EvaluationSet,
    Score,
    key_of,
    measured_on,
)
from yolov1_jax.comparison.tables import score_notes

COLUMNS = (
    "key",
    "name",
    "kind",
    "quantity",  # mAP, AP, AP50 ..., mAP by epoch, loss, images_per_second, setting
    "class",
    "protocol",
    "data",
    "num_images",
    "num_objects",
    "num_difficult",
    "fingerprint",
    "step",
    "epoch",
    "setting",  # its key
    "value",  # AP and mAP are fractions; empty where there is none
    "notes",
    "origin",
)


def write_csv(path: pathlib.Path, entries: Sequence[Entry]) -> None:
    """Writes a row for each number; numbers of one protocol, data and fingerprint compare."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for index, entry in enumerate(entries):
            about = {
                "key": key_of(index),
                "name": entry.name,
                "kind": entry.kind,
                "origin": entry.origin,
            }
            for row in (*_scores(entries, entry), *_history(entry)):
                writer.writerow(about | row)


def _scores(entries: Sequence[Entry], entry: Entry) -> Iterator[dict[str, Any]]:
    groups = measured_on(entries)
    for score in entry.scores:
        group = next(group for group in groups if score.data in group.members)
        about = {
            "protocol": score.protocol,
            "step": entry.step,
            "epoch": entry.epoch,
            "notes": " ".join(score_notes(score, group)),
        } | _data(score.data)
        for quantity, name, value in _values(score):
            yield about | {"quantity": quantity, "class": name, "value": value}


def _values(score: Score) -> Iterator[tuple[str, str, float | None]]:
    yield "mAP", "", score.mean_ap
    for part, value in score.parts.items():
        yield part, "", value
    for name, value in score.ap.items():
        yield "AP", name, value


def _history(entry: Entry) -> Iterator[dict[str, Any]]:
    for curve in entry.curves:
        about = {"quantity": "mAP by epoch", "protocol": curve.protocol} | _data(curve.data)
        for epoch, value in curve.points:
            yield about | {"epoch": epoch, "value": value}
    for epoch, loss in entry.losses:
        yield {"quantity": "loss", "epoch": epoch, "value": loss}
    if entry.speed:
        device = f"device: {entry.speed.device}" if entry.speed.device else "device not recorded"
        speed = entry.speed.images_per_second
        yield {"quantity": "images_per_second", "value": speed, "notes": device}
    for key, value in entry.settings.items():
        yield {"quantity": "setting", "setting": key, "value": value}


def _data(data: EvaluationSet) -> dict[str, Any]:
    return {
        "data": data.name,
        "num_images": data.num_images,
        "num_objects": data.num_objects,
        "num_difficult": data.num_difficult,
        "fingerprint": data.fingerprint,
    }
