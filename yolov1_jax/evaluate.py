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

--errors prints the kinds of errors and what mending each is worth, the best threshold by class, the
worst images and doubtful labels, and writes errors.json (pip install "yolov1_jax[errors]").

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
from yolov1_jax.data.dataset import Annotations, Source
from yolov1_jax.data.source import FORMATS as DATA_FORMATS
from yolov1_jax.data.source import class_names_of_folder, open_source
from yolov1_jax.evaluation.accuracy import EVALUATORS, AnyResult
from yolov1_jax.evaluation.errors import check_installed, find_errors
from yolov1_jax.evaluation.evaluator import PROTOCOLS, Result, evaluate_detections
from yolov1_jax.evaluation.results_files import FORMATS, read_results, results_files
from yolov1_jax.training import build, cpu, run_folder
from yolov1_jax.visualization.draw import DRAWN_SCORE
from yolov1_jax.visualization.report import report_run
from yolov1_jax.visualization.tables import error_summary, protocol_table, result_table

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
_ERRORS = flags.DEFINE_bool("errors", False, "name the errors, see above", flag_values=FLAGS)
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
    if _ERRORS.value:
        check_installed()
    if _DETECTIONS.value is None:
        _evaluate_run(configs.local_path(_WORKDIR.value))
    else:
        _evaluate_files(configs.local_path(_DETECTIONS.value))


def _evaluate_run(workdir: pathlib.Path) -> None:
    restored = build.restore_run(workdir, _STEP.value)
    step = restored.step
    config = _with_flags(restored.setup.config)
    if _ERRORS.value and config.task != "detection":
        raise UserError("--errors sorts detections, and this run classifies images: leave it out")
    splits = configs.split_list(config.data.eval)
    protocol = _PROTOCOL.value or config.eval.protocol
    name = str(step)
    if _SPLITS.value or _ROOT.value:
        root = [pathlib.Path(_ROOT.value).resolve().name] if _ROOT.value else []
        name += f"-{_file_part(','.join([*root, *splits]))}"
    if protocol != config.eval.protocol:
        name += f"-{protocol}"
    output = _output_file(name, workdir / "eval")
    print(f"{workdir}: step {step:,}, {restored.reason}")
    result, source = evaluate_step(restored, config, protocol)
    folder = output.with_suffix("")
    _show(result, result.annotations.report.notes(), folder, step)
    numbers = result.summary(source=config.data.source, splits=splits, step=step)
    run_folder.write_json(output, numbers)
    if isinstance(result, Result):
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
        print(f"detections in {folder}")
    # <workdir>/report shows the run's own data and protocol.
    report_folder = workdir if output == workdir / "eval" / f"{step}.json" else folder
    history_path = run_folder.metrics_path(workdir)
    report_run(report_folder, result, source, history_path, config=config, step=step)
    print(f"result in {output}, pictures in {report_folder}/report")


def evaluate_step(
    run: build.RestoredRun, config: ConfigDict, protocol: str
) -> tuple[AnyResult, Source]:
    """The result of a checkpoint on config.data.eval, and that source."""
    source = build.open_split(config, "eval")
    annotations, splits = source.annotations(), configs.split_list(config.data.eval)
    options = build.evaluator_options(config)
    evaluator = EVALUATORS[config.task](annotations, protocol=protocol, **options)
    print(f"data: {', '.join(splits)}, {len(source):,} images")
    progress = functools.partial(track, transient=True, disable=not sys.stdout.isatty())
    for row in run.setup.predictions(run.variables, source, annotations, progress):
        evaluator.update(*row)
    return evaluator.compute(), source


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
    _show(result, notes, output and output.with_suffix(""))
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
    splits, root = configs.split_list(tuple(_SPLITS.value)), _root()
    class_names = None
    if _SOURCE.value == "folder":
        # A class of the data set may have no object in these splits and be detected there.
        class_names = class_names_of_folder(root or ".", splits, _FORMAT.value)
    options = {"data_format": _FORMAT.value, "images_required": False}
    source = open_source(
        _SOURCE.value, root=root, splits=splits, class_names=class_names, **options
    )
    return source.annotations(), _SOURCE.value, splits


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


def _show(
    result: AnyResult, notes: Sequence[str], folder: pathlib.Path | None, step: int | None = None
) -> None:
    """Prints the result; with --errors, also the errors, which go to <folder>/errors.json."""
    for note in notes:
        print(note)
    if isinstance(result, Result) and (absent := result.evaluation.classes_without_objects):
        print(f"no object to find, therefore not in the mAP: {', '.join(absent)}")
    console = Console()
    console.print(result_table(result, step=step))
    if isinstance(result, Result):
        console.print(protocol_table(result.evaluations))
        if _ERRORS.value:
            errors = find_errors(result, DRAWN_SCORE)
            print(error_summary(errors))
            if folder is not None:
                run_folder.write_json(folder / "errors.json", errors)


def _file_part(name: str) -> str:
    return re.sub(r"[^\w+-]+", "_", name)


def main(argv: Sequence[str] | None = None) -> int:
    cpu.keep_freed_memory()
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
