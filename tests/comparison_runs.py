"""Run folders by hand: a few lines of JSON each, nothing is trained."""

import json

from yolov1_jax.comparison.entries import Entry, EvaluationSet, Score

VOC_TEST = EvaluationSet("VOC2007 test", 4952, 12032, 2944)


def config(**changes):
    """A nested config; `changes`: data__eval=[...]."""
    flat = {
        "seed": 0,
        "image_size": 64,
        "data.source": "folder",
        "data.root": "/data",
        "data.train": ["VOC2007:trainval"],
        "data.eval": ["VOC2007:test"],
        "loss.reduction": "mean",
        "train.batch_size": 16,
        "eval.protocol": "voc07",
    } | {key.replace("__", "."): value for key, value in changes.items()}
    nested = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return nested


def result(step, mean_ap, *, protocol="voc07", protocols=(), fingerprint=None, counts=(10, 20, 2)):
    """What an evaluation writes; with a fingerprint as the newer ones do."""
    images, objects, difficult = counts
    written = {
        "step": step,
        "protocol": protocol,
        "mAP": mean_ap,
        "ap": {"cat": mean_ap, "dog": mean_ap, "sofa": None},
        "num_images": images,
        "num_objects": objects,
        "num_difficult": difficult,
        "num_detections": 99,
    }
    if fingerprint:
        written["evaluation_set"] = {
            "source": "folder",
            "splits": ["VOC2007:test"],
            "num_images": images,
            "num_objects": objects,
            "num_difficult": difficult,
            "fingerprint": fingerprint,
        }
        written["protocols"] = {protocol: {"mAP": mean_ap, "ap": written["ap"]}} | {
            name: {"mAP": value, "ap": {"cat": value, "dog": value, "sofa": None}}
            for name, value in dict(protocols).items()
        }
    return written


def make_run(folder, results=(), *, history=(), device=None, **changes):
    """A run folder with eval/<step>.json for each result; metrics from the results and rows."""
    folder.mkdir(parents=True)
    about = {"config": config(**changes), "versions": {"jax": "0.10.2"}}
    if device:
        about["device"] = device
    (folder / "config.json").write_text(json.dumps(about))
    rows = [
        {
            "split": "train",
            "step": step,
            "epoch": step / 10,
            "loss": 100 / step,
            "images_per_second": speed,
        }
        for step, speed in history
    ]
    for one in results:
        write_result(folder, one)
        evaluated = {key: one[key] for key in ("step", "protocol", "mAP")}
        rows.append({"split": "eval", "epoch": one["step"] / 10, **evaluated})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_result(folder, one, name=None):
    path = folder / "eval" / f"{name or one['step']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(one))
    return path


def entry(name, *scores, **fields):
    """An entry from (protocol, data, mAP)."""
    made = tuple(
        Score(protocol, data, mean_ap, {"cat": mean_ap, "dog": mean_ap})
        for protocol, data, mean_ap in scores
    )
    return Entry(name, fields.pop("kind", "run"), f"/runs/{name}", scores=made, **fields)
