"""From predictions to numbers: a network that knows the truth must get full marks."""

import dataclasses
import json

import numpy as np
import pytest
from annotated_sets import found, images_of, truth

from yolov1_jax.evaluation.evaluator import (
    PROTOCOLS,
    QUICK_PROTOCOLS,
    Evaluator,
    evaluate_detections,
)
from yolov1_jax.yolo.boxes import xyxy_to_cxcywh
from yolov1_jax.yolo.grid import Predictions, encode_boxes

SIDE, NAMES, BOX = 7, ("cat", "dog", "bird"), (1, 1, 9, 9)

ODD_SIZES = images_of(
    truths=[
        truth(((1, 2, 30, 28), 0, False)),
        truth(((3, 3, 19, 20), 1, False), ((1, 31, 18, 50), 1, True)),
        truth(((8, 12, 352, 231), 0, False), ((48, 240, 195, 333), 2, False)),
        truth(),
        truth(((10, 1, 61, 9), 2, False)),
    ],
    class_names=NAMES,
    sizes=[(30, 50), (50, 20), (333, 500), (40, 40), (10, 64)],  # that make fractions
)


def evaluate_oracle(annotations, protocol="voc07", protocols=PROTOCOLS, batch_size=2):
    """Evaluates predictions of the truth: the second box of a cell is the cell's last object.

    Batches come in an order that depends on their size; padding has boxes of high confidence.
    """
    shape = (len(annotations) + 1, SIDE, SIDE)
    boxes = np.full((*shape, 2, 4), 0.5, np.float32)  # cxcywh
    confidence = np.zeros((*shape, 2), np.float32)
    class_scores = np.zeros((*shape, len(NAMES)), np.float32)
    confidence[-1] = class_scores[-1] = 1
    for index, (height, width) in enumerate(annotations.sizes):
        for box, label, _ in zip(*annotations[index], strict=True):
            box = xyxy_to_cxcywh(box / [width, height, width, height])
            column, row = np.floor(box[:2] * SIDE).astype(int)
            boxes[index, row, column, 1] = box
            confidence[index, row, column, 1] = 0.9
            class_scores[index, row, column] = np.eye(len(NAMES))[label]
    predictions = Predictions(encode_boxes(boxes, xy_unit="cell"), confidence, class_scores)

    evaluator = Evaluator(
        annotations,
        protocol=protocol,
        protocols=protocols,
        xy_unit="cell",
        score_threshold=0.005,
        nms_iou_threshold=0.5,
        classes_per_box="best",
    )
    order = np.random.default_rng(batch_size).permutation(len(annotations))
    order = np.pad(order, (0, -len(order) % batch_size), constant_values=-1)
    for index in order.reshape(-1, batch_size):
        evaluator.update(Predictions(*(part[index] for part in predictions)), index)
    return evaluator.compute()


@pytest.mark.parametrize("protocol", ["voc07", "voc10", "coco"])
def test_the_truth_gets_full_marks_in_any_shape_of_image(protocol):
    result = evaluate_oracle(ODD_SIZES, protocol)
    assert result.protocol == result.evaluation.protocol == protocol
    assert result.evaluation.mean_ap == pytest.approx(1, abs=1e-12)
    for detections, objects in zip(result.detections, ODD_SIZES, strict=True):
        order = np.argsort(detections.labels, kind="stable")
        # float32 of [0, 1], scaled to at most 500 pixels.
        boxes = detections.boxes_xyxy[order]
        np.testing.assert_allclose(boxes, objects.boxes_xyxy, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(detections.labels[order], objects.labels)


def test_the_reference_protocol_works_in_relative_boxes():
    """It compares boxes in the network's square input, whatever the shape of the image."""
    boxes = ODD_SIZES.boxes_xyxy * 64 / ODD_SIZES.sizes[ODD_SIZES.image_index][:, [1, 0, 1, 0]]
    square = dataclasses.replace(ODD_SIZES, sizes=np.full((5, 2), 64), boxes_xyxy=boxes)
    one, other = (evaluate_oracle(each, "reference").evaluation for each in (ODD_SIZES, square))
    assert one.mean_ap == pytest.approx(other.mean_ap)
    assert sum(each.recall.max(initial=0) for each in one.classes.values()) > 0


def crowded():
    """Images of 64 x 64 pixels whose objects share cells and overlap."""
    rng = np.random.default_rng(0)
    truths = []
    for rows in rng.integers([1, 1, 8, 8, 0], [40, 40, 24, 24, 3], (60, 5, 5)).tolist():
        objects = (((x, y, x + w, y + h), label, rng.random() < 0.2) for x, y, w, h, label in rows)
        truths.append(truth(*objects))
    return images_of(truths=truths, class_names=NAMES, sizes=(64, 64))


def test_protocols_do_not_depend_on_each_other_or_on_the_batches():
    every = evaluate_oracle(crowded(), "reference")
    assert tuple(every.evaluations) == PROTOCOLS
    quick = evaluate_oracle(crowded(), "voc10", QUICK_PROTOCOLS, batch_size=7)
    assert tuple(quick.evaluations) == QUICK_PROTOCOLS
    for protocol, evaluation in quick.evaluations.items():
        assert 0 < evaluation.mean_ap == every.evaluations[protocol].mean_ap


def test_summary():
    truths = [truth((BOX, 0, False)), truth((BOX, 0, True)), truth((BOX, 1, False))]
    annotations = images_of(truths=truths, class_names=NAMES)
    annotations.report.skipped["image is empty"].append("d")
    detections = [found((BOX, 0.5, 0)), found((BOX, 0.5, 0)), found()]
    result = evaluate_detections(detections, annotations, protocol="voc10")
    summary = result.summary(source="folder", splits=["a:b"], step=12)
    # The cat is found, the dog is missed, and there is no bird.
    half = {"mAP": 0.5, "ap": {"cat": 1.0, "dog": 0.0, "bird": None}}
    coco = summary["protocols"].pop("coco")
    assert coco.pop("ap") == pytest.approx(half["ap"])  # pycocotools adds an epsilon
    assert coco.pop("AP50_by_class") == pytest.approx(half["ap"])
    there = ["mAP", "AP50", "AP75", "AP_small", "AR1", "AR10", "AR100", "AR_small"]
    absent = ["AP_medium", "AP_large", "AR_medium", "AR_large"]
    assert coco == dict.fromkeys(there, pytest.approx(0.5)) | dict.fromkeys(absent)
    box = [0, 0.5, 1, 1, 9, 9]  # label, score, corners
    counts = {"num_images": 3, "num_objects": 2, "num_difficult": 1, "splits": ["a:b"]}
    fingerprint = annotations.fingerprint()
    assert summary == {
        "step": 12,
        "protocol": "voc10",
        **half,
        **counts,
        "num_detections": 2,
        "protocols": {"voc07": half, "voc10": half},
        "evaluation_set": {"source": "folder", **counts, "fingerprint": fingerprint},
        "notes": ["1 images left out, image is empty: d"],
        "examples": {"0": [box], "1": [box], "2": []},
    }
    json.dumps(summary, allow_nan=False)
