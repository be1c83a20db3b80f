"""The published numbers are those of their sources."""

import configparser
import pathlib

import pytest

from yolov1_jax.comparison.entries import PROTOCOLS
from yolov1_jax.comparison.published import all_published, published
from yolov1_jax.errors import UserError

BY_NAME = {entry.name: entry for entry in all_published()}


@pytest.mark.parametrize(
    ("name", "mean", "epoch"), [("article-r18", 52.39, 150), ("article-r34", 57.31, 130)]
)
def test_the_classes_of_the_article_have_its_mean(name, mean, epoch):
    entry = BY_NAME[name]
    (score,) = entry.scores
    assert score.protocol == "seed"
    assert len(score.ap) == 20
    assert 100 * sum(score.ap.values()) / 20 == pytest.approx(mean, abs=0.005)
    assert 100 * score.mean_ap == pytest.approx(mean)
    # The curve has one decimal, and its best is the epoch that was taken, on the test set.
    (curve,) = entry.curves
    assert [point[0] for point in curve.points] == list(range(10, 151, 10))
    best = max(value for _, value in curve.points)
    assert dict(curve.points)[epoch] == best == pytest.approx(mean / 100, abs=0.0006)
    assert entry.epoch == epoch
    assert any("test set" in note for note in score.notes)


def test_every_number_says_where_it_comes_from_and_how_it_was_measured():
    for entry in all_published():
        (score,) = entry.scores
        assert entry.kind == "published"
        assert "; " in entry.origin
        assert entry.trained_on
        assert (score.data.num_images, score.data.num_objects) == (4952, 12032)
        assert 0.5 < score.mean_ap < 0.8
        # A rule that is not one of ours, or is only assumed, is explained.
        if score.protocol not in PROTOCOLS or "Redmon" in entry.origin:
            assert score.notes


def test_the_papers_numbers():
    numbers = {
        name: BY_NAME[name].scores[0].mean_ap for name in ("yolo", "fast-yolo", "yolo-vgg16")
    }
    assert numbers == pytest.approx({"yolo": 0.634, "fast-yolo": 0.527, "yolo-vgg16": 0.664})


def test_by_name():
    assert [entry.name for entry in published(["yolo", "article-r18", "yolo"])] == [
        "yolo",
        "article-r18",
    ]
    assert published(["all"]) == list(all_published())
    assert published([]) == []
    with pytest.raises(UserError, match="found 'runs/a': write --published=all, or some of art"):
        published(["runs/a"])


def test_the_file_is_installed_with_the_package():
    setup = configparser.ConfigParser()
    setup.read(pathlib.Path(__file__).resolve().parents[1] / "setup.cfg")
    listed = setup["options.package_data"]["yolov1_jax.comparison"]
    assert "published.toml" in listed
