"""Evaluates a run, or detections of any program: average precision by all protocols at once.

    python -m yolov1_jax.evaluate --workdir=runs/r34 [--step=best|latest|N] [--protocol=voc07]

prints the result and writes <workdir>/eval/<step>.json, the detections in <workdir>/eval/<step>/
(--results_format: coco, devkit, both or darknet) and the pictures in <workdir>/report/. --splits
and --root evaluate on other data than the run's own, --protocol puts another mAP first; the names
of the files then have the folder and splits, or the protocol, in them. --output=FOLDER or FILE.json
writes everything there, and nothing in the run folder.

    python -m yolov1_jax.evaluate --detections=PATH --workdir=runs/r34
    python -m yolov1_jax.evaluate --detections=PATH --source=folder --root=VOC --splits=VOC2007:test
    python -m yolov1_jax.evaluate --detections=PATH --annotations=instances.json

PATH is a COCO results JSON, a folder of the devkit's comp4_det_<set>_<class>.txt, or the beginning
of their paths (results/comp4_det_test). The ground truth is that of a run, of a folder (which needs
no images for this) or tfds, or of a COCO annotations JSON. --output writes the numbers.

Protocols: voc07 (the official 11-point rule), voc10 (the official area rule), coco (COCO's AP) and
reference (the PyTorch reference's own rule, its faults included, which compares with its published
numbers only; it needs the network's output and cannot be computed for --detections).
"""

import functools
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from yolov1_jax import command_line
from yolov1_jax import config as configs
from yolov1_jax.config import UserError
from yolov1_jax.data.coco_json import read_coco_annotations
from yolov1_jax.data.dataset import Annotations
from yolov1_jax.data.source import FORMATS as DATA_FORMATS
from yolov1_jax.data.source import class_names_of_folder, open_source
from yolov1_jax.evaluation.evaluator import PROTOCOLS, Evaluator, Result, evaluate_detections
from yolov1_jax.evaluation.results_files import FORMATS, read_results, results_files
from yolov1_jax.training import build, cpu, run_folder
from yolov1_jax.visualization.report import ap_table, protocol_table, report_result

FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_choice = functools.partial(flags.DEFINE_enum, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder")
_STEP = _string("step", "best", "checkpoint: best, latest or a step number")
_PROTOCOL = _choice("protocol", None, PROTOCOLS, "whose mAP comes first; else the run's, or voc07")
_SPLITS = flags.DEFINE_list("splits", None, "evaluate on these splits", flag_values=FLAGS)
_ROOT = _string("root", None, "folder of the splits, as config.data.root")
_RESULTS_FORMAT = _choice("results_format", "coco", FORMATS, "of the detections that are written")
_OUTPUT = _string("output", None, "FILE.json or folder for the result; else <workdir>/eval")
_DETECTIONS = _string("detections", None, "evaluate these files instead of a checkpoint")
_SOURCE = _choice("source", None, ("folder", "tfds"), "what the --splits of --detections are")
_FORMAT = _choice("format", "auto", DATA_FORMATS, "of the data of --source=folder")
_ANNOTATIONS = _string("annotations", None, "COCO annotations JSON for --detections")
_POLICY = ("refuse", "skip")
_UNKNOWN_CLASSES = _choice("unknown_classes", None, _POLICY, "objects, detections of other classes")
_UNKNOWN_IMAGES = _choice("unknown_images", "refuse", _POLICY, "detections of other images")


def run(_: list[str]) -> None:
    ground_truth = (_WORKDIR, _SOURCE, _ANNOTATIONS)
    given = [f"--{flag.name}" for flag in ground_truth if flag.value is not None]
    if (
        len(given) != 1
        or (_DETECTIONS.value is None and given != ["--workdir"])
        or (given == ["--source"] and not _SPLITS.value)
    ):
        raise UserError(
            "expected --workdir, or --detections with one of --workdir, --annotations and (with "
            f"--splits) --source, found {' and '.join(given) or 'none of them'}"
        )
    if _DETECTIONS.value is None:
        _evaluate_run(configs.local_path(_WORKDIR.value))
    else:
        _evaluate_files(configs.local_path(_DETECTIONS.value))


def _evaluate_run(workdir: pathlib.Path) -> None:
    setup, variables, step, reason = build.restore_run(workdir, _STEP.value)
    config = _with_flags(setup.config)
    splits = configs.split_list(config.data.eval)
    protocol = _PROTOCOL.value or config.eval.protocol
    name = str(step)
    if _SPLITS.value or _ROOT.value:
        root = [pathlib.Path(_ROOT.value).resolve().name] if _ROOT.value else []
        name += f"-{_file_part(','.join([*root, *splits]))}"
    if protocol != config.eval.protocol:
        name += f"-{protocol}"
    output = _output_file(name, workdir / "eval")
    source = build.open_split(config, "eval")
    evaluator = Evaluator(source.annotations(), protocol=protocol, **build.select_options(config))
    print(f"{workdir}: step {step:,}, {reason}\ndata: {', '.join(splits)}, {len(source):,} images")
    progress = functools.partial(track, transient=True, disable=not sys.stdout.isatty())
    for predictions, index in setup.predictions(variables, source, progress):
        evaluator.update(predictions, index)
    result = evaluator.compute()
    _print_result(result, result.annotations.report.notes(), step)

    folder = output.with_suffix("")
    numbers = result.summary(source=config.data.source, splits=splits, step=step)
    run_folder.write_json(output, numbers)
    # "VOC2007:test" is the devkit's set "test"; "eval:100" are 100 synthetic scenes.
    sets = splits if config.data.source == "synthetic" else [s.split(":")[-1] for s in splits]
    files = results_files(
        result.detections,
        result.annotations,
        results_format=_RESULTS_FORMAT.value,
        set_name=_file_part("+".join(sets)),
    )
    for path, text in files.items():
        run_folder.write_text(folder / path, text)
    # <workdir>/report shows the run's own data and protocol.
    report_folder = workdir if output == workdir / "eval" / f"{step}.json" else folder
    report_result(report_folder, result, source, run_folder.metrics_path(workdir))
    print(f"detections in {folder}\nresult in {output}, pictures in {report_folder}/report")


def _output_file(name: str, default: pathlib.Path) -> pathlib.Path:
    """The JSON file for the result, in a folder that can be written to: asked before the work."""
    output = configs.local_path(_OUTPUT.value) if _OUTPUT.value else default
    is_file = output.suffix == ".json" and not output.is_dir()
    file = output if is_file else output / f"{name}.json"
    try:
        run_folder.make(file.parent)
    except UserError as error:
        raise UserError(f"{error}, as --output=FOLDER") from error
    return file


def _evaluate_files(path: pathlib.Path) -> None:
    output = _output_file("result", pathlib.Path()) if _OUTPUT.value else None
    annotations, source, splits = _ground_truth()
    results = read_results(
        path,
        annotations,
        unknown_classes=_UNKNOWN_CLASSES.value or "refuse",
        unknown_images=_UNKNOWN_IMAGES.value,
    )
    protocol = _PROTOCOL.value or "voc07"
    result = evaluate_detections(
        results.detections, annotations, protocol=protocol, file_order=results.file_order
    )
    notes = [*annotations.report.notes(), *results.notes]
    print(f"detections: {path}\ndata: {', '.join(splits)}, {len(annotations):,} images")
    _print_result(result, notes)
    numbers = result.summary(source=source, splits=splits, step=None)
    if output is not None:
        run_folder.write_json(output, {**numbers, "detections": str(path), "notes": notes})


def _ground_truth() -> tuple[Annotations, str, tuple[str, ...]]:
    """What --detections are evaluated on, and the names of its source and splits."""
    if _ANNOTATIONS.value is not None:
        path = configs.local_path(_ANNOTATIONS.value)
        return read_coco_annotations(path), "coco", (_ANNOTATIONS.value,)
    if _WORKDIR.value is not None:
        config = _with_flags(run_folder.read_config(configs.local_path(_WORKDIR.value)))
        source = build.open_split(config, "eval", images_required=False)
        return source.annotations(), config.data.source, configs.split_list(config.data.eval)
    name, root = _SOURCE.value, _root()
    splits = configs.split_list(tuple(_SPLITS.value))
    class_names = None
    if name == "folder":
        # A class of the data set may have no object in these splits and be detected there.
        class_names = class_names_of_folder(root or ".", splits, _FORMAT.value)
    source = open_source(
        name,
        root=root,
        splits=splits,
        class_names=class_names,
        data_format=_FORMAT.value,
        images_required=False,
    )
    return source.annotations(), name, splits


def _root() -> str | None:
    return str(configs.local_path(_ROOT.value)) if _ROOT.value else None


def _with_flags(config: ConfigDict) -> ConfigDict:
    """The config of a run, with the data that the flags ask for."""
    if _ROOT.value and config.data.source == "synthetic":
        raise UserError("expected no --root: the data of this run are synthetic, not in a folder")
    splits = tuple(_SPLITS.value or ())
    values = {"eval": splits, "root": _root(), "unknown_classes": _UNKNOWN_CLASSES.value}
    for key, value in values.items():
        if value:
            config = configs.replace(config, f"data.{key}", value)
    return config


def _print_result(result: Result, notes: Sequence[str], step: int | None = None) -> None:
    for note in notes:
        print(note)
    if absent := result.evaluation.classes_without_objects:
        print(f"no object to find, therefore not in the mAP: {', '.join(absent)}")
    console = Console()
    console.print(ap_table(result.evaluation, step=step))
    console.print(protocol_table(result.evaluations))


def _file_part(name: str) -> str:
    return re.sub(r"[^\w+-]+", "_", name)


def main(argv: Sequence[str] | None = None) -> int:
    cpu.keep_freed_memory()
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
