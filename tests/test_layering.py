"""Data flows one way: reads the imports of every module and fails on an arrow that goes back.

The rules are the four tables below; a new file needs a place in ROWS, a new exception a line in
its table. The checks themselves are tried on planted mistakes at the end.
"""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "yolov1_jax"

# A module imports from its own row and the rows above it, never from a row below. A folder stands
# for all its modules. `train` and `main` drive the flow, so they see everything and nothing sees
# them; `__init__` is the package's front door for users.
ROWS = [
    ["errors", "boxes", "config", "command_line", "sharding"],
    ["data", "models", "weights", "grid"],
    ["loss", "optimizer", "train_step", "experiment", "pretrained"],
    ["checkpoint", "metric_writer", "progress", "loss_window", "preemption", "run_folder", "clock"],
    ["timing"],
    ["evaluation"],
    ["coco_ap"],
    ["class_colours", "drawing", "gallery", "figures"],
    ["inference", "detector", "predict", "report", "export", "benchmark"],
    ["scoring", "file_evaluation", "evaluate"],
    ["comparison", "compare"],
    ["train"],
    ["main"],
    ["__init__"],
]
# Where little may be imported: of ours, and of others (the standard library is free).
NOTHING_ELSE = {
    "errors": (set(), set()),
    "boxes": (set(), set()),
    "grid": ({"boxes"}, {"jax", "numpy"}),
    "loss": ({"boxes", "grid"}, {"jax", "numpy"}),
    "evaluation": ({"boxes", "evaluation"}, {"numpy"}),
}
# Libraries that only these may import.
ONLY_IN = {
    "flax": {"models"},
    "orbax": {"checkpoint"},
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "pycocotools": {"coco_ap"},
    "safetensors": {"weights"},
    "huggingface_hub": {"weights"},
    "pickle": set(),  # reading one may run anything; weights/torch_pickle.py reads torch's
    "tensorflow": set(),
    "torch": set(),
}
# A file is named for what it holds, and these words name nothing, alone or as part of a name.
EMPTY_WORDS = {"utils", "util", "common", "misc", "base", "core", "helpers", "helper"}


class Import(NamedTuple):
    """One import statement's target: `importer` (a.b) imports `target` (c.d) in line `line`."""

    importer: str
    target: str
    line: int


def read_sources(folder: pathlib.Path) -> dict[str, str]:
    """{dotted module name: source} of a package; its `__init__` goes by the package's name."""
    sources = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sources[name] = path.read_text(encoding="utf-8")
    return sources


def imports_of(name: str, sources: dict[str, str]) -> Iterator[Import]:
    """Everything a module imports, also inside functions; `from package import x` is resolved."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = name.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                origin = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                member = f"{origin}.{alias.name}"
                yield Import(name, member if member in sources else origin, node.lineno)


def dynamic_imports_of(source: str) -> Iterator[int]:
    """Lines that import by calling a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func).split(".")[-1]
            if function in {"import_module", "__import__"}:
                yield node.lineno


def unit_of(name: str) -> str:
    """The module or folder directly below the package: yolov1_jax.data.voc -> data."""
    return name.removeprefix(PACKAGE).lstrip(".").split(".")[0] or "__init__"


def is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE


def row_of(unit: str) -> int | None:
    return next((number for number, row in enumerate(ROWS) if unit in row), None)


def problems(sources: dict[str, str]) -> list[str]:
    """One line for each import that breaks a rule, each module without a place, and each cycle."""
    found = [
        f"{name}: {PACKAGE}/{unit_of(name)} has no place in the flow; add it to a row of ROWS"
        for name in sources
        if row_of(unit_of(name)) is None
    ]
    ours: dict[str, set[str]] = {name: set() for name in sources}
    for name in sources:
        for line in dynamic_imports_of(sources[name]):
            found.append(f"{name}, line {line}: imports a computed name, which cannot be read here")
        for arrow in imports_of(name, sources):
            if is_ours(arrow.target):
                ours[name].add(arrow.target)
                reasons = reasons_against_ours(unit_of(name), unit_of(arrow.target))
            else:
                reasons = reasons_against_library(unit_of(name), arrow.target.split(".")[0])
            found += [
                f"{name}, line {arrow.line}: imports {arrow.target}, but {reason}"
                for reason in reasons
            ]
    return found + [f"imports in a circle: {' -> '.join(cycle)}" for cycle in cycles(ours)]


def reasons_against_ours(unit: str, target: str) -> Iterator[str]:
    here, there = row_of(unit), row_of(target)
    if here is not None and there is not None and there > here:
        yield (
            f"{target} (row {there}: {', '.join(ROWS[there])}) comes after {unit} "
            f"(row {here}: {', '.join(ROWS[here])}); data flows the other way"
        )
    if unit in NOTHING_ELSE and target not in NOTHING_ELSE[unit][0]:
        allowed = ", ".join(sorted(NOTHING_ELSE[unit][0])) or "nothing"
        yield f"{unit} imports {allowed} of ours and nothing else"


def reasons_against_library(unit: str, library: str) -> Iterator[str]:
    if library == "configs":
        yield "configs reach a program through its flags; modules take plain values"
    if library in ONLY_IN and unit not in ONLY_IN[library]:
        allowed = ", ".join(sorted(ONLY_IN[library])) or "nothing"
        yield f"{allowed} may import {library} and nothing else may"
    if (
        unit in NOTHING_ELSE
        and library not in NOTHING_ELSE[unit][1]
        and library not in sys.stdlib_module_names
    ):
        allowed = ", ".join(sorted(NOTHING_ELSE[unit][1])) or "no"
        yield f"{unit} imports {allowed} libraries besides the standard one"


def cycles(arrows: dict[str, set[str]]) -> Iterator[list[str]]:
    """One path for each import circle found depth first."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[list[str]]:
        if name in path:
            yield [*path[path.index(name) :], name]
        elif name not in done:
            for target in sorted(arrows.get(name, ())):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in arrows:
        yield from visit(name, [])


def empty_words_in(name: str) -> set[str]:
    """Words of a dotted or underscored name that say nothing about what is inside."""
    return set(name.replace(".", "_").split("_")) & EMPTY_WORDS


def test_data_flows_one_way():
    found = problems(read_sources(ROOT / PACKAGE))
    assert not found, "\n" + "\n".join(found)


def test_configs_are_plain_values():
    """A config needs ml_collections and other configs: reading one must not start a program."""
    sources = read_sources(ROOT / "configs")
    assert sources
    free = {"configs", "ml_collections"} | sys.stdlib_module_names
    found = [
        f"{name}, line {arrow.line}: imports {arrow.target}"
        for name in sources
        for arrow in imports_of(name, sources)
        if arrow.target.split(".")[0] not in free
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", [PACKAGE, "configs", "launch", "tests"])
def test_names_say_what_is_inside(folder):
    names = [str(path.relative_to(ROOT).with_suffix("")) for path in (ROOT / folder).rglob("*.py")]
    found = [name for name in names if empty_words_in(name.replace("/", "."))]
    assert not found, f"name these for what they hold: {', '.join(found)}"


def test_evaluation_runs_without_jax():
    """Followed through everything that is imported on the way, the package's front included."""
    names = [name for name in read_sources(ROOT / PACKAGE) if unit_of(name) == "evaluation"]
    assert len(names) > 1
    program = f"import sys, {', '.join(names)}; print(*({{'jax', 'flax'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not result.stdout.split(), f"importing {PACKAGE}.evaluation also imports {result.stdout}"


# -------------------------------------------------------------------------- the checks can fail

HEALTHY = {
    "yolov1_jax": "",
    "yolov1_jax.boxes": "import math",
    "yolov1_jax.grid": "import jax.numpy as jnp\nfrom yolov1_jax.boxes import iou_xyxy",
    "yolov1_jax.loss": "from yolov1_jax import boxes, grid",
    "yolov1_jax.data": "",
    "yolov1_jax.data.voc": "import grain\nfrom yolov1_jax.data import records",
    "yolov1_jax.data.records": "import numpy as np",
    "yolov1_jax.evaluation": "",
    "yolov1_jax.evaluation.nms": "import numpy as np\nfrom yolov1_jax.boxes import iou_xyxy",
    "yolov1_jax.train": "import jax\nfrom yolov1_jax import loss\nimport yolov1_jax.data.voc",
    "yolov1_jax.main": "from yolov1_jax.train import train_and_evaluate",
}
MISTAKES = {
    "back along the flow": ("data.voc", "import yolov1_jax.loss", "yolov1_jax.loss, but loss (row"),
    "back, from the package": ("data.voc", "from yolov1_jax import loss", "comes after data"),
    "back, relative": ("data.voc", "from ..train import x", "imports yolov1_jax.train, but"),
    "back, in a function": ("data.voc", "def f():\n  from yolov1_jax.train import x", "line 2"),
    "back to main": ("train", "from yolov1_jax.main import x", "comes after train"),
    "through the front door": ("train", "from yolov1_jax import load", "__init__ (row"),
    "boxes import ours": ("boxes", "from yolov1_jax import errors", "imports nothing of ours"),
    "boxes import a library": ("boxes", "import jax", "boxes imports no libraries"),
    "grid looks sideways": ("grid", "from yolov1_jax.data import voc", "imports boxes of ours"),
    "evaluation imports jax": ("evaluation.nms", "import jax", "evaluation imports numpy"),
    "evaluation imports grid": ("evaluation.nms", "from yolov1_jax import grid", "boxes, eval"),
    "flax outside models": ("train", "from flax import linen", "models may import flax"),
    "orbax outside checkpoint": ("train", "import orbax.checkpoint", "checkpoint may import orbax"),
    "grain outside data": ("train", "import grain", "data may import grain"),
    "tensorflow": ("data.voc", "import tensorflow as tf", "nothing may import tensorflow"),
    "a config": ("train", "from configs import r34", "configs reach a program through its flags"),
    "a circle": ("data.records", "from . import voc", "imports in a circle: yolov1_jax.data"),
    "an arrow in disguise": ("train", "f = importlib.import_module(name)", "cannot be read"),
    "a stranger": ("wizardry", "", "yolov1_jax/wizardry has no place in the flow"),
}


def test_a_healthy_package_passes():
    assert problems(HEALTHY) == []


@pytest.mark.parametrize(("module", "source", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_planted_mistake_is_found(module, source, message):
    name = f"yolov1_jax.{module}"
    found = problems(HEALTHY | {name: f"{source}\n{HEALTHY.get(name, '')}"})
    assert found
    assert any(message in line for line in found), found


def test_empty_names_are_found():
    assert empty_words_in("yolov1_jax.utils") == {"utils"}
    assert empty_words_in("yolov1_jax.data.voc_helpers") == {"helpers"}
    assert not empty_words_in("yolov1_jax.data.baseline")
