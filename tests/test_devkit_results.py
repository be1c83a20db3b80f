"""The devkit's text files: written, read, and refused."""

import numpy as np
import pytest
from annotated_sets import found, images_of

from yolov1_jax.evaluation.devkit_results import read_devkit_results, write_devkit_results
from yolov1_jax.evaluation.results import ResultsFileError
from yolov1_jax.yolo.detections import Detections

IMAGES = images_of("VOC2007/000005", "VOC2007/000007")
LINE = "000005 0.5 1 2 30 40\n"


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_the_files_are_those_of_the_devkit(tmp_path):
    detections = [
        found(((1, 2, 30, 40.5), 0.5, 1), ((3, 4, 5, 6), 0.25, 0)),
        found(((7, 8, 9, 10), 0.125, 1)),
    ]
    paths = write_devkit_results(tmp_path / "new", detections, IMAGES, set_name="test")
    assert [path.name for path in paths] == ["comp4_det_test_cat.txt", "comp4_det_test_dog.txt"]
    assert paths[0].read_text() == "000005 0.25 3.0 4.0 5.0 6.0\n"
    assert paths[1].read_text() == "000005 0.5 1.0 2.0 30.0 40.5\n000007 0.125 7.0 8.0 9.0 10.0\n"


def test_every_digit_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    detections = []
    for dtype in (np.float32, np.float64):
        boxes = rng.uniform(0, 500, (200, 4)).astype(dtype)
        boxes[:, 2:] += 500
        scores = rng.choice([1e-30, 0.1, 1 / 3, 1.0], 200).astype(dtype)
        detections.append(Detections(boxes, scores, rng.integers(0, 2, 200)))
    write_devkit_results(tmp_path, detections, IMAGES, set_name="test", competition="comp3")
    results = read_devkit_results(tmp_path, IMAGES)
    assert results.notes == []
    for one, other in zip(results.detections, detections, strict=True):
        by_class = np.argsort(other.labels, kind="stable")
        for field, other_field in zip(one, other, strict=True):
            np.testing.assert_array_equal(field, other_field[by_class])


def test_the_order_of_the_lines_is_kept(tmp_path):
    text = "000007 0.5 1 1 9 9\n000005 0.5 1 1 9 9\n\n000007 0.5 2 2 9 9\n"
    results = read_devkit_results(write(tmp_path, comp4_det_test_dog=text), IMAGES)
    assert [order.tolist() for order in results.file_order] == [[1], [0, 2]]
    assert [one.boxes_xyxy[:, 0].tolist() for one in results.detections] == [[1], [1, 2]]


def test_names_with_spaces_and_signs(tmp_path):
    images = images_of("mine/two words", "mine/b", class_names=("traffic light", "a/b 100%"))
    detections = [found(((1, 2, 3, 4), 0.5, 0)), found(((1, 2, 3, 4), 0.5, 1))]
    paths = write_devkit_results(tmp_path, detections, images, set_name="val")
    assert [path.name for path in paths] == [
        "comp4_det_val_traffic light.txt",
        "comp4_det_val_a%2Fb 100%25.txt",
    ]
    results = read_devkit_results(tmp_path, images)
    assert [one.labels.tolist() for one in results.detections] == [[0], [1]]


def test_what_is_absent_is_not_detected(tmp_path):
    folder = write(tmp_path, comp4_det_test_dog=LINE, notes="no detections", comp4="either")
    results = read_devkit_results(folder, IMAGES)
    assert [len(one.labels) for one in results.detections] == [1, 0]
    assert results.notes == [
        "no file, so no detections, of: cat",
        "1 of 2 images have no detections",
    ]


def test_windows_and_scientific_notation(tmp_path):
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_bytes(b"\xef\xbb\xbf000005\t5e-1  1 2 30 4e1\r\n")
    results = read_devkit_results(tmp_path, IMAGES)
    np.testing.assert_array_equal(results.detections[0].boxes_xyxy, [[1, 2, 30, 40]])
    assert results.detections[0].scores.tolist() == [0.5]


# ------------------------------------------------------------------------- which file is whose


def test_class_names_within_class_names(tmp_path):
    images = images_of("a/1", class_names=("cell", "blood_cell", "test_blood_cell"))
    line = "1 0.5 1 2 30 40\n"
    # All begin with comp4_det_my: the sets "my_blood" and "my_test" would leave others out.
    folder = write(tmp_path, comp4_det_my_cell=line, comp4_det_my_test_blood_cell=line * 2)
    (found,) = read_devkit_results(folder, images).detections
    assert found.labels.tolist() == [0, 2, 2]
    (folder / "comp4_det_my_cell.txt").unlink()
    # Alone, it is of the longest name.
    (found,) = read_devkit_results(folder, images).detections
    assert found.labels.tolist() == [2, 2]


@pytest.mark.parametrize(
    "other", ["comp3_det_test_dog", "comp4_det_val_dog", "comp4_det_test2_dog", "comp4_det_val_cow"]
)
def test_files_of_two_sets_need_a_choice(tmp_path, other):
    folder = write(tmp_path, comp4_det_test_cat=LINE, **{other: LINE})
    with pytest.raises(
        ResultsFileError, match=r"expected the files of one set in .*give the begin"
    ):
        read_devkit_results(folder, IMAGES)
    results = read_devkit_results(folder / "comp4_det_test", IMAGES)
    assert results.detections[0].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"expected files comp4_det_<set>_<class>\.txt in .*, found none"),
        ({"comp4_det_test_cow": LINE}, r"expected the classes cat, dog in .* comp4_det_test_cow"),
        (
            {"comp4_det_test_cat": LINE, "comp4_det_test_dogs": "\n" + LINE},
            r"comp4_det_test_dogs\.txt, line 2: expected a class .* 'dogs' \(nearest: 'dog'\)",
        ),
        ({"comp4_det_test_cat": "000005 0.5 1 2 30\n"}, "line 1: expected '<image> <confidence>"),
        ({"comp4_det_test_cat": LINE + "000005 0.5 1 2 30 x"}, "line 2: expected '<image> <conf"),
        ({"comp4_det_test_cat": "000005 0_9 1 2 30 40\n"}, "line 1: expected '<image> <conf"),
        ({"comp4_det_test_cat": "000005 0.9 1 2 3_0 40\n"}, "line 1: expected '<image> <conf"),
        ({"comp4_det_test_cat": "000005\n"}, "line 1: expected '<image> <confidence>"),
        ({"comp4_det_test_cat": "000005 nan 1 2 30 40\n"}, "line 1: expected finite .* score nan"),
        ({"comp4_det_test_cat": "000005 0.5 1 2 inf 40\n"}, "line 1: expected finite numbers"),
        (
            {"comp4_det_test_cat": "000006 0.5 1 2 3 4\n"},
            "such as 'VOC2007/000005', found '000006'",
        ),
        ({"comp4_det_test_cat": "1 000005 0.5 1 2 3 4\n"}, "found '1 000005'"),
    ],
)
def test_refuses(tmp_path, files, message):
    with pytest.raises(ResultsFileError, match=message):
        read_devkit_results(write(tmp_path, **files), IMAGES)


def test_an_empty_file_of_an_unknown_class_does_no_harm(tmp_path):
    folder = write(tmp_path, comp4_det_test_cat=LINE, comp4_det_test_cow="")
    assert read_devkit_results(folder, IMAGES).detections[0].labels.tolist() == [0]


def test_underscores_in_names_are_no_numbers(tmp_path):
    images = images_of("VOC2012/2008_000008")
    folder = write(tmp_path, comp4_det_test_cat="2008_000008 0.5 1 2 30 40\n")
    assert read_devkit_results(folder, images).detections[0].labels.tolist() == [0]


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    ],
    ids=["folder", "broken link"],
)
def test_refuses_what_only_has_the_name_of_a_file(tmp_path, put, found):
    put(write(tmp_path, comp4_det_test_cat=LINE) / "comp4_det_test_dog.txt")
    message = rf"expected the detections of dog in .*_dog\.txt, found: {found}; correct"
    with pytest.raises(ResultsFileError, match=message):
        read_devkit_results(tmp_path, IMAGES)
