"""The table at the start of a run: counts, and everything that was left out or corrected."""

import numpy as np
import pytest
from annotated_sets import images_of, truth
from voc_tree import VocTree, encode, pixels

from yolov1_jax.data.source import open_folder
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.data.synthetic import SyntheticSource


class Boxes:
    """Cats of 2 x 2 of 100 x 100 pixels; the second object of an image is a difficult dog."""

    def __init__(self, *images, class_names=("cat", "dog")):
        corners = [np.array([[x - 1, y - 1, x + 1, y + 1] for x, y in one]) for one in images]
        truths = [truth(*((b, i == 1, i == 1) for i, b in enumerate(boxes))) for boxes in corners]
        names = map(str, range(len(images)))
        self.table = images_of(*names, truths=truths, class_names=class_names)

    def __len__(self):
        return len(self.table)

    def annotations(self, limit):
        return self.table


def rows_of(summary):
    return {title.strip(): value for title, value in summary.rows.items()}


@pytest.mark.parametrize(
    ("centres", "grid_size", "lost"),
    [
        ([(10, 10), (90, 90)], 7, 0),
        ([(50, 50), (50, 50), (45, 55)], 7, 2),
        ([(100, 100), (99, 99)], 7, 1),  # the far edge belongs to the last cell
        ([(49, 10), (51, 10)], 2, 0),
        ([(49, 10), (51, 10)], 1, 1),
    ],
)
def test_collisions(centres, grid_size, lost):
    title = f"lost to cell collisions, {grid_size}x{grid_size}"
    assert rows_of(summarise(Boxes(centres), grid_size))[title] == lost
    one_image_each = Boxes(*([centre] for centre in centres))
    assert rows_of(summarise(one_image_each, grid_size))[title] == 0


@pytest.mark.parametrize(
    ("train_difficult", "area", "too_small", "lost", "share"),
    [
        (True, 0.0003, 0, 2, "66.7%"),
        (False, 0.0003, 0, 1, "50.0%"),
        (False, 0.0005, 2, 0, "0.0%"),
    ],
)
def test_what_training_leaves_out_is_not_lost_to_it(train_difficult, area, too_small, lost, share):
    source = Boxes([], [(50, 50)] * 3)  # the second is difficult; a box has 0.0004 of the image
    found = summarise(source, 7, min_relative_area=area, train_difficult=train_difficult)
    assert found.most_objects == 3
    rows = rows_of(found)
    lost = {"lost to cell collisions, 7x7": lost, "as a share": share}
    counts = {"objects": 3, "difficult": 1, "too small to be trained on": too_small, **lost}
    assert rows | counts == rows
    assert found.most_objects == rows["most in one image"] == 3


def test_a_sample_stands_for_endless_data(capsys):
    print_summary({"train": summarise(SyntheticSource("train"), 7, limit=20)})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "1,000,000"] in lines
    assert ["counted", "below,", "the", "first", "20"] in lines


def test_what_was_left_out_is_said_and_names_are_shown_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    names = ("[bold]cat[/bold]", "[/]", *(f"traffic-light kind {i}" for i in range(40)))
    source = Boxes([(50, 50)], class_names=names)
    path = "own/[red]" + "long" * 40
    source.table.report.skipped["image is empty"].append("own/x" * 10**5)
    source.table.report.skipped["image is empty"].append(path)
    for i in range(1005):
        source.table.report.corrected["box clipped"].append(f"own/{i}")
    print_summary({"[b]train": summarise(source, 7), "eval": summarise(source, 7)})
    text = capsys.readouterr().out
    assert text.count("image is empty") == 1  # both splits have the same note
    assert "[b]train, eval: 2 images left out, image is empty: own/xown/x" in text
    assert f", {path}\n" in text
    assert max(map(len, text.splitlines())) < 1000
    assert "1,005 corrected in the data, box clipped: own/0, own/1, own/2, ...\n" in text
    assert ["images", "left", "out", "2", "2"] in [line.split() for line in text.splitlines()]
    for name in names:
        assert f"{name} {int(name == names[0])}" in text


def test_images_of_two_splits_are_named(tmp_path, capsys):
    tree = VocTree(tmp_path)
    for i, name in enumerate(("x1", "x2", "x3")):
        tree.add(name, image=encode(pixels() // (i + 1)))
    tree.add("copy", image=encode(pixels()))
    tree.list("train", ["x1", "x2"])
    tree.list("val", ["x2", "x3", "copy"])
    summaries = {
        split: summarise(open_folder(tmp_path, [f"own:{split}"]), 7) for split in ("train", "val")
    }
    print_summary(summaries)
    text = capsys.readouterr().out
    assert "1 images are in both train and val: own/x2\n" in text
    assert "1 images are in both train and val under different names: own/copy = own/x1\n" in text
    print_summary({"train": summaries["train"]})
    assert "both" not in capsys.readouterr().out
