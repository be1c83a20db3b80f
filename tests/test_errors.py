"""Kinds of errors, doubtful labels and differences, on boxes that a person can sort out."""

import importlib.metadata
import json

import numpy as np
import pytest
from annotated_sets import found, images_of, truth

from yolov1_jax.config import UserError
from yolov1_jax.evaluation import errors
from yolov1_jax.evaluation.evaluator import evaluate_detections

pytest.importorskip("hotcoco")
CAT, DOG = 0, 1
BOX, OTHER, FAR = (1, 1, 20, 20), (50, 50, 89, 89), (60, 10, 79, 29)


def evaluated(truths, detections, class_names=("cat", "dog")):
    annotations = images_of(truths=truths, class_names=class_names)
    return evaluate_detections(detections, annotations, protocol="voc07")


def one_of_each():
    """An image for every kind of error, and one without."""
    cat, none = truth((BOX, CAT, False)), truth()
    shifted = (10, 1, 29, 20)  # shares 11 of 29 columns: an IoU of 0.38
    return evaluated(
        [cat, cat, cat, cat, none, cat, truth((BOX, CAT, False), (OTHER, DOG, True))],
        [
            found((shifted, 0.9, CAT)),  # badly placed
            found((BOX, 0.8, DOG)),  # wrong class
            found((shifted, 0.7, DOG)),  # both
            found((BOX, 0.65, CAT), (BOX, 0.6, CAT)),  # found twice
            found((FAR, 0.95, CAT)),  # background
            found((FAR, 0.1, CAT)),  # missed; background below the threshold
            found((BOX, 0.5, CAT), (OTHER, 0.99, DOG)),  # right; difficult, does not count
        ],
    )


def test_every_kind_is_told_from_the_others():
    result = one_of_each()
    sorted_out = errors.find_errors(result, 0.2)
    assert {name: one["count"] for name, one in sorted_out["kinds"].items()} == {
        "badly placed": 1,
        "wrong class": 1,
        "both of these": 1,
        "found twice": 1,
        "background": 2,  # of AP, which has no threshold
        "missed": 2,  # an object that was detected with both errors is also missed
    }
    ap50 = result.evaluations["coco"].parts["AP50"]
    assert sorted_out["ap50"] == pytest.approx(ap50, abs=1e-12)
    assert all(one["gain"] >= 0 for one in sorted_out["kinds"].values())
    # Rows: cat, dog, background. Columns: detected as cat, as dog, missed.
    assert sorted_out["confusion"] == [[2, 1, 3], [0, 0, 0], [3, 1, 0]]
    false = [(one["place"], one["score"]) for one in sorted_out["false_detections"]]
    assert false == [(4, 0.95), (0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)]
    counts = {one["image"]: (one["tp"], one["fp"], one["fn"]) for one in sorted_out["images"]}
    assert counts["3"] == (1, 1, 0)
    assert counts["6"] == (1, 0, 0)
    assert [*counts][-1] == "6"  # the best one is the last
    first = sorted_out["false_detections"][0]
    assert first["box_xyxy"] == [*FAR]
    assert sorted_out["labels_to_check"][0] == first
    assert first["labelled"] == "nothing"
    doubtful = {one["place"]: one["labelled"] for one in sorted_out["labels_to_check"]}
    assert doubtful[1] == "cat"
    assert json.loads(json.dumps(sorted_out, allow_nan=False)) == sorted_out


def test_its_ap_is_ours_on_many_boxes():
    rng = np.random.default_rng(0)

    def boxes(count):
        corner, size = rng.uniform(1, 60, (count, 2)), rng.uniform(5, 40, (count, 2))
        return np.concatenate([corner, corner + size], axis=1).round()

    truths, detections = [], []
    for _ in range(30):
        truths.append(
            truth(*zip(boxes(4), rng.integers(0, 2, 4), rng.random(4) < 0.2, strict=True))
        )
        near = truths[-1].boxes_xyxy + rng.normal(0, 4, (4, 4)).round()
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.where(rng.random(4) < 0.8, truths[-1].labels, 1 - truths[-1].labels)
        detections.append(found(*zip(near, rng.random(4).round(1), labels, strict=True)))
    result = evaluated(truths, detections)
    ours = result.evaluations["coco"].parts["AP50"]
    assert 0.1 < ours < 0.9
    assert errors.find_errors(result, 0.2)["ap50"] == pytest.approx(ours, abs=1e-12)


@pytest.mark.parametrize("truths", [[truth()], [truth((BOX, CAT, False))]])
def test_nothing_is_detected(truths):
    result = evaluated(truths, [found()], ("cat",))
    sorted_out = errors.find_errors(result, 0.2)
    lists = ("calibration", "false_detections", "labels_to_check")
    assert [sorted_out[name] for name in lists] == [[]] * 3
    assert sorted_out["confusion"][0][1] == len(truths[0].labels)
    assert errors.working_points(result) == {}


def test_the_working_point_has_the_best_f1():
    truths = [truth((BOX, CAT, False)), truth((BOX, CAT, False))]
    rows = [found((BOX, 0.9, CAT), (FAR, 0.6, CAT)), found((BOX, 0.7, CAT), (FAR, 0.5, CAT))]
    # F1 after each detection: 2/3, 1, 4/5, 2/3.
    assert errors.working_points(evaluated(truths, rows)) == {
        "cat": {"threshold": 0.7, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    }


def test_a_difference_and_its_interval():
    truths = [truth((BOX, CAT, False))] * 20
    right, half = [found((BOX, 0.9, CAT))] * 20, [found((BOX, 0.9, CAT)), found()] * 10
    annotations = images_of(truths=truths)
    change, low, high = errors.differences(annotations, half, right)["AP50"]
    assert change == pytest.approx(0.5, abs=0.01)  # precision at 101 levels of recall
    assert 0.2 < low < change < high < 0.8  # 0.5 +- 2 * sqrt(0.25 / 20)
    assert errors.differences(annotations, half, half)["AP"] == (0, 0, 0)


@pytest.mark.parametrize(
    ("versions", "found"),
    [({}, "none"), ({"hotcoco": "1.2.9"}, "1.2.9"), ({"hotcoco": "1.10"}, "")],
)
def test_a_library_that_is_absent_or_too_old(monkeypatch, versions, found):
    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert errors.is_installed() == (not found)
    if found:
        with pytest.raises(UserError, match=rf"hotcoco 1\.3 .* found {found}: pip install"):
            errors.check_installed()
