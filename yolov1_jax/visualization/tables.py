"""Results in numbers, for a terminal."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from yolov1_jax.evaluation.accuracy import AnyResult
from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.evaluation.evaluator import Result

_MOST_ROWS = 40  # of a classifier
_KIND = "{name:14}{gain:.3f}  {share:.0%} of the lost, {count:,} errors"
COUNTS = "{tp} found, {fp} false, {fn} missed"
SUSPECT = "{class} {score:.2f}, labelled {labelled}"


def result_table(result: AnyResult, *, step: int | None = None) -> Table:
    """AP or top-1 of each class in percent. `step`: of the run; None for detections of no run."""
    title = result.protocol if isinstance(result, Result) else "accuracy"
    title += "" if step is None else f", step {step:,}"
    table = Table(title=title, title_justify="left", show_footer=True)
    add_column = functools.partial(table.add_column, justify="right", no_wrap=True)
    if isinstance(result, Result):
        classes = result.evaluation.classes
        table.add_column("class", "mAP", overflow="fold")
        add_column("AP", percent(result.evaluation.mean_ap))
        add_column("objects", f"{sum(one.num_objects for one in classes.values()):,}")
        add_column("detections", f"{sum(one.num_detections for one in classes.values()):,}")
        for name, one in classes.items():
            numbers = percent(one.ap), f"{one.num_objects:,}", f"{one.num_detections:,}"
            table.add_row(escape(name), *numbers)
        return table
    table.add_column("class", "top-1\ntop-5", overflow="fold")
    add_column("top-1", f"{result.top(1):.1%}\n{result.top(5):.1%}")
    add_column("images", f"{len(result.ranks):,}")
    counts = np.bincount(result.annotations.labels, minlength=len(result.annotations.class_names))
    rows = zip(result.top1_by_class().items(), counts, strict=True)
    shares = [(share, name, count) for (name, share), count in rows if share is not None]
    # The worst where there are many classes.
    for share, name, count in shares if len(shares) <= _MOST_ROWS else sorted(shares)[:_MOST_ROWS]:
        table.add_row(escape(name), f"{share:.1%}", f"{count:,}")
    return table


def protocol_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """The mAP by every protocol, and the other APs of COCO's, in percent."""
    table = Table(show_edge=False)
    numbers = []
    for protocol, evaluation in evaluations.items():
        aps = {name: value for name, value in evaluation.parts.items() if name.startswith("AP")}
        for name, value in {protocol: evaluation.mean_ap, **aps}.items():
            table.add_column(name.removeprefix("AP_"), justify="right", no_wrap=True)
            numbers.append(percent(value))
    table.add_row(*numbers)
    return table


def error_summary(errors: Mapping[str, Any]) -> str:
    """The main content of errors.json in lines; of long lists the first ten."""
    kinds, points = (
        [{"name": name, **one} for name, one in errors[key].items()]
        for key in ("kinds", "thresholds")
    )
    parts: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "AP50 gained by mending one kind of error": (_KIND, kinds),
        "best F1, and the threshold for it": ("{name:14}{f1:.3f}  {threshold:.2f}", points),
        "worst images": ("{image}: " + COUNTS, errors["images"][:10]),
        "labels to check": ("{image}: " + SUSPECT, errors["labels_to_check"][:10]),
    }
    lines = [f"AP50 {errors['ap50']:.3f}, calibration error {errors['calibration_error']:.3f}"]
    for title, (template, rows) in parts.items():
        lines += [f"{title}:", *(f"  {template.format(**row)}" for row in rows)]
    return "\n".join(lines)


def percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"
