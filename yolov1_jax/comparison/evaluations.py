"""The results of evaluations, of runs and of detections from files, as entries.

Results written before the data had a fingerprint are read as well, with a note.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from yolov1_jax.comparison.entries import Entry, EvaluationSet, Score
from yolov1_jax.errors import UserError

OLD_RESULT = (
    "Written before results named their data: evaluate again with python -m yolov1_jax.evaluate "
    "for a fingerprint and all protocols."
)
_COCO_PARTS = ("AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def read_evaluation(path: pathlib.Path) -> Entry:
    """The JSON file of one evaluation. Where it lies in a run folder, the run names its data."""
    result = read_object(path)
    run = path.resolve().parent.parent
    config: dict[str, Any] = {}
    if (run / "config.json").is_file():
        config = read_object(run / "config.json").get("config") or {}
    scores = scores_of_result(result, config)
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
        notes=tuple(f"{note[:1].upper()}{note[1:]}." for note in summary.get("notes", ())),
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
    """Whether it is what an evaluation writes."""
    return (
        isinstance(value, dict)
        and "mAP" in value
        and isinstance(value.get("protocol"), str)
        and isinstance(value.get("ap"), dict)
        and isinstance(value.get("protocols", {}), dict)
        and all(isinstance(one, dict) for one in value.get("protocols", {}).values())
        and isinstance(value.get("evaluation_set", {}), dict)
    )


def scores_of_result(result: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores of an evaluation under every protocol that it holds.

    Args:
      result: see `yolov1_jax.evaluate`.
      config: of its run, nested; empty if there is none.
    """
    data = evaluation_set_of(result, config)
    parts = dict(result.get("protocols") or {})
    parts.setdefault(result["protocol"], {"mAP": result.get("mAP"), "ap": result.get("ap")})
    return tuple(
        Score(
            protocol=protocol,
            data=data,
            mean_ap=part.get("mAP"),
            ap=dict(part.get("ap") or {}),
            parts={name: part[name] for name in _COCO_PARTS if name in part},
        )
        for protocol, part in parts.items()
        if part
    )


def evaluation_set_of(result: Mapping[str, Any], config: Mapping[str, Any]) -> EvaluationSet:
    """What an evaluation measured on, by its own account or, for older ones, by its run's."""
    own = result.get("evaluation_set")
    if own:
        return EvaluationSet(
            name=data_name(config, own.get("splits") or (), source=own.get("source")),
            num_images=own.get("num_images"),
            num_objects=own.get("num_objects"),
            num_difficult=own.get("num_difficult"),
            fingerprint=own.get("fingerprint"),
        )
    splits = result.get("splits") or get(config, "data.eval") or ()
    return EvaluationSet(
        name=data_name(config, splits) if splits else "unnamed data",
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
