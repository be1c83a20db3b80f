"""How a split of own data is written, which images it lists, and the likely mistakes."""

import itertools

import numpy as np
import pytest
from voc_tree import VocTree, annotation_xml, refusal

from yolov1_jax.data.images import EXTENSIONS
from yolov1_jax.data.source import open_folder


@pytest.fixture
def tree(tmp_path):
    tree = VocTree(tmp_path)
    for name in "abc":
        tree.add(name)
    tree.list("train", "ba")
    tree.list("val", "c")
    return tree


def ids(tree, *splits) -> list[str]:
    return list(open_folder(tree.root, splits).annotations().image_ids)


def test_order_is_that_of_the_lists(tree):
    assert ids(tree, "own:val+train") == ["own/c", "own/b", "own/a"]
    tree.add("a", dataset="more")
    assert ids(tree, "own:train", "more:all") == ["own/b", "own/a", "more/a"]


def test_names_with_any_extension_dots_spaces_and_repeated(tree):
    for extension in (".Png", *EXTENSIONS, *map(str.upper, EXTENSIONS)):
        tree.add(f"photo{extension}.of a 1", extension=extension)
        tree.list("one", [f"photo{extension}.of a 1"])
        assert ids(tree, "own:one") == [f"own/photo{extension}.of a 1"]
    tree.add("my photo 1")
    tree.add("my photo 1", extension=".jpg")
    tree.list("spaced", ["my photo 1", "my photo 1 -1", "no such photo 1"])
    found = open_folder(tree.root, ["own:spaced"]).annotations()
    assert found.image_ids == ("own/my photo 1",)
    assert list(found.report.corrected.values()) == [["own/my photo 1"], ["own/my photo 1"]]
    assert list(found.report.skipped.values()) == [["own/no such photo"]]


@pytest.mark.parametrize(
    "content",
    [
        *("\ufeffb\r\na\r\n", "\n b \n\n\ta", "b  1\na -1", "b.png\na.PNG", "b.png 0\na"),
        *("JPEGImages/b.png\n./a.png", "../JPEGImages/b.jpg -1\n.\\a.png", "B\nA.PNG"),
        *("/abs/own/JPEGImages/b.png\na", "C:\\own\\JPEGImages\\b\n.\\a"),
    ],
)
def test_forms_of_a_list(tree, content):
    tree.write("own/ImageSets/Main/odd.txt", content)
    assert ids(tree, "own:odd") == ["own/b", "own/a"]


def test_folders_are_part_of_the_name(tree):
    for name in ("cam1/a", "cam2/x/a"):
        tree.add(name)
    assert ids(tree, "own:all") == ["own/a", "own/b", "own/c", "own/cam1/a", "own/cam2/x/a"]
    tree.list("default", ["cam2/x/a", "JPEGImages/cam1/a.png", "cam3/a"])
    found = open_folder(tree.root, ["own:default"]).annotations()
    assert found.image_ids == ("own/cam2/x/a", "own/cam1/a")
    assert list(found.report.skipped.values()) == [["own/cam3/a"]]  # and not "a"


def test_names_may_differ_in_case(tree):
    (tree.root / "own/Annotations/a.xml").rename(tree.root / "own/Annotations/A.xml")
    tree.add("B", xml=annotation_xml())
    tree.write("own/Annotations/C.xml", annotation_xml())  # c.png has c.xml
    found = open_folder(tree.root, ["own:all"]).annotations()
    assert found.image_ids == ("own/B", "own/a", "own/b", "own/c")
    assert np.diff(found.starts).tolist() == [0, 1, 1, 1]  # B.xml goes with B alone
    assert list(found.report.corrected.values()) == [["own/a"]]
    assert list(found.report.skipped.values()) == [["own/C"]]


def test_all_names_what_it_does_not_use(tree):
    names = ("Thumbs.db", "x.xml", "c.txt", "d.gif", "e.heic")
    strays = (*(f"JPEGImages/{name}" for name in names), "Annotations/x.png", "Annotations/x.json")
    for path in strays:
        tree.write(f"own/{path}", "?")
    tree.write("own/Annotations/e.xml", annotation_xml())
    tree.write("own/Annotations/lonely.xml", annotation_xml())
    report = open_folder(tree.root, ["own:all"]).annotations().report
    skipped = itertools.chain(*report.skipped.values())
    assert sorted(skipped) == ["own/e", "own/lonely"]
    passed_over = itertools.chain(*report.passed_over.values())
    assert sorted(passed_over) == sorted(f"own/{path}" for path in strays)


def test_files_of_a_data_set_that_are_in_none_of_its_lists_are_named_once(tree):
    tree.list("train", ["a"])
    tree.list("val", ["b"])
    tree.list("test", [])
    tree.write("other/JPEGImages/d.png", "")
    report = open_folder(tree.root, ["own:train", "own:val"]).annotations().report
    assert sorted(itertools.chain(*report.passed_over.values())) == [
        "own/Annotations/c.xml",
        "own/JPEGImages/c.png",
    ]


def test_all_needs_no_list_unless_there_is_one(tree):
    for name in (".hidden", ".git/d", "not utf-8 \udcff", "line\nbreak"):
        tree.add(name)
    tree.write("own/Annotations/notes.txt", "")
    assert ids(tree, "own:all") == ["own/a", "own/b", "own/c"]
    tree.list("all", ["c"])
    assert ids(tree, "own:all") == ["own/c"]


@pytest.mark.parametrize("split", ["own", "own:", ":other", "own:train+", "", "own:test", "no:all"])
def test_other_splits_are_refused_and_those_that_are_there_named(tree, split):
    for i in range(60):
        tree.list(f"class{i}_train", "a")
    line = refusal(tree.root, [split])
    assert ("own:train, own:val" if ":" in split else "train, val") in line
    assert "class30" not in line


def test_an_empty_list_and_a_root_one_folder_too_deep(tree):
    tree.list("empty", [])
    assert "empty" in refusal(tree.root, ["own:empty"])
    assert "among all, empty, train" in refusal(tree.root / "own", ["own:train"])
