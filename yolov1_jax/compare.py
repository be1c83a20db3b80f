"""Puts results side by side, or explains why two protocols disagree about the same detections.

    python -m yolov1_jax.compare RUN_OR_FILE... [--published=all] [--output=DIR]
        [--protocol=voc07,seed] [--step=best|latest|N]

Each RUN_OR_FILE is a run folder, the JSON that an evaluation has written (<run>/eval/<step>.json),
or detections of any program: a COCO results JSON, or a folder of the devkit's
comp4_det_<set>_<class>.txt. Detections are scored against --source, --root and --splits, or
--annotations, or else the data of the run in whose folder they lie, or of the first run given.
--unknown_classes=skip and --unknown_images=skip leave out what that data does not know.
--published adds numbers that others have published, all or by name.

Shown are mAP and AP by class under each protocol, mAP by epoch, speed, and the settings that
differ. Results on other data never share a table, and other protocols never a column; what a
number needs saying is in its note. --output writes compare.md, compare.csv (every number) and
compare.png.

    python -m yolov1_jax.compare RUN_OR_FILE --audit=voc07,seed [--output=DIR]

evaluates the same detections by two protocols: what each rule in which they differ is worth, what
becomes of each object and each detection, and why. --output writes audit.md and audit.csv, which
has every object and detection.
"""

import pathlib
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from yolov1_jax import command_line
from yolov1_jax.comparison.audit import audit
from yolov1_jax.comparison.audit_tables import audit_tables, write_audit_csv
from yolov1_jax.comparison.audited import Audited, open_results_file, open_run
from yolov1_jax.comparison.entries import PROTOCOLS, Entry, only_protocols, with_names_apart
from yolov1_jax.comparison.evaluations import read_evaluation, read_results_summary
from yolov1_jax.comparison.figure import comparison_figure
from yolov1_jax.comparison.paths import data_of, kind_of
from yolov1_jax.comparison.published import published
from yolov1_jax.comparison.rendering import to_markdown, to_terminal
from yolov1_jax.comparison.run_tables import all_tables
from yolov1_jax.comparison.runs import read_run
from yolov1_jax.comparison.tables import Table
from yolov1_jax.comparison.values import write_csv
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.evaluator import score_results_file
from yolov1_jax.evaluation.file_evaluation import DetectionsOf, open_annotations

READING = (
    "Numbers compare within a column. Another table is other data, another column another protocol."
)


def read_entries(
    paths: Sequence[str],
    *,
    published_names: Sequence[str] = (),
    step: str | int = "best",
    data: DetectionsOf,
    unknown_images: str = "refuse",
) -> list[Entry]:
    """Everything to compare, in the order given; published numbers last.

    `data`: what detections are scored against, as far as it is asked for; see `data_of`.
    `unknown_images`: see `score_results_file`.

    Raises:
      UserError: something cannot be read, or there is nothing.
    """
    entries = []
    kinds = {path: kind_of(path) for path in paths}
    runs = [path for path, kind in kinds.items() if kind == "run"]
    for path, kind in kinds.items():
        if kind == "run":
            entries.append(read_run(pathlib.Path(path), step))
        elif kind == "evaluation":
            entries.append(read_evaluation(pathlib.Path(path)))
        else:
            images, source, splits, unknown_classes = open_annotations(data_of(path, runs, data))
            _, _, summary = score_results_file(
                path,
                images,
                source_name=source,
                splits=splits,
                unknown_classes=unknown_classes,
                unknown_images=unknown_images,
            )
            entries.append(read_results_summary(path, summary))
    entries += published(published_names)
    if not entries:
        raise UserError(
            "expected something to compare, found nothing: give run folders, evaluation results or "
            "detections, or --published=all"
        )
    return with_names_apart(entries)


def compare(entries: Sequence[Entry], *, output: pathlib.Path | None, console: Console) -> None:
    """Prints the tables; writes compare.md, compare.csv and compare.png."""
    tables = all_tables(entries)
    _print(console, tables, READING)
    if output is None:
        return
    _make_folder(output)
    written = [output / "compare.md", output / "compare.csv"]
    figure = comparison_figure(entries)
    if figure is not None:
        written.append(output / "compare.png")
        figure.savefig(written[-1])
    picture = ["", "![mAP, curves and AP by class](compare.png)"] if figure is not None else []
    text = to_markdown(tables, "Comparison", [READING, *picture])
    written[0].write_text(text, encoding="utf-8")
    write_csv(written[1], entries)
    _say(console, f"written: {', '.join(map(str, written))}")


def open_audited(
    paths: Sequence[str],
    *,
    step: str | int,
    data: DetectionsOf,
    grid_size: int,
    unknown_images: str = "refuse",
    console: Console,
) -> Audited:
    """The one run or results file to audit; the arguments are those of `open_results_file`.

    Raises:
      UserError: there is not exactly one, it has no detections, or it cannot be read.
    """
    if len(paths) != 1:
        raise UserError(
            f"expected one run or file to audit, found {len(paths)}: --audit explains two "
            "protocols on the same detections"
        )
    (path,) = paths
    kind = kind_of(path)
    if kind == "evaluation":
        raise UserError(
            f"expected a run or detections to audit, found an evaluation's result in {path}, which "
            "has no detections: give its run"
        )
    if kind == "run":
        return open_run(pathlib.Path(path), step=step, console=console)
    images, _, _, unknown_classes = open_annotations(data_of(path, [], data))
    return open_results_file(
        path,
        images,
        grid_size=grid_size,
        unknown_classes=unknown_classes,
        unknown_images=unknown_images,
    )


def audit_protocols(
    opened: Audited,
    protocols: Sequence[str],
    *,
    output: pathlib.Path | None,
    console: Console,
) -> None:
    """Prints an audit; writes audit.md and audit.csv."""
    found = audit(
        protocols,
        opened.selection,
        opened.objects,
        image_ids=opened.images.image_ids,
        class_names=opened.images.class_names,
        grid_size=opened.grid_size,
    )
    for protocol, outcome in zip(found.protocols, (found.first, found.second), strict=True):
        expected = opened.mean_ap.get(protocol, outcome.mean_ap)
        if expected != outcome.mean_ap and expected == expected:
            raise RuntimeError(
                f"the audit's own {protocol} gives {outcome.mean_ap}, the evaluation {expected}"
            )
    _print(console, audit_tables(found, complete=False), opened.about)
    if output is None:
        return
    _make_folder(output)
    title = f"From {found.names[0]} to {found.names[1]} on the same detections"
    text = to_markdown(audit_tables(found, complete=True), title, [opened.about])
    (output / "audit.md").write_text(text, encoding="utf-8")
    write_audit_csv(output / "audit.csv", found)
    _say(console, f"written: {output / 'audit.md'}, {output / 'audit.csv'}")


def _print(console: Console, tables: Sequence[Table], opening: str) -> None:
    _say(console, f"{opening}\n")
    for table in tables:
        console.print(to_terminal(table, console.width))


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _make_folder(output: pathlib.Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"expected a folder at --output={output}, found: {error.strerror}; choose another"
        ) from error


def _refuse_ignored(paths: Sequence[str]) -> None:
    """Raises: UserError: a flag is given that would change nothing."""
    annotations = (_SOURCE, _ANNOTATIONS, _ROOT, _SPLITS, _IMAGE_SIZE)
    of_detections = (*annotations, _UNKNOWN_CLASSES, _UNKNOWN_IMAGES, _GRID_SIZE)
    kinds = [kind_of(path) for path in paths]
    audits = _AUDIT.value is not None
    for where, is_used, flag_holders in (
        ("without a run among the paths", "run" in kinds, (_STEP,)),
        ("without detections among the paths", "detections" in kinds, of_detections),
        ("without --audit", audits, (_GRID_SIZE,)),
        ("with --audit", not audits, (_PUBLISHED, _PROTOCOL)),
    ):
        for flag in flag_holders:
            if flag.present and not is_used:
                raise UserError(f"--{flag.name} says nothing {where}: leave it out")


def main(paths: list[str]) -> None:
    console = Console()
    output = None if _OUTPUT.value is None else pathlib.Path(_OUTPUT.value)
    data = DetectionsOf(
        source=_SOURCE.value,
        annotations=_ANNOTATIONS.value,
        root=_ROOT.value,
        splits=_SPLITS.value,
        image_size=_IMAGE_SIZE.value,
        unknown_classes=_UNKNOWN_CLASSES.value,
    )
    _refuse_ignored(paths)
    if _AUDIT.value is not None:
        opened = open_audited(
            paths,
            step=_STEP.value,
            data=data,
            grid_size=_GRID_SIZE.value,
            unknown_images=_UNKNOWN_IMAGES.value,
            console=console,
        )
        audit_protocols(opened, _AUDIT.value, output=output, console=console)
        return
    entries = read_entries(
        paths,
        published_names=_PUBLISHED.value or (),
        step=_STEP.value,
        data=data,
        unknown_images=_UNKNOWN_IMAGES.value,
    )
    if _PROTOCOL.value:
        entries = only_protocols(entries, _PROTOCOL.value)
    compare(entries, output=output, console=console)


if __name__ == "__main__":
    _PUBLISHED = flags.DEFINE_list("published", None, "published results: all, or names")
    _PROTOCOL = flags.DEFINE_list("protocol", None, f"only these of {', '.join(PROTOCOLS)}")
    _STEP = flags.DEFINE_string("step", "best", "of runs: best, latest or a step number")
    _OUTPUT = flags.DEFINE_string("output", None, "folder to write to")
    _AUDIT = flags.DEFINE_list("audit", None, "two protocols, such as voc07,seed")
    _SOURCE = flags.DEFINE_enum(
        "source", None, ("folder", "tfds", "synthetic"), "annotations that detections are of"
    )
    _ANNOTATIONS = flags.DEFINE_string("annotations", None, "or else a COCO annotations JSON")
    _ROOT = flags.DEFINE_string("root", None, "config.data.root of --splits")
    _SPLITS = flags.DEFINE_list("splits", None, "of --source, or instead of the run's")
    _IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "of --source=synthetic, pixels")
    _UNKNOWN_CLASSES = flags.DEFINE_enum(
        "unknown_classes", None, ("refuse", "skip"), "objects and detections of other classes"
    )
    _UNKNOWN_IMAGES = flags.DEFINE_enum(
        "unknown_images", "refuse", ("refuse", "skip"), "detections of images without annotations"
    )
    _GRID_SIZE = flags.DEFINE_integer(
        "grid_size", 7, "of the seed protocol's ground truth, to audit detections", lower_bound=1
    )
    command_line.run(main)
