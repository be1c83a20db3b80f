"""The pictures and the table of a run of classification."""

import numpy as np
from annotated_sets import found, images_of, truth
from rich.console import Console

from yolov1_jax.data.dataset import Record
from yolov1_jax.evaluation.accuracy import Accuracy
from yolov1_jax.visualization.classification import accuracy_figure, report_run, result_table

BOX = (10, 10, 30, 30)


def result_of(ranks, labels, class_names=("cat", "dog")):
    table = images_of(
        truths=[truth((BOX, label, False)) for label in labels], class_names=class_names
    )
    return Accuracy(np.array(ranks), [found((BOX, 0.5, 0))] * len(labels), table, {})


def table_text(result):
    console = Console(width=80)
    with console.capture() as capture:
        console.print(result_table(result, step=3))
    return capture.get()


def test_the_table_has_all_classes_or_the_worst():
    text = table_text(result_of([0, 1, 0, 6], [0, 0, 0, 1]))
    for words in ("accuracy, step 3", "cat   │ 66.7% │      3", "top-1 │ 50.0%", "top-5 │ 75.0%"):
        assert words in text
    labels = np.arange(100)
    many = table_text(result_of(labels > 90, labels, tuple(f"class{i:02}" for i in range(100))))
    assert "class95" in many
    assert "class85" not in many


def test_the_lines_are_the_rows_in_percent():
    rows = [
        {"split": "train", "step": 1, "epoch": 0.5},
        {"split": "eval", "step": 2, "epoch": 1.0, "top1": 0.25, "top5": 0.75},
    ]
    (axes,) = accuracy_figure(rows).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 25]], [[1, 75]]]
    assert accuracy_figure(rows[:1]) is None


def test_what_is_drawn(tmp_path):
    result = result_of([0, 1], [0, 1])

    class Source:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Record(np.zeros((40, 60, 3), np.uint8), str(index), *result.annotations[index])

    (tmp_path / "metrics.jsonl").write_text(
        '{"split": "train", "step": 1, "epoch": 1, "loss": 2.0, "learning_rate": 0.1}\n'
        '{"split": "eval", "step": 1, "epoch": 1, "top1": 0.5, "top5": 1.0}\n'
    )
    written = report_run(tmp_path, result, Source(), tmp_path / "metrics.jsonl")
    assert {path.name for path in written} == {"losses.png", "accuracy.png", "predictions.jpg"}
    assert all(path.is_file() for path in written)
