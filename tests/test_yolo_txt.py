"""Data sets in YOLO text: where labels and splits are found, and what lines mean."""

import pytest
from voc_tree import VocTree, encode, pixels

from yolov1_jax.config import UserError
from yolov1_jax.data.source import open_folder

# Pixels of an image of 60 x 40: those from 13 to 24 across and from 11 to 20 down.
LINE, BOX = "1 0.3 0.375 0.2 0.25", (13, 11, 24, 20)
IMAGE = encode(pixels())


@pytest.fixture
def tree(tmp_path):
    return VocTree(tmp_path)


def add(tree, image, labels, text=LINE):
    tree.write(image, IMAGE)
    if labels:
        tree.write(labels, text)


def opened(tree, splits="all", **options):
    annotations = open_folder(tree.root, [splits], **options).annotations()
    return annotations, "; ".join(annotations.report.notes())


def objects(tree, text, names="names: [cat, dog]\n"):
    """Class and box of each object of one image, and the notes."""
    add(tree, "images/a.png", "labels/a.txt", text)
    if names:
        tree.write("data.yaml", names)
    annotations, notes = opened(tree)
    rows = zip(annotations.labels, annotations.boxes_xyxy.tolist(), strict=True)
    return [(annotations.class_names[label], tuple(box)) for label, box in rows], notes


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("\ufeff1 0.3 0.375 0.2 0.25\r\n\r\n", ""),  # a byte order mark, Windows's line ends
        ("1.0 0.300000 0.375000 0.200000 0.250000", ""),
        ("1 0.2 0.25 0.4 0.25 0.4 0.5 0.3 0.5 0.2 0.4", "polygons"),
        (f"{LINE}\n7 0.3 0.3 0.1 0.1", "outside of the names"),
        (f"{LINE}\ndog 0.3\n1 0.3 0.3", "no class and box"),
    ],
)
def test_lines(tree, line, note):
    found, notes = objects(tree, line)
    assert found == [("dog", BOX)]
    assert note in notes
    assert ("left out" in notes or "polygons" in notes) == bool(note)


@pytest.mark.parametrize("points", ["0.3 0.4 0.5 0.4", "0.3 0.4 2 0.5 0.4 1 0 0 0"])
def test_key_points_are_not_used(tree, points):
    """Of two numbers, which would be a polygon, or with a flag of visibility."""
    names = "kpt_shape: [2, 2]\nnames: [cat, dog]\n"
    assert objects(tree, f"{LINE} {points}", names)[0] == [("dog", BOX)]


def test_six_digits_give_whole_pixels_again(tree):
    tree.write("images/a.png", encode(pixels(333, 777)))
    tree.write("labels/a.txt", f"0 {105 / 777:.6f} {55 / 333:.6f} {10 / 777:.6f} {10 / 333:.6f}\n")
    assert opened(tree)[0].boxes_xyxy.tolist() == [[101, 51, 110, 60]]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [cat, dog]", "dog"),
        ("names:\n  0: cat\n  1: no\n", "no"),  # a text, although YAML takes it for False
        ("names: {1: dog, 8: cow}\n", "dog"),
        (None, "1"),
    ],
)
def test_names(tree, names, expected):
    assert objects(tree, LINE, names)[0][0][0] == expected


def test_names_in_classes_txt(tree):
    tree.write("classes.txt", "cat\r\nsea dog \r\n")
    assert objects(tree, LINE, None)[0][0][0] == "sea dog"


@pytest.mark.parametrize("names", ["names: cat", "names: {a: cat}", "names: [[cat]]", "names: ["])
def test_names_that_are_none(tree, names):
    with pytest.raises(UserError, match=r"data\.yaml"):
        objects(tree, LINE, names)


def test_images_without_objects_are_background(tree):
    add(tree, "images/a.png", "labels/a.txt")
    add(tree, "images/b.png", "labels/b.txt", "")
    add(tree, "images/c.png", None)
    tree.write("labels/d.txt", LINE)
    annotations, notes = opened(tree)
    assert ".txt, in no split: labels/d.txt" in notes
    assert annotations.image_ids == ("a", "b", "c")
    assert annotations.starts.tolist() == [0, 1, 1, 1]
    assert "no label file, used as background: c" in notes


@pytest.mark.parametrize(
    "layout",
    [
        "{split}/images/{name}.png {split}/labels/{name}.txt",  # Roboflow
        "images/{split}/{name}.png labels/{split}/{name}.txt",  # Ultralytics
        "{split}/{name}.png {split}/{name}.txt",
    ],
)
def test_folders_of_splits(tree, layout):
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        add(tree, *layout.format(split=split, name=name).split())
    found = [opened(tree, split)[0].image_ids for split in ("train", "val", "test", "valid")]
    assert found == [("a",), ("b",), ("c",), ("b",)]


@pytest.mark.parametrize(
    "config",
    [
        "train: ../one/images\nval: ../two/images\n",  # as Roboflow writes them, without a folder
        "path: /home/somebody/set\ntrain: one/images\nval: [two/images]\n",
        "train: one.txt\nval: lists/two.txt\n",
    ],
)
def test_splits_of_data_yaml(tree, config):
    add(tree, "one/images/a.png", "one/labels/a.txt")
    add(tree, "two/images/b.png", "two/labels/b.txt")
    tree.write("one.txt", "./one/images/a.png\n")
    tree.write("lists/two.txt", "C:\\data\\two\\images\\b.png\r\n")
    tree.write("data.yaml", f"{config}names: [cat, dog]\n")
    assert opened(tree, "train")[0].image_ids == ("one/a",)
    assert opened(tree, "val")[0].image_ids == ("two/b",)


def test_lists_of_splits(tree):
    """As CVAT writes them: labels beside the images, paths from another folder."""
    for name in "abc":
        add(tree, f"obj_train_data/{name}.png", f"obj_train_data/{name}.txt")
    tree.write("obj.names", "cat\ndog\n")
    tree.write("train.txt", "data/obj_train_data/b.png\n")
    tree.write("val.txt", "data/obj_train_data/a.png\n")
    annotations, notes = opened(tree, "train")
    assert annotations.image_ids == ("b",)
    assert "in no split: c" in notes
    assert opened(tree, "val")[0].class_names == ("cat", "dog")
