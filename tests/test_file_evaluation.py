"""Detections from files, scored against runs, sources and annotations as the program does it."""

import io
import json
import pathlib
import subprocess
import sys

import pytest
from end_to_end import ROOT
from rich.console import Console
from tiny_run import tiny_config
from voc_tree import VocTree, annotation_xml, encode, object_xml, pixels

from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.coco_files import coco_annotations, coco_results
from yolov1_jax.evaluation.evaluator import annotated_images
from yolov1_jax.evaluation.file_evaluation import DetectionsOf, evaluate_file
from yolov1_jax.training import run_folder
from yolov1_jax.yolo.detections import Detections

CAT, DOG = object_xml("cat", (1, 1, 10, 10)), object_xml("dog", (21, 21, 40, 40))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set of two images with a cat each, and a dog in the first; and files of detections."""
    tree = VocTree(tmp_path_factory.mktemp("data"))
    tree.add("000001", xml=annotation_xml(CAT, DOG))
    tree.add("000002", xml=annotation_xml(CAT))
    tree.list("val", ["000001", "000002"])
    tree.list("one", ["000001"])
    # A cat of two is found, and the dog.
    tree.write("results/comp4_det_val_cat.txt", "000001 0.9 1 1 10 10\n000002 0.8 1 1 10 4\n")
    tree.write("results/comp4_det_val_dog.txt", "000001 0.7 21 21 40 40\n")
    return tree.root


def evaluate_aloud(path, of, **options):
    console = Console(file=io.StringIO(), width=80)
    result = evaluate_file(path, of, console=console, **options)
    return result, console.file.getvalue()


FOLDER = {"source": "folder", "splits": ["own:val"]}


def test_against_a_source(root, tmp_path):
    output = tmp_path / "result.json"
    of = DetectionsOf(**FOLDER, root=str(root))
    result, said = evaluate_aloud(root / "results", of, output=output)
    assert result.protocol == "voc07"
    # 11 points: levels 0 to 0.5 of the cats.
    assert result.evaluation.classes["cat"].ap == pytest.approx(6 / 11)
    assert result.evaluation.classes["dog"].ap == 1
    assert said.splitlines()[:2] == [
        f"detections: {root}/results",
        "data: own:val, 2 images",
    ]
    assert said.splitlines()[-1] == f"result in {output}"
    assert "AP50" in said
    written = json.loads(output.read_text())
    assert written["mAP"] == pytest.approx((6 / 11 + 1) / 2)
    assert written["protocols"]["voc10"]["ap"] == {"cat": 0.5, "dog": 1.0}
    assert set(written["protocols"]) == {"voc07", "voc10", "coco"}
    assert written["step"] is None
    assert written["detections"] == f"{root}/results"
    assert written["notes"] == []
    assert written["evaluation_set"]["source"] == "folder"
    assert written["evaluation_set"]["splits"] == written["splits"] == ["own:val"]


def test_class_names_may_be_given(root):
    names = ("dog", "cow", "cat")
    of = DetectionsOf(**FOLDER, root=str(root), class_names=names)
    result, said = evaluate_aloud(root / "results", of, protocol="voc10")
    assert tuple(result.evaluation.classes) == names
    assert result.evaluation.mean_ap == 0.75
    assert "no file, so no detections, of: cow" in said
    assert "no object to find, therefore not in the mAP: cow" in said


def test_detections_of_more_images_than_there_are(root):
    of = DetectionsOf(source="folder", root=str(root), splits=["own:one"])
    with pytest.raises(UserError, match=r"cat\.txt, line 2: expected an image .* found '000002'"):
        evaluate_file(root / "results", of)
    result, said = evaluate_aloud(root / "results", of, unknown_images="skip")
    assert result.evaluation.mean_ap == 1
    assert "1 detections left out, image is not in the annotations: 000002, ..." in said


def test_against_a_run(root, tmp_path):
    """Its data, its class names, its protocol; no checkpoint is needed."""
    config = tiny_config(
        data__source="folder",
        data__root=str(root),
        data__eval=("own:val",),
        model__class_names=("dog", "cat"),
        eval__protocol="voc10",
    )
    run_folder.write_config(tmp_path, config)
    result, _ = evaluate_aloud(root / "results", DetectionsOf(workdir=tmp_path))
    assert result.protocol == "voc10"
    assert list(result.evaluation.classes) == ["dog", "cat"]
    assert result.evaluation.mean_ap == 0.75
    of = DetectionsOf(workdir=tmp_path, splits=["own:one"], unknown_classes="skip")
    result, _ = evaluate_aloud(root / "results", of, unknown_images="skip", protocol="voc07")
    assert result.protocol == "voc07"
    assert result.evaluation.num_images == 1
    # The seed protocol needs more than detections.
    with pytest.raises(UserError, match="'seed' needs the network's output"):
        evaluate_file(root / "results", DetectionsOf(workdir=tmp_path), protocol="seed")


@pytest.fixture
def coco(tmp_path):
    """Synthetic scenes as COCO's files, every object found."""
    images = annotated_images(SyntheticSource("eval", num_images=4, image_size=64))
    detections = [
        Detections(truth.boxes_xyxy, 0.5 + 0 * truth.labels, truth.labels)
        for truth in images.ground_truth
    ]
    (tmp_path / "found.json").write_text(json.dumps(coco_results(detections, images)))
    (tmp_path / "instances.json").write_text(json.dumps(coco_annotations(images)))
    return tmp_path


def test_against_annotations_and_synthetic_scenes(coco):
    of = DetectionsOf(annotations=str(coco / "instances.json"))
    result, said = evaluate_aloud(coco / "found.json", of)
    assert result.evaluation.mean_ap == 1
    assert f"data: {coco}/instances.json, 4 images" in said
    scenes = DetectionsOf(source="synthetic", splits=["eval:4"], image_size=64)
    other, _ = evaluate_aloud(coco / "found.json", scenes)
    assert other.evaluation.mean_ap == 1
    assert other.images.fingerprint() == result.images.fingerprint()
    names = tuple(reversed(result.images.class_names))
    of = DetectionsOf(annotations=str(coco / "instances.json"), class_names=names)
    turned, _ = evaluate_aloud(coco / "found.json", of)
    assert tuple(turned.evaluation.classes) == names
    assert turned.evaluation.mean_ap == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one of --workdir, --source, --annotations .* got none"),
        ({**FOLDER, "annotations": "x.json"}, "got --source and --annotations"),
        ({"source": "folder"}, "--splits is missing"),
        ({"source": "folder", "splits": [","]}, "--splits is missing"),
        ({"source": "synthetic", "splits": ["eval"]}, "--image_size is missing"),
        ({"annotations": "x.json", "splits": ["a:b"]}, "--splits says nothing about --annotations"),
        ({"workdir": "run", "image_size": 64}, "--image_size says nothing about --workdir"),
        ({"annotations": "nowhere.json"}, r"expected JSON in nowhere\.json"),
        ({**FOLDER, "splits": ["own:test"]}, r"expected the list .*test\.txt"),
    ],
)
def test_mistakes_are_the_users(root, options, message):
    if "root" not in options and options.get("source") == "folder":
        options = {**options, "root": str(root)}
    with pytest.raises(UserError, match=message):
        evaluate_file(root / "results", DetectionsOf(**options))


def test_what_the_data_left_out_or_corrected_is_said(tmp_path):
    tree = VocTree(tmp_path)
    size = {"image": encode(pixels(40, 100)), "dataset": "own"}
    clipped = object_xml("cat", (11, 11, 130, 30))
    tree.add("000001", xml=annotation_xml(clipped, size=(40, 100)), **size)
    tree.add("000002", xml=annotation_xml(CAT, object_xml("cat", (9, 9, 9, 20))))
    tree.add("000003", xml="<annotation>")
    tree.list("val", ["000001", "000002", "000003"])
    tree.write("results/comp4_det_val_cat.txt", "000001 0.9 11 11 130 30\n000002 0.8 1 1 10 10\n")
    output = tmp_path / "result.json"
    of = DetectionsOf(**FOLDER, root=str(tmp_path))
    _, said = evaluate_aloud(tmp_path / "results", of, output=output)
    notes = [
        "1 images left out, annotation is not well-formed XML: own/000003",
        "1 objects left out, box is empty or inverted: own/000002 object 2 (cat)",
        "1 corrected in the data, box clipped to the image: own/000001 object 1 (cat)",
    ]
    assert said.splitlines()[2:5] == notes
    assert json.loads(output.read_text())["notes"] == notes


def test_notes_of_annotations_come_before_those_of_detections(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"][0]["bbox"][2] = 0
    (coco / "instances.json").write_text(json.dumps(content))
    (coco / "found.json").write_text("[]")
    of = DetectionsOf(annotations=str(coco / "instances.json"))
    _, said = evaluate_aloud(coco / "found.json", of)
    assert said.splitlines()[2:4] == [
        "1 objects have no width or no height, so that nothing can find them: annotation 1",
        "4 of 4 images have no detections",
    ]


@pytest.mark.parametrize(
    ("path", "output", "message"),
    [
        ("results", "", "expected the path of a file to write, found '.'"),
        (
            "results",
            "results/comp4_det_val_dog.txt/result.json",
            "expected to write .*/result.json, found: ",
        ),
        ("a" * 300, None, "expected detections in .*aaa, found nothing there"),
        ("nested.json", None, "expected JSON in .*nested.json, found: maximum recursion depth"),
        ("malformed.json", None, r"malformed.json, detection 1: expected image_id, category_id"),
    ],
    ids=["empty output", "output in a file", "long path", "nested", "malformed"],
)
def test_files_that_cannot_be_read_or_written(root, path, output, message):
    (root / "nested.json").write_text("[" * 100_000)
    (root / "malformed.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": "1234"}]')
    of = DetectionsOf(**FOLDER, root=str(root))
    place = pathlib.Path(output and root / output) if output is not None else None
    with pytest.raises(UserError, match=message):
        evaluate_file(root / path, of, output=place)


# -------------------------------------------------------------------------------- the program


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "yolov1_jax.evaluate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program(root, tmp_path):
    flags = [f"--detections={root}/results", "--source=folder", f"--root={root}"]
    output = tmp_path / "result.json"
    ended = start(*flags, "--splits=own:val", "--class_names=cat,dog", f"--output={output}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == f"detections: {root}/results"
    assert json.loads(output.read_text())["protocols"]["voc10"]["mAP"] == 0.75
    # Of what there is nothing to evaluate, there is no step either.
    ended = start(*flags, "--splits=own:val", "--step=latest")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --step is of a run that is evaluated")
    # A run has annotations of its own.
    ended = start(f"--workdir={tmp_path}", "--annotations=instances.json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --annotations is of --detections, which is missing")
    assert ended.stderr.count("\n") == 1
