"""Opening a source by the name that configs use, and finding out what a folder holds."""

import itertools
import json

import numpy as np
import pytest
from convert_data import convert
from voc_tree import VocTree, annotation_xml, encode, object_xml, pixels

from yolov1_jax.config import UserError
from yolov1_jax.data.pipeline import train_batches
from yolov1_jax.data.source import class_names_of_folder, open_folder, open_source, splits_of_folder
from yolov1_jax.data.transforms import Augmentation

IMAGE, XML = encode(pixels()), annotation_xml(object_xml())
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [],
}


def open_synthetic(*splits, class_names=None):
    options = {"unknown_classes": "refuse", "image_size": 64, "seed": 0}
    return open_source("synthetic", root=None, splits=splits, class_names=class_names, **options)


def test_a_split_of_the_synthetic_data_may_be_a_part_of_it():
    whole, part = open_synthetic("eval"), open_synthetic("eval:7")
    assert (len(whole), len(part)) == (500, 7)
    np.testing.assert_equal(part[6], whole[6])


@pytest.mark.parametrize("splits", [["eval:few"], ["eval:0"], ["val:5"], ["a", "b"]])
def test_other_splits_and_classes_are_refused(splits):
    with pytest.raises(UserError, match=splits[0].removesuffix(":5")):
        open_synthetic(*splits)
    with pytest.raises(UserError, match="unset"):
        open_synthetic("eval", class_names=("cat",))


@pytest.fixture
def tree(tmp_path):
    return VocTree(tmp_path / "set")


def ids(tree, *splits, **options):
    return open_folder(tree.root, splits, **options).annotations().image_ids


def found(tree):
    return open_folder(tree.root, ["all"]).annotations().report.found


@pytest.mark.parametrize(
    "layout",
    [
        "{name}.png {name}.xml",
        "images/{name}.JPG annotations/{name}.xml",
        "Images/{name}.webp Annotations/xmls/{name}.XML",
        "JPEGImages/{name}.png Annotations/{name}.xml",
    ],
)
def test_voc_in_any_folders(tree, layout):
    for name in ("a", "cam1/b"):
        image, xml = layout.format(name=name).split()
        tree.write(image, IMAGE)
        tree.write(xml, XML)
    assert ids(tree, "all") == ("a", "cam1/b")
    assert found(tree).startswith("VOC XML")


def test_masks_beside_the_annotations_are_no_images(tree):
    tree.write("annotations/a.png", encode(pixels() * 0))
    tree.write("annotations/a.xml", XML)
    tree.write("images/a.png", IMAGE)
    np.testing.assert_array_equal(open_folder(tree.root, ["all"])[0].image, pixels())


@pytest.mark.parametrize("split_first", [True, False])
def test_voc_in_folders_of_splits(tree, split_first):
    for split, name in {"Train": "a", "valid": "b", "test": "c"}.items():
        for kind, content in {"images": IMAGE, "annotations": XML}.items():
            folders = (split, kind) if split_first else (kind, split)
            tree.write("/".join([*folders, name + {"images": ".png"}.get(kind, ".xml")]), content)
    assert splits_of_folder(tree.root) == ["train", "val", "test"]
    assert [ids(tree, split) for split in ("train", "val", "test")] == [("a",), ("b",), ("c",)]
    assert ids(tree, "train+test", "val") == ("a", "b", "c")


def test_lists_of_the_devkit_below_and_at_the_root(tree):
    for dataset, name in {"VOC2007": "a", "VOC2012": "b"}.items():
        tree.add(name, dataset=dataset)
        tree.add("other", dataset=dataset)
        tree.list("train", [name], dataset=dataset)
    tree.list("val", ["other"], dataset="VOC2012")
    assert ids(tree, "train") == ("VOC2007/a", "VOC2012/b")
    assert ids(tree, "val") == ("VOC2012/other",)
    assert ids(tree, "VOC2007:train") == ("VOC2007/a",)
    own = VocTree(tree.root / "VOC2012")
    assert (ids(own, "train"), ids(own, "val")) == (("b",), ("other",))


def test_a_split_of_its_own(tree):
    """By the SHA-256 of the id: of a hundred names 23 are below 0.2 of the largest value."""
    names = [f"image{i}" for i in range(100)]
    for name in names:
        tree.write(f"{name}.png", IMAGE)
        tree.write(f"{name}.xml", XML)
    train, val = ids(tree, "train"), ids(tree, "val")
    assert {*train, *val} == {*names}
    assert not {*train} & {*val}
    assert 10 < len(val) < 30
    assert len(ids(tree, "val", eval_fraction=0.5)) > len(val)
    assert "about 20% of the images are val" in found(tree)
    # Others do not move when one is added.
    tree.write("new.png", IMAGE)
    tree.write("new.xml", XML)
    assert {*val} <= {*ids(tree, "val")} <= {*val, "new"}
    assert {*train} <= {*ids(tree, "train")} <= {*train, "new"}


def test_a_small_set_has_an_image_to_evaluate_on_and_the_classes_of_both(tree):
    for name in ("a", "b"):
        tree.write(f"{name}.png", IMAGE)
        tree.write(f"{name}.xml", annotation_xml(object_xml(f"class {name}")))
    train, val = (
        open_folder(tree.root, [split], eval_fraction=0.001) for split in ("train", "val")
    )
    assert (len(train), len(val)) == (1, 1)
    assert train.class_names == val.class_names == ("class a", "class b")


def test_equal_names_in_different_splits_are_different_images(tree):
    for split in ("train", "val"):
        tree.write(f"{split}/1.png", IMAGE)
        tree.write(f"{split}/1.xml", XML)
    assert ids(tree, "train") == ("train/1.png",)
    assert ids(tree, "all") == ("train/1.png", "val/1.png")


def test_several_formats_are_refused_unless_one_is_named(tree):
    tree.write("images/a.png", IMAGE)
    tree.write("annotations/a.xml", XML)
    tree.write("labels/a.txt", "0 0.5 0.5 0.5 0.5")
    tree.write("a.json", json.dumps(COCO))
    with pytest.raises(UserError, match=r"format=voc or yolo or coco") as refused:
        ids(tree, "all")
    assert "images in images/" in str(refused.value)
    sizes = {
        name: len(open_folder(tree.root, ["all"], data_format=name).annotations().labels)
        for name in ("voc", "yolo", "coco")
    }
    assert sizes == {"voc": 1, "yolo": 1, "coco": 0}


@pytest.mark.parametrize(
    ("splits", "data_format", "message"),
    [
        (["test"], "auto", "among train, val, found 'test'"),
        (["other:train"], "auto", "among all, found 'other:train'"),
        (["all"], "coco", "none of them coco"),
        (["own:train"], "yolo", "none of them yolo"),
    ],
)
def test_mistakes(tree, splits, data_format, message):
    tree.write("a.png", IMAGE)
    with pytest.raises(UserError, match=r"1 files \(\.png\)"):
        ids(tree, *splits, data_format=data_format)
    tree.write("a.xml", XML)
    with pytest.raises(UserError, match=message):
        ids(tree, *splits, data_format=data_format)
    with pytest.raises(UserError, match="found none"):
        open_folder(tree.root / "nowhere", splits)


@pytest.mark.parametrize("layout", ["voc", "yolo", "coco"])
def test_files_that_belong_to_no_split_are_named(tree, layout):
    """An image outside of the folders or of the lists, and a file that is no image."""
    labels = {"voc": "a.xml", "yolo": "labels/a.txt", "coco": "instances.json"}[layout]
    image = {"id": 1, "file_name": "a.png"}
    coco = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    tree.write("a.png" if layout == "voc" else "images/a.png", IMAGE)
    tree.write(labels, {"voc": XML, "yolo": "", "coco": json.dumps(coco)}[layout])
    tree.write("data.yaml", "names: [cat]")
    strays = ["extra/z.webp", "notes.docx"] + ["data.yaml"] * (layout != "yolo")
    for stray in strays[:2]:
        tree.write(stray, IMAGE)
    if layout == "voc":  # an image in any folder is listed, and has no annotation
        strays.remove("extra/z.webp")
    passed_over = open_folder(tree.root, ["all"], ["cat"]).annotations().report.passed_over
    assert sorted(itertools.chain(*passed_over.values())) == sorted(strays)
    if layout != "yolo":
        assert ".docx, in no split" in passed_over


def test_classes_of_all_splits_need_no_images(tree):
    for split in ("train", "val"):
        tree.write(f"{split}/a.xml", annotation_xml(object_xml(split)))
    assert class_names_of_folder(tree.root, ["val"]) == ("train", "val")
    assert open_folder(tree.root, ["val"], images_required=False).class_names == ("val",)


def first_batch(source):
    options = {"image_size": 64, "batch_size": 2, "max_objects": 40, "seed": 3}
    with train_batches(source, augmentation=Augmentation(), num_workers=0, **options) as batches:
        return next(iter(batches))


def assert_equal_in_all_formats(root, folder):
    """What is converted to each format gives the same annotations and the same first batch."""
    names = open_folder(root, ["train"]).class_names
    expected = {split: open_folder(root, [split], names) for split in ("train", "val")}
    batch = first_batch(expected["train"])
    for data_format in ("voc", "yolo", "coco"):
        target = convert(expected, data_format, folder / data_format)
        assert open_folder(target, ["train"]).class_names == names
        for split, source in expected.items():
            ours = open_folder(target, [split], names).annotations()
            theirs = source.annotations()
            assert ours.fingerprint() == theirs.fingerprint()
            assert ours.image_ids == theirs.image_ids
            for field in ("boxes_xyxy", "labels", "starts", "sizes"):
                np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
        for key, value in first_batch(open_folder(target, ["train"])).items():
            np.testing.assert_array_equal(value, batch[key])


def test_equal_in_all_formats(tree, tmp_path):
    boxes = [(1, 1, 60, 40), (7, 3, 20, 39), (10, 10, 30, 30)]
    for number, names in enumerate(itertools.product(("WBC", "Platelets"), ("RBC", "WBC"))):
        objects = [object_xml(*one) for one in zip(names, boxes, strict=False)]
        tree.add(f"blood_{number}", xml=annotation_xml(*objects), dataset=".")
    tree.list("train", ["blood_0", "blood_2", "blood_3"], dataset=".")
    tree.list("val", ["blood_1"], dataset=".")
    assert_equal_in_all_formats(tree.root, tmp_path)


@pytest.mark.slow
def test_blood_cells_are_equal_in_all_formats(shared_dir, tmp_path):
    assert_equal_in_all_formats(shared_dir / "data" / "BCCD", tmp_path)
