"""From a source to average precision: a network that knows the truth must get full marks.

Frames: ground truth and detections in pixels of the original images.
"""

import io
import json

import numpy as np
import pytest
from oracle import GRID_SIZE, ODD_SIZES, ListSource, predict
from rich.console import Console
from tiny_run import save_run, tiny_config

from yolov1_jax import evaluate
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.errors import UserError
from yolov1_jax.evaluation.detections import Detections, GroundTruth
from yolov1_jax.evaluation.mean_ap import evaluate_detections

SELECT = {
    "xy_unit": "cell",
    "score_threshold": 0.005,
    "nms_iou_threshold": 0.5,
    "classes_per_box": "best",
}


def evaluate_oracle(source, protocol="voc07"):
    predictions, sizes = predict(source)
    return evaluate.evaluate_predictions(
        predictions,
        sizes,
        evaluate.ground_truth_of(source),
        class_names=source.class_names,
        protocol=protocol,
        select_options=SELECT,
    )


# ------------------------------------------------------------------------------ ground truth


def test_annotated_pixels_come_back_exactly():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(50):
        height, width = rng.integers(40, 1000, 2)
        corners = np.sort(rng.integers(1, [width, height], (3, 2, 2)), axis=1)  # [3, 2, 2]
        boxes = corners.reshape(3, 4)
        images.append((int(height), int(width), boxes, [0, 1, 2], [True, False, True]))
    truths = evaluate.ground_truth_of(ListSource(*images))
    assert len(truths) == 50
    for truth, (_, _, boxes, labels, difficult) in zip(truths, images, strict=True):
        assert truth.boxes_xyxy.dtype == np.float64
        np.testing.assert_array_equal(truth.boxes_xyxy, boxes)  # not only almost
        np.testing.assert_array_equal(truth.labels, labels)
        np.testing.assert_array_equal(truth.difficult, difficult)


def test_fractions_of_a_pixel_are_left_alone():
    boxes = [[1.25, 2.5, 7.002, 8.75]]
    (truth,) = evaluate.ground_truth_of(ListSource((11, 13, boxes, [0], [False])))
    np.testing.assert_allclose(truth.boxes_xyxy, boxes, rtol=1e-12)


def test_an_image_without_objects_has_an_empty_truth():
    (truth,) = evaluate.ground_truth_of(ListSource((11, 13, [], [], [])))
    assert truth.boxes_xyxy.shape == (0, 4)


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
    for protocol in ("voc07", "voc10"):
        result = evaluate_oracle(source, protocol)
        for name, one in result.evaluation.classes.items():
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


# ------------------------------------------------------------------------------------ summary


def result_of(truths, detections, names=("cat", "dog")):
    evaluation = evaluate_detections(detections, truths, names)
    return evaluate.Result("voc07", evaluation, detections, truths)


def one_object(label, difficult=False):
    return GroundTruth(np.array([[1.0, 1, 9, 9]]), np.array([label]), np.array([difficult]))


NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))


def test_summary_counts():
    truths = [one_object(0), one_object(0, difficult=True), one_object(1)]
    found = Detections(np.array([[1.0, 1, 9, 9]]), np.array([0.5]), np.array([0]))
    summary = evaluate.summary(result_of(truths, [found, found, NOTHING]), 12)
    assert summary == {
        "step": 12,
        "protocol": "voc07",
        "mAP": 0.5,
        "ap": {"cat": 1.0, "dog": 0.0},
        "num_images": 3,
        "num_objects": 2,
        "num_difficult": 1,
        "num_detections": 2,
    }


def test_what_has_no_precision_is_null():
    summary = evaluate.summary(result_of([one_object(0)], [NOTHING]), 1)
    assert (summary["mAP"], summary["ap"]) == (0.0, {"cat": 0.0, "dog": None})
    summary = evaluate.summary(result_of([one_object(0, difficult=True)], [NOTHING]), 1)
    assert (summary["mAP"], summary["ap"]) == (None, {"cat": None, "dog": None})
    json.dumps(summary, allow_nan=False)


# -------------------------------------------------------------------------------- a run folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3, 30: None})


def evaluate_aloud(run, **options):
    console = Console(file=io.StringIO(), width=80)
    _, step = evaluate.evaluate_run(run, console=console, **options)
    return step, console.file.getvalue()


def test_a_run_is_evaluated_at_its_best_step(run):
    step, said = evaluate_aloud(run)
    assert step == 10
    lines = said.splitlines()
    assert lines[0] == (
        f"{run}: step 10, the best by mAP of the run's own evaluations (latest: 30)"
    )
    assert lines[1] == "data: eval:6, 6 images"
    assert "voc07, step 10" in said
    assert lines[-1] == f"result in {run}/eval/10.json, pictures in {run}/report"
    written = json.loads((run / "eval" / "10.json").read_text())
    assert (written["step"], written["protocol"], written["num_images"]) == (10, "voc07", 6)
    assert written["splits"] == ["eval:6"]
    assert (run / "report" / "ap_by_class.png").is_file()
    assert (run / "report" / "detections.jpg").is_file()


def test_other_data_and_protocols_get_files_of_their_own(run):
    own = run / "eval" / "20.json"
    own.parent.mkdir(exist_ok=True)
    own.write_text("the run's own result")
    step, said = evaluate_aloud(run, step=20, protocol="voc10", splits=["eval:1"])
    assert step == 20
    assert f"{run}: step 20, as asked for" in said
    name = "20-eval_1-voc10"
    assert said.splitlines()[-1] == (
        f"result in {run}/eval/{name}.json, pictures in {run}/eval/{name}/report"
    )
    written = json.loads((run / "eval" / f"{name}.json").read_text())
    assert (written["protocol"], written["splits"], written["num_images"]) == (
        "voc10",
        ["eval:1"],
        1,
    )
    assert (run / "eval" / name / "report" / "detections.jpg").is_file()
    assert own.read_text() == "the run's own result"
    # One scene cannot have all six classes: those without an object are named.
    absent = [name for name, ap in written["ap"].items() if ap is None]
    assert absent
    assert f"no object to find, therefore not in the mAP: {', '.join(absent)}" in said


def test_objects_that_the_run_does_not_know_are_counted(run):
    source = ListSource()
    source.report.skip_object("class is not in class_names", "a/1: zebra")
    source.report.skip_object("class is not in class_names", "a/2: zebra")
    evaluation = evaluate_detections([NOTHING], [one_object(0)], ["cat"])
    assert evaluate._class_differences(source, evaluation) == [
        "2 objects left out, class is not in class_names: a/1: zebra, ..."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 15}, r"step must be 'best', 'latest' or one of \[10, 20, 30\], got 15"),
        ({"step": "newest"}, "got 'newest'"),
        ({"protocol": "coco"}, "protocol must be one of .* got 'coco'"),
        ({"splits": ["val"]}, "'val'"),
        ({"splits": [","]}, "splits is empty"),
    ],
)
def test_mistakes_are_the_users(run, options, message):
    with pytest.raises(UserError, match=message):
        evaluate.evaluate_run(run, **options)


def test_a_batch_must_fit_the_devices(tmp_path):
    save_run(tmp_path, {1: None}, tiny_config(eval__batch_size=6))
    with pytest.raises(UserError, match=r"config\.eval\.batch_size=6 cannot be split evenly"):
        evaluate.evaluate_run(tmp_path)
