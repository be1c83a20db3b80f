"""From a source to average precision: a network that knows the truth must get full marks.

Frames: ground truth and detections in pixels of the original images.
"""

import json

import numpy as np
import pytest
from annotated_sets import found, images_of, truth
from oracle import GRID_SIZE, ODD_SIZES, ListSource, predict

from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.evaluation import evaluator as scoring

SELECT = {
    "xy_unit": "cell",
    "score_threshold": 0.005,
    "nms_iou_threshold": 0.5,
    "classes_per_box": "best",
}


def evaluate_oracle(source, protocol="voc07", others=()):
    predictions, sizes = predict(source)
    return scoring.evaluate_predictions(
        predictions,
        sizes,
        scoring.annotated_images(source),
        protocol=protocol,
        select_options=SELECT,
        others=others,
    )


def ground_truth_of(source):
    return scoring.annotated_images(source).ground_truth


# ------------------------------------------------------------------------------ ground truth


def test_annotated_pixels_come_back_exactly():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(50):
        height, width = rng.integers(40, 1000, 2)
        corners = np.sort(rng.integers(1, [width, height], (3, 2, 2)), axis=1)  # [3, 2, 2]
        boxes = corners.reshape(3, 4)
        images.append((int(height), int(width), boxes, [0, 1, 2], [True, False, True]))
    truths = ground_truth_of(ListSource(*images))
    assert len(truths) == 50
    for true, (_, _, boxes, labels, difficult) in zip(truths, images, strict=True):
        assert true.boxes_xyxy.dtype == np.float64
        np.testing.assert_array_equal(true.boxes_xyxy, boxes)  # not only almost
        np.testing.assert_array_equal(true.labels, labels)
        np.testing.assert_array_equal(true.difficult, difficult)


def test_fractions_of_a_pixel_are_left_alone():
    boxes = [[1.25, 2.5, 7.0005, 8.99999999]]
    (true,) = ground_truth_of(ListSource((11, 13, boxes, [0], [False])))
    np.testing.assert_allclose(true.boxes_xyxy, boxes, rtol=1e-12)


def test_float32_blurs_more():
    """A source of records that are less precise than the contract asks for."""
    boxes = np.array([[48, 240.001, 195, 333], [8.5, 12, 352, 231]])
    source = ListSource((375, 500, boxes, [0, 1], [False] * 2))
    annotation = source.annotation
    source.annotation = lambda index: {
        **annotation(index),
        "boxes_xyxy": annotation(index)["boxes_xyxy"].astype(np.float32),
    }
    (true,) = ground_truth_of(source)
    np.testing.assert_array_equal(true.boxes_xyxy[boxes % 1 == 0], boxes[boxes % 1 == 0])
    np.testing.assert_allclose(true.boxes_xyxy, boxes, rtol=0, atol=1e-4)


def test_what_the_source_left_out_or_corrected_is_noted():
    source = ListSource((11, 13, [[1, 2, 3, 4]], [0], [False]))
    source.report.skip("annotation is not well-formed XML", "a/3")
    source.report.skip_object("class is not in class_names", "a/1: zebra")
    source.report.skip_object("class is not in class_names", "a/2: zebra")
    source.report.correct("box clipped to the image", "a/1 object 1 (cat)")
    images = scoring.annotated_images(source)
    assert images.notes == (
        "1 images left out, annotation is not well-formed XML: a/3",
        "2 objects left out, class is not in class_names: a/1: zebra, ...",
        "1 corrected in the data, box clipped to the image: a/1 object 1 (cat)",
    )


def test_an_image_without_objects_has_an_empty_truth():
    (true,) = ground_truth_of(ListSource((11, 13, [], [], [])))
    assert true.boxes_xyxy.shape == (0, 4)


# ---------------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize("protocol", ["voc07", "voc10"])
def test_the_truth_gets_full_marks_in_any_shape_of_image(protocol):
    result = evaluate_oracle(ODD_SIZES, protocol)
    assert result.protocol == result.evaluation.protocol == protocol
    assert result.evaluation.mean_ap == 1.0
    for index, (_, _, boxes, labels, _) in enumerate(ODD_SIZES.images):
        found = result.detections[index]
        order = np.lexsort(found.boxes_xyxy.T[:1])
        expected = np.reshape(boxes, (-1, 4))
        by_left = np.lexsort(expected.T[:1])
        # float32 of [0, 1], scaled to at most 500 pixels.
        np.testing.assert_allclose(found.boxes_xyxy[order], expected[by_left], atol=1e-3)
        np.testing.assert_array_equal(found.labels[order], np.array(labels, int)[by_left])


def findable(source):
    """For each class, how many objects there are, and how many a perfect network can find.

    One object a cell, the last; of two of a class whose boxes overlap by more than a half, one.
    """
    counts = {name: [0, 0] for name in source.class_names}
    for index in range(len(source)):
        record = source.annotation(index)
        cells = {}
        for box, label, difficult in zip(
            record["boxes_xyxy"], record["labels"], record["difficult"], strict=True
        ):
            column, row = ((box[:2] + box[2:]) / 2 * GRID_SIZE).astype(int)
            cells[row, column] = (box, label, difficult)
            counts[source.class_names[label]][0] += not difficult
        kept = []
        for _, (box, label, difficult) in sorted(cells.items()):
            if all(label != other or iou(box, before) <= 0.5 for before, other in kept):
                kept.append((box, label))
                counts[source.class_names[label]][1] += not difficult
    return counts


def iou(one, two):
    width, height = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    both = max(width, 0) * max(height, 0)
    return both / (np.prod(one[2:] - one[:2]) + np.prod(two[2:] - two[:2]) - both)


def test_the_truth_of_the_synthetic_evaluation_set():
    source = SyntheticSource("eval", image_size=32)
    counts = findable(source)
    num_objects, num_findable = np.sum(list(counts.values()), axis=0)
    assert 0.9 * num_objects < num_findable < num_objects  # collisions there are
    result = evaluate_oracle(source, "voc07", others=("voc10",))
    for protocol, evaluation in result.evaluations.items():
        for name, one in evaluation.classes.items():
            recall = counts[name][1] / counts[name][0]
            # Every detection is right, so precision is 1 as far as recall goes.
            levels = np.sum(np.arange(11) * 0.1 <= recall)
            assert one.num_objects == counts[name][0]
            assert one.ap == pytest.approx(levels / 11 if protocol == "voc07" else recall)


def test_the_seed_protocol_works_in_relative_boxes():
    """It compares boxes in the network's square input, whatever the shape of the image."""
    result = evaluate_oracle(ODD_SIZES, "seed")
    assert result.protocol == result.evaluation.protocol == "seed"
    square = ListSource(
        *(
            (64, 64, np.reshape(boxes, (-1, 4)) / [w, h, w, h] * 64, labels, difficult)
            for h, w, boxes, labels, difficult in ODD_SIZES.images
        )
    )
    expected = evaluate_oracle(square, "seed")
    assert result.evaluation.mean_ap == pytest.approx(expected.evaluation.mean_ap)
    found = sum(one.recall.max(initial=0) for one in result.evaluation.classes.values())
    assert found > 0


@pytest.mark.parametrize("protocol", ["voc07", "voc10", "seed", "coco"])
def test_all_protocols_at_once_are_each_alone(protocol):
    source = SyntheticSource("eval", num_images=40, image_size=64)
    together = evaluate_oracle(source, "voc10", others=scoring.PROTOCOLS)
    assert set(together.evaluations) == set(scoring.PROTOCOLS)
    assert together.evaluation.protocol == "voc10"
    alone = evaluate_oracle(source, protocol)
    assert set(alone.evaluations) == {protocol}
    expected, actual = alone.evaluation, together.evaluations[protocol]
    assert actual.protocol == protocol
    assert 0 < actual.mean_ap == expected.mean_ap
    for name, one in actual.classes.items():
        np.testing.assert_array_equal(one.precision, expected.classes[name].precision)
        assert one.ap == expected.classes[name].ap


# ------------------------------------------------------------------------------------ summary

BOX = (1, 1, 9, 9)


def images_named(*truths):
    return images_of(*(f"VOC2007/{index:06d}" for index, _ in enumerate(truths, 1)), truths=truths)


def summarise(truths, detections, protocols=("voc07",)):
    images = images_named(*truths)
    evaluations = scoring.evaluate_by(set(protocols), detections, images)
    result = scoring.Result(protocols[0], evaluations, detections, images)
    return scoring.evaluation_summary(result, source="folder", splits=["a:b"], step=12)


def one_object(label, difficult=False):
    return truth((BOX, label, difficult))


FOUND, NOTHING = found((BOX, 0.5, 0)), found()


def test_summary_counts():
    truths = [one_object(0), one_object(0, difficult=True), one_object(1)]
    detections = [FOUND, FOUND, NOTHING]
    summary = summarise(truths, detections, ["voc10", "voc07", "coco"])
    # The cat is found, the dog is missed; the box is all there is, so any overlap will do.
    half = {"mAP": 0.5, "ap": {"cat": 1.0, "dog": 0.0}}
    coco = summary["protocols"].pop("coco")
    parts = {name: coco.pop(name) for name in ("AP50", "AP75", "AP_small", "AP_medium", "AP_large")}
    assert coco.pop("ap") == pytest.approx(half["ap"])  # pycocotools adds an epsilon
    assert coco == pytest.approx({"mAP": 0.5})
    assert parts == {
        "AP50": pytest.approx(0.5),
        "AP75": pytest.approx(0.5),
        "AP_small": pytest.approx(0.5),
        "AP_medium": None,
        "AP_large": None,
    }
    assert summary == {
        "step": 12,
        "protocol": "voc10",
        **half,
        "num_images": 3,
        "num_objects": 2,
        "num_difficult": 1,
        "num_detections": 2,
        "splits": ["a:b"],
        "protocols": {"voc07": half, "voc10": half},
        "evaluation_set": {
            "source": "folder",
            "splits": ["a:b"],
            "num_images": 3,
            "num_objects": 2,
            "num_difficult": 1,
            "fingerprint": images_named(*truths).fingerprint(),
        },
        "notes": [],
    }


def test_what_has_no_precision_is_null():
    summary = summarise([one_object(0)], [NOTHING])
    assert (summary["mAP"], summary["ap"]) == (0.0, {"cat": 0.0, "dog": None})
    summary = summarise([one_object(0, difficult=True)], [NOTHING], ["voc07", "voc10", "coco"])
    assert (summary["mAP"], summary["ap"]) == (None, {"cat": None, "dog": None})
    assert summary["protocols"]["coco"]["AP50"] is None
    json.dumps(summary, allow_nan=False)
