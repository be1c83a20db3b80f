"""How a split of own data is written, which images it lists, and the likely mistakes."""

import pytest
from voc_tree import VocTree, refusal

from yolov1_jax.data.voc_folder import FolderSource


@pytest.fixture
def tree(tmp_path):
    tree = VocTree(tmp_path)
    for name in "abc":
        tree.add(name)
    tree.list("train", "ba")
    tree.list("val", "c")
    return tree


def ids(tree, *splits) -> list[str]:
    return list(FolderSource(tree.root, splits).annotations().image_ids)


def test_order_is_that_of_the_lists(tree):
    assert ids(tree, "own:val+train") == ["own/c", "own/b", "own/a"]
    tree.add("a", dataset="more")
    assert ids(tree, "own:train", "more:all") == ["own/b", "own/a", "more/a"]


@pytest.mark.parametrize("extension", [".jpg", ".JPG", ".jpeg", ".png", ".Png", ".bmp", ".webp"])
def test_extensions_in_any_case(tree, extension):
    tree.add("photo.of.a.cat", extension=extension)
    tree.list("one", ["photo.of.a.cat"])
    assert ids(tree, "own:one") == ["own/photo.of.a.cat"]


@pytest.mark.parametrize(
    "content", ["\ufeffb\r\na\r\n", "\n b \n\n\ta", "b  1\na -1", "b.png\na.PNG", "b.png 0\na"]
)
def test_forms_of_a_list(tree, content):
    tree.write("own/ImageSets/Main/odd.txt", content)
    assert ids(tree, "own:odd") == ["own/b", "own/a"]


def test_ids_may_hold_spaces_end_like_a_flag_and_be_repeated(tree):
    tree.add("my photo 1")
    tree.add("my photo 1", extension=".jpg")
    tree.list("spaced", ["my photo 1", "my photo 1 -1", "no such photo 1"])
    found = FolderSource(tree.root, ["own:spaced"]).annotations()
    assert found.image_ids == ("own/my photo 1",)
    assert list(found.report.corrected.values()) == [["own/my photo 1"], ["own/my photo 1"]]
    assert list(found.report.skipped.values()) == [["own/no such photo"]]


def test_all_needs_no_list_unless_there_is_one(tree):
    for name in (".hidden", "not utf-8 \udcff"):
        tree.add(name)
    tree.write("own/Annotations/notes.txt", "")
    assert ids(tree, "own:all") == ["own/a", "own/b", "own/c"]
    tree.list("all", ["c"])
    assert ids(tree, "own:all") == ["own/c"]


@pytest.mark.parametrize("split", ["own", "own:", ":train", "own:train+", "", "voc/2012"])
def test_a_split_must_name_dataset_and_set(tree, split):
    assert f'found "{split}"' in refusal(tree.root, [split])


def test_a_list_that_is_not_there_names_those_that_are(tree):
    for i in range(60):
        tree.list(f"class{i}_train", "a")
    line = refusal(tree.root, ["own:test"])
    assert "ImageSets/Main/test.txt, found train, val, class0_train," in line
    assert "class30" not in line
    tree.list("empty", [])
    assert "empty" in refusal(tree.root, ["own:empty"])


def test_folders_that_are_not_there_name_those_that_are(tree):
    assert f"found own in {tree.root}:" in refusal(tree.root, ["VOC2012:train"])
    itself = refusal(tree.root / "own", ["own:train"])
    assert f"Annotations, ImageSets, JPEGImages in {tree.root / 'own'}: set data.root" in itself
    (tree.root / "own/Annotations").rename(tree.root / "own/labels")
    assert "found ImageSets, JPEGImages, labels" in refusal(tree.root, ["own:train"])
