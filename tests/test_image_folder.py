"""Images in a folder for each class: their classes, splits and sizes."""

import pytest
from voc_tree import VocTree, encode, exif, pixels

from yolov1_jax.config import UserError
from yolov1_jax.data.source import open_folder

IMAGE = encode(pixels())  # 60 x 40 pixels


@pytest.fixture
def tree(tmp_path):
    return VocTree(tmp_path)


def opened(tree, *splits):
    source = open_folder(tree.root, splits, data_format="classes")
    table = source.annotations()
    names = [table.class_names[label] for label in table.labels]
    return dict(zip(table.image_ids, names, strict=True)), table


def test_splits_are_folders_around_those_of_the_classes(tree):
    for path in ("train/tulip/new/a.png", "train/rose/a.png", "valid/rose/b.png", "train/c.png"):
        tree.write(path, IMAGE)
    tree.write("train/rose/notes.txt", "")
    found, table = opened(tree, "train")
    assert found == {"rose/a": "rose", "tulip/new/a": "tulip"}
    assert table.class_names == ("rose", "tulip")
    assert table.boxes_xyxy.tolist() == [[0, 0, 60, 40]] * 2
    assert "train/c.png" in "".join(table.report.notes())
    assert opened(tree, "val")[0] == {"rose/b": "rose"}


def test_without_splits_a_part_is_for_evaluation(tree):
    for i in range(40):
        tree.write(f"{'rose' if i % 2 else 'tulip'}/{i}.png", IMAGE)
    train, val = opened(tree, "train")[0], opened(tree, "val")[0]
    assert train.keys().isdisjoint(val)
    assert len(train) + len(val) == 40
    assert 4 <= len(val) <= 12
    tree.write("rose/more.png", IMAGE)
    assert train.keys() <= opened(tree, "train")[0].keys() | {"rose/more"}


def test_a_turned_image_is_upright(tree):
    tree.write("cat/a.jpg", encode(pixels(), "JPEG", exif=exif(6)))
    _, table = opened(tree, "all")
    assert table.sizes.tolist() == [[60, 40]]
    assert table.boxes_xyxy.tolist() == [[0, 0, 40, 60]]


def test_a_class_may_have_the_name_of_a_split(tree):
    for path in ("train/a.png", "car/a.png", "plane/old/b.png"):
        tree.write(path, IMAGE)
    found, _ = opened(tree, "all")
    assert sorted(found.values()) == ["car", "plane", "train"]
    # With folders in it, it is a split.
    tree.write("train/bus/b.png", IMAGE)
    assert set(opened(tree, "train", "val")[0].values()) == {"bus"}


def test_no_image_in_a_folder_is_a_mistake(tree):
    tree.write("a.png", IMAGE)
    with pytest.raises(UserError, match="classes"):
        opened(tree, "train")
