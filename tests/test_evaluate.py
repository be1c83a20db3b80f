"""The evaluation of a run folder, as the program does it: what it says and what it writes."""

import io
import json
import shutil

import pytest
from rich.console import Console
from tiny_run import save_run, tiny_config
from voc_tree import VocTree, annotation_xml, object_xml

from yolov1_jax import evaluate
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3, 30: None})


def evaluate_aloud(run, **options):
    console = Console(file=io.StringIO(), width=80)
    _, step = evaluate.evaluate_run(run, console=console, **options)
    return step, console.file.getvalue()


def test_a_run_is_evaluated_at_its_best_step(run):
    step, said = evaluate_aloud(run)
    assert step == 10
    lines = said.splitlines()
    assert lines[0] == (
        f"{run}: step 10, the best by mAP of the run's own evaluations (latest: 30)"
    )
    assert lines[1] == "data: eval:6, 6 images"
    assert "voc07, step 10" in said
    assert lines[-2:] == [
        f"detections in {run}/eval/10/detections.json",
        f"result in {run}/eval/10.json, pictures in {run}/report",
    ]
    written = json.loads((run / "eval" / "10.json").read_text())
    assert (written["step"], written["protocol"], written["num_images"]) == (10, "voc07", 6)
    assert written["splits"] == written["evaluation_set"]["splits"] == ["eval:6"]
    assert written["evaluation_set"]["source"] == "synthetic"
    assert set(written["protocols"]) == {"voc07", "voc10", "seed", "coco"}
    assert written["protocols"]["voc07"] == {"mAP": written["mAP"], "ap": written["ap"]}
    assert (run / "report" / "ap_by_class.png").is_file()
    assert (run / "report" / "detections.jpg").is_file()


def test_other_data_and_protocols_get_files_of_their_own(run):
    own = run / "eval" / "20.json"
    own.parent.mkdir(exist_ok=True)
    own.write_text("the run's own result")
    step, said = evaluate_aloud(run, step=20, protocol="voc10", splits=["eval:1"])
    assert step == 20
    assert f"{run}: step 20, as asked for" in said
    name = "20-eval_1-voc10"
    assert said.splitlines()[-1] == (
        f"result in {run}/eval/{name}.json, pictures in {run}/eval/{name}/report"
    )
    written = json.loads((run / "eval" / f"{name}.json").read_text())
    assert (written["protocol"], written["splits"], written["num_images"]) == (
        "voc10",
        ["eval:1"],
        1,
    )
    assert (run / "eval" / name / "report" / "detections.jpg").is_file()
    assert own.read_text() == "the run's own result"
    # One scene cannot have all six classes: those without an object are named.
    absent = [name for name, ap in written["ap"].items() if ap is None]
    assert absent
    assert f"no object to find, therefore not in the mAP: {', '.join(absent)}" in said


def test_another_protocol_leaves_the_runs_own_pictures_alone(run, tmp_path):
    picture = run / "report" / "ap_by_class.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_text("of the run's own protocol")
    output = tmp_path / "deep" / "result.json"
    _, said = evaluate_aloud(run, step=30, protocol="coco", output=output, results_format="devkit")
    assert "coco, step 30" in said
    assert picture.read_text() == "of the run's own protocol"
    folder = run / "eval" / "30-coco"
    assert (folder / "report" / "ap_by_class.png").is_file()
    assert not (folder / "detections.json").exists()
    # Nothing was learned from other data: the network is not pretrained.
    assert (folder / "devkit" / "comp3_det_eval_6_disc.txt").is_file()
    written = json.loads(output.read_text())
    assert written == json.loads((run / "eval" / "30-coco.json").read_text())
    assert (written["protocol"], written["mAP"]) == ("coco", written["protocols"]["coco"]["mAP"])


def test_what_other_data_left_out_or_corrected_is_said(tmp_path):
    tree = VocTree(tmp_path / "data")
    known, unknown = SyntheticSource.class_names[0], object_xml("zebra")
    clipped = object_xml(known, (10, 10, 130, 30))
    tree.add("000001", xml=annotation_xml(object_xml(known), unknown))
    tree.add("000002", xml=annotation_xml(clipped, unknown))
    tree.add("000003", xml="<annotation>")
    tree.list("val", ["000001", "000002", "000003"])
    config = tiny_config(data__source="folder", data__root=str(tree.root))
    run = save_run(tmp_path / "run", {10: None}, config)
    _, said = evaluate_aloud(run, splits=["own:val"], unknown_classes="skip")
    notes = [
        "1 images left out, annotation is not well-formed XML: own/000003",
        "2 objects left out, class is not in class_names: own/000001 object 2 (zebra), ...",
        f"1 corrected in the data, box clipped to the image: own/000002 object 1 ({known})",
    ]
    assert said.splitlines()[2:5] == notes
    assert json.loads((run / "eval" / "10-own_val.json").read_text())["notes"] == notes


def test_detections_that_cannot_be_written(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    folder = copy / "eval" / "20-eval_2"
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")
    with pytest.raises(UserError, match=r"write detections in .*/20-eval_2, found: File exists"):
        evaluate.evaluate_run(copy, step=20, splits=["eval:2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 15}, r"step must be 'best', 'latest' or one of \[10, 20, 30\], got 15"),
        ({"step": "newest"}, "got 'newest'"),
        ({"protocol": "voc12"}, "protocol must be one of .* got 'voc12'"),
        ({"splits": ["val"]}, "'val'"),
        ({"splits": [","]}, "splits is empty"),
    ],
)
def test_mistakes_are_the_users(run, options, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate_run(run, **options)


def test_a_batch_must_fit_the_devices(tmp_path):
    save_run(tmp_path, {1: None}, tiny_config(eval__batch_size=6))
    with pytest.raises(UserError, match=r"config\.eval\.batch_size=6 cannot be split evenly"):
        evaluate.evaluate_run(tmp_path)
