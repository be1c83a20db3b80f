"""The course and the circumstances of runs as tables: curves, speed, settings that differ."""

from collections.abc import Sequence
from typing import Any

from yolov1_jax.comparison.entries import (
    Curve,
    DataGroup,
    Entry,
    group_data,
    key_of,
    protocols_of,
)
from yolov1_jax.comparison.tables import Cell, Table, entries_table, percent, result_tables

_MOST_EPOCHS = 16


def curve_tables(entries: Sequence[Entry]) -> list[Table]:
    """mAP by epoch: a table for each protocol on each evaluation set."""
    tables = []
    for group in group_data(curve.data for entry in entries for curve in entry.curves):
        curves = curves_on(entries, group)
        for protocol in protocols_of(curve for _, curve in curves):
            some = [(index, dict(one.points)) for index, one in curves if one.protocol == protocol]
            epochs = sorted({epoch for _, points in some for epoch in points})
            shown = _spread(epochs, _MOST_EPOCHS)
            title = f"mAP (%) by epoch, {protocol} on {group.label}"
            if len(shown) < len(epochs):
                title += f"; {len(shown)} of {len(epochs)} epochs, all are in compare.csv"
            head = [Cell(f"{key_of(index)}\n{entries[index].name}") for index, _ in some]
            rows = [
                [
                    Cell(f"{epoch:.4g}"),
                    *(
                        Cell(percent(points[epoch]) if epoch in points else "")
                        for _, points in some
                    ),
                ]
                for epoch in shown
            ]
            tables.append(Table(title, [Cell("epoch"), *head], rows))
    return tables


def curves_on(entries: Sequence[Entry], group: DataGroup) -> list[tuple[int, Curve]]:
    """The curves on an evaluation set, with the index of their entry."""
    return [
        (index, curve)
        for index, entry in enumerate(entries)
        for curve in entry.curves
        if curve.data in group.members
    ]


def _spread(items: Sequence[float], most: int) -> list[float]:
    """At most that many of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)]


def speed_table(entries: Sequence[Entry]) -> Table | None:
    """Images per second in training."""
    rows = [
        [
            Cell(key_of(index)),
            Cell(entry.name),
            Cell(f"{entry.speed.images_per_second:,.1f}"),
            Cell(f"{entry.speed.num_rows:,}"),
            Cell(entry.speed.device or "not recorded"),
        ]
        for index, entry in enumerate(entries)
        if entry.speed
    ]
    if not rows:
        return None
    head = ["", "name", "images/s", "rows", "device"]
    return Table(
        "Speed of training",
        [Cell(name) for name in head],
        rows,
        num_labels=2,
        footnotes=(
            "Median of the rows of metrics.jsonl, data loading included. Compares only on one "
            "device, with nothing else running.",
        ),
    )


def settings_table(entries: Sequence[Entry]) -> Table | None:
    """The settings in which runs differ; what is equal in all is left out."""
    runs = [(index, entry) for index, entry in enumerate(entries) if entry.settings]
    if len(runs) < 2:
        return None
    keys = dict.fromkeys(key for _, entry in runs for key in entry.settings)
    rows = []
    for key in keys:
        values = [_setting(entry.settings, key) for _, entry in runs]
        if len(set(values)) > 1:
            rows.append([Cell(key), *map(Cell, values)])
    if not rows:
        rows = [[Cell("none"), *(Cell("") for _ in runs)]]
    head = [Cell(f"{key_of(index)}\n{entry.name}") for index, entry in runs]
    return Table(
        f"Settings that differ ({len(keys) - len(rows):,} are equal)"
        if rows[0][0].text != "none"
        else f"Settings that differ (all {len(keys):,} are equal)",
        [Cell("config"), *head],
        rows,
        wraps=True,
    )


def _setting(settings: dict[str, Any], key: str) -> str:
    if key not in settings:
        return "(not there)"
    value = settings[key]
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def all_tables(entries: Sequence[Entry]) -> list[Table]:
    """Everything there is to say, in the order in which it is read."""
    tables = [entries_table(entries), *result_tables(entries), *curve_tables(entries)]
    tables += [table for table in (speed_table(entries), settings_table(entries)) if table]
    return tables
