"""An audit of scenes that are worked out by hand, object by object and rule by rule.

One image of 448 x 448 pixels or several, a 2 x 2 grid: a cell is 224 pixels wide.
"""

import csv
import itertools

import numpy as np
import pytest
from audit_scenes import scene

from yolov1_jax.comparison.audit import AUDITED_PROTOCOLS, audit
from yolov1_jax.comparison.audit_tables import audit_tables, write_audit_csv
from yolov1_jax.comparison.rules import join_objects
from yolov1_jax.comparison.selection import FileDetections, NetworkBoxes
from yolov1_jax.errors import UserError
from yolov1_jax.yolo.detections import Detections, GroundTruth
from yolov1_jax.yolo.grid import Predictions, encode_boxes

OPTIONS = {
    "xy_unit": "image",
    "score_threshold": 0.005,
    "nms_iou_threshold": 0.5,
    "classes_per_box": "best",
}
CAT, DOG = 0, 1
UPPER, INNER = (0, 0, 100, 100), (10, 10, 90, 90)  # one cell
LOWER, RIGHT = (0, 250, 100, 350), (250, 0, 350, 100)


def truth(*rows):
    """(xyxy, label) or (xyxy, label, difficult)."""
    rows = [(*row, False)[:3] for row in rows]
    return GroundTruth(
        np.reshape([row[0] for row in rows], (-1, 4)).astype(float),
        np.array([row[1] for row in rows], int),
        np.array([row[2] for row in rows], bool),
    )


class Network:
    """The output for one image: nothing, until boxes are put into it. Two boxes a cell."""

    def __init__(self):
        self.boxes = np.zeros((2, 2, 2, 4))
        self.confidence = np.zeros((2, 2, 2))
        self.class_scores = np.zeros((2, 2, 2))

    def put(self, row, column, k, xyxy, score, label):
        x1, y1, x2, y2 = np.array(xyxy) / 448
        self.boxes[row, column, k] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        self.confidence[row, column, k] = score
        self.class_scores[row, column, label] = 1
        return self


def audited(images, protocols=("voc07", "seed")):
    """An audit of [(Network, truth)]."""
    networks = [network for network, _ in images]
    predictions = Predictions(
        encode_boxes(np.stack([one.boxes for one in networks]), xy_unit="image"),
        np.stack([one.confidence for one in networks]),
        np.stack([one.class_scores for one in networks]),
    )
    sizes = np.full((len(images), 2), 448)
    return audit(
        protocols,
        NetworkBoxes(predictions, sizes, OPTIONS),
        join_objects([one for _, one in images], sizes),
        image_ids=[f"image {number}" for number in range(len(images))],
        class_names=("cat", "dog"),
        grid_size=2,
    )


def sides(lines):
    return [(line.first.side, line.second.side) for line in lines]


def gains(found):
    return {change.text.split(" (")[0]: change.gain for change in found.changes}


def test_a_collision():
    """The first cat of the cell vanishes behind the dog and the second cat."""
    network = Network().put(0, 0, 0, UPPER, 0.9, CAT)
    objects = truth((UPPER, CAT), (INNER, CAT), (INNER, DOG), (LOWER, DOG))
    found = audited([(network, objects)])
    assert sides(found.objects) == [
        ("found", "vanished"),
        ("missed", "found"),
        ("missed", "missed"),
        ("missed", "missed"),
    ]
    assert found.objects[0].second.why == (
        "shares a cell with object 3 (dog), and there its class with object 2 (cat)"
    )
    # The second cat stands with the dog's box, which has an IoU of 0.64 with the detection.
    assert found.objects[1].second.why == (
        "score 0.900, IoU 0.640; has the box of object 3 (dog), which shares its cell"
    )
    assert found.objects[2].second.why == ""
    (line,) = found.detections
    assert (line.first, line.second) == (
        ("true positive", "object 1, IoU 1.000"),
        ("true positive", "object 2, IoU 0.640"),
    )
    assert not line.changes_side
    assert gains(found)["objects that share a grid cell vanish, or get the last one's box"] != 0


def test_a_difficult_object():
    network = Network().put(0, 0, 0, UPPER, 0.9, CAT).put(1, 0, 0, LOWER, 0.8, CAT)
    found = audited([(network, truth((UPPER, CAT, True), (LOWER, CAT)))])
    assert sides(found.objects) == [("ignored", "removed"), ("found", "found")]
    assert sides(found.detections) == [
        ("ignored", "false positive"),
        ("true positive", "true positive"),
    ]
    assert found.detections[0].first.why == "difficult object 1, IoU 1.000"
    assert found.detections[0].second.why == "meets no object of its class"
    # Precision 1 at all levels, then 1/2 from the first on.
    assert gains(found)["difficult objects do not exist"] == pytest.approx(-0.5)


def test_repeats():
    """Neither suppresses the other: IoU 0.4. The lower score has the higher IoU."""
    network = Network().put(0, 0, 0, (0, 0, 100, 60), 0.9, CAT)
    network.put(0, 0, 1, (0, 25, 100, 100), 0.8, CAT)
    found = audited([(network, truth((UPPER, CAT)))])
    assert sides(found.detections) == [
        ("true positive", "false positive"),
        ("false positive", "true positive"),
    ]
    assert found.detections[0].second.why == "repeat of object 1, IoU 0.600"
    assert found.detections[1].first.why.startswith("repeat of object 1, IoU 0.75")
    assert found.objects[0].first.why.startswith("score 0.900")
    assert found.objects[0].second.why.startswith("score 0.800")
    assert gains(found)["of repeats the highest IoU counts"] < 0


def test_an_iou_of_exactly_one_half():
    network = Network().put(0, 0, 0, (0, 0, 112, 56), 0.9, CAT)
    found = audited([(network, truth(((0, 0, 112, 112), CAT)))])
    assert sides(found.objects) == [("found", "missed")]
    assert sides(found.detections) == [("true positive", "false positive")]
    assert found.detections[0].second.why == "too far from object 1, IoU 0.500"
    assert gains(found)["IoU > 0.5 finds"] == -1


def test_scores_of_1_below_3_tenths_and_last_candidates():
    network = Network().put(0, 0, 0, UPPER, 1.0, CAT).put(0, 1, 0, RIGHT, 0.25, CAT)
    # All eight boxes have one product above 0 or two of 0, which count as cat, but for this cell:
    network.put(1, 0, 0, LOWER, 0.9, DOG)
    network.confidence[1, 0, 1] = -1  # products (0, -1): a cat, too
    found = audited([(network, truth((UPPER, CAT), (RIGHT, CAT), (LOWER, DOG)))])
    assert sides(found.detections) == [("true positive", "not selected")] * 3
    assert {tuple(map(round, one.box_xyxy)): one.second.why for one in found.detections} == {
        UPPER: "score of 1 or more",
        RIGHT: "score below 0.3",
        LOWER: "last candidate of its class in the image",
    }
    assert sides(found.objects) == [("found", "missed")] * 3
    assert found.second.mean_ap == 0
    by_rule = gains(found)
    # AP of cat 1 -> 6/11 without the lower half of its recall, -> 0; of dog 1 -> 0.
    assert by_rule["scores below 0.3 are dropped"] == pytest.approx(-5 / 22)
    assert by_rule["scores of 1 and more are dropped"] == pytest.approx(-6 / 22)
    assert by_rule["the last candidate of a class in an image is dropped"] == pytest.approx(-0.5)


def test_what_only_the_seed_protocol_selects():
    """A box across the border: cut, it is suppressed; whole, it is not."""
    network = Network().put(0, 0, 0, (-100, 0, 100, 100), 0.9, CAT)
    network.put(0, 0, 1, (0, 0, 100, 100), 0.8, CAT)
    found = audited([(network, truth((UPPER, CAT)))])
    assert sides(found.detections) == [
        ("true positive", "false positive"),
        ("not selected", "true positive"),
    ]
    assert found.detections[1].first.why == "suppressed by a higher score"


def test_a_box_outside_the_image():
    network = Network().put(0, 0, 0, (-100, 0, -10, 100), 0.9, CAT)
    found = audited([(network, truth((UPPER, CAT)))])
    assert sides(found.detections) == [("not selected", "false positive")]
    assert found.detections[0].first.why == "no area inside the image"
    assert found.detections[0].score == pytest.approx(0.9)


def test_classes_without_objects_and_images_without():
    network = Network().put(0, 0, 0, UPPER, 0.9, CAT)
    found = audited([(network, truth((UPPER, CAT))), (network, truth())])
    assert [line.image_id for line in found.detections] == ["image 0", "image 1"]
    assert found.detections[1].first.why == "no object of its class in the image"
    assert np.isnan(found.first.ap[DOG])
    assert found.second.ap[DOG] == 0
    nothing = audited([(network, truth())])
    assert np.isnan(nothing.first.mean_ap)
    for complete in (True, False):
        assert audit_tables(nothing, complete=complete)


# ----------------------------------------------------------------------------- many at once


@pytest.mark.parametrize("protocols", list(itertools.permutations(AUDITED_PROTOCOLS, 2)))
def test_the_gains_add_up_and_every_line_is_counted(protocols):
    predictions, sizes, truths, options = scene(0, 7)
    objects = join_objects(truths, sizes)
    network = NetworkBoxes(predictions, sizes, options)
    found = audit(
        protocols,
        network,
        objects,
        image_ids=[str(number) for number in range(len(sizes))],
        class_names=list("abcd"),
        grid_size=7,
    )
    total = sum(change.gain for change in found.changes)
    assert total == pytest.approx(found.second.mean_ap - found.first.mean_ap, abs=1e-12)
    assert found.changes[-1].mean_ap == found.second.mean_ap
    np.testing.assert_array_equal(found.changes[-1].ap, found.second.ap)
    texts = [change.text for change in found.changes]
    assert len(set(texts)) == len(texts) == (10 if "seed" in protocols else 1)
    assert all(texts)
    assert len(found.objects) == len(objects.image)
    for outcome, end in ((found.first, 0), (found.second, 1)):
        verdicts = [(line.first, line.second)[end].side for line in found.detections]
        assert verdicts.count("true positive") == outcome.true_positive.sum()
        assert verdicts.count("ignored") == outcome.ignored.sum()
        assert len(verdicts) - verdicts.count("not selected") == len(outcome.found.row)
        named = [(line.first, line.second)[end].side for line in found.objects]
        assert named.count("found") == outcome.true_positive.sum()
        assert named.count("found") + named.count("missed") == np.sum(~outcome.targets.difficult)
    if "seed" not in protocols:
        assert not any(line.changes_side for line in (*found.objects, *found.detections))


def test_the_way_back_is_the_way_there():
    predictions, sizes, truths, options = scene(1, 7)
    network = NetworkBoxes(predictions, sizes, options)
    there, back = (
        audit(
            protocols,
            network,
            join_objects(truths, sizes),
            image_ids=[str(number) for number in range(len(sizes))],
            class_names=list("abcd"),
            grid_size=7,
        )
        for protocols in (("voc10", "seed"), ("seed", "voc10"))
    )
    assert [change.gain for change in back.changes] == [
        -change.gain for change in reversed(there.changes)
    ]
    assert [line.first for line in back.objects] == [line.second for line in there.objects]


def test_a_results_file_is_replayed_as_far_as_it_can_be():
    boxes = np.array([UPPER, INNER, LOWER], float)
    file = [Detections(boxes, np.array([1.5, 0.9, 0.2]), np.array([CAT, CAT, DOG]))]
    sizes = np.array([[448, 448]])
    found = audit(
        ("voc07", "seed"),
        FileDetections(file, sizes),
        join_objects([truth((UPPER, CAT), (LOWER, DOG))], sizes),
        image_ids=["image"],
        class_names=("cat", "dog"),
        grid_size=2,
    )
    assert sides(found.detections) == [
        ("true positive", "true positive"),  # a score of 1.5 is not dropped: that is not replayed
        ("false positive", "false positive"),
        ("true positive", "not selected"),
    ]
    assert found.detections[2].second.why == "score below 0.3"
    assert [text.split(" ")[0] for text in found.not_replayed] == ["boxes", "scores", "the"]
    assert len(found.changes) == 7
    table = audit_tables(found, complete=False)[0]
    assert table.rows[-1][1].text == "seed (in part)"
    assert any("not replayed: boxes are not cut" in note for note in table.footnotes)
    # Between the official rules a file lacks nothing.
    official = audit(
        ("voc07", "voc10"),
        FileDetections(file, sizes),
        join_objects([truth((UPPER, CAT))], sizes),
        image_ids=["image"],
        class_names=("cat", "dog"),
        grid_size=2,
    )
    assert official.not_replayed == ()


@pytest.mark.parametrize("protocols", [["voc07"], ["voc07", "coco"], ["seed", "seed"], []])
def test_two_protocols_are_needed(protocols):
    with pytest.raises(UserError, match="expected two protocols of voc07, voc10, seed such as"):
        audited([(Network(), truth())], protocols)


# ------------------------------------------------------------------------------- as tables


def example():
    network = Network().put(0, 0, 0, UPPER, 0.9, CAT).put(1, 0, 0, LOWER, 0.2, DOG)
    return network, truth((UPPER, CAT), (INNER, CAT), (LOWER, DOG), (RIGHT, CAT, True))


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_tables():
    found = audited([example()])
    rules, objects, detections, examples, classes = audit_tables(found, complete=True)
    assert texts(rules)[0] == ["0", "voc07", "77.27", ""]  # (6/11 + 1) / 2
    assert texts(rules)[-1] == ["", "seed", "0.00", "-77.27"]
    assert sum(float(row[3].text) for row in rules.rows[1:-1]) == pytest.approx(-77.27, abs=0.05)
    assert objects.title == "Objects of the ground truth: 4 of 4 change side"
    assert [cell.text for cell in objects.head] == [
        *("voc07 ↓  seed →", "found", "missed", "removed", "vanished", "all")
    ]
    assert texts(objects) == [
        ["found", "", "1", "", "1", "2"],
        ["missed", "1", "", "", "", "1"],
        ["ignored", "", "", "1", "", "1"],
        ["all", "1", "1", "1", "1", "4"],
    ]
    assert detections.title == "Detections: 1 of 2 change side"
    assert texts(examples)[0] == [
        "image 0",
        "cat, object 1",
        "found: score 0.900, IoU 1.000",
        "vanished: shares a cell with object 2 (cat)",
    ]
    assert len(examples.rows) == 5
    assert [cell.text for cell in classes.head] == ["class", *map(str, range(11))]
    assert texts(classes)[-1][1] == "77.27"
    assert len(audit_tables(found, complete=False)) == 4


def test_where_the_official_areas_differ():
    predictions, sizes, truths, options = scene(0, 7)
    found = audit(
        ("voc07", "voc10"),
        NetworkBoxes(predictions, sizes, options),
        join_objects(truths, sizes),
        image_ids=[str(number) for number in range(len(sizes))],
        class_names=list("abcd"),
        grid_size=7,
    )
    (table,) = [one for one in audit_tables(found, complete=False) if "stretch" in one.title]
    assert len(table.rows) == 12
    assert texts(table)[0][2] == "0.00"  # a recall of 0 has no area
    assert texts(table)[-1][:3] == [
        "mAP",
        f"{100 * found.first.mean_ap:.2f}",
        f"{100 * found.second.mean_ap:.2f}",
    ]
    for column, mean in ((1, found.first.mean_ap), (2, found.second.mean_ap)):
        total = sum(float(row[column].text) for row in table.rows[:-1])
        assert total == pytest.approx(100 * mean, abs=0.06)


def test_every_object_and_detection_is_a_row(tmp_path):
    write_audit_csv(tmp_path / "audit.csv", audited([example()]))
    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["object"] * 4 + ["detection"] * 2
    assert rows[0] == {
        "kind": "object",
        "image_id": "image 0",
        "number": "1",
        "class": "cat",
        "xmin": "0.00",
        "ymin": "0.00",
        "xmax": "100.00",
        "ymax": "100.00",
        "difficult": "0",
        "score": "",
        "voc07": "found",
        "voc07: why": "score 0.900, IoU 1.000",
        "seed": "vanished",
        "seed: why": "shares a cell with object 2 (cat)",
        "changes": "1",
    }
    assert rows[5]["score"] == "0.200000"
    assert rows[5]["seed: why"] == "score below 0.3"
