"""One picture: panels by protocol and data, an entry of one colour throughout."""

import dataclasses

from comparison_runs import entry

from yolov1_jax.comparison.entries import Curve, EvaluationSet
from yolov1_jax.comparison.figure import comparison_figure
from yolov1_jax.comparison.published import all_published

ONE = EvaluationSet("VOC2007 test", 10, 20, 2, "one")
OTHER = EvaluationSet("VOC2007 test", 10, 20, 2, "other")
POINTS = ((1.0, 0.1), (2.0, 0.2))


def panels(figure):
    """{title and data: axes}."""
    return {
        (axes.get_title(loc="left").strip(), axes.texts[-1].get_text()): axes
        for axes in figure.axes
    }


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def run(name, data, protocol="voc07", **settings):
    one = entry(name, (protocol, data, 0.5), settings=settings, losses=((1.0, 3.0), (2.0, 2.0)))
    return dataclasses.replace(one, curves=(Curve(protocol, data, POINTS),))


def test_panels_share_protocol_and_data(tmp_path):
    entries = [run("a", ONE), run("b", ONE), run("c", OTHER), run("d", ONE, "seed")]
    figure = comparison_figure(entries)
    figure.savefig(tmp_path / "compare.png")
    by_name = panels(figure)
    first = "VOC2007 test (10 images, 20 objects, 2 difficult) [data 1]"
    second = first.replace("data 1", "data 2")
    assert labels(by_name["mAP by epoch, voc07", first]) == ["A a", "B b"]
    assert labels(by_name["mAP by epoch, seed", first]) == ["D d"]
    assert labels(by_name["mAP by epoch, voc07", second]) == ["C c"]
    assert labels(by_name["AP by class (%), voc07", first]) == ["A a, mAP 50.0", "B b, mAP 50.0"]
    bars = by_name["mAP (%)", first]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["", "A a", "B b", "", "D d"]
    assert {"voc07", "seed"} <= {text.get_text() for text in bars.texts}
    colours = {
        line.get_label()[:3]: line.get_color() for axes in figure.axes for line in axes.get_lines()
    }
    assert len(colours) == len(set(colours.values())) == 4


def test_losses_share_a_panel_only_with_equal_settings():
    entries = [
        run("a", ONE, **{"loss.reduction": "mean", "train.batch_size": 16}),
        run("b", ONE, **{"loss.reduction": "mean", "train.batch_size": 32}),
        run("c", ONE, **{"loss.reduction": "sum", "train.batch_size": 16}),
        run("d", ONE, **{"loss.reduction": "sum", "train.batch_size": 32}),
    ]
    shown = [
        labels(axes)
        for axes in comparison_figure(entries).axes
        if axes.get_title(loc="left").startswith("Training loss")
    ]
    assert sorted(shown) == [["A a", "B b"], ["C c"], ["D d"]]


def test_what_has_no_numbers_has_no_picture(tmp_path):
    assert comparison_figure([entry("a")]) is None
    none = entry("a", ("voc07", ONE, None))
    comparison_figure([none]).savefig(tmp_path / "compare.png")


def test_all_published_numbers(tmp_path):
    figure = comparison_figure(all_published())
    figure.savefig(tmp_path / "compare.png")
    assert len(figure.axes) == 3  # mAP, curves and classes of the article
