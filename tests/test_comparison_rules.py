"""The rules at both ends are the evaluations of the package; in between, each by hand."""

import dataclasses

import numpy as np
import pytest
from audit_scenes import NUM_CLASSES, scene

from yolov1_jax.comparison.rules import (
    STEPS,
    Found,
    Rules,
    evaluate_under,
    join_objects,
    replace_rule,
    rules_of,
    targets_under,
)
from yolov1_jax.comparison.selection import FileDetections, NetworkBoxes
from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.evaluation.average_precision import evaluate_detections
from yolov1_jax.evaluation.reference_protocol import evaluate_seed
from yolov1_jax.yolo.detections import GroundTruth
from yolov1_jax.yolo.grid import decode_boxes

NAMES = [str(label) for label in range(NUM_CLASSES)]


def outcome_of(rules, selection, truths, sizes, grid_size):
    targets = targets_under(rules, join_objects(truths, sizes), grid_size, NUM_CLASSES)
    return evaluate_under(rules, selection.select(rules), targets, NUM_CLASSES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes_per_box", ["best", "all"])
@pytest.mark.parametrize("size", [2, 7])
def test_the_ends_are_the_evaluations_of_the_package(size, classes_per_box, dtype):
    different = set()
    for seed in range(3):
        predictions, sizes, truths, options = scene(seed, size, classes_per_box, dtype)
        network = NetworkBoxes(predictions, sizes, options)
        detections = detections_from_predictions(predictions, sizes, **options)
        expected = {
            protocol: evaluate_detections(detections, truths, NAMES, protocol)
            for protocol in ("voc07", "voc10")
        }
        expected["seed"] = evaluate_seed(
            decode_boxes(predictions.boxes, xy_unit="image"),
            predictions.confidence,
            predictions.class_scores,
            [
                one._replace(boxes_xyxy=one.boxes_xyxy / extent[[1, 0, 1, 0]])
                for one, extent in zip(truths, sizes, strict=True)
            ],
            NAMES,
        )
        for protocol, evaluation in expected.items():
            outcome = outcome_of(rules_of(protocol), network, truths, sizes, size)
            aps = [one.ap for one in evaluation.classes.values()]
            np.testing.assert_array_equal(outcome.ap, aps)
            assert outcome.mean_ap == evaluation.mean_ap
            counts = [one.num_detections for one in evaluation.classes.values()]
            np.testing.assert_array_equal(
                np.bincount(outcome.found.labels, minlength=NUM_CLASSES), counts
            )
            different.add(outcome.mean_ap)
    assert len(different) == 9  # so there is something to explain


def test_a_file_is_evaluated_as_by_the_package():
    predictions, sizes, truths, options = scene(0, 7)
    detections = detections_from_predictions(predictions, sizes, **options)
    rng = np.random.default_rng(1)
    places = rng.permutation(sum(len(one.scores) for one in detections))
    order = np.split(places, np.cumsum([len(one.scores) for one in detections])[:-1])
    for file_order in (None, order):
        expected = evaluate_detections(detections, truths, NAMES, "voc07", file_order=file_order)
        selection = FileDetections(detections, sizes, file_order)
        outcome = outcome_of(rules_of("voc07"), selection, truths, sizes, 7)
        assert outcome.mean_ap == expected.mean_ap


def test_rules_without_a_network_leave_the_selection_alone():
    with_network, without = rules_of("seed"), rules_of("seed", with_network=False)
    changed = {
        field.name
        for field in dataclasses.fields(Rules)
        if getattr(with_network, field.name) != getattr(without, field.name)
    }
    assert changed == {"whole_boxes", "drop_high", "drop_last"}
    assert {step.field for step in STEPS} == {field.name for field in dataclasses.fields(Rules)}


# ---------------------------------------------------------------------------------- by hand


def by_hand(found, objects, rules, grid_size=2):
    """(xyxy, label, score) and (xyxy, label[, difficult]) in one image of 448 x 448 pixels."""
    boxes = np.reshape([row[0] for row in found], (-1, 4)).astype(float)
    labels, scores = (np.array([row[i] for row in found]) for i in (1, 2))
    number = np.arange(len(found))
    rows = [(*row, False)[:3] for row in objects]
    truth = GroundTruth(
        np.reshape([row[0] for row in rows], (-1, 4)).astype(float),
        np.array([row[1] for row in rows], int),
        np.array([row[2] for row in rows], bool),
    )
    joined = join_objects([truth], np.array([[448, 448]]))
    targets = targets_under(rules, joined, grid_size, 2)
    one = Found(number, np.zeros(len(found), int), labels.astype(int), scores, boxes, boxes)
    return evaluate_under(rules, one, targets, 2)


def with_rule(field, value=True, area="voc10"):
    return replace_rule(Rules(area=area), field, value)


BOX, HALF = (0, 0, 100, 100), (0, 0, 100, 50)


def test_an_overlap_of_exactly_one_half():
    # Without the extra pixel 5,000 / 10,000; with it 101 * 51 / (101 * 101) > 0.5.
    found = [(HALF, 0, 0.9)]
    official = by_hand(found, [(BOX, 0)], Rules(area="voc10"))
    assert (official.true_positive.tolist(), official.ap[0]) == ([True], 1)
    plain = by_hand(found, [(BOX, 0)], with_rule("plain_overlap"))
    assert (plain.true_positive.tolist(), plain.ap[0]) == ([False], 0)
    assert plain.overlap.tolist() == [0.5]
    assert plain.found_by.tolist() == [-1]
    # In inclusive pixels 5,000 / 10,000 is enough.
    inclusive = by_hand([((1, 1, 100, 50), 0, 0.9)], [((1, 1, 100, 100), 0)], Rules(area="voc10"))
    assert (inclusive.overlap.tolist(), inclusive.ap[0]) == ([0.5], 1)


def test_of_repeats_the_better_box_counts():
    found = [((0, 0, 100, 70), 0, 0.9), ((0, 0, 100, 90), 0, 0.8)]
    official = by_hand(found, [(BOX, 0)], Rules(area="voc10"))
    assert official.true_positive.tolist() == [True, False]
    assert official.repeats.tolist() == [False, True]
    by_iou = by_hand(found, [(BOX, 0)], with_rule("repeats_by_iou"))
    assert by_iou.true_positive.tolist() == [False, True]
    assert by_iou.repeats.tolist() == [True, False]
    assert (official.ap[0], by_iou.ap[0]) == (1, 0.5)


def test_difficult_objects_are_ignored_or_do_not_exist():
    found = [(BOX, 0, 0.9), ((300, 300, 400, 400), 0, 0.8)]
    objects = [(BOX, 0, True), ((300, 300, 400, 400), 0)]
    official = by_hand(found, objects, Rules(area="voc10"))
    assert official.ignored.tolist() == [True, False]
    assert official.ap[0] == 1
    without = by_hand(found, objects, with_rule("no_difficult"))
    assert not without.ignored.any()
    assert without.nearest.tolist() == [0, 0]
    assert without.ap[0] == 0.5


def test_an_object_that_shares_a_cell_vanishes():
    inner = (10, 10, 60, 60)
    found = [(BOX, 0, 0.9), (inner, 0, 0.8)]
    both = by_hand(found, [(BOX, 0), (inner, 0)], Rules(area="voc10"))
    assert both.ap[0] == 1
    one = by_hand(found, [(BOX, 0), (inner, 0)], with_rule("grid"))
    assert one.targets.stands_for.tolist() == [1]
    assert one.true_positive.tolist() == [False, True]
    # Of another class, it stays with the box of the last.
    other = by_hand(found, [(BOX, 0), (inner, 1)], with_rule("grid"))
    assert other.targets.stands_for.tolist() == [0, 1]
    assert other.targets.box_of.tolist() == [1, 1]
    assert other.targets.target_of.tolist() == [0, 1]
    assert other.true_positive.tolist() == [False, True]


def test_difficult_objects_beside_a_grid():
    """Neither protocol, but on the way between them."""
    objects = [(BOX, 0, True), (BOX, 0), ((10, 10, 60, 60), 0), (BOX, 1, True)]
    targets = by_hand([(BOX, 0, 0.9)], objects, with_rule("grid")).targets
    assert targets.stands_for.tolist() == [2, 0, 3]
    assert targets.target_of.tolist() == [1, 0, 0, 2]
    assert targets.difficult.tolist() == [False, True, True]


def test_classes_without_objects():
    official = by_hand([(BOX, 0, 0.9)], [(BOX, 0)], Rules(area="voc10"))
    assert (official.mean_ap, np.isnan(official.ap[1])) == (1, True)
    assert by_hand([(BOX, 0, 0.9)], [(BOX, 0)], with_rule("all_classes")).mean_ap == 0.5
    nothing = by_hand([(BOX, 0, 0.9)], [], Rules(area="voc10"))
    assert np.isnan(nothing.mean_ap)
    assert nothing.nearest.tolist() == [-1]


def test_the_last_recall_is_lost_in_the_trapezoids():
    assert by_hand([(BOX, 0, 0.9)], [(BOX, 0)], Rules(area="seed")).ap[0] == 0
