"""What the reading of detections refuses, skips and notes."""

import numpy as np
import pytest
from annotated_sets import images_of

from yolov1_jax.evaluation.results import ResultsCollector, ResultsFileError

IMAGES = images_of("a/1", "a/2", "a/3")
BOX = (1, 2, 3, 4)


def test_detections_are_sorted_by_image_in_the_order_they_came():
    collector = ResultsCollector(IMAGES)
    for number, (image, class_name) in enumerate([("3", "cat"), ("1", "dog"), ("3", "dog")]):
        collector.add(image, class_name, number / 10, (number, 0, 9, 9), "here")
    results = collector.results()
    assert [one.labels.tolist() for one in results.detections] == [[1], [], [0, 1]]
    assert [one.scores.tolist() for one in results.detections] == [[0.1], [], [0.0, 0.2]]
    assert [one.boxes_xyxy[:, 0].tolist() for one in results.detections] == [[1], [], [0, 2]]
    assert [order.tolist() for order in results.file_order] == [[1], [], [0, 2]]
    assert results.notes == ["1 of 3 images have no detections"]


def test_no_detection_at_all():
    results = ResultsCollector(IMAGES).results()
    assert len(results.detections) == 3
    for one in results.detections:
        assert one.boxes_xyxy.shape == (0, 4)
        assert len(one.scores) == len(one.labels) == 0
    assert results.notes == ["3 of 3 images have no detections"]


def test_unknown_classes_and_images_are_skipped_and_counted():
    collector = ResultsCollector(IMAGES, unknown_classes="skip", unknown_images="skip")
    collector.add("1", "cow", 0.5, BOX, "here")
    collector.add("1", "cat", 0.5, BOX, "here")
    collector.add("7", "cat", 0.5, BOX, "here")
    collector.add(9, "cat", 0.5, BOX, "here")
    results = collector.results()
    assert [len(one.labels) for one in results.detections] == [1, 0, 0]
    assert results.notes[:2] == [
        "1 detections left out, class is not in the annotations: cow, ...",
        "2 detections left out, image is not in the annotations: 7, ...",
    ]


def test_skipping_the_one_does_not_skip_the_other():
    collector = ResultsCollector(IMAGES, unknown_classes="skip")
    with pytest.raises(ResultsFileError, match=r"here: expected an image .* --unknown_images=skip"):
        collector.add("7", "cat", 0.5, BOX, "here")
    collector = ResultsCollector(IMAGES, unknown_images="skip")
    with pytest.raises(ResultsFileError, match=r"here: expected a class .* --unknown_classes=skip"):
        collector.add("1", "cow", 0.5, BOX, "here")
    with pytest.raises(ValueError, match="'ignore'"):
        ResultsCollector(IMAGES, unknown_classes="ignore")


def test_an_unknown_number_is_answered_with_a_number():
    with pytest.raises(ResultsFileError, match=r"annotations such as 1, found 7"):
        ResultsCollector(IMAGES).add(7, "cat", 0.5, BOX, "here")


def test_a_name_of_two_images_is_refused():
    with pytest.raises(ResultsFileError, match="here: image '1' may be a/1 and b/1"):
        ResultsCollector(images_of("a/1", "b/1")).add("1", "cat", 0.5, BOX, "here")


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_numbers_are_finite(score):
    with pytest.raises(ResultsFileError, match="here: expected finite numbers"):
        ResultsCollector(IMAGES).add("1", "cat", score, BOX, "here")
    with pytest.raises(ResultsFileError, match="here: expected finite numbers"):
        ResultsCollector(IMAGES).add("1", "cat", 0.5, (1, 2, score, 4), "here")


def test_inverted_boxes_are_kept_and_noted():
    """The devkit takes them too, as false positives."""
    collector = ResultsCollector(IMAGES)
    for box in [(10, 10, 5, 20), (10, 10, 20, 5), (5, 5, 5, 5)]:
        collector.add("1", "cat", 0.5, box, "here")
    results = collector.results()
    assert len(results.detections[0].labels) == 3
    assert results.notes[0] == (
        "2 boxes end before they begin and find nothing: are these widths and heights?"
    )
