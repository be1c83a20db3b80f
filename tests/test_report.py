import json
import math

import numpy as np
from PIL import Image
from rich.console import Console
from test_plots import eval_row, make_evaluation, train_row

from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.visualization.report import ap_table, protocol_table, report_result
from yolov1_jax.yolo.detections import Detections

PICTURES = ["losses.png", "map.png", "ap_by_class.png", "precision_recall.png", "detections.jpg"]


def test_report_of_a_run(tmp_path):
    source = SyntheticSource("eval", num_images=30, image_size=64)
    annotations = source.annotations()
    truths = [annotations[i] for i in range(30)]
    found = [Detections(boxes, np.full(len(labels), 0.8), labels) for boxes, labels, _ in truths]
    result = Result("voc07", {"voc07": make_evaluation([0.3, 0.7, math.nan])}, found, annotations)
    history = tmp_path / "metrics.jsonl"
    written = report_result(tmp_path / "alone", result, source, history)  # there is no history
    assert written == [tmp_path / "alone" / "report" / name for name in PICTURES[2:]]

    rows = [train_row(10, 3.0), train_row(20, 2.0), eval_row(20, 0.5)]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = report_result(tmp_path, result, source, history)
    assert written == [tmp_path / "report" / name for name in PICTURES]
    for path in written:
        with Image.open(path) as image:
            image.load()
            assert 500 <= image.width <= 1600
        assert path.stat().st_size < 400_000
    assert 850 < image.height < 1000  # of the page: three rows of four images


def printed(table):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    text = captured.get().replace("│", " ").replace("┃", " ")
    return [line.split() for line in text.splitlines()]


def test_ap_table_has_every_class_and_the_mean():
    lines = printed(ap_table(make_evaluation([0.3, 0.7251, math.nan], names="[b]{}"), step=12345))
    assert lines[0] == ["voc07,", "step", "12,345"]
    assert [line for line in lines if line and line[0] in ("[b]0", "[b]1", "[b]2", "mAP")] == [
        ["[b]0", "30.0", "15", "30"],
        ["[b]1", "72.5", "15", "30"],
        ["[b]2", "-", "0", "30"],
        ["mAP", "51.3", "30", "90"],
    ]
    assert printed(ap_table(make_evaluation([0.3])))[0] == ["voc07"]


def test_protocol_table_has_every_mean():
    parts = {"AP50": 0.5, "AP75": 0.25, "AP_small": math.nan, "AR1": 0.75}
    coco = make_evaluation([0.4])
    coco.parts.update(parts)
    lines = printed(protocol_table({"voc10": make_evaluation([0.3, 0.7251]), "coco": coco}))
    assert lines[0] == ["voc10", "coco", "AP50", "AP75", "small"]
    assert lines[2] == ["51.3", "40.0", "50.0", "25.0", "-"]
