"""Results as tables for a terminal."""

import math

import numpy as np
from annotated_sets import found, images_of, truth
from rich.console import Console
from test_plots import make_evaluation

from yolov1_jax.evaluation.accuracy import Accuracy
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.visualization.tables import protocol_table, result_table


def printed(table):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    text = captured.get().replace("│", " ").replace("┃", " ")
    return [line.split() for line in text.splitlines()]


def test_ap_of_every_class_and_the_mean():
    evaluation = make_evaluation([0.3, 0.7251, math.nan], names="[b]{}")
    result = Result("voc07", {"voc07": evaluation}, [], images_of())
    lines = printed(result_table(result, step=12345))
    assert lines[0] == ["voc07,", "step", "12,345"]
    assert [line for line in lines if line and line[0] in ("[b]0", "[b]1", "[b]2", "mAP")] == [
        ["[b]0", "30.0", "15", "30"],
        ["[b]1", "72.5", "15", "30"],
        ["[b]2", "-", "0", "30"],
        ["mAP", "51.3", "30", "90"],
    ]


def test_the_mean_by_every_protocol():
    coco = make_evaluation([0.4])
    coco.parts.update({"AP50": 0.5, "AP75": 0.25, "AP_small": math.nan, "AR1": 0.75})
    lines = printed(protocol_table({"voc10": make_evaluation([0.3, 0.7251]), "coco": coco}))
    assert lines[0] == ["voc10", "coco", "AP50", "AP75", "small"]
    assert lines[2] == ["51.3", "40.0", "50.0", "25.0", "-"]


def accuracy_of(ranks, labels, class_names=("cat", "dog")):
    table = images_of(
        truths=[truth(((10, 10, 30, 30), label, False)) for label in labels],
        class_names=class_names,
    )
    detections = [found(((10, 10, 30, 30), 0.5, 0))] * len(labels)
    return Accuracy(np.array(ranks), detections, table, {})


def test_top_1_of_all_classes_or_of_the_worst():
    lines = printed(result_table(accuracy_of([0, 1, 0, 6], [0, 0, 0, 1]), step=3))
    assert lines[0] == ["accuracy,", "step", "3"]
    for line in (["cat", "66.7%", "3"], ["top-1", "50.0%", "4"], ["top-5", "75.0%"]):
        assert line in lines
    names, labels = tuple(f"class{i}" for i in range(100)), np.arange(100)
    many = printed(result_table(accuracy_of(labels > 90, labels, names)))
    assert ["class95", "0.0%", "1"] in many
    assert ["class85", "100.0%", "1"] not in many
