import math

import numpy as np
import pytest

from yolov1_jax.evaluation.average_precision import ClassEvaluation, Evaluation
from yolov1_jax.visualization import plots as figures

TERMS = ("xy", "wh", "object", "no_object", "class")


def make_evaluation(aps, num_detections=30):
    """A class for each AP, named "class <label>"; NaN makes a class without objects."""
    classes = {}
    for label, ap in enumerate(aps):
        hits = np.arange(num_detections) % 2 == 0
        recall = np.cumsum(hits) / max(hits.sum(), 1)
        precision = np.cumsum(hits) / np.arange(1, num_detections + 1)
        num_objects = 0 if math.isnan(ap) else 15
        if not num_objects:
            recall = np.full(num_detections, np.nan)
        classes[f"class {label}"] = ClassEvaluation(
            ap, recall, precision, num_objects, num_detections
        )
    with_objects = [ap for ap in aps if not math.isnan(ap)]
    mean = float(np.mean(with_objects)) if with_objects else math.nan
    without = tuple(name for name, one in classes.items() if not one.num_objects)
    return Evaluation("voc07", 9, classes, mean, without)


def colours(evaluation):
    return {name: (10 * label % 256, 99, 200) for label, name in enumerate(evaluation.classes)}


def train_row(step, loss, **others):
    terms = {f"loss/{term}": loss / 5 for term in TERMS}
    return {"split": "train", "step": step, "epoch": step / 10, "loss": loss, **terms, **others}


def eval_row(step, mean_ap):
    return {"split": "eval", "step": step, "epoch": step / 10, "mAP": mean_ap}


def lines_of(figure):
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}


def test_loss_figure_has_a_line_for_each_term(tmp_path):
    history = [train_row(step, 100 / step, learning_rate=0.1) for step in range(10, 400, 10)]
    figure = figures.loss_figure([*history, eval_row(200, 0.5)])
    lines = lines_of(figure)
    assert {"total", "xy", "wh", "object", "no object", "class"} <= set(lines)
    assert "learning rate" not in lines
    np.testing.assert_allclose(lines["total"][[0, -1], 0], [1, 39])
    assert figure.axes[0].get_yscale() == "log"
    figure.savefig(tmp_path / "losses.png")


def test_loss_figure_of_a_resumed_run_takes_the_last_row_of_a_step():
    lines = lines_of(
        figures.loss_figure([train_row(20, 3.0), train_row(10, 5.0), train_row(20, 2.0)])
    )
    np.testing.assert_array_equal(lines["total"], [[1, 5], [2, 2]])


@pytest.mark.parametrize(
    "rows",
    [
        [train_row(10, 2.0)],
        [train_row(10, 0.0), train_row(20, 0.0)],
        [train_row(10, -1.0), train_row(20, 3.0)],
        [train_row(10, 2.0), {"split": "train", "step": 20, "epoch": 2.0, "loss": None}],
    ],
    ids=["single row", "all zero", "negative", "not finite"],
)
def test_loss_figure_of_odd_histories(rows, tmp_path):
    figure = figures.loss_figure(rows)
    assert "total" in lines_of(figure)
    figure.savefig(tmp_path / "losses.png")


def test_less_than_an_epoch_is_counted_in_steps():
    rows = [train_row(4, 2.0), train_row(8, 1.0)]
    figure = figures.loss_figure(rows)
    assert figure.axes[0].get_xlabel() == "step"
    np.testing.assert_array_equal(lines_of(figure)["total"], [[4, 2], [8, 1]])
    assert figures.mean_ap_figure([eval_row(8, 0.5)]).axes[0].get_xlabel() == "step"
    assert figures.loss_figure([*rows, train_row(10, 1.0)]).axes[0].get_xlabel() == "epoch"


def test_figures_of_a_history_without_their_rows():
    assert figures.loss_figure([]) is None
    assert figures.loss_figure([eval_row(10, 0.5)]) is None
    assert figures.mean_ap_figure([train_row(10, 1.0)]) is None
    assert figures.mean_ap_figure([eval_row(10, None)]) is None


def test_smoothing_is_a_mean_that_keeps_the_ends():
    np.testing.assert_allclose(figures._smoothed(np.arange(49.0)), np.arange(49.0))
    ramp = figures._smoothed(np.arange(50.0))
    np.testing.assert_allclose(ramp[1:-1], np.arange(1, 49))
    np.testing.assert_allclose(ramp[[0, -1]], [0.5, 48.5])
    np.testing.assert_allclose(figures._smoothed(np.full(500, 3.0)), 3.0)


def test_mean_ap_figure_marks_the_best(tmp_path):
    figure = figures.mean_ap_figure([eval_row(10, 0.2), eval_row(20, 0.61), eval_row(30, 0.5)])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [[1, 20], [2, 61], [3, 50]])
    assert [text.get_text() for text in axes.texts] == ["61.0"]
    assert axes.texts[0].xy == (2.0, 61.0)
    figure.savefig(tmp_path / "map.png")


def test_ap_figure_is_sorted_with_the_mean_and_the_classes_without_objects_last(tmp_path):
    evaluation = make_evaluation([0.2, math.nan, 0.8, 0.0, 1.0])
    figure = figures.ap_figure(evaluation, colours(evaluation))
    axes = figure.axes[0]
    names = [label.get_text().split(" (")[0] for label in axes.get_yticklabels()]
    assert names == ["class 4", "class 2", "class 0", "class 3", "class 1"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [100, 80, 20, 0, 0])
    written = [text.get_text() for text in axes.texts]
    assert written == ["100.0", "80.0", "20.0", "0.0", "no objects", "mAP 50.0"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best is on top
    figure.savefig(tmp_path / "ap.png")


@pytest.mark.parametrize("num_classes", [1, 80])
def test_class_figures_of_few_and_many_classes(num_classes, tmp_path):
    evaluation = make_evaluation(np.linspace(0, 1, num_classes).tolist())
    bars = figures.ap_figure(evaluation, colours(evaluation))
    assert sum(len(axes.patches) for axes in bars.axes) == num_classes
    panels = figures.precision_recall_figure(evaluation, colours(evaluation))
    assert sum(axes.get_visible() for axes in panels.axes) == num_classes
    for figure in (bars, panels):
        figure.savefig(tmp_path / "figure.png")
        # Small enough to look at in a browser.
        assert (tmp_path / "figure.png").stat().st_size < 400_000


def test_class_figures_where_nothing_has_objects(tmp_path):
    evaluation = make_evaluation([math.nan, math.nan])
    assert figures.precision_recall_figure(evaluation, colours(evaluation)) is None
    figure = figures.ap_figure(evaluation, colours(evaluation))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no objects"] * 2
    figure.savefig(tmp_path / "ap.png")


def test_precision_recall_figure_draws_the_curve(tmp_path):
    evaluation = make_evaluation([0.5])
    figure = figures.precision_recall_figure(evaluation, colours(evaluation))
    curve = figure.axes[0].get_lines()[0].get_xydata()
    one = evaluation.classes["class 0"]
    np.testing.assert_allclose(curve[1:], np.stack([one.recall, one.precision], axis=1))
    np.testing.assert_allclose(curve[0], [0, 1])
    assert figure.axes[0].get_title(loc="left") == "class 0  50.0"


def test_precision_recall_figure_of_a_class_without_detections(tmp_path):
    evaluation = make_evaluation([0.0], num_detections=0)
    figures.precision_recall_figure(evaluation, colours(evaluation)).savefig(tmp_path / "pr.png")


def test_class_names_are_not_taken_for_formulas(tmp_path):
    one = make_evaluation([0.5]).classes["class 0"]
    evaluation = Evaluation("voc07", 1, {"a$\\x$b": one}, 0.5, ())
    figures.ap_figure(evaluation, {"a$\\x$b": (1, 2, 3)}).savefig(tmp_path / "ap.png")
    figures.precision_recall_figure(evaluation, {"a$\\x$b": (1, 2, 3)}).savefig(tmp_path / "pr.png")
