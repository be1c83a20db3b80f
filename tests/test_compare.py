"""The program: what it takes, what it says, what it writes, and how it refuses."""

import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from comparison_runs import make_run, result
from rich.console import Console
from tiny_run import save_run

from yolov1_jax import compare, evaluate
from yolov1_jax.comparison.audited import open_results_file, open_run
from yolov1_jax.comparison.published import published
from yolov1_jax.comparison.rules import Rules
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.file_evaluation import DetectionsOf, open_annotations

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTHING = DetectionsOf()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one evaluation, whose network knows nothing."""
    workdir = save_run(tmp_path_factory.mktemp("run") / "tiny", {10: 0.5})
    evaluate.evaluate_run(workdir, results_format="both")
    return workdir


@pytest.fixture(scope="module")
def detections(run):
    return run / "eval" / "10" / "detections.json"


@pytest.fixture(scope="module")
def opened(run):
    return open_run(run, step="best", console=Console(quiet=True))


def said(function, *args, width=80, **kwargs):
    console = Console(file=io.StringIO(), width=width)
    function(*args, console=console, **kwargs)
    return console.file.getvalue()


# --------------------------------------------------------------------------- what is compared


def test_kinds(run, detections, tmp_path):
    assert compare.kind_of(str(run)) == "run"
    assert compare.kind_of(str(run / "eval" / "10.json")) == "evaluation"
    assert compare.kind_of(str(detections)) == "detections"
    devkit = next((run / "eval" / "10").rglob("*_det_*.txt"))
    assert compare.kind_of(str(devkit.parent)) == "detections"
    beginning = devkit.name.rsplit("_", 1)[0]
    assert compare.kind_of(str(devkit.parent / beginning)) == "detections"
    with pytest.raises(UserError, match=r"found neither a config\.json nor files such as comp4"):
        compare.kind_of(str(tmp_path))
    with pytest.raises(UserError, match="at nowhere, found nothing"):
        compare.kind_of("nowhere")


@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}/b", "a**b", "**", "[", "a\0b"])
def test_a_path_that_cannot_be_one_is_nothing(tmp_path, name):
    with pytest.raises(UserError, match="found nothing: check the path"):
        compare.kind_of(str(tmp_path / name))


def test_a_run_its_result_and_its_detections_agree(run, detections):
    paths = [str(run), str(run / "eval" / "10.json"), str(detections)]
    one, two, three = compare.read_entries(paths, data=NOTHING)
    assert [entry.kind for entry in (one, two, three)] == ["run", "evaluation", "detections"]
    numbers = [
        {score.protocol: score.mean_ap for score in entry.scores} for entry in (one, two, three)
    ]
    assert numbers[0] == numbers[1]
    assert numbers[2] == pytest.approx(
        {name: value for name, value in numbers[0].items() if name != "seed"}, abs=1e-3
    )
    assert len({score.data.fingerprint for e in (one, two, three) for score in e.scores}) == 1


def test_detections_are_scored_against_what_is_asked_for_their_run_or_the_first(run, tmp_path):
    asked = DetectionsOf(source="folder", splits=["x:all"], root="r")
    assert compare.data_of("a.json", ["runs/a"], asked) is asked
    inside = str(run / "eval" / "10" / "x.json")
    assert compare.data_of(inside, ["runs/a"], NOTHING).workdir == run
    outside = compare.data_of(str(tmp_path / "x.json"), ["runs/a", "b"], DetectionsOf(splits=["s"]))
    assert (outside.workdir, outside.splits) == (pathlib.Path("runs/a"), ["s"])
    with pytest.raises(UserError, match="expected --image_size with --source=synthetic only"):
        compare.data_of(inside, [], DetectionsOf(image_size=64))
    with pytest.raises(UserError, match="give --source, --root and --splits, or --annotations"):
        compare.data_of(str(tmp_path / "x.json"), [], NOTHING)


def test_unknown_images_and_classes_are_refused_or_skipped(run, detections, tmp_path):
    rows = json.loads(detections.read_text())
    path = tmp_path / "more.json"
    odd = [{**rows[0], "image_id": "nowhere"}, {**rows[0], "category_id": "zebra"}]
    path.write_text(json.dumps([*rows, *odd]))
    data = DetectionsOf(unknown_classes="skip")
    given = [str(run), str(path)]
    audited = compare.data_of(str(path), given, data)
    images, *_ = open_annotations(audited)
    with pytest.raises(UserError, match="expected an image of the annotations"):
        compare.read_entries(given, data=data)
    _, entry = compare.read_entries(given, data=data, unknown_images="skip")
    assert any("nowhere" in note for note in entry.scores[0].notes)
    opened = open_results_file(
        str(path), images, grid_size=2, unknown_classes="skip", unknown_images="skip"
    )
    assert len(opened.selection.select(Rules(area="voc07")).row) == len(rows)
    with pytest.raises(UserError, match="expected a class"):
        compare.read_entries(given, data=NOTHING, unknown_images="skip")


def test_published_numbers_come_last_and_may_come_alone(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    entries = compare.read_entries([str(folder)], published_names=["yolo"], data=NOTHING)
    assert [entry.name for entry in entries] == ["a", "yolo"]
    assert len(compare.read_entries([], published_names=["all"], data=NOTHING)) > 5
    with pytest.raises(UserError, match=r"found nothing: give run folders, .* or --published=all"):
        compare.read_entries([], data=NOTHING)


def test_the_step_is_that_of_the_runs(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5), result(20, 0.4)])
    (entry,) = compare.read_entries([str(folder)], step="latest", data=NOTHING)
    assert entry.step == 20


# ------------------------------------------------------------------------------- what it says


def test_a_comparison_is_printed_and_written(tmp_path):
    runs = [
        make_run(tmp_path / name, [result(10, value, fingerprint="f")], history=[(5, 9.0)])
        for name, value in (("first", 0.5), ("second", 0.6))
    ]
    entries = compare.read_entries(
        [str(folder) for folder in runs], published_names=["article-r34"], data=NOTHING
    )
    output = tmp_path / "out" / "there"
    text = said(compare.compare, entries, output=output)
    assert text.startswith("Numbers compare within a column.")
    assert re.search(r"^A   first +50\.0$", text, re.MULTILINE)
    assert "AP by class (%) on VOC2007 test (4,952 images, 12,032 objects, 2,944 difficult)" in text
    assert max(map(len, text.splitlines()[:-1])) <= 95  # one sentence is not folded
    written = sorted(path.name for path in output.iterdir())
    assert written == ["compare.csv", "compare.md", "compare.png"]
    markdown = (output / "compare.md").read_text()
    assert "![mAP, curves and AP by class](compare.png)" in markdown
    assert "| B | second | **60.0** |" in markdown
    assert text.splitlines()[-1] == (
        f"written: {output}/compare.md, {output}/compare.csv, {output}/compare.png"
    )


def test_without_numbers_there_is_no_picture(tmp_path):
    entries = compare.read_entries([str(make_run(tmp_path / "a"))], data=NOTHING)
    said(compare.compare, entries, output=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "compare.csv",
        "compare.md",
    ]


def test_nothing_is_written_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(compare.compare, published(["yolo"]), output=None)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------- the audit


@pytest.mark.parametrize("protocols", [("voc07", "seed"), ("seed", "voc10")])
def test_the_audit_of_a_run_starts_and_ends_at_its_evaluations(run, opened, tmp_path, protocols):
    assert opened.about.startswith(f"{run}: step 10, the best")
    numbers = json.loads((run / "eval" / "10.json").read_text())["protocols"]
    assert opened.mean_ap == {name: numbers[name]["mAP"] for name in ("voc07", "voc10", "seed")}
    text = said(compare.audit_protocols, opened, protocols, output=tmp_path)
    assert f"From {protocols[0]} to {protocols[1]}, one rule after the other" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.csv", "audit.md"]
    assert "AP by class" in (tmp_path / "audit.md").read_text()
    lines = (tmp_path / "audit.csv").read_text().splitlines()
    num_objects = len(opened.objects.image)
    assert sum(line.startswith("object,") for line in lines) == num_objects > 0


def test_an_audit_that_does_not_reach_the_evaluation_is_a_fault_of_the_program(opened):
    wrong = opened._replace(mean_ap=opened.mean_ap | {"seed": 0.123})
    with pytest.raises(RuntimeError, match=r"own seed gives .*, the evaluation 0\.123"):
        said(compare.audit_protocols, wrong, ("voc07", "seed"), output=None)


def test_the_audit_of_detections(run, detections):
    images, *_ = open_annotations(compare.data_of(str(detections), [], NOTHING))
    opened = open_results_file(str(detections), images, grid_size=2)
    text = said(compare.audit_protocols, opened, ("voc07", "seed"), output=None)
    assert "From voc07 to seed (in part), one rule after the other" in text
    num_detections = json.loads((run / "eval" / "10.json").read_text())["num_detections"]
    assert re.search(rf"Detections: [\d,]+ of {num_detections:,} change", text)
    broken = detections.parent / "broken.json"
    broken.write_text("[1]")
    try:
        with pytest.raises(UserError, match=r"broken\.json"):
            open_results_file(str(broken), images, grid_size=2)
    finally:
        broken.unlink()


def test_an_audit_needs_the_sizes_of_the_images(detections):
    images, *_ = open_annotations(compare.data_of(str(detections), [], NOTHING))
    sizes = np.array(images.sizes)
    sizes[1, 0] = 0
    images = dataclasses.replace(images, sizes=sizes)
    with pytest.raises(UserError, match=f"width and height .* found none of {images.image_ids[1]}"):
        open_results_file(str(detections), images, grid_size=2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "found 0: --audit explains two protocols"),
        (["", ""], "found 2: --audit"),
        (["eval/10.json"], "which has no detections: give its run"),
        (["eval/11.json"], "found nothing: check the path"),
    ],
)
def test_one_run_or_file_is_audited(run, names, message):
    with pytest.raises(UserError, match=message):
        compare.open_audited(
            [str(run / name) for name in names],
            step="best",
            data=NOTHING,
            grid_size=2,
            console=Console(quiet=True),
        )


# --------------------------------------------------------------------------- the command line


def test_the_command_line(run, detections, tmp_path):
    """Each in a process of its own: flags are parsed once in a process."""
    output = tmp_path / "out"
    cases = {
        "help": (["--help"], 0, "--audit: two protocols", ""),
        "nothing": ([], 2, "", "error: expected something to compare, found nothing"),
        "written": (
            [str(run), "--published=all", "--protocol=seed", f"--output={output}"],
            0,
            f"written: {output}/compare.md",
            "",
        ),
        "ignored splits": ([str(run), "--splits=a:b"], 2, "", "error: --splits says nothing"),
        "ignored step": ([str(detections), "--step=10"], 2, "", "error: --step says nothing"),
        "ignored grid": ([str(detections), "--grid_size=7"], 2, "", "without --audit: leave"),
        "ignored published": (
            [str(detections), "--audit=voc07,voc10", "--published=all"],
            2,
            "",
            "error: --published says nothing with --audit",
        ),
        "skip": ([str(detections), "--unknown_classes=skip"], 0, "Numbers compare", ""),
        "audit": ([str(detections), "--audit=voc07,voc10"], 0, "one rule after the other", ""),
    }

    def program(arguments):
        return subprocess.run(
            [sys.executable, "-m", "yolov1_jax.compare", *arguments],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "80"},
            capture_output=True,
            text=True,
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = dict(zip(cases, pool.map(program, [c[0] for c in cases.values()]), strict=True))
    for name, (_, code, out, err) in cases.items():
        ended = results[name]
        assert ended.returncode == code, (name, ended.stdout, ended.stderr)
        assert out in ended.stdout, (name, ended.stdout)
        assert err in ended.stderr, (name, ended.stderr)
        assert "Traceback" not in ended.stderr
        if code == 2:
            assert ended.stderr.count("\n") == 1
    assert "63.4" not in results["written"].stdout
    assert "57.3" in results["written"].stdout
