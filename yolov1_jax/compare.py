"""Compares runs, evaluation results and published numbers, in tables and in one picture.

    python -m yolov1_jax.compare runs/r18 runs/r34 --published=article-r34 --output=comparison

Each argument is a run folder, or a JSON file that `evaluate` wrote, also of another program's
detections (evaluate --detections=... --output=other.json). A run shows the evaluations of one step
(--step). Every evaluation set, known by the fingerprint of its annotations, has tables of its own:

- mAP with the protocols as columns, then AP by class for each protocol
- the difference from the first with a bootstrap interval over the images, where evaluate has
  written the detections (pip install "yolov1_jax[errors]")
- the spread of runs that differ in nothing but the seed, and which differences are larger

The last table has the settings in which the runs differ. --output writes compare.md, and the mAP
by epoch as compare.png.
"""

import json
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from matplotlib.figure import Figure
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
from yolov1_jax.visualization.plots import curves_figure
from yolov1_jax.visualization.report import read_published

FLAGS = flags.FlagValues()
_STEP = flags.DEFINE_string("step", "best", "of runs: best, latest or a number", flag_values=FLAGS)
_PUBLISHED = flags.DEFINE_list("published", [], "published results, or all", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "folder to write to", flag_values=FLAGS)

# "mAP", "ap" by class, COCO's "AP50" ..., "by_epoch": [(epoch, mAP)]; fractions, or None.
Numbers = dict[str, Any]
_NOT_SETTINGS = ("seed", "device", "images/s in training")  # of a group of seeds
_PARTS = ("AP50", "AP75", "AP_small", "AP_medium", "AP_large")  # of coco, beside its mAP


class Measured(NamedTuple):
    """One evaluation."""

    key: str  # of the data: the fingerprint of the annotations, or the title if there is none
    title: str  # of the data: "VOC2007 test, 4,952 images, ..."
    protocols: Mapping[str, Numbers]
    detections: pathlib.Path | None = None
    selected: bool = False  # the step had the best mAP of several, on these data


class Entry(NamedTuple):
    """A run, a result or a published result."""

    name: str
    about: str  # one line: which step, or where the numbers are from
    measured: Sequence[Measured]  # of equal data and protocol, the first one counts
    settings: Mapping[str, Any] = {}  # of a run, by flat key

    def on(self, key: str) -> list[Measured]:
        return [one for one in self.measured if one.key == key]


def read_entries(paths: Sequence[str], *, step: str, published: Sequence[str]) -> list[Entry]:
    """Reads runs and results by their paths; published ones, by name or "all", come last."""
    entries: list[Entry] = []
    for path in map(local_path, paths):
        if (path / "config.json").is_file():
            entry = _read_run(path, step)
        elif result := _read_result(path):
            about = "; ".join([str(path), *result.get("notes", ())])
            entry = Entry(path.stem, about, [_measured(path, result)])
        else:
            raise UserError(
                f"expected a run folder or a JSON file of evaluate, found {path}: correct the "
                "path, or score detections with evaluate --detections=... --output=FILE.json"
            )
        if any(entry.name == other.name for other in entries):
            entry = entry._replace(name=str(path))
        entries.append(entry)
    entries += _read_published(published, entries)
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
    # Results on other data or by another protocol have it in their names, which are longer.
    paths = sorted((workdir / "eval").glob("*.json"), key=lambda path: (len(path.name), path))
    read = [(path, one) for path in paths if (one := _read_result(path))]
    results = [(path, one) for path, one in read if one["step"] is not None]
    if not results:
        return Entry(name, "not evaluated, as a detector", [], settings)

    steps = sorted({one["step"] for _, one in results})
    own = {one["step"]: one for path, one in results if path.stem.isdecimal()}
    best = max(own or steps, key=lambda number: (own[number]["mAP"] or 0.0 if own else 0.0, number))
    named = {"best": best, "latest": steps[-1]} | {str(number): number for number in steps}
    if step not in named:
        raise UserError(f"expected a --step that {workdir} has evaluated, {steps}, got {step}")
    measured = [_measured(path, one) for path, one in results if one["step"] == named[step]]
    epochs = {row["step"]: row["epoch"] for row in history}
    for protocol, numbers in measured[0].protocols.items():
        numbers["by_epoch"] = [
            (epochs[number], mean_ap)
            for number, one in own.items()
            if _key(one) == measured[0].key and number in epochs
            if (mean_ap := one["protocols"].get(protocol, {}).get("mAP")) is not None
        ]
    measured[0] = measured[0]._replace(selected=step == "best" and len(own) > 1)
    about = f"step {named[step]:,} ({step}) of {len(steps)} evaluated"
    return Entry(name, about, measured, settings)


def _measured(path: pathlib.Path, result: Mapping[str, Any]) -> Measured:
    """A result, and where its detections are: what was evaluated, or beside it."""
    found = pathlib.Path(result.get("detections", path.with_suffix("") / "detections.json"))
    title = _title(result["evaluation_set"])
    return Measured(_key(result), title, result["protocols"], found if found.exists() else None)


def _key(result: Mapping[str, Any]) -> str:
    about = result["evaluation_set"]
    return about.get("fingerprint") or _title(about)


def _title(about: Mapping[str, Any]) -> str:
    names = []
    for split in about["splits"]:
        data, _, part = split.replace("voc/", "VOC").partition(":")
        part = {"train+validation": "trainval", "validation": "val"}.get(part, part)
        names.append(f"{'synthetic ' * (about.get('source') == 'synthetic')}{data} {part}".strip())
    counts = (f"{about[f'num_{noun}']:,} {noun}" for noun in ("images", "objects", "difficult"))
    return ", ".join([" + ".join(names), *counts])


def _read_published(names: Sequence[str], entries: Sequence[Entry]) -> list[Entry]:
    """On the data of `entries` that have the same title: published data have no fingerprint."""
    content = read_published()
    known = {row["name"]: row for row in content["entry"]}
    title = _title(content["data"])
    same = {one.key for entry in entries for one in entry.measured if one.title == title}
    key = same.pop() if len(same) == 1 else title
    published = []
    for name in known if "all" in names else names:
        if name not in known:
            raise UserError(f"expected --published=all or some of {[*known]}, got {name}")
        row = known[name]
        numbers, selected = {row["protocol"]: row}, row.get("selected_on_test", False)
        measured = [Measured(key, title, numbers, selected=selected)]
        published.append(Entry(name, row["about"], measured))
    return published


def page_of(entries: Sequence[Entry]) -> str:
    """All tables as Markdown."""
    parts = [_table(["name", "what"], [[entry.name, entry.about] for entry in entries], ":---")]
    for key, scores in _by_data(entries).items():
        here = [entry for entry in entries if entry.on(key)]
        marks = [" †" * any(one.selected for one in entry.on(key)) for entry in here]
        columns = {"": [entry.name + mark for entry, mark in zip(here, marks, strict=True)]}
        for protocol, by_name in scores.items():
            found = [by_name.get(entry.name, {}) for entry in here]
            for part in ("mAP", *_PARTS):
                if any(part in one for one in found):
                    name = protocol if part == "mAP" else part.removeprefix("AP_")
                    columns[name] = _percents([one.get(part) for one in found])
        title = _title_of(here, key)
        known = f", fingerprint {key[:8]}" if key != title else ""
        parts.append(f"## mAP (%) on {title}{known}")
        parts.append(_table([*columns], [*zip(*columns.values(), strict=True)]))
        if any(marks):
            parts.append("† The step was selected by its mAP on this very data.")
        parts += [*_difference_parts(here, key), *_seed_parts(here, scores)]
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


def _difference_parts(entries: Sequence[Entry], key: str) -> list[str]:
    """The difference of each entry from the first, by COCO's rules, where detections are there."""
    paths = {
        entry.name: one.detections
        for entry in entries
        for one in entry.on(key)[::-1]  # the first one stays
        if one.detections
    }
    missing = [entry.name for entry in entries if entry.settings and entry.name not in paths]
    note = "Differences need detections; `yolov1 evaluate` writes those of"
    parts = [f"{note} {', '.join(missing)}."] if missing and len(entries) > 1 else []
    truths = [path.with_name("annotations.json") for path in paths.values()]
    truths = [path for path in truths if path.exists()]
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
    note = (
        "If 0 is in the interval, the choice of the images may explain it. Seeds are not covered."
    )
    return [*parts, title, _table(["", "AP of coco", "AP50", "AP75"], rows), note]


def _seed_parts(entries: Sequence[Entry], scores: Mapping[str, Mapping[str, Numbers]]) -> list[str]:
    """The spread of runs that differ in their seed alone, and what it says of the differences."""
    protocol, by_name = next(iter(scores.items()))
    groups: dict[str, dict[str, float]] = {}  # mAP by settings and name
    for entry in entries:
        if entry.settings and (mean_ap := by_name.get(entry.name, {}).get("mAP")) is not None:
            config = {key: one for key, one in entry.settings.items() if key not in _NOT_SETTINGS}
            groups.setdefault(repr(config), {})[entry.name] = 100 * mean_ap
    means = [statistics.mean(group.values()) for group in groups.values()]
    rest = [
        value - mean
        for group, mean in zip(groups.values(), means, strict=True)
        for value in group.values()
    ]
    if len(rest) == len(groups):  # one seed of each
        return []
    spread = math.hypot(*rest) / math.sqrt(len(rest) - len(groups))
    rows, first = [], len(next(iter(groups.values())))
    for names, mean in zip(groups.values(), means, strict=True):
        change = mean - means[0]
        chance = 2 * spread * math.sqrt(1 / len(names) + 1 / first)
        verdict = "within" if abs(change) <= chance else "more than"
        rows.append([", ".join(names), str(len(names)), f"{mean:.1f}", f"{change:+.1f}", verdict])
    return [
        f"### Seeds: mAP (%), {protocol}; standard deviation {spread:.1f} from seed to seed",
        _table(["runs", "seeds", "mean", "difference", "the spread of seeds"], rows),
    ]


def _by_data(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, Numbers]]]:
    """The scores by data, protocol (ours first, in their usual order) and name."""
    found: dict[str, dict[str, dict[str, Numbers]]] = {}
    for entry in entries:
        for one in entry.measured:
            for protocol, numbers in one.protocols.items():
                by_name = found.setdefault(one.key, {}).setdefault(protocol, {})
                by_name.setdefault(entry.name, numbers)
    return {
        key: {protocol: one[protocol] for protocol in sorted(one, key=(*PROTOCOLS, *one).index)}
        for key, one in found.items()
    }


def _title_of(entries: Sequence[Entry], key: str) -> str:
    return next(one.title for entry in entries for one in entry.on(key))


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


def _picture(entries: Sequence[Entry]) -> Figure | None:
    """The mAP by epoch, on the first data and by the protocol that the most entries have it of."""
    for key, scores in _by_data(entries).items():
        curves = {
            protocol: {n: one["by_epoch"] for n, one in by_name.items() if one.get("by_epoch")}
            for protocol, by_name in scores.items()
        }
        protocol = max(curves, key=lambda name: len(curves[name]))
        if curves[protocol]:
            title = f"mAP (%), {protocol}, {_title_of(entries, key)}"
            return curves_figure(title, curves[protocol])
    return None


def run(arguments: list[str]) -> None:
    """Prints and writes the comparison of `arguments`, see `read_entries`."""
    entries = read_entries(arguments, step=_STEP.value, published=_PUBLISHED.value)
    page = page_of(entries)
    Console().print(Markdown(page))
    if _OUTPUT.value is not None:
        output = local_path(_OUTPUT.value)
        if figure := _picture(entries):
            with run_folder.replacing(output / "compare.png") as temporary:
                figure.savefig(temporary)
            page = f"![mAP by epoch](compare.png)\n\n{page}"
        run_folder.write_text(output / "compare.md", f"# Comparison\n\n{page}\n")
        print(f"written to {output}")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
