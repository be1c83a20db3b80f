"""Detections in files score what they score without: `score_results_file`."""

import json

import numpy as np
import pytest
from annotated_sets import images_of, truth
from oracle import ODD_SIZES

from yolov1_jax.errors import UserError
from yolov1_jax.evaluation import evaluator as scoring
from yolov1_jax.evaluation.results_files import write_results
from yolov1_jax.yolo.detections import Detections

BOX = (1, 1, 9, 9)


def images_named(*truths):
    return images_of(*(f"VOC2007/{index:06d}" for index, _ in enumerate(truths, 1)), truths=truths)


def one_object(label, difficult=False):
    return truth((BOX, label, difficult))


@pytest.mark.parametrize("results_format", ["coco", "devkit"])
def test_detections_score_the_same_after_a_file(tmp_path, results_format):
    rng = np.random.default_rng(0)
    images = scoring.annotated_images(ODD_SIZES)
    detections = []
    for true in images.ground_truth:  # each object twice, and not all of it right
        boxes = np.repeat(true.boxes_xyxy, 2, axis=0)
        scores = rng.random(len(boxes)).astype(np.float32)
        boxes = boxes + rng.normal(0, 3, boxes.shape)
        detections.append(Detections(boxes, scores, np.repeat(true.labels, 2)))
    evaluations = scoring.evaluate_by({"voc07", "voc10", "coco"}, detections, images)
    result = scoring.Result("voc10", evaluations, detections, images)
    expected = scoring.evaluation_summary(result, source="list", splits=["all"])
    (path,) = write_results(
        tmp_path,
        detections,
        result.images,
        results_format=results_format,
        set_name="test",
        competition="comp4",
    )
    read, truths, summary = scoring.score_results_file(
        path, ODD_SIZES, protocol="voc10", source_name="list", splits=["all"]
    )
    assert summary.pop("notes") == ["1 of 5 images have no detections"]
    assert 0.1 < summary["mAP"] <= 1
    assert summary["protocols"]["coco"]["mAP"] < 0.9
    for protocol, numbers in expected["protocols"].items():
        for name, value in numbers.pop("ap").items():
            other = summary["protocols"][protocol]["ap"][name]
            assert other == value or other == pytest.approx(value, rel=0, abs=1e-9)
        for name, value in numbers.items():
            other = summary["protocols"][protocol][name]
            assert other == value or other == pytest.approx(value, rel=0, abs=1e-9)
    for key in ("evaluation_set", "num_detections", "num_objects", "splits", "step"):
        assert summary[key] == expected[key]
    for one, other, true, expected_true in zip(
        read, detections, truths, result.ground_truth, strict=True
    ):
        # The devkit's files go class by class.
        order, other_order = (np.argsort(of.labels, kind="stable") for of in (one, other))
        boxes, other_boxes = one.boxes_xyxy[order], other.boxes_xyxy[other_order]
        np.testing.assert_allclose(boxes, other_boxes, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(one.scores[order], other.scores[other_order])
        np.testing.assert_array_equal(one.labels[order], other.labels[other_order])
        np.testing.assert_array_equal(true.boxes_xyxy, expected_true.boxes_xyxy)


def scored(path, *args, **options):
    detections, _, summary = scoring.score_results_file(path, *args, **options)
    return detections, summary


def test_labels_come_in_the_order_that_is_asked_for(tmp_path):
    truths = [one_object(0), one_object(1)]
    path = tmp_path / "detections.json"
    row = {"category_id": "dog", "bbox": [0, 0, 9, 9], "score": 0.5}
    path.write_text(json.dumps([{**row, "image_id": 2}, {**row, "image_id": 1}]))
    names = ("bird", "dog", "cat")
    detections, summary = scored(path, images_named(*truths), names)
    assert [one.labels.tolist() for one in detections] == [[1], [1]]
    # Of two equal scores, the first in the file is the right one; of a bird there is nothing.
    assert summary["ap"] == {"bird": None, "dog": 1.0, "cat": 0.0}
    with pytest.raises(UserError, match=r"expected objects of the classes dog, found 'cat'"):
        scored(path, images_named(*truths), ("dog",))


def test_other_class_names_keep_the_numbers_of_the_categories(tmp_path):
    truths = [one_object(0), one_object(1)]
    path = tmp_path / "detections.json"
    row = {"image_id": 2, "bbox": [0, 0, 9, 9], "score": 0.5}
    path.write_text(json.dumps([{**row, "category_id": 2}]))  # of the annotations: a dog
    _, summary = scored(path, images_named(*truths), ("dog", "bird", "cat"))
    assert summary["ap"] == {"dog": 1.0, "bird": None, "cat": 0.0}


def test_mistakes_in_files_are_the_users(tmp_path):
    images = images_named(one_object(0))
    with pytest.raises(UserError, match="found nothing there"):
        scored(tmp_path / "nothing.json", images)
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(UserError, match="'seed' needs the network's output"):
        scored(tmp_path / "d.json", images, protocol="seed")
