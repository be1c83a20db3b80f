import dataclasses
import html.parser
import json

import numpy as np
from PIL import Image
from test_plots import eval_row, train_row
from tiny_run import tiny_config

from yolov1_jax.data.object_windows import ObjectWindows
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.evaluation import errors
from yolov1_jax.evaluation.accuracy import ClassificationEvaluator
from yolov1_jax.evaluation.evaluator import evaluate_detections
from yolov1_jax.visualization.report import report_run, write_first_batch
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions

EVALUATED = ["grid.png", "ap_by_class.png", "precision_recall.png", "detections.jpg", "report.html"]


class Page(html.parser.HTMLParser):
    """The headings of a page, and all that it loads or shows as a picture."""

    def __init__(self, path):
        super().__init__()
        self.headings, self.loaded, self.text = [], [], path.read_text()
        self.heading = False
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loaded += [values[name] for name in ("src", "href") if name in values]
        self.heading = tag == "h2"

    def handle_data(self, data):
        if self.heading:
            self.headings.append(data)
            self.heading = False


def result_of(source, detections, class_names=None):
    annotations = source.annotations()
    if class_names is not None:
        annotations = dataclasses.replace(annotations, class_names=class_names)
    return evaluate_detections(detections, annotations, protocol="voc07")


def found_all(source, score=0.8):
    truths = [source.annotations()[i] for i in range(len(source))]
    return [Detections(boxes, np.full(len(labels), score), labels) for boxes, labels, _ in truths]


def test_report_of_a_run(tmp_path, monkeypatch):
    source = SyntheticSource("eval", num_images=30, image_size=64)
    result = result_of(source, found_all(source))
    history = tmp_path / "run" / "metrics.jsonl"
    monkeypatch.setattr(errors, "is_installed", lambda: False)
    about = {"config": tiny_config(model__grid_size=4), "step": 20}
    written = report_run(tmp_path / "alone", result, source, history, **about)  # no history
    assert written == [tmp_path / "alone" / "report" / name for name in EVALUATED]
    assert "pip install" in Page(written[-1]).text
    monkeypatch.undo()

    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    rows = [train_row(10, 3.0), train_row(20, 2.0), eval_row(10, 0.2), eval_row(20, 0.5)]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, score in ((10, 0.15), (20, 0.8)):  # too low a score to be drawn, and not
        data = {"source": "synthetic", "splits": ["eval"], "step": step}
        summary = result_of(source, found_all(source, score)).summary(**data)
        (folder / "eval" / f"{step}.json").write_text(json.dumps(summary))
    boxes = np.full((4, 4, 2, 4), 0.1, np.float32)
    predictions = Predictions(boxes, boxes[..., 0], np.ones((4, 4, 6), np.float32))
    result = result._replace(predictions=dict.fromkeys(range(30), predictions))
    batch = {
        "image": np.stack([source[i].image for i in range(2)]),
        "boxes_xyxy": np.array([[[0.1, 0.1, 0.3, 0.3]], [[0, 0, 0, 0]]], np.float32),
        "labels": np.zeros((2, 1), np.int32),
        "valid": np.array([[True], [False]]),
    }
    write_first_batch(folder / "report" / "first_batch.png", batch, about["config"])
    written = report_run(folder, result, source, history, **about)
    for path in written[:-1]:
        with Image.open(path) as image:
            image.load()
            assert 400 <= image.width <= 1600
        assert path.stat().st_size < 900_000
    page = Page(written[-1])
    assert page.headings == [
        *("Training", "First batch", "Objects and the grid", "Precision and recall"),
        *("Where errors come from", "Worst images", "Best images", "Confidently wrong"),
        *("Labels to check", "Learning to see", "From boxes to detections"),
    ]
    assert all(one.startswith(("data:image/", "#")) for one in page.loaded)
    assert page.text.count("epoch 2, mAP 50.0") == 4  # four images, each with both evaluations
    assert "<script" not in page.text


def test_report_of_no_detections_and_of_names_that_html_would_take_for_tags(tmp_path):
    source = SyntheticSource("eval", num_images=3, image_size=64)
    nothing = [Detections(*(part[:0] for part in one)) for one in found_all(source)]
    result = result_of(source, nothing, ("<b>&", *"abcde"))
    about = {"config": tiny_config(), "step": 20}
    *_, path = report_run(tmp_path, result, source, tmp_path / "metrics.jsonl", **about)
    page = Page(path)
    assert "0 found, 0 false" in page.text
    assert "<b>&" not in page.text


def test_report_of_classification(tmp_path):
    source = ObjectWindows(SyntheticSource("eval", num_images=3, image_size=64))
    annotations = source.annotations()
    evaluator = ClassificationEvaluator(annotations)
    probabilities = np.full((len(annotations), 6), 0.1)
    probabilities[:, 0] = 0.5  # every image is of the first class
    evaluator.update(probabilities, np.arange(len(annotations)))
    config = tiny_config(task="classification")
    rows = [train_row(10, 3.0), {"split": "eval", "step": 10, "epoch": 1, "top1": 0.5, "top5": 1}]
    history = tmp_path / "metrics.jsonl"
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    image = np.zeros((2, 64, 64, 3), np.uint8)
    batch = {"image": image, "labels": np.array([0, 5]), "index": np.array([0, 1])}
    write_first_batch(tmp_path / "report" / "first_batch.png", batch, config)
    about = {"config": config, "step": 10}
    *pictures, path = report_run(tmp_path, evaluator.compute(), source, history, **about)
    names = ["losses.png", "accuracy.png", "confusion.png", "predictions.jpg"]
    assert [picture.name for picture in pictures] == names
    page = Page(path)
    assert page.headings == [
        *("Training", "First batch", "Which class is taken for which", "Confidently wrong"),
        "Predictions",
    ]
    wrong = int(np.sum(annotations.labels != 0))
    assert page.text.count(f"{annotations.class_names[0]} 0.50, labelled") == min(wrong, 8) > 0
