"""The evaluate command: what it prints, what it writes, and what it refuses."""

import json

import pytest
from annotated_sets import found, images_of, truth
from tiny_run import save_run, tiny_config
from voc_tree import VocTree, annotation_xml, object_xml

from yolov1_jax import evaluate
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.evaluation.results_files import results_files
from yolov1_jax.training import run_folder

CAT, DOG = object_xml("cat", (1, 1, 10, 10)), object_xml("dog", (21, 21, 40, 40))


@pytest.fixture
def command(capsys):
    """Runs the command; returns the lines that it printed, or the one that says why it refused."""

    def start(refused=False, **flags):
        code = evaluate.main([f"--{name}={value}" for name, value in flags.items()])
        printed = capsys.readouterr()
        assert code == (2 if refused else 0), printed
        assert printed.err.count("\n") == refused
        return printed.err if refused else printed.out.splitlines()

    return start


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3, 30: None})


def test_a_run_is_evaluated_at_its_best_step(run, command):
    printed = command(workdir=run)
    assert printed[0].startswith(f"{run}: step 10, the best by mAP")
    assert printed[1] == "data: eval:6, 6 images"
    assert printed[-1] == f"result in {run}/eval/10.json, pictures in {run}/report"
    written = read(run / "eval" / "10.json")
    assert (written["step"], written["protocol"], written["num_images"]) == (10, "voc07", 6)
    assert written["splits"] == written["evaluation_set"]["splits"] == ["eval:6"]
    assert written["evaluation_set"]["source"] == "synthetic"
    assert set(written["protocols"]) == {"voc07", "voc10", "reference", "coco"}
    assert written["protocols"]["voc07"] == {"mAP": written["mAP"], "ap": written["ap"]}
    assert (run / "report" / "ap_by_class.png").is_file()
    assert (run / "report" / "detections.jpg").is_file()


def test_a_run_of_classification_has_its_accuracy(command, tmp_path):
    run = save_run(tmp_path, {10: 0.5, 20: 0.3}, tiny_config(task="classification"))
    printed = command(workdir=run)
    assert printed[0].startswith(f"{run}: step 10, the best by top1")
    written = read(run / "eval" / "10.json")
    images = written["evaluation_set"]["num_images"]
    assert printed[1] == f"data: eval:6, {images} images"
    assert images > 6
    assert (written["top1"] * images) % 1 == 0
    shown = [line for line in printed if "top-1" in line or "top-5" in line][1:]
    assert [line.split()[3] for line in shown] == [f"{written[k]:.1%}" for k in ("top1", "top5")]
    assert (run / "report" / "report.html").is_file()
    assert "--errors" in command(refused=True, workdir=run, errors=True)


def test_errors_of_files_are_printed_and_written(command, tmp_path):
    pytest.importorskip("hotcoco")
    annotations = images_of("left", "right", truths=[truth(((1, 1, 9, 9), 0, False)), truth()])
    files = results_files(
        [found(((1, 1, 9, 9), 0.9, 1)), found()], annotations, results_format="coco", set_name=""
    )
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = {name.removesuffix(".json"): tmp_path / name for name in files}
    printed = command(**paths, output=tmp_path / "out.json", errors=True)
    assert "  left: dog 0.90, labelled cat" in printed
    assert "  left: 0 found, 1 false, 1 missed" in printed
    written = read(tmp_path / "out" / "errors.json")
    assert written["kinds"]["wrong class"]["count"] == 1
    assert written["labels_to_check"][0]["labelled"] == "cat"


def test_files_of_a_run_score_the_same_as_the_run(run, command, tmp_path):
    command(workdir=run, step="latest", results_format="both")
    written = read(run / "eval" / "30.json")
    folder = run / "eval" / "30"
    sources = {
        folder / "detections.json": {"annotations": folder / "annotations.json"},
        folder / "devkit": {"workdir": run},
    }
    for detections, ground_truth in sources.items():
        command(detections=detections, **ground_truth, output=tmp_path / "file.json")
        again = read(tmp_path / "file.json")
        assert again["evaluation_set"]["fingerprint"] == written["evaluation_set"]["fingerprint"]
        assert again["num_detections"] == written["num_detections"] > 0
        assert set(again["protocols"]) == set(written["protocols"]) - {"reference"}
        for protocol, numbers in again["protocols"].items():
            assert numbers.keys() == written["protocols"][protocol].keys()
            assert numbers["ap"] == pytest.approx(written["protocols"][protocol]["ap"], abs=1e-9)


def test_other_data_and_protocols_get_files_of_their_own(run, command, tmp_path):
    own = [run / "eval" / "20.json", run / "report" / "ap_by_class.png"]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("the run's own")
    flags = {"step": 20, "protocol": "voc10", "splits": "eval:1", "results_format": "devkit"}
    printed = command(workdir=run, **flags)
    folder = run / "eval" / "20-eval_1-voc10"
    written = read(folder.with_suffix(".json"))
    assert (written["protocol"], written["splits"]) == ("voc10", ["eval:1"])
    assert (folder / "report" / "detections.jpg").is_file()
    assert (folder / "devkit" / "comp4_det_eval_1_disc.txt").is_file()
    assert not (folder / "detections.json").exists()
    assert all(path.read_text() == "the run's own" for path in own)
    # One image cannot have objects of all six classes: the others are named.
    absent = [name for name, ap in written["ap"].items() if ap is None]
    assert absent
    assert any(line.endswith(f"not in the mAP: {', '.join(absent)}") for line in printed)


@pytest.mark.parametrize(
    ("output", "file"), [("deep/result.json", "deep/result.json"), ("folder", "folder/20.json")]
)
def test_everything_goes_where_it_is_asked_for(run, command, tmp_path, output, file):
    before = sorted(run.rglob("*"))
    command(workdir=run, step=20, output=tmp_path / output)
    assert sorted(run.rglob("*")) == before
    file = tmp_path / file
    assert read(file)["step"] == 20
    for path in ("detections.json", "annotations.json", "report/detections.jpg"):
        assert (file.with_suffix("") / path).is_file()


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(command, tmp_path):
    run = save_run(tmp_path / "run", {10: 0.5}, tiny_config(data__eval=("no such split",)))
    (run / "eval").write_text("in the way of the folder")
    assert "--output=FOLDER" in command(refused=True, workdir=run)


def test_what_other_data_left_out_or_corrected_is_said(command, tmp_path):
    tree = VocTree(tmp_path / "data")
    known, unknown = SyntheticSource.class_names[0], object_xml("zebra")
    tree.add("000001", xml=annotation_xml(object_xml(known), unknown))
    tree.add("000002", xml=annotation_xml(object_xml(known, (10, 10, 130, 30))))
    tree.add("000003", xml="<annotation>")
    tree.list("val", ["000001", "000002", "000003"])
    config = tiny_config(data__source="folder", data__root=str(tree.root))
    run = save_run(tmp_path / "run", {10: None}, config)
    printed = command(workdir=run, splits="own:val", unknown_classes="skip")
    notes = read(run / "eval" / "10-own_val.json")["notes"]
    assert printed[2:6] == notes
    assert notes[0] == "data: VOC XML (lists in ImageSets/Main/)"
    names = [note.split(":")[-1].split()[0] for note in notes[1:]]
    assert names == ["own/000003", "own/000001", "own/000002"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A cat in each of two images, a dog in the first; a cow in another split; and detections.

    The images are not there: only annotations are needed.
    """
    tree = VocTree(tmp_path_factory.mktemp("data"))
    for name, objects in {"1": (CAT, DOG), "2": (CAT,), "3": (object_xml("cow"),)}.items():
        tree.write(f"own/Annotations/00000{name}.xml", annotation_xml(*objects))
    tree.list("val", ["000001", "000002"])
    tree.list("one", ["000001"])
    # The second cat in the file is right and has the same score as the first; so is the dog. The
    # cow is not in "val", but its class is known; nobody knows the bird.
    tree.write("results/comp4_det_val_cat.txt", "000002 0.9 1 1 10 4\n000001 0.9 1 1 10 10\n")
    for name in ("dog", "cow", "bird"):
        tree.write(f"results/comp4_det_val_{name}.txt", "000001 0.7 21 21 40 40\n")
    return tree


@pytest.fixture
def folder(tree):
    return {"detections": tree.root / "results", "source": "folder", "root": tree.root}


def test_detections_of_a_folder(tree, folder, command, tmp_path):
    folder |= {"splits": "own:val", "output": tmp_path / "result.json"}
    assert "'bird'" in command(refused=True, **folder)
    printed = command(**folder, unknown_classes="skip")
    assert printed[:2] == [f"detections: {tree.root}/results", "data: own:val, 2 images"]
    written = read(tmp_path / "result.json")
    # Precision 1/2 at six of 11 levels of recall, and at half of the area. There is no cow here.
    assert written["ap"] == {"cat": pytest.approx(3 / 11), "cow": None, "dog": 1}
    assert written["mAP"] == pytest.approx((3 / 11 + 1) / 2)
    assert written["protocols"]["voc10"]["ap"] == {"cat": 0.25, "cow": None, "dog": 1.0}
    assert written["step"] is None
    assert written["detections"] == f"{tree.root}/results"
    notes = written["notes"]
    assert printed[2 : 2 + len(notes)] == notes
    assert notes[-1].startswith("1 detections left out")
    assert written["evaluation_set"]["source"] == "folder"


def test_detections_on_the_data_of_a_run(tree, folder, command, tmp_path):
    """Its data and its class names; no checkpoint is needed."""
    data = {"data__source": "folder", "data__root": str(tree.root), "data__eval": ("own:val",)}
    run_folder.write_config(tmp_path, tiny_config(**data, model__class_names=("dog", "cat")))
    flags = {"detections": folder["detections"], "workdir": tmp_path, "unknown_classes": "skip"}
    output = tmp_path / "result.json"
    command(**flags, protocol="voc10", output=output)
    assert read(output)["ap"] == {"dog": 1.0, "cat": 0.25}
    assert "network" in command(refused=True, **flags, protocol="reference")
    # Detections of more images than there are.
    assert "000002" in command(refused=True, **flags, splits="own:one")
    command(**flags, splits="own:one", unknown_images="skip", output=output)
    assert read(output)["evaluation_set"]["splits"] == ["own:one"]
    assert any("images: 000002" in note for note in read(output)["notes"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"workdir": "RUN", "step": 15}, "[10, 20, 30]"),
        ({"workdir": "RUN", "protocol": "voc12"}, "voc07"),
        ({"workdir": "RUN", "splits": "val"}, "val"),
        ({"workdir": "RUN", "root": "."}, "synthetic"),
        ({"workdir": "RUN", "annotations": "instances.json"}, "--detections"),
        ({"workdir": "nowhere"}, "config.json"),
        ({"detections": "x.json"}, "--annotations"),
        ({"detections": "x.json", "source": "folder", "annotations": "y.json"}, "--source and"),
        ({"detections": "x.json", "source": "folder"}, "--splits"),
        ({"detections": "x.json", "annotations": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_mistakes(run, command, flags, message):
    if flags.get("workdir") == "RUN":
        flags = {**flags, "workdir": run}
    assert message in command(refused=True, **flags)
