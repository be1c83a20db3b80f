import os

import pytest
from voc_tree import VocTree

from yolov1_jax.data.dataset import SourceReport
from yolov1_jax.data.image_sets import list_images
from yolov1_jax.errors import UserError


@pytest.fixture
def tree(tmp_path):
    tree = VocTree(tmp_path)
    for name in ("a", "b", "c"):
        tree.add(name)
    tree.list("train", ["b", "a"])
    tree.list("val", ["c"])
    return tree


def ids(tree: VocTree, *splits: str, report: SourceReport | None = None) -> list[str]:
    report = SourceReport() if report is None else report
    return [image.image_id for image in list_images(tree.root, splits, report)]


def refusal(tree: VocTree, *splits: str) -> str:
    with pytest.raises(UserError) as caught:
        ids(tree, *splits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_order_is_the_lists(tree):
    assert ids(tree, "own:train") == ["own/b", "own/a"]
    assert ids(tree, "own:val+train") == ["own/c", "own/b", "own/a"]
    tree.add("a", dataset="more")
    tree.list("train", ["a"], dataset="more")
    assert ids(tree, "own:train", "more:train") == ["own/b", "own/a", "more/a"]


def test_a_name_that_is_not_utf_8_is_skipped(tree):
    os.rename(tree.root / "own/JPEGImages/b.png", tree.root / "own/JPEGImages" / "b\udcff.png")
    os.rename(tree.root / "own/Annotations/b.xml", tree.root / "own/Annotations" / "b\udcff.xml")
    report = SourceReport()
    assert ids(tree, "own:all", report=report) == ["own/a", "own/c"]
    assert report.skipped == {"file name is not UTF-8": ["own/b\ufffd"]}


def test_paths_are_relative_to_the_root(tree):
    (image,) = list_images(tree.root, ["own:val"], SourceReport())
    assert image.image_path == "own/JPEGImages/c.png"
    assert image.annotation_path == "own/Annotations/c.xml"


@pytest.mark.parametrize(
    "extension", [".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".Png", ".bmp", ".webp"]
)
def test_extensions_in_any_case(tree, extension):
    tree.add("photo.of.a.cat", extension=extension)
    tree.list("one", ["photo.of.a.cat"])
    (image,) = list_images(tree.root, ["own:one"], SourceReport())
    assert image.image_path == f"own/JPEGImages/photo.of.a.cat{extension}"


@pytest.mark.parametrize(
    "content",
    [
        "b\r\na\r\n",
        "\ufeffb\na",
        "\n b \n\n\ta\n\n",
        "b  1\na -1\n",
        "b.png\na.PNG\n",
        "b.png 0\na",
    ],
    ids=["windows", "byte order mark", "blanks", "class flags", "extensions", "flag, extension"],
)
def test_forms_of_a_list(tree, content):
    tree.write("own/ImageSets/Main/odd.txt", content)
    assert ids(tree, "own:odd") == ["own/b", "own/a"]


def test_an_id_may_hold_spaces_and_end_like_a_flag(tree):
    tree.add("my photo 1")
    tree.list("spaced", ["my photo 1", "my photo 1 -1", "no such photo 1"])
    report = SourceReport()
    assert ids(tree, "own:spaced", report=report) == ["own/my photo 1", "own/no such photo"]
    assert report.corrected == {"listed more than once, used once": ["own/my photo 1"]}


def test_repeated_ids_are_used_once_and_counted(tree):
    tree.list("twice", ["a", "b", "a"])
    report = SourceReport()
    assert ids(tree, "own:twice+train", report=report) == ["own/a", "own/b"]
    assert report.corrected == {"listed more than once, used once": ["own/a", "own/b", "own/a"]}


def test_missing_files_are_listed_as_such(tree):
    tree.remove("own/JPEGImages/a.png")
    tree.remove("own/Annotations/b.xml")
    b, a = list_images(tree.root, ["own:train"], SourceReport())
    assert (a.image_path, b.annotation_path) == (None, None)


def test_two_images_of_a_name(tree):
    tree.write("own/JPEGImages/a.jpg", b"")
    report = SourceReport()
    _, a = list_images(tree.root, ["own:train"], report)
    assert a.image_path == "own/JPEGImages/a.jpg"
    assert report.corrected == {"several images of one name, one used": ["own/a"]}


def test_all_needs_no_image_sets(tree):
    for name in ("train", "val"):
        tree.remove(f"own/ImageSets/Main/{name}.txt")
    tree.write("own/JPEGImages/photo without annotation.jpg", b"")
    tree.write("own/Annotations/.hidden.xml", b"")
    tree.write("own/Annotations/notes.txt", b"")
    assert ids(tree, "own:all") == ["own/a", "own/b", "own/c", "own/photo without annotation"]


def test_a_list_named_all_wins(tree):
    tree.list("all", ["c"])
    assert ids(tree, "own:all") == ["own/c"]


@pytest.mark.parametrize("split", ["own", "own:", ":train", "own:train+", "", "voc/2012"])
def test_a_split_must_name_dataset_and_set(tree, split):
    assert f'found "{split}"' in refusal(tree, split)


def test_no_split(tree):
    assert "found none" in refusal(tree)


def test_missing_list_names_those_there(tree):
    tree.list("cat_train", ["a"])
    line = refusal(tree, "own:test")
    assert "ImageSets/Main/test.txt" in line
    assert "found train, val, cat_train there" in line
    assert "own:all takes every image" in line


def test_many_lists_are_not_all_named(tree):
    for i in range(60):
        tree.list(f"class{i}_train", ["a"])
    line = refusal(tree, "own:test")
    assert "train, val, class0_train" in line
    assert "and 54 more" in line


def test_missing_image_sets_says_what_to_do(tree):
    for name in ("train", "val"):
        tree.remove(f"own/ImageSets/Main/{name}.txt")
    (tree.root / "own/ImageSets/Main").rmdir()
    line = refusal(tree, "own:train")
    assert "found no lists there" in line
    assert "own:all" in line


def test_missing_folders(tree):
    assert "found own in" in refusal(tree, "VOC2012:train")
    assert "JPEGImages and Annotations" in refusal(tree, "VOC2012:train")
    (tree.root / "own/Annotations").rename(tree.root / "own/labels")
    line = refusal(tree, "own:train")
    assert "expected the folders Annotations in" in line
    assert "own holds ImageSets, JPEGImages, labels" in line


def test_root_that_is_itself_a_data_set(tree):
    with pytest.raises(UserError, match=f"set data.root to {tree.root} and"):
        list_images(tree.root / "own", ["own:train"], SourceReport())


def test_root_that_is_not_there(tree):
    with pytest.raises(UserError, match=r"root folder at .*nowhere"):
        list_images(tree.root / "nowhere", ["own:train"], SourceReport())


def test_empty_list(tree):
    tree.list("empty", [])
    assert "an empty one" in refusal(tree, "own:empty")
