"""Writing detections, and finding out what kind of file it is that is to be read."""

import numpy as np
import pytest
from annotated_sets import found, images_of, truth

from yolov1_jax.evaluation.coco_files import read_coco_annotations
from yolov1_jax.evaluation.results import ResultsFileError
from yolov1_jax.evaluation.results_files import FORMATS, read_results, write_results

IMAGES = images_of("a/1", "a/2", truths=[truth(((1, 2, 3, 4), 0, False))] * 2)
DETECTIONS = [found(((1, 2, 3, 4), 0.5, 1), ((5, 6, 7, 8), 0.25, 0)), found()]


@pytest.mark.parametrize("results_format", FORMATS)
def test_whatever_is_written_can_be_read(tmp_path, results_format):
    folder = tmp_path / "new" / "folder"
    paths = write_results(
        folder,
        DETECTIONS,
        IMAGES,
        results_format=results_format,
        set_name="val",
        competition="comp3",
    )
    names = {"coco": ["detections.json"], "devkit": ["devkit"]}
    names["both"] = [*names["coco"], *names["devkit"]]
    assert [path.name for path in paths] == names[results_format]
    if results_format != "devkit":
        annotations = read_coco_annotations(folder / "annotations.json")
        assert annotations.fingerprint() == IMAGES.fingerprint()
    if results_format != "coco":
        paths.append(folder / "devkit" / "comp3_det_val")
    for path in paths:
        one, other = read_results(path, IMAGES).detections
        by_label = np.argsort(one.labels)
        np.testing.assert_array_equal(one.boxes_xyxy[by_label], [[5, 6, 7, 8], [1, 2, 3, 4]])
        np.testing.assert_array_equal(one.scores[by_label], [0.25, 0.5])
        assert len(other.labels) == 0


def test_refuses_what_holds_no_detections(tmp_path):
    with pytest.raises(ResultsFileError, match=r"expected detections in .*, found nothing there"):
        read_results(tmp_path / "nothing.json", IMAGES)
    with pytest.raises(ResultsFileError, match=r"expected detections in .*, found nothing there"):
        read_results(tmp_path / "nowhere" / "comp4_det_test", IMAGES)
    for too_long in (tmp_path / ("a" * 300), tmp_path / ("a" * 300) / "comp4_det_test"):
        with pytest.raises(ResultsFileError, match=r"expected detections in .*, found nothing"):
            read_results(too_long, IMAGES)
    with pytest.raises(ResultsFileError, match=r"expected files comp4_det_.*, found none"):
        read_results(tmp_path, IMAGES)
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_text("1 0.5 1 2 3 4\n")
    with pytest.raises(ResultsFileError, match=f"expected the folder .* give {tmp_path}, which"):
        read_results(path, IMAGES)


def test_policies_reach_the_files(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("7 0.5 1 2 3 4\n")
    (tmp_path / "comp4_det_test_cow.txt").write_text("1 0.5 1 2 3 4\n")
    results = read_results(tmp_path, IMAGES, unknown_classes="skip", unknown_images="skip")
    assert len([note for note in results.notes if "left out" in note]) == 2


def test_refuses_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="xml"):
        write_results(
            tmp_path, [], IMAGES, results_format="xml", set_name="val", competition="comp4"
        )
