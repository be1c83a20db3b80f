import dataclasses
import math

import numpy as np
import pytest
from annotated_sets import images_of, truth

from yolov1_jax.evaluation.average_precision import ClassEvaluation, Evaluation
from yolov1_jax.visualization import plots
from yolov1_jax.yolo.detections import Detections


def make_evaluation(aps, num_detections=30, names="class {}"):
    """A class for each AP; NaN makes one without objects."""
    hits = np.arange(num_detections) % 2 == 0
    precision = np.cumsum(hits) / np.arange(1, num_detections + 1)
    classes = {}
    for label, ap in enumerate(aps):
        num_objects = 0 if math.isnan(ap) else 15
        recall = np.cumsum(hits) / (num_objects or math.nan)
        one = ClassEvaluation(ap, recall, precision, num_objects, num_detections)
        classes[names.format(label)] = one
    mean_ap = math.nan if np.isnan(aps).all() else np.nanmean(aps)
    return Evaluation(protocol="voc07", classes=classes, mean_ap=mean_ap)


def train_row(step, loss):
    terms = {f"loss/{term}": loss / 5 for term in ("xy", "wh", "object", "no_object", "class")}
    return {"split": "train", "step": step, "epoch": step / 10, "rate": 1, "loss": loss, **terms}


def eval_row(step, mean_ap):
    return {"split": "eval", "step": step, "epoch": step / 10, "mAP": mean_ap}


def lines_of(figure):
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_every_loss_is_a_line_by_epoch():
    history = [train_row(step, 100 - step) for step in (1, *range(1, 81))]  # the last 1 counts
    history[0]["loss"] = 1000
    lines = lines_of(plots.loss_figure([*history, eval_row(40, 0.5)]))
    names = {name for name in lines if not name.startswith("_")}  # as matplotlib names the others
    assert names == {"total", "xy", "wh", "object", "no object", "class"}
    # A point for every two rows, between them.
    means = [[s / 10, 100 - s - 0.5] for s in range(1, 81, 2)]
    np.testing.assert_allclose(lines["total"], means)


def test_the_loss_of_evaluations_is_dashed_in_the_same_colour():
    history = [train_row(10, 3.0), train_row(20, 2.0), {**eval_row(20, 0.5), "loss": 2.5}]
    axes, rate = plots.loss_figure([{**row, "learning_rate": 0.1} for row in history]).axes
    by_style = {
        line.get_linestyle(): line for line in axes.get_lines() if line.get_color() == plots.INK
    }
    assert by_style["--"].get_xydata().tolist() == [[2, 2.5]]
    assert rate.get_lines()[0].get_xydata().tolist() == [[1, 0.1], [2, 0.1]]


def test_the_last_point_of_a_loss_is_of_as_many_steps_as_the_others():
    rows = [train_row(step, 2.0) for step in range(10, 101, 10)] + [train_row(101, 22.0)]
    last = lines_of(plots.loss_figure(rows))["total"][-1, 1]
    assert last == pytest.approx(2 + 20 / 10.1)  # one step of ten has ten times the loss


def test_a_loss_term_has_the_same_colour_in_every_picture():
    rows = [train_row(10, 1.0), train_row(20, 1.0) | {"loss/xy": 9.0, "loss/wh": 0.01}]
    pictures = [plots.loss_figure(part).axes[0].get_lines() for part in (rows[:1], rows)]
    colours = [
        {line.get_label(): line.get_color() for line in lines if "_" not in line.get_label()}
        for lines in pictures
    ]
    assert colours[0] == colours[1]
    assert len(set(colours[0].values())) == 6


def test_odd_histories(tmp_path):
    zero, not_finite = {"loss/xy": 0.0}, {"loss": None}
    for last in (zero, not_finite):
        for first in ([], [train_row(10, 2.0)]):
            figure = plots.loss_figure([*first, train_row(20, 1.0) | last])
            figure.savefig(tmp_path / "losses.png", dpi=20)
    for history in ([], [eval_row(10, None)]):
        assert plots.loss_figure(history) is None
        assert plots.score_figure([*history, train_row(10, 1.0)]) is None


def test_scores_by_epoch_with_the_best_marked():
    rows = [eval_row(10, 0.2), eval_row(20, 0.61), eval_row(30, 0.5)]
    (axes,) = plots.score_figure(rows).axes
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [[1, 20], [2, 61], [3, 50]])
    assert texts_of(axes) == ["61.0"]
    assert axes.texts[0].xy == (2.0, 61.0)
    row = {"split": "eval", "step": 20, "epoch": 2, "top1": 0.25, "top5": 0.75}
    lines = lines_of(plots.score_figure([row]))
    assert [lines[name].tolist() for name in ("top1", "top5")] == [[[2, 25]], [[2, 75]]]


def test_classes_are_ranked_by_ap_and_those_without_objects_are_last():
    (axes,) = plots.ap_figure(make_evaluation([0.2, math.nan, 0.8, 0.0, 1.0])).axes
    names = [label.get_text().split(" (")[0] for label in axes.get_yticklabels()]
    assert names == ["class 4", "class 2", "class 0", "class 3", "class 1"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [100, 80, 20, 0, 0])
    assert texts_of(axes) == ["100.0", "80.0", "20.0", "0.0", "no objects", "mAP 50.0"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best is on top


def test_class_names_in_any_script(tmp_path):
    """Without a warning of a missing glyph, or a "$" that is taken for a formula."""
    evaluation = make_evaluation([0.5])
    names = ["直剪", "\ud800", "a\nb", "a$\\x$b", "x" * 10_000]
    classes = dict.fromkeys(names, evaluation.classes["class 0"])
    evaluation = dataclasses.replace(evaluation, classes=classes)
    for figure in (plots.ap_figure(evaluation), plots.precision_recall_figure(evaluation)):
        figure.savefig(tmp_path / "figure.png", dpi=20)


def test_objects_that_lose_their_cell_cap_the_recall():
    near, far = ((1, 1, 9, 9), 0, False), ((60, 60, 90, 90), 0, False)
    hard = ((2, 2, 8, 8), 0, True)
    annotations = images_of(truths=[truth(near, near, far, hard), truth(near)])
    figure = plots.grid_figure(annotations, 2)
    assert "4 objects" in figure.get_suptitle()
    assert "25.0% lose" in figure.get_suptitle()
    places, sizes = figure.axes
    np.testing.assert_allclose(places.images[0].get_array(), [[75, 0], [0, 25]])
    assert sum(bar.get_height() for bar in sizes.patches) == 4


def test_of_many_classes_the_plots_show_some_and_say_so():
    evaluation = make_evaluation(np.linspace(1, 0, 101))
    classes = evaluation.classes
    classes["class 7"] = classes["class 7"]._replace(num_objects=99)
    bars, panels = plots.ap_figure(evaluation), plots.precision_recall_figure(evaluation)
    names = [label.get_text().split(" (")[0] for label in bars.axes[0].get_yticklabels()]
    assert names == [f"class {label}" for label in range(71, 101)]
    assert panels.axes[0].get_title(loc="left").startswith("class 7 ")
    confusion = 100 * np.eye(101, dtype=int)
    confusion[50, 90] = 9
    matrix = plots.confusion_figure(confusion, [*classes])
    names = [label.get_text() for label in matrix.axes[0].get_yticklabels()]
    assert names == [f"class {label}" for label in (*range(28), 50, 90)]
    for figure in (bars, panels, matrix):
        assert "30" in figure.get_suptitle()
        assert "101 classes" in figure.get_suptitle()


def test_figures_of_nothing_and_of_many_classes(tmp_path):
    nothing = {"ap50": 0.0, "kinds": {"missed": {"count": 0, "gain": 0.0, "share": 0.0}}}
    nothing |= {"calibration": [], "calibration_error": 0.0}
    names = ["a\nb", *(f"class {i}" for i in range(31))]
    box = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    for figure in (
        plots.kinds_figure(nothing),
        plots.calibration_figure(nothing),
        plots.confusion_figure(np.zeros((33, 33), int), names),
        plots.grid_figure(images_of("1"), 7),
        plots.boxes_figure(np.zeros((30, 20, 3), np.uint8), 7, truth(), {"none": box}),
    ):
        figure.savefig(tmp_path / "figure.png", dpi=20)


def test_every_column_of_panels_has_numbers_below_its_last():
    axes = plots.precision_recall_figure(make_evaluation([0.5] * 7)).axes  # four and three
    below = [one.xaxis.get_tick_params()["labelbottom"] for one in axes]
    assert below == [False, False, False, True, True, True, True, True]


def test_precision_by_recall_starts_at_recall_0():
    evaluation = make_evaluation([0.5, math.nan])
    (axes,) = plots.precision_recall_figure(evaluation).axes  # none for the class without objects
    one = evaluation.classes["class 0"]
    points = np.stack([one.recall, one.precision], axis=1)
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [[0, 1], *points])
    assert axes.get_title(loc="left") == "class 0  50.0"
    (axes,) = plots.precision_recall_figure(make_evaluation([0.0], num_detections=0)).axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [[0, 0]])
    assert plots.precision_recall_figure(make_evaluation([math.nan])) is None
