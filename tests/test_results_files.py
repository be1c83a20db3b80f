"""Files of detections: written, read back, read from other programs, and refused."""

import json

import numpy as np
import pytest
from annotated_sets import found, images_of

from yolov1_jax.config import UserError
from yolov1_jax.evaluation.results_files import coco_results, read_results, results_files
from yolov1_jax.yolo.detections import Detections

IMAGES = images_of("VOC2007/000007", "VOC2007/000005")
ROW = {"image_id": 5, "category_id": 1, "bbox": [0, 1, 30, 39], "score": 0.5}
LINE = "000005 0.5 1 2 30 40\n"


def read_json(folder, content, images=IMAGES, **options):
    path = folder / "found.json"
    path.write_text(json.dumps(content))
    return read_results(path, images, **options)


def read_devkit(folder, files, images=IMAGES, beginning=""):
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return read_results(folder / beginning, images)


def labels_of(results):
    return [one.labels.tolist() for one in results.detections]


def random_detections(dtype=np.float32):
    """For two images, as a network gives them: numbers in [0, 1], times the size of the image."""
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.random((2, 2, 60, 2), dtype), axis=0)
    boxes = np.concatenate([low, high], axis=-1) * np.array([500, 375, 500, 375])
    scores = rng.choice([0.1, 1 / 3, 1e-30, 1.0], (2, 60)).astype(dtype)
    return list(map(Detections, boxes, scores, rng.integers(0, 2, (2, 60))))


@pytest.mark.parametrize("results_format", ["coco", "devkit", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whatever_is_written_comes_back(tmp_path, results_format, dtype):
    detections = [*random_detections(dtype), found()]
    images = images_of("a/two words", "a/1", "b/1", class_names=("traffic light", "a/b%"))
    files = results_files(detections, images, results_format=results_format, set_name="val")
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    paths = {"coco": ["detections.json"], "devkit": ["devkit", "devkit/comp4_det_val"]}
    paths["both"] = paths["coco"] + paths["devkit"]
    for path in paths[results_format]:
        results = read_results(tmp_path / path, images)
        for one, other in zip(results.detections, detections, strict=True):
            # The devkit's files go by class.
            orders = [np.argsort(each.labels, kind="stable") for each in (one, other)]
            np.testing.assert_array_equal(one.labels[orders[0]], other.labels[orders[1]])
            np.testing.assert_array_equal(one.scores[orders[0]], other.scores[orders[1]])
            boxes = one.boxes_xyxy[orders[0]], other.boxes_xyxy[orders[1]]
            np.testing.assert_allclose(*boxes, rtol=0, atol=1e-12)
        assert "1 of 3 images have no detections" in results.notes


def test_files_of_darknets_valid(tmp_path):
    """print_yolo_detections: "%s %f %f %f %f %f", the box as it is."""
    detections = [found(((0.0, 2 / 3, 30, 40.5), 1 / 3, 1)), found()]
    files = results_files(detections, IMAGES, results_format="darknet", set_name="test")
    assert files == {
        "darknet/comp4_det_test_cat.txt": "",
        "darknet/comp4_det_test_dog.txt": "000007 0.333333 0.000000 0.666667 30.000000 40.500000\n",
    }
    for path, text in files.items():
        (tmp_path / path.rsplit("/")[-1]).write_text(text)
    assert read_results(tmp_path, IMAGES).detections[0].scores.tolist() == [0.333333]


def test_files_are_those_of_coco_and_the_devkit():
    detections = [
        found(((1, 2, 30, 40.5), 0.5, 1), ((3, 4, 5, 6), 0.25, 0)),
        found(((7, 8, 9, 10), 0.125, 1)),
    ]
    files = results_files(detections, IMAGES, results_format="both", set_name="test")
    row = {"image_id": 7, "category_id": 2, "bbox": [0, 1, 30, 39.5], "score": 0.5}
    assert json.loads(files["detections.json"])[0] == row
    assert json.loads(files["annotations.json"])["images"][0]["id"] == 7
    assert files["devkit/comp4_det_test_cat.txt"] == "000007 0.25 3.0 4.0 5.0 6.0\n"
    assert files["devkit/comp4_det_test_dog.txt"] == (
        "000007 0.5 1.0 2.0 30.0 40.5\n000005 0.125 7.0 8.0 9.0 10.0\n"
    )


def test_images_and_classes_by_number_or_name(tmp_path):
    for image in (7, 7.0, "VOC2007/000007", "000007", "000007.jpg"):
        for category in (2, "dog"):
            row = {**ROW, "image_id": image, "category_id": category, "segmentation": [], "id": 9}
            results = read_json(tmp_path, [row])
            assert labels_of(results) == [[1], []]
            np.testing.assert_array_equal(results.detections[0].boxes_xyxy, [[1, 2, 30, 40]])


def test_files_with_images_and_categories_of_their_own(tmp_path):
    tables = {
        "images": [{"id": 1, "file_name": "a/000007.jpg"}, {"id": 5, "file_name": "000005.jpg"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 18, "name": "cat"}],
    }
    rows = [{**ROW, "image_id": 1}, {**ROW, "category_id": 18}]
    assert labels_of(read_json(tmp_path, {**tables, "annotations": rows})) == [[1], [0]]
    # What they lack is not looked up elsewhere.
    for wrong in ({"image_id": 7}, {"category_id": 2}):
        with pytest.raises(UserError, match=f"found '{next(iter(wrong))}"):
            read_json(tmp_path, {**tables, "annotations": [{**ROW, **wrong}]})


def test_boxes_in_another_format_are_noted(tmp_path):
    right = random_detections()
    images = images_of("a/1", "a/2", sizes=(375, 500))
    rows = coco_results(right, images)
    assert read_json(tmp_path, rows, images).notes == []
    for row in rows:
        row["bbox"][2:] = [row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]]
    (note,) = read_json(tmp_path, rows, images).notes
    assert "corner" in note
    # The devkit takes boxes that end before they begin, as false positives.
    files = {"comp4_det_test_cat": "1 0.5 10 10 5 20\n1 0.5 10 10 20 5\n2 0.5 5 5 5 5\n"}
    results = read_devkit(tmp_path, files, images)
    assert labels_of(results) == [[0, 0], [0]]
    assert results.notes[1].startswith("2 boxes end before they begin")


def test_windows_tabs_scientific_notation_and_an_absent_class(tmp_path):
    (tmp_path / "comp3_det_test_cat.txt").write_bytes(b"\xef\xbb\xbf000005\t5e-1  1 2 30 4e1\r\n")
    others = {"notes": "no detections", "comp4": "either", "comp3_det_test_cow": ""}
    results = read_devkit(tmp_path, others)
    np.testing.assert_array_equal(results.detections[1].boxes_xyxy, [[1, 2, 30, 40]])
    assert results.detections[1].scores.tolist() == [0.5]
    assert results.notes[0].endswith("of: dog")


def test_class_names_within_class_names(tmp_path):
    images = images_of("a/1", class_names=("cell", "blood_cell", "test_blood_cell"))
    line = "1 0.5 1 2 30 40\n"
    files = {"comp4_det_my_cell": line, "comp4_det_my_test_blood_cell": line * 2}
    assert labels_of(read_devkit(tmp_path, files, images)) == [[0, 2, 2]]
    # The beginning of the paths says what the names alone do not.
    assert labels_of(read_devkit(tmp_path, {}, images, "comp4_det_my_test")) == [[1, 1]]


@pytest.mark.parametrize(
    "other", ["comp3_det_test_dog", "comp4_det_test2_dog", "comp4_det_val_cow"]
)
def test_files_of_two_sets_need_a_choice(tmp_path, other):
    with pytest.raises(UserError, match="one set"):
        read_devkit(tmp_path, {"comp4_det_test_cat": LINE, other: LINE})
    assert labels_of(read_devkit(tmp_path, {}, beginning="comp4_det_test")) == [[], [0]]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_json, {"step": 3, "mAP": 0.5}, "list of detections"),  # the result of an evaluation
        (read_json, [ROW, {**ROW, "bbox": [1, 2, 3]}], "detection 2"),
        (read_json, [{"image_id": 5, "category_id": 1, "bbox": [0, 1, 30, 39]}], "score"),
        (read_json, [{**ROW, "score": 10**400}], "detection 1"),
        (read_json, [{**ROW, "image_id": [5]}], "detection 1"),
        (read_json, {"annotations": [ROW], "images": [{"id": 5}]}, "images"),
        (read_json, [{**ROW, "category_id": 0}], "'category_id 0'"),
        (read_json, [{**ROW, "category_id": "dogs"}], r"'dogs' \(nearest: dog.*unknown_classes"),
        (read_json, [{**ROW, "image_id": 6}], "found '6'.*unknown_images"),
        (read_devkit, {}, "found none"),
        (read_devkit, {"comp4_det_test_cow": LINE}, "found '.*cow'"),
        (read_devkit, {"comp4_det_t_cat": LINE, "comp4_det_t_do": "\n" + LINE}, "do.txt, line 2"),
        (read_devkit, {"comp4_det_test_cat": "000005 0.5 1 2 30\n"}, "line 1: expected '<image>"),
        (read_devkit, {"comp4_det_test_cat": "000005 nan 1 2 30 40\n"}, "nan"),
        (read_devkit, {"comp4_det_test_cat": "000006 0.5 1 2 3 4\n"}, "found '000006'"),
    ],
)
def test_refuses(tmp_path, read, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox"])
def test_whatever_is_in_a_file_the_message_is_short(tmp_path, key):
    with pytest.raises(UserError) as error:
        read_json(tmp_path, [{**ROW, key: [["x" * 1_000_000]]}])
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("path", ["nothing.json", "nowhere/comp4_det_test", "a" * 300, "x.txt"])
def test_refuses_paths_without_detections(tmp_path, path):
    (tmp_path / "x.txt").write_text(LINE)  # one of the devkit's files instead of its folder
    with pytest.raises(UserError, match="COCO results JSON or"):
        read_results(tmp_path / path, IMAGES)


def test_unknown_classes_and_images_are_skipped_and_counted(tmp_path):
    rows = [{**ROW, "category_id": "cow"}, ROW, {**ROW, "image_id": 9}, {**ROW, "image_id": "9"}]
    results = read_json(tmp_path, rows, unknown_classes="skip", unknown_images="skip")
    assert labels_of(results) == [[], [0]]
    assert [note.split()[0] for note in results.notes if "left out" in note] == ["1", "2"]
    for policy in ("unknown_classes", "unknown_images"):
        with pytest.raises(UserError):
            read_json(tmp_path, rows, **{policy: "skip"})
