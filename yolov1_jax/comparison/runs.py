"""Run folders as entries.

They are read as plain JSON: a run of any version of this program can be compared, on a machine
without its data or its accelerator.
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from yolov1_jax.comparison.entries import Curve, Entry, EvaluationSet, Score, Speed
from yolov1_jax.comparison.evaluations import (
    OLD_RESULT,
    check_config,
    check_result,
    check_row,
    data_name,
    evaluation_set_of,
    get,
    is_number,
    is_result,
    read_object,
    scores_of_result,
)
from yolov1_jax.errors import UserError
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.training.run_folder import metrics_path

_SAME_MEAN_AP = 1e-3  # another device may round otherwise
CHOSEN_HERE = "The step was chosen by its mAP on this very data."


def read_run(workdir: pathlib.Path, step: str | int = "best") -> Entry:
    """A run folder, with the scores of one of its steps.

    Args:
      step: "best" by the mAP of the run's own evaluations, "latest" evaluated, or a number.

    Raises:
      UserError: its config cannot be read, or it has no such evaluation.
    """
    content = read_object(workdir / "config.json")
    config = content.get("config")
    if not isinstance(config, dict):
        raise UserError(
            f"expected a run's config in {workdir / 'config.json'}, found none: give the folder of "
            "a run of yolov1_jax.main"
        )
    check_config(workdir / "config.json", config)
    unnamed = f"unnamed data of {workdir}"
    history = read_metrics(metrics_path(workdir))
    for row in history:
        check_row(metrics_path(workdir), row)
    evaluated = {row["step"]: _as_result(row) for row in history if row["split"] == "eval"}
    for row in evaluated.values():
        check_result(metrics_path(workdir), row)
    files = {path: read_object(path) for path in sorted((workdir / "eval").glob("*.json"))}
    files = {path: one for path, one in files.items() if is_result(one) and "step" in one}
    for path, one in files.items():
        check_result(path, one)
    files = {path: one for path, one in files.items() if one["step"] is not None}
    results = list(files.values())
    # Of other data and protocols the name of the file says more than the step.
    by_number = [one for path, one in files.items() if path.stem.isdecimal()]
    own = _own_results(by_number, config, unnamed)
    by_step = {one["step"]: one.get("mAP") for one in own}
    by_step |= {number: row.get("mAP") for number, row in evaluated.items()}
    everything = set(by_step) | {one["step"] for one in results}
    chosen_step, chosen = _choose(workdir, step, by_step, everything)
    scores = _scores_of(chosen_step, results, own, evaluated, config, unnamed, "best" in chosen)
    return Entry(
        name=workdir.resolve().name,
        kind="run",
        origin=str(workdir),
        trained_on=data_name(config, get(config, "data.train") or ()),
        step=chosen_step,
        epoch=_epoch(chosen_step, history),
        chosen=chosen,
        scores=scores,
        curves=_curves(evaluated, _training_data(evaluated, own, config, unnamed)),
        losses=tuple(
            (row["epoch"], row["loss"])
            for row in history
            if row["split"] == "train" and None not in (row.get("loss"), row.get("epoch"))
        ),
        speed=_speed(history, content.get("device")),
        settings=_flat(config) | {f"versions.{k}": v for k, v in _dict(content, "versions")},
        notes=(OLD_RESULT,) if scores and not any(s.data.fingerprint for s in scores) else (),
    )


def _as_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation of a metrics.jsonl's row, as its JSON file has it."""
    ap = {key[3:]: value for key, value in row.items() if key.startswith("ap/")}
    return {"protocol": "voc07", **row, "ap": ap}


def _own_name(config: Mapping[str, Any], unnamed: str) -> str:
    splits = get(config, "data.eval")
    return data_name(config, splits) if splits else unnamed


def _own_results(
    results: Sequence[dict[str, Any]], config: Mapping[str, Any], unnamed: str
) -> list[dict[str, Any]]:
    """Those on the run's own data by the run's own protocol."""
    return [
        result
        for result in results
        if evaluation_set_of(result, config, unnamed).name == _own_name(config, unnamed)
        and result["protocol"] == (get(config, "eval.protocol") or "voc07")
    ]


def _choose(
    workdir: pathlib.Path,
    step: str | int,
    by_step: Mapping[int, float | None],
    everything: set[int],
) -> tuple[int | None, str]:
    """The step, and in words why this one."""
    values = {number: value for number, value in by_step.items() if value is not None}
    if step == "best" and values:
        best = max(values, key=lambda number: (values[number], -number))
        if len(by_step) == 1:
            return best, "the only one evaluated"
        return best, f"the best by mAP of {len(by_step)} evaluated"
    if step in ("best", "latest"):
        if not everything:
            return None, "not evaluated yet"
        return max(everything), "the latest evaluated"
    if str(step).isdecimal() and int(step) in everything:
        return int(step), "as asked for"
    known = ", ".join(map(str, sorted(everything))) or "none"
    raise UserError(
        f"step must be best, latest or one that {workdir} has evaluated ({known}), got {step!r}"
    )


def _scores_of(
    step: int | None,
    results: Sequence[dict[str, Any]],
    own: Sequence[Mapping[str, Any]],
    evaluated: Mapping[int, dict[str, Any]],
    config: Mapping[str, Any],
    unnamed: str,
    is_best: bool,
) -> tuple[Score, ...]:
    """Every score of a step; of those with one protocol and data, the one that knows its data."""
    ours = [result for result in results if result["step"] == step]
    if not ours and step is not None and step in evaluated:
        ours = [evaluated[step]]
    ours.sort(key=lambda result: "evaluation_set" not in result)
    own_data = [evaluation_set_of(one, config, unnamed) for one in own if one["step"] == step]
    known = {data.fingerprint for data in own_data if data.fingerprint}
    own_name = _own_name(config, unnamed)
    scores: dict[tuple[str, str, str | None], Score] = {}
    for result in ours:
        for score in scores_of_result(result, config, unnamed):
            data = score.data
            is_own = data.fingerprint in known if known else data.name == own_name
            chosen_here = (CHOSEN_HERE,) if is_best and is_own else ()
            score = dataclasses.replace(score, notes=score.notes + chosen_here)
            if data.fingerprint is None and any(
                key[:2] == (score.protocol, data.name) for key in scores
            ):
                continue
            scores.setdefault((score.protocol, data.name, data.fingerprint), score)
    return tuple(scores.values())


def _training_data(
    evaluated: Mapping[int, Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    unnamed: str,
) -> EvaluationSet:
    """What was evaluated on in training: that of a result with the number that training has noted.

    The data behind a name may have changed since; then a later result has another number.
    """
    for result in sorted(own, key=lambda one: "evaluation_set" not in one):
        noted, now = evaluated.get(result["step"], {}).get("mAP"), result.get("mAP")
        if noted is not None and now is not None and abs(noted - now) < _SAME_MEAN_AP:
            return evaluation_set_of(result, config, unnamed)
    changed = any(result["step"] in evaluated for result in own)
    return EvaluationSet(_own_name(config, unnamed) + ", as it was in training" * changed)


def _curves(evaluated: Mapping[int, Mapping[str, Any]], data: EvaluationSet) -> tuple[Curve, ...]:
    points: dict[str, list[tuple[float, float]]] = {}
    for _, row in sorted(evaluated.items()):
        if None not in (row.get("mAP"), row.get("epoch")):
            points.setdefault(row["protocol"], []).append((row["epoch"], row["mAP"]))
    return tuple(Curve(protocol, data, tuple(line)) for protocol, line in points.items())


def _epoch(step: int | None, history: Sequence[Mapping[str, Any]]) -> float | None:
    epochs = (row.get("epoch") for row in history if row["step"] == step)
    return next((epoch for epoch in epochs if epoch is not None), None)


def _speed(history: Sequence[Mapping[str, Any]], device: Any) -> Speed | None:
    values = [
        row["images_per_second"]
        for row in history
        if row["split"] == "train" and is_number(row.get("images_per_second"))
    ]
    if not values:
        return None
    return Speed(statistics.median(values), len(values), str(device) if device else None)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _dict(content: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = content.get(key)
    return list(value.items()) if isinstance(value, dict) else []
