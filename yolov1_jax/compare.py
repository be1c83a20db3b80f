"""Compares runs, evaluation results and published numbers, in tables and in one picture.

    python -m yolov1_jax.compare runs/r18 runs/r34 --published=article-r34 --output=comparison

Each argument is a run folder, or a JSON file that `evaluate` wrote, also of another program's
detections (evaluate --detections=... --output=other.json). A run shows the evaluations of one step
(--step). Every evaluation set, known by the fingerprint of its annotations, has tables of its own:

- mAP with the protocols as columns, then AP by class for each protocol
- the difference from the first with a bootstrap interval over the images, where evaluate has
  written the detections (pip install "yolov1_jax[errors]")
- the spread of runs that differ in nothing but the seed, and which differences are larger

The last table has the settings in which the runs differ. --output writes compare.md, compare.png.
"""

import dataclasses
import importlib.resources
import json
import math
import pathlib
import statistics
import sys
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from rich.markdown import Markdown

from yolov1_jax import command_line
from yolov1_jax.config import UserError, flatten, local_path
from yolov1_jax.data.coco_json import read_coco_annotations
from yolov1_jax.evaluation.errors import differences, is_installed
from yolov1_jax.evaluation.evaluator import PROTOCOLS
from yolov1_jax.evaluation.results_files import read_results
from yolov1_jax.training import run_folder
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.visualization.comparison import comparison_figure

FLAGS = flags.FlagValues()
_STEP = flags.DEFINE_string("step", "best", "of runs: best, latest or a number", flag_values=FLAGS)
_PUBLISHED = flags.DEFINE_list("published", [], "published results, or all", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "folder to write to", flag_values=FLAGS)

# "mAP", "ap" by class, COCO's "AP50" ..., "by_epoch": (epoch, mAP); fractions, or None.
Numbers = Mapping[str, Any]
_NOT_SETTINGS = ("seed", "device", "images/s in training")  # of a group of seeds
_PARTS = ("AP50", "AP75", "AP_small", "AP_medium", "AP_large")  # of coco, beside its mAP


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The data that a number was measured on; equal if the key is."""

    key: str  # the fingerprint of the annotations; the title if the result names none
    title: str = dataclasses.field(compare=False)  # "VOC2007 test, 4,952 images, ..."


Scores = dict[tuple[EvaluationSet, str], Numbers]  # by evaluation set and protocol
Files = dict[EvaluationSet, pathlib.Path]  # of detections


class Entry(NamedTuple):
    """A run, a result or a published result."""

    name: str
    about: str  # one line: which step, or where the numbers are from
    scores: Scores
    settings: Mapping[str, Any] = {}  # of a run, by flat key
    files: Mapping[EvaluationSet, pathlib.Path] = {}  # of its detections
    selected_on: EvaluationSet | None = None  # where its step had the best mAP of several


def read_entries(paths: Sequence[str], *, step: str, published: Sequence[str]) -> list[Entry]:
    """Reads runs and results by their paths; published ones, by name or "all", come last."""
    entries: list[Entry] = []
    for path in map(local_path, paths):
        if (path / "config.json").is_file():
            entry = _read_run(path, step)
        elif result := _read_result(path):
            about = "; ".join([str(path), *result.get("notes", ())])
            scores, files = _measured(path, result)
            entry = Entry(path.stem, about, scores, files=files)
        else:
            raise UserError(
                f"expected a run folder or a JSON file of evaluate, found {path}: correct the "
                "path, or score detections with evaluate --detections=... --output=FILE.json"
            )
        if any(entry.name == other.name for other in entries):
            entry = entry._replace(name=str(path))
        entries.append(entry)
    entries += _read_published(published, {data for entry in entries for data, _ in entry.scores})
    if not entries:
        raise UserError("expected something to compare, found nothing: give run folders")
    return entries


def _read_result(path: pathlib.Path) -> dict[str, Any] | None:
    """None if it is not the result of an evaluation."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    parts = {"mAP", "protocols", "evaluation_set"}
    return result if isinstance(result, dict) and parts <= result.keys() else None


def _read_run(workdir: pathlib.Path, step: str) -> Entry:
    config = run_folder.read_config(workdir)
    about = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    history = read_metrics(run_folder.metrics_path(workdir))
    speeds = [row["images_per_second"] for row in history if row.get("images_per_second")]
    settings = flatten(config) | {
        "device": about.get("device"),
        "images/s in training": f"{statistics.median(speeds):.3g}" if speeds else None,
        **{f"versions.{name}": version for name, version in about.get("versions", {}).items()},
    }
    name = workdir.resolve().name
    paths = sorted((workdir / "eval").glob("*.json"), key=lambda path: (len(path.name), path))
    read = {path: _read_result(path) for path in paths}
    results = {path: one for path, one in read.items() if one and one["step"] is not None}
    if not results:
        return Entry(name, "not evaluated, as a detector", {}, settings)

    # Results on other data or by another protocol have it in their names, which are longer.
    own = {one["step"]: one for path, one in results.items() if path.stem.isdecimal()}
    steps = sorted({one["step"] for one in results.values()})
    mean_aps = {number: own[number]["mAP"] or 0.0 for number in steps if number in own}
    best = max(mean_aps or steps, key=lambda number: mean_aps.get(number, number))
    named = {"best": best, "latest": steps[-1]} | {str(number): number for number in steps}
    if step not in named:
        raise UserError(f"expected a --step that {workdir} has evaluated, {steps}, got {step}")
    chosen = named[step]
    rows = [row for row in history if row["split"] == "eval" and row.get("mAP") is not None]
    noted = {row["step"]: row["mAP"] for row in rows}.get(chosen, -1.0)
    # If the mAP is another one than in training, the files of the evaluation set have changed.
    if abs(mean_aps.get(chosen, 2.0) - noted) < 1e-3:
        numbers = own[chosen]["protocols"][own[chosen]["protocol"]]
        numbers["by_epoch"] = [(row["epoch"], row["mAP"]) for row in rows]
    scores: Scores = {}
    files: Files = {}
    for path, one in results.items():
        if one["step"] == chosen:
            more_scores, more_files = _measured(path, one)
            scores = {**scores, **more_scores, **scores}  # the first of equals
            files = more_files | files
    selected = step == "best" and len(own) > 1
    selected_on = _set_of(own[best]["evaluation_set"]) if selected else None
    about = f"step {chosen:,} ({step}) of {len(steps)} evaluated"
    return Entry(name, about, scores, settings, files, selected_on)


def _measured(path: pathlib.Path, result: Mapping[str, Any]) -> tuple[Scores, Files]:
    """The scores of a result, and where its detections are: what was evaluated, or beside it."""
    data = _set_of(result["evaluation_set"])
    found = pathlib.Path(result.get("detections", path.with_suffix("") / "detections.json"))
    scores = {(data, name): one for name, one in result["protocols"].items()}
    return scores, {data: found} if found.exists() else {}


def _set_of(about: Mapping[str, Any]) -> EvaluationSet:
    names = []
    for split in about["splits"]:
        data, _, part = split.replace("voc/", "VOC").partition(":")
        part = {"train+validation": "trainval", "validation": "val"}.get(part, part)
        names.append(f"{'synthetic ' * (about.get('source') == 'synthetic')}{data} {part}".strip())
    counts = {"images": "num_images", "objects": "num_objects", "difficult": "num_difficult"}
    parts = [f"{about[key]:,} {noun}" for noun, key in counts.items() if key in about]
    title = ", ".join([" + ".join(names), *parts])
    return EvaluationSet(about.get("fingerprint") or title, title)


def _read_published(names: Sequence[str], measured: set[EvaluationSet]) -> list[Entry]:
    """`measured`: evaluation sets, which published ones join by title: they have no fingerprint."""
    file = importlib.resources.files("yolov1_jax") / "published.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    known = {row["name"]: row for row in content["entry"]}
    own = _set_of(content["data"])
    same = [data for data in measured if data.title == own.title]
    data = same[0] if len(same) == 1 else own
    entries = []
    for name in known if "all" in names else names:
        if name not in known:
            raise UserError(f"expected --published=all or some of {[*known]}, got {name}")
        row = known[name]
        selected_on = data if row.get("selected_on_test") else None
        scores: Scores = {(data, row["protocol"]): row}
        entries.append(Entry(name, row["about"], scores, selected_on=selected_on))
    return entries


def page_of(entries: Sequence[Entry]) -> str:
    """All tables as Markdown."""
    parts = [_table(["name", "what"], [[entry.name, entry.about] for entry in entries], ":---")]
    for data in dict.fromkeys(data for entry in entries for data, _ in entry.scores):
        scores = _by_protocol(entries, data)
        here = [entry for entry in entries if any(entry.name in one for one in scores.values())]
        columns = {"": [entry.name + " †" * (entry.selected_on == data) for entry in here]}
        for protocol, by_name in scores.items():
            found = [by_name.get(entry.name, {}) for entry in here]
            for key in ("mAP", *_PARTS):
                if any(key in one for one in found):
                    name = protocol if key == "mAP" else key.removeprefix("AP_")
                    columns[name] = _percents([one.get(key) for one in found])
        known = f", fingerprint {data.key[:8]}" if data.key != data.title else ""
        parts.append(f"## mAP (%) on {data.title}{known}")
        parts.append(_table([*columns], [*zip(*columns.values(), strict=True)]))
        if any(entry.selected_on == data for entry in entries):
            parts.append("† The step was selected by its mAP on this very data.")
        parts += [*_difference_parts(here, data), *_seed_parts(here, scores)]
        for protocol, by_name in scores.items():
            aps = {name: score["ap"] for name, score in by_name.items() if score.get("ap")}
            labels = dict.fromkeys(label for ap in aps.values() for label in ap)
            rows = [[one, *_percents([ap.get(one) for ap in aps.values()])] for one in labels]
            if rows:
                parts += [f"### AP by class (%), {protocol}", _table(["", *aps], rows)]
    runs = [entry for entry in entries if entry.settings]
    if len(runs) > 1:
        keys = dict.fromkeys(key for run in runs for key in run.settings)
        rows = [[key, *(str(run.settings.get(key, "-")) for run in runs)] for key in keys]
        rows = [row for row in rows if len(set(row[1:])) > 1]
        parts.append(f"## Settings that differ ({len(keys) - len(rows)} are equal)")
        parts += [_table(["", *(run.name for run in runs)], rows, ":---")] if rows else []
    return "\n\n".join(parts)


def _difference_parts(entries: Sequence[Entry], data: EvaluationSet) -> list[str]:
    """The difference of each entry from the first, by COCO's rules, where detections are there."""
    paths = {entry.name: entry.files[data] for entry in entries if data in entry.files}
    missing = [entry.name for entry in entries if entry.settings and entry.name not in paths]
    truths = [path.with_name("annotations.json") for path in paths.values()]
    truths = [path for path in truths if path.exists()]
    note = (
        f"No difference without detections, which `yolov1 evaluate` writes: {', '.join(missing)}."
    )
    parts = [note] if missing and len(entries) > 1 else []
    if len(paths) < 2 or not truths:
        return parts
    if not is_installed():
        return [*parts, '`pip install "yolov1_jax[errors]"` for intervals of the differences.']
    annotations = read_coco_annotations(truths[0])
    first, *others = (read_results(path, annotations).detections for path in paths.values())
    names, text = [*paths], "{:+.1f} ({:+.1f} to {:+.1f})"
    rows = []
    for name, other in zip(names[1:], others, strict=True):
        changes = differences(annotations, first, other).values()
        rows.append([name, *(text.format(*(100 * end for end in change)) for change in changes)])
    title = f"### Difference from {names[0]} (points), and its 95 % interval over the images"
    note = "An interval with 0 may be chance in the choice of images. The seed is not covered."
    return [*parts, title, _table(["", "AP of coco", "AP50", "AP75"], rows), note]


def _seed_parts(entries: Sequence[Entry], scores: Mapping[str, Mapping[str, Numbers]]) -> list[str]:
    """The spread of runs that differ in their seed alone, and what it says of the differences."""
    protocol, by_name = next(iter(scores.items()))
    groups: dict[str, dict[str, float]] = {}  # mAP by settings and name
    for entry in entries:
        if entry.settings and (mean_ap := by_name.get(entry.name, {}).get("mAP")) is not None:
            config = {key: one for key, one in entry.settings.items() if key not in _NOT_SETTINGS}
            groups.setdefault(repr(config), {})[entry.name] = 100 * mean_ap
    values = [[*group.values()] for group in groups.values()]
    repeated = [one for one in values if len(one) > 1]
    if not repeated:
        return []
    squares = sum((len(one) - 1) * statistics.variance(one) for one in repeated)
    spread = math.sqrt(squares / sum(len(one) - 1 for one in repeated))
    rows = []
    for names, one in zip(groups.values(), values, strict=True):
        mean = statistics.mean(one)
        change = mean - statistics.mean(values[0])
        chance = 2 * spread * math.sqrt(1 / len(one) + 1 / len(values[0]))
        verdict = "within" if abs(change) <= chance else "more than"
        rows.append([", ".join(names), str(len(one)), f"{mean:.1f}", f"{change:+.1f}", verdict])
    return [
        f"### Seeds: mAP (%), {protocol}; standard deviation {spread:.1f} from seed to seed",
        _table(["runs", "seeds", "mean", "difference", "the spread of seeds"], rows),
    ]


def _by_protocol(entries: Sequence[Entry], data: EvaluationSet) -> dict[str, dict[str, Numbers]]:
    """The scores on an evaluation set by protocol (ours first, in their usual order) and name."""
    found: dict[str, dict[str, Numbers]] = {}
    for entry in entries:
        for (other, protocol), numbers in entry.scores.items():
            if other == data:
                found.setdefault(protocol, {})[entry.name] = numbers
    return {protocol: found[protocol] for protocol in sorted(found, key=(*PROTOCOLS, *found).index)}


def _percents(values: Sequence[float | None]) -> list[str]:
    """The best of several is bold."""
    # The tiny amount rounds 66.85, which is a little less in binary, as a reader would.
    texts = ["-" if value is None else f"{100 * value + 1e-9:.1f}" for value in values]
    best = max((value for value in values if value is not None), default=None)
    pairs = zip(texts, values, strict=True)
    return [f"**{text}**" if value == best and len(values) > 1 else text for text, value in pairs]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---:") -> str:
    """`align`: all columns but the first."""
    lines = [head, [":---", *[align] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(arguments: list[str]) -> None:
    """Prints and writes the comparison of `arguments`, see `read_entries`."""
    entries = read_entries(arguments, step=_STEP.value, published=_PUBLISHED.value)
    page = page_of(entries)
    Console().print(Markdown(page))
    if _OUTPUT.value is None:
        return
    output = local_path(_OUTPUT.value)
    # The picture is of the evaluation set and the protocol that most entries share.
    places = [place for entry in entries for place, one in entry.scores.items() if one.get("ap")]
    if places:
        data = max(places, key=places.count)[0]
        scores = _by_protocol(entries, data)
        protocol = max(scores, key=lambda name: sum("ap" in one for one in scores[name].values()))
        figure = comparison_figure(data.title, [one.name for one in entries], scores, protocol)
        with run_folder.replacing(output / "compare.png") as temporary:
            figure.savefig(temporary)
        page = f"![mAP by epoch, and AP by class](compare.png)\n\n{page}"
    run_folder.write_text(output / "compare.md", f"# Comparison\n\n{page}\n")
    print(f"written to {output}")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
