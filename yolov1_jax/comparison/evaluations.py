"""The results of evaluations, of runs and of detections from files, as entries.

Results written before the data had a fingerprint are read as well, with a note.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yolov1_jax.comparison.entries import Entry, EvaluationSet, Score
from yolov1_jax.errors import UserError

OLD_RESULT = (
    "Written before results named their data: evaluate again with python -m yolov1_jax.evaluate "
    "for a fingerprint and all protocols."
)
_FRACTION = "a fraction from 0 to 1 (divide percent by 100)"
_COCO_PARTS = ("AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def read_evaluation(path: pathlib.Path) -> Entry:
    """The JSON file of one evaluation. Where it lies in a run folder, the run names its data."""
    result = read_object(path)
    check_result(path, result)
    run = path.resolve().parent.parent
    config: dict[str, Any] = {}
    if (run / "config.json").is_file():
        config = read_object(run / "config.json").get("config") or {}
        check_config(run / "config.json", config)
    scores = scores_of_result(result, config, unnamed=f"unnamed data of {path}")
    return Entry(
        name=f"{run.name}/{path.stem}" if config else path.stem,
        kind="evaluation",
        origin=str(path),
        trained_on=data_name(config, get(config, "data.train") or ()) if config else None,
        step=result.get("step"),
        scores=scores,
        notes=() if "evaluation_set" in result else (OLD_RESULT,),
    )


def read_results_summary(path: str, summary: Mapping[str, Any]) -> Entry:
    """The detections of a file, as `score_results_file` sums them up."""
    place = pathlib.Path(path)
    return Entry(
        name=place.stem if place.suffix else place.name,
        kind="detections",
        origin=path,
        scores=scores_of_result(summary, {}),
    )


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: the file is missing or is none.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"expected a JSON object in {path}, found {type(value).__name__}: check the file"
        )
    return value


def read_json(path: pathlib.Path) -> Any:
    """Anything that JSON holds.

    Raises:
      UserError: the file is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"expected a JSON file at {path}, found {type(error).__name__}: {error}; check the path"
        ) from error


def is_result(value: Any) -> bool:
    """Whether it is meant to be what an evaluation writes; see `check_result`."""
    return isinstance(value, dict) and {"mAP", "protocol", "ap"} <= value.keys()


def check_result(path: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Looks at all of a result that is read here, which another program may have written.

    Raises:
      UserError: something in it has another type or range than an evaluation writes.
    """
    data = _expect(path, result, "evaluation_set", "an object", lambda v: isinstance(v, dict)) or {}
    parts = _expect(path, result, "protocols", "an object", lambda v: isinstance(v, dict)) or {}
    for name in parts:
        if not isinstance(parts[name], dict):
            raise _unexpected(path, f"protocols.{name}", "an object", parts[name])
    named = [(f"protocols.{name}.", part) for name, part in parts.items()]
    for where, part in [("", result), *named]:
        for key in ("mAP", *_COCO_PARTS):
            _expect(path, part, key, _FRACTION, _is_fraction, where)
        ap = _expect(path, part, "ap", "an object", lambda v: isinstance(v, dict), where) or {}
        for key in ap:
            _expect(path, ap, key, _FRACTION, _is_fraction, f"{where}ap.")
    if not isinstance(result.get("protocol"), str):  # without it, no number means anything
        raise _unexpected(path, "protocol", "a text", result.get("protocol"))
    for key in ("step", "num_images", "num_objects", "num_difficult"):
        _expect(path, result, key, "a whole number", _is_count)
        _expect(path, data, key, "a whole number", _is_count, "evaluation_set.")
    _expect(path, result, "notes", "a list of texts", _is_texts)
    for where, one in (("", result), ("evaluation_set.", data)):
        _expect(path, one, "splits", "a list of texts", _is_texts, where)
    for key in ("fingerprint", "source"):
        _expect(path, data, key, "a text", lambda v: isinstance(v, str), "evaluation_set.")


def check_config(path: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Likewise what is read here of a run's config, a nested one."""
    for key in ("data.train", "data.eval"):
        _expect(path, {key: get(config, key)}, key, "a list of texts", _is_texts, "config.")


def check_row(path: pathlib.Path, row: Mapping[str, Any]) -> None:
    """Likewise what is read here of any line of a metrics.jsonl."""
    for key in ("epoch", "loss"):
        _expect(path, row, key, "a number", is_number, f"{row['split']} ")


def _expect(
    path: pathlib.Path,
    values: Mapping[str, Any],
    key: str,
    what: str,
    holds: Callable[[Any], bool],
    where: str = "",
) -> Any:
    """values[key], which may be absent or null, but not something else than `what`."""
    value = values.get(key)
    if value is not None and not holds(value):
        raise _unexpected(path, f"{where}{key}", what, value)
    return value


def _unexpected(path: pathlib.Path, key: str, what: str, value: Any) -> UserError:
    return UserError(f"{path}: expected {what} as {key}, found {str(value)[:40]!r}: check the file")


def _is_fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1 + 1e-9  # a mean of ones may round up


def is_number(value: Any) -> bool:
    """Whether it is one that a float can hold: not True, NaN, infinity or 10**400."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def scores_of_result(
    result: Mapping[str, Any], config: Mapping[str, Any], unnamed: str = "unnamed data"
) -> tuple[Score, ...]:
    """The scores of an evaluation under every protocol that it holds.

    Args:
      result: see `yolov1_jax.evaluate`.
      config: of its run, nested; empty if there is none.
      unnamed: what to call data that neither of them names; nobody else's may have that name.
    """
    data = evaluation_set_of(result, config, unnamed)
    parts = dict(result.get("protocols") or {})
    parts.setdefault(result["protocol"], {"mAP": result.get("mAP"), "ap": result.get("ap")})
    return tuple(
        Score(
            protocol=protocol,
            data=data,
            mean_ap=part.get("mAP"),
            ap=dict(part.get("ap") or {}),
            parts={name: part[name] for name in _COCO_PARTS if name in part},
            notes=tuple(f"{note[:1].upper()}{note[1:]}." for note in result.get("notes") or ()),
        )
        for protocol, part in parts.items()
        if part
    )


def evaluation_set_of(
    result: Mapping[str, Any], config: Mapping[str, Any], unnamed: str = "unnamed data"
) -> EvaluationSet:
    """What an evaluation measured on, by its own account or, for older ones, by its run's."""
    own = result.get("evaluation_set")
    if own:
        splits = own.get("splits") or ()
        return EvaluationSet(
            name=data_name(config, splits, source=own.get("source")) if splits else unnamed,
            num_images=own.get("num_images"),
            num_objects=own.get("num_objects"),
            num_difficult=own.get("num_difficult"),
            fingerprint=own.get("fingerprint"),
        )
    splits = result.get("splits") or get(config, "data.eval") or ()
    return EvaluationSet(
        name=data_name(config, splits) if splits else unnamed,
        num_images=result.get("num_images"),
        # Of the seed protocol these are the objects that it counts, not those there are.
        num_objects=None if result["protocol"] == "seed" else result.get("num_objects"),
        num_difficult=result.get("num_difficult"),
    )


def data_name(config: Mapping[str, Any], splits: Sequence[str], source: str | None = None) -> str:
    """A name that is the same for the same data from any source: "VOC2007 test".

    Painted scenes depend on the image size, those to train on on the seed as well.
    """
    if (source or get(config, "data.source")) == "synthetic":
        size, seed = config.get("image_size"), config.get("seed")
        made = f", {size} px" if size is not None else ""
        if seed is not None and any(split.startswith("train") for split in splits):
            made += f", seed {seed}"
        return f"painted scenes {' + '.join(splits)}{made}"
    return " + ".join(_split_name(split) for split in splits)


def _split_name(split: str) -> str:
    """voc/2007:train+validation and VOC2007:trainval -> VOC2007 trainval."""
    data, _, part = split.partition(":")
    part = {"train+validation": "trainval", "validation": "val"}.get(part, part)
    return f"{data.replace('voc/', 'VOC')} {part}".strip()


def get(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key of a nested config, None where it lacks the key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
