"""The command that shows a data set before training."""

import pytest
from PIL import Image
from voc_tree import VocTree, annotation_xml, encode, object_xml, pixels

from yolov1_jax import inspect_data


@pytest.fixture
def tree(tmp_path):
    """Three images to train on, with two cats in one cell of 7 x 7 but not of 14 x 14; one val."""
    tree = VocTree(tmp_path / "data")
    # Centres at (4, 4) and (2, 2) of 60 x 40 pixels: cells of 8.6 x 5.7 and of 4.3 x 2.9.
    near = object_xml("cat", (2, 2, 6, 6)), object_xml("cat", (1, 1, 3, 3))
    for name, objects in {"train/a": near, "train/b": (), "val/c": (object_xml("dog"),)}.items():
        tree.write(f"{name}.png", encode(pixels()))
        tree.write(f"{name}.xml", annotation_xml(*objects))
    tree.write("train/broken.png", b"no image")
    tree.write("train/broken.xml", annotation_xml(object_xml("cat")))
    return tree


def test_shows_what_training_would_use(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert inspect_data.main([str(tree.root), f"--output={tmp_path}/pages"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("train, val: data: VOC XML") for line in lines)
    for line in (
        "train val",
        "images 2 1",
        "without objects 1 0",
        "images left out 1 0",
        "objects 2 1",
        "lost to cell collisions, 7x7 1 0",
        "lost to cell collisions, 10x10 0 0",
        "lost to cell collisions, 14x14 0 0",
        "cat 2",
        "val has classes that train lacks: dog",
        "train image width 60 60 60 60 60",
        "box width 2 2 3 4 4",
    ):
        assert line in lines
    assert any("left out" in line and "broken" in line for line in lines)
    with Image.open(tmp_path / "pages" / "inspect.jpg") as page:
        assert page.width > 1000
        assert page.height > 300


def test_the_splits_and_the_picture_may_be_chosen(tree, tmp_path, capsys):
    output = tmp_path / "page.png"
    assert inspect_data.main([str(tree.root), "--splits=val", f"--output={output}"]) == 0
    assert "objects of 1 class(es):\n    dog 1" in capsys.readouterr().out
    assert output.stat().st_size


@pytest.mark.parametrize(("paths", "message"), [([], "0 paths"), (["nowhere"], "nowhere")])
def test_mistakes(paths, message, capsys):
    assert inspect_data.main(paths) == 2
    assert message in capsys.readouterr().err
