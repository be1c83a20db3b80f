import json
import math

import numpy as np
from PIL import Image
from rich.console import Console
from test_plots import eval_row, make_evaluation, train_row

from yolov1_jax.evaluation.coco import evaluate_coco
from yolov1_jax.visualization.report import ap_table, protocol_table, write_report
from yolov1_jax.yolo.detections import Detections, GroundTruth

NAMES = ["class 0", "class 1", "class 2"]


def examples(num_images):
    images = [np.full((60, 80, 3), 99, np.uint8)] * num_images
    found = Detections(np.array([[5, 5, 40, 50.0]]), np.array([0.8]), np.array([1]))
    truth = GroundTruth(np.array([[5, 5, 45, 50.0]]), np.array([1]), np.array([False]))
    return {
        "images": images,
        "detections": [found] * num_images,
        "ground_truth": [truth] * num_images,
    }


def write_history(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_report_of_a_run(tmp_path):
    history = tmp_path / "metrics.jsonl"
    write_history(history, [train_row(10, 3.0), train_row(20, 2.0), eval_row(20, 0.5)])
    written = write_report(
        tmp_path,
        evaluation=make_evaluation([0.3, 0.7, math.nan]),
        history_path=history,
        class_names=NAMES,
        **examples(4),
    )
    assert [path.name for path in written] == [
        "losses.png",
        "map.png",
        "ap_by_class.png",
        "precision_recall.png",
        "detections.jpg",
    ]
    assert {path.parent for path in written} == {tmp_path / "report"}
    for path in written:
        with Image.open(path) as image:
            image.load()
            assert 500 <= image.width <= 1600
        assert path.stat().st_size < 400_000


def test_report_of_an_evaluation_without_history_and_without_images(tmp_path):
    written = write_report(
        tmp_path,
        evaluation=make_evaluation([0.3]),
        history_path=tmp_path / "metrics.jsonl",
        class_names=NAMES[:1],
        **examples(0),
    )
    assert [path.name for path in written] == ["ap_by_class.png", "precision_recall.png"]


def test_ap_table_has_every_class_and_the_mean_at_the_bottom():
    evaluation = make_evaluation([0.3, 0.7251, math.nan])
    console = Console(width=80)
    with console.capture() as captured:
        console.print(ap_table(evaluation, step=12345))
    lines = [line.replace("│", " ").split() for line in captured.get().splitlines()]
    assert lines[0] == ["voc07,", "step", "12,345"]
    rows = [line for line in lines if line and line[0] in ("class", "mAP")]
    assert rows == [
        ["class", "0", "30.0", "15", "30"],
        ["class", "1", "72.5", "15", "30"],
        ["class", "2", "-", "0", "30"],
        ["mAP", "51.3", "30", "90"],
    ]


def printed(table):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    return [
        line.replace("│", " ").replace("┃", " ").split() for line in captured.get().splitlines()
    ]


def test_ap_table_of_detections_of_no_run():
    assert printed(ap_table(make_evaluation([0.3])))[0] == ["voc07"]


def test_protocol_table_has_every_mean():
    found = [Detections(np.array([[1.0, 1, 50, 50]]), np.array([0.5]), np.array([0]))]
    truths = [GroundTruth(np.array([[1.0, 1, 50, 50]]), np.array([0]), np.array([False]))]
    coco = evaluate_coco(found, truths, ["cat"])
    lines = printed(protocol_table({"voc10": make_evaluation([0.3, 0.7251]), "coco": coco}))
    assert lines[0] == ["voc10", "coco", "AP50", "AP75", "small", "medium", "large"]
    assert lines[2] == ["51.3", "100.0", "100.0", "100.0", "-", "100.0", "-"]


def test_ap_table_does_not_take_class_names_for_markup():
    evaluation = make_evaluation([0.5])
    evaluation.classes["[bold]x[/]"] = evaluation.classes.pop("class 0")
    console = Console(width=80)
    with console.capture() as captured:
        console.print(ap_table(evaluation, step=1))
    assert "[bold]x[/]" in captured.get()
