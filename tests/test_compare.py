"""compare: which numbers share a table and a column, and what is said of them."""

import json

import numpy as np
import pytest
from annotated_sets import found, images_of, truth
from tiny_run import save_run, tiny_config

from yolov1_jax import compare, evaluate
from yolov1_jax import config as configs
from yolov1_jax.evaluation.results_files import results_files
from yolov1_jax.visualization.report import read_published

VOC = {"source": "folder", "splits": ["VOC2007:test"], "num_images": 4952}
VOC |= {"num_objects": 12032, "num_difficult": 2944}


def scored(value):
    return {"mAP": value, "ap": {"cat": value, "dog": value + 0.1, "sofa": None}}


def result(step, value, *, data=None, **protocols):
    """The JSON of an evaluation by voc07 and further protocols; `data`: changes of VOC."""
    protocols = {name: scored(one) for name, one in {"voc07": value, **protocols}.items()}
    about = {**VOC, "fingerprint": "f" * 64, **(data or {})}
    headline = {"step": step, "protocol": "voc07", **scored(value)}
    return {**headline, "protocols": protocols, "evaluation_set": about}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def make_run(folder, *results, seed=0, **files):
    """A run folder by hand: its own results, and those in `files` under other names."""
    config = configs.to_json(tiny_config(seed=seed, data__eval=("VOC2007:test",)))
    write(folder / "config.json", {"config": config, "versions": {"jax": "0.10"}, "device": "cpu"})
    rows = [{"split": "train", "step": 1, "epoch": 0.1, "images_per_second": 20.0}]
    for one in results:
        write(folder / "eval" / f"{one['step']}.json", one)
        row = {"split": "eval", "step": one["step"], "epoch": one["step"] / 10, "mAP": one["mAP"]}
        rows.append({**row, "protocol": one["protocol"]})
    for name, one in files.items():
        write(folder / "eval" / f"{one['step']}-{name}.json", one)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.fixture
def tables(tmp_path, capsys):
    """Runs the command -> {title: {row: {column: cell}}}, as compare.md has them."""

    def run(*arguments):
        assert compare.main([*arguments, f"--output={tmp_path / 'out'}"]) == 0, capsys.readouterr()
        found, title, heading = {}, "", None
        for line in (tmp_path / "out" / "compare.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("#"):
                title, heading = line.lstrip("# "), None
            elif line.startswith("|") and heading is None:
                heading = cells
            elif line.startswith("|") and not line.startswith("| :---"):
                table = found.setdefault(title, {})
                table[cells[0]] = dict(zip(heading[1:], cells[1:], strict=True))
        return found

    return run


def mean_aps(found):
    return {title: table for title, table in found.items() if title.startswith("mAP")}


def test_runs_results_and_published_numbers_on_the_same_data_share_a_table(tables, tmp_path):
    first = make_run(tmp_path / "first", result(10, 0.5, reference=0.45, coco=0.2))
    second = make_run(tmp_path / "second", result(10, 0.6, reference=0.55))
    other = result(None, 0.7, data={"source": "coco", "splits": ["instances.json"]})
    other = write(tmp_path / "other.json", other)
    found = tables(first, second, other, "--published=article-r34,yolo,zjykzj-s7")
    ((title, table),) = mean_aps(found).items()
    assert "VOC2007 test" in title
    assert "4,952" in title
    # Another protocol is another column.
    assert list(table["first"]) == ["voc07", "coco", "reference", "zjykzj's own"]
    assert list(table["first"].values()) == ["50.0", "**20.0**", "45.0", "-"]
    assert table["second"]["reference"] == "55.0"
    assert table["other"]["voc07"] == "**70.0**"
    assert table["yolo"] == {"voc07": "63.4", "coco": "-", "reference": "-", "zjykzj's own": "-"}
    assert table["article-r34 †"]["reference"] == "**57.3**"
    assert table["zjykzj-s7"]["zjykzj's own"] == "**66.9**"
    assert (tmp_path / "out" / "compare.png").stat().st_size > 1_000
    by_class = found["AP by class (%), reference"]
    assert by_class["cat"] == {"first": "45.0", "second": "55.0", "article-r34": "**76.2**"}
    assert by_class["sofa"] == {"first": "-", "second": "-", "article-r34": "**49.4**"}


def test_other_data_is_another_table(tables, tmp_path):
    folders = [
        make_run(tmp_path / "a", result(10, 0.5)),
        make_run(tmp_path / "b", result(10, 0.6, data={"fingerprint": "e" * 64})),
        make_run(tmp_path / "c", result(10, 0.7), val=result(10, 0.2, data={"fingerprint": "d"})),
    ]
    # Titles are equal; published numbers know no fingerprint and must not be taken for either.
    found = mean_aps(tables(*folders, "--published=yolo"))
    assert [[*table] for table in found.values()] == [["a", "c"], ["b"], ["c"], ["yolo"]]


@pytest.mark.parametrize(
    ("step", "value", "about"),
    # The last of equal steps is the best, as for every command.
    [("best", "60.0", "step 30"), ("latest", "40.0", "step 40"), ("10", "50.0", "step 10")],
)
def test_the_step(tables, tmp_path, step, value, about):
    results = [result(10, 0.5), result(20, 0.6), result(30, 0.6), result(40, 0.4)]
    test = result(30, 0.3, data={"fingerprint": "t", "splits": ["VOC2012:test"]})
    folder = make_run(tmp_path / "run", *results, test=test)
    found = tables(folder, f"--step={step}")
    own, *others = mean_aps(found).values()
    # A step that was selected on this data is marked, on this data only.
    (name,) = own
    assert name == ("run †" if step == "best" else "run")
    assert own[name]["voc07"] == value
    assert found["Comparison"]["run"]["what"].startswith(about)
    assert others == ([{"run": {"voc07": "30.0"}}] if step == "best" else [])


def test_settings_that_differ(tables, tmp_path):
    folders = [make_run(tmp_path / seed / "run", result(10, 0.5), seed=int(seed)) for seed in "34"]
    *_, (title, table) = tables(*folders).items()
    assert title.startswith("Settings")
    assert table == {"seed": {"run": "3", folders[1]: "4"}}  # equal names become paths


def test_runs_that_differ_in_their_seed_alone_show_what_is_chance(tables, tmp_path):
    runs = [make_run(tmp_path / f"a{i}", result(10, 0.5 + 0.01 * i), seed=i) for i in range(3)]
    for name, value in (("near", 0.52), ("far", 0.56)):
        folder = tmp_path / name
        runs.append(make_run(folder, result(10, value)))
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"jax": "0.10"', f'"jax": "{name}"'))
    ((title, table),) = [one for one in tables(*runs).items() if one[0].startswith("Seeds")]
    assert "deviation 1.0" in title  # of 50, 51, 52
    assert table["a0, a1, a2"]["mean"] == "51.0"
    # Chance is 2 * 1.0 * sqrt(1 + 1 / 3) = 2.3 points.
    assert [*table["near"].values()] == ["1", "52.0", "+1.0", "within"]
    assert [*table["far"].values()] == ["1", "56.0", "+5.0", "more than"]


def test_the_difference_of_detections_has_an_interval(tables, tmp_path):
    pytest.importorskip("hotcoco")
    annotations = images_of(truths=[truth(((1, 1, 20, 20), 0, False))] * 8)
    right, nothing = [found(((1, 1, 20, 20), 0.9, 0))] * 8, [found()] * 8
    folders = []
    for name, detections in (("nothing", nothing), ("half", right[:4] + nothing[4:])):
        folders.append(make_run(tmp_path / name, result(10, 0.5)))
        files = results_files(detections, annotations, results_format="coco", set_name="")
        for path, text in files.items():
            write(tmp_path / name / "eval" / "10" / path, json.loads(text))
    found_tables = tables(*folders, make_run(tmp_path / "other", result(10, 0.5)))
    title = "Difference from nothing (points), and its 95 % interval over the images"
    assert found_tables[title]["half"]["AP50"].startswith("+50.5 (+")
    assert "evaluate` writes those of other" in (tmp_path / "out" / "compare.md").read_text()


def test_a_run_without_evaluation_takes_one_line_and_damaged_files_are_left_out(tables, tmp_path):
    empty, good = make_run(tmp_path / "empty"), make_run(tmp_path / "good", result(10, 0.5))
    (tmp_path / "good" / "eval" / "20.json").write_text("{")
    (tmp_path / "good" / "eval" / "notes.json").write_text("[]")
    with (tmp_path / "good" / "metrics.jsonl").open("a") as file:
        file.write('{"split": "eval", "st')
    found = tables(empty, good)
    assert "not evaluated" in found["Comparison"]["empty"]["what"]
    assert list(mean_aps(found).values()) == [{"good": {"voc07": "50.0"}}]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "nothing"),
        (["nowhere"], "nowhere"),
        (["detections.json"], "--detections"),
        (["run", "--step=15"], "[10]"),
        (["--published=yolo9000"], "yolo-vgg16"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, word):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", result(10, 0.5))
    write(tmp_path / "detections.json", [{"image_id": 1}])
    assert compare.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_published_means_are_those_of_their_classes():
    for row in read_published()["entry"]:
        if "ap" in row:
            assert len(row["ap"]) == 20
            assert np.mean(list(row["ap"].values())) == pytest.approx(row["mAP"], abs=1e-4)
            assert max(value for _, value in row["by_epoch"]) == pytest.approx(row["mAP"], abs=1e-3)


def test_the_curves_are_of_the_same_data_and_protocol(tmp_path):
    folder = make_run(tmp_path / "run", result(10, 0.5, reference=0.4), result(20, 0.6, coco=0.3))
    (entry,) = compare.read_entries([folder], step="best", published=[])
    curves = {name: one["by_epoch"] for name, one in entry.measured[0].protocols.items()}
    assert curves == {"voc07": [(1, 0.5), (2, 0.6)], "coco": [(2, 0.3)]}
    write(tmp_path / "run" / "eval" / "20.json", result(20, 0.8, data={"fingerprint": "new"}))
    (entry,) = compare.read_entries([folder], step="best", published=[])
    assert entry.measured[0].protocols["voc07"]["by_epoch"] == [(2, 0.8)]


@pytest.mark.slow
def test_a_real_run(tables, tmp_path):
    run = save_run(tmp_path / "run", {10: 0.5})
    assert evaluate.main([f"--workdir={run}"]) == 0
    ((_, table),) = mean_aps(tables(str(run))).items()
    parts = ["AP50", "AP75", "small", "medium", "large"]
    assert list(table["run"]) == ["voc07", "voc10", "coco", *parts, "reference"]
