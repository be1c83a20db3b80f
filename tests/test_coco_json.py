"""COCO's annotations JSON: as ground truth, and as a data set beside its images."""

import json

import pytest
from voc_tree import VocTree, encode, pixels

from yolov1_jax.config import UserError
from yolov1_jax.data.coco_json import read_coco_annotations
from yolov1_jax.data.source import open_folder
from yolov1_jax.evaluation.ground_truth import category_ids, coco_annotations, number_images

IMAGE = encode(pixels())  # 60 x 40
CONTENT = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 5, "file_name": "b.png", "width": 60, "height": 40},
    ],
    "categories": [{"id": 12, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 12, "bbox": [12, 10, 12, 10], "iscrowd": 1},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 2, 1.5], "iscrowd": 0},
    ],
}
ROW = CONTENT["annotations"][0]


def write(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def tree(tmp_path):
    """A tree with a.png and b.png in images/."""
    tree = VocTree(tmp_path)
    for name in "ab":
        tree.write(f"images/{name}.png", IMAGE)
    return tree


def opened(tree, split="all", **options):
    annotations = open_folder(tree.root, [split], **options).annotations()
    return annotations, "; ".join(annotations.report.notes())


def test_a_data_set(tree):
    """Boxes in VOC's pixels, crowds as difficult, the numbers of the JSON kept."""
    tree.write("result.json", json.dumps(CONTENT))  # as Label Studio writes it
    annotations, _ = opened(tree)
    assert (annotations.image_ids, annotations.class_names) == (("a", "b"), ("cat", "dog"))
    assert annotations.labels.tolist() == [1, 0]
    assert annotations.boxes_xyxy.tolist() == [[13, 11, 24, 20], [1, 1, 2, 1.5]]
    assert annotations.difficult.tolist() == [True, False]
    assert number_images(annotations) == (7, 5)
    assert category_ids(annotations) == (3, 12)


def test_what_cannot_be_used_is_said(tree):
    rows = [
        {"image_id": 6, "category_id": 3, "bbox": [1, 1, 5, 5]},
        {"image_id": 7, "category_id": 4, "bbox": [1, 1, 5, 5]},
        {"image_id": 7, "category_id": 3, "bbox": [1, 1, "x", 5]},
        {"image_id": 7, "category_id": 3},
        {"image_id": 7, "category_id": 3, "bbox": [-3, -2, 10, 10]},
    ]
    images = [*CONTENT["images"], {"id": 9, "file_name": "gone.png"}]
    tree.write("a.json", json.dumps({**CONTENT, "images": images, "annotations": rows}))
    annotations, notes = opened(tree)
    assert annotations.boxes_xyxy.tolist() == [[0, 0, 7, 8]]
    for note in (
        "1 objects left out, no image of that id: a.json annotation 1",
        "without a class name: a object 2",
        "not a number: a object 3 (cat), a object 4 (cat)",
        "clipped to the image: a object 5",
        "missing or cannot be read: gone",
    ):
        assert note in notes


@pytest.mark.parametrize(
    ("written", "found"),
    [
        *((f"{path}b.png", "b") for path in ("", "images/", "C:\\set\\", "../1/", "/data/x/")),
        ("cam2/b.png", "cam2/b"),
    ],
)
def test_the_longest_end_of_a_path_decides(tree, written, found):
    """Paths may be of another machine."""
    for folder in ("cam1", "cam2"):
        tree.write(f"images/{folder}/b.png", IMAGE)
    image = {**CONTENT["images"][1], "file_name": written}
    tree.write("a.json", json.dumps({**CONTENT, "images": [CONTENT["images"][0], image]}))
    assert opened(tree)[0].image_ids == ("a", found)


def test_a_damaged_json_is_named(tree):
    tree.write("valid/_annotations.coco.json", json.dumps(CONTENT)[:90])
    with pytest.raises(UserError, match="valid/_annotations"):  # the only one
        opened(tree)
    tree.write("train/_annotations.coco.json", json.dumps(CONTENT))
    with pytest.raises(UserError, match="valid/_annotations"):
        opened(tree)


def test_a_device_is_not_read():
    with pytest.raises(UserError, match="no regular file"):
        read_coco_annotations("/dev/zero")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train.json", "val.json"),
    ],
)
def test_splits(tree, train, val):
    first, second = CONTENT["images"]
    tree.write(train, json.dumps({**CONTENT, "images": [first]}))
    tree.write(val, json.dumps({**CONTENT, "images": [second]}))
    assert opened(tree, "train")[0].image_ids == ("a",)
    assert opened(tree, "val")[0].image_ids == ("b",)


def test_equal_names_in_two_splits(tree):
    """The JSON of a split has the images of its folder."""
    for number, split in enumerate(("train", "val"), start=1):
        tree.write(f"images/{split}/a.png", encode(pixels() // number))
        content = {**CONTENT, "images": CONTENT["images"][:1]}
        tree.write(f"annotations/instances_{split}.json", json.dumps(content))
    train, val = (open_folder(tree.root, [split]) for split in ("train", "val"))
    assert (train[0].image.max(), val[0].image.max()) == (250, 125)


def test_instances_are_taken_of_several_files_on_the_same_images(tree):
    second = CONTENT["images"][1]
    tree.write("annotations/instances_val2017.json", json.dumps({**CONTENT, "images": [second]}))
    tree.write("annotations/person_keypoints_val2017.json", json.dumps(CONTENT))
    assert opened(tree, "val")[0].image_ids == ("b",)


def test_the_parent_of_all_categories_is_no_class(tree):
    """As Roboflow writes it."""
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
    categories += [{**one, "supercategory": "pets"} for one in CONTENT["categories"]]
    tree.write("a.json", json.dumps({**CONTENT, "categories": categories}))
    assert opened(tree)[0].class_names == ("cat", "dog")


def test_half_a_surrogate_pair_in_a_name(tree):
    r"""JSON can say "\ud800", which no encoding can write."""
    path = write(tree.root, CONTENT)
    path.write_text(path.read_text().replace("dog", r"\ud800").replace("a.png", r"\udc00.png"))
    annotations = read_coco_annotations(path)
    assert annotations.class_names == ("?", "cat")
    assert annotations.image_ids == ("?.png", "b.png")
    assert annotations.fingerprint()


def test_annotations_of_other_programs(tmp_path):
    """No sizes, an image without a name, any numbers, objects in any order, areas of masks."""
    rows = [
        {"id": 0, "image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 50.5},
        {"id": 9, "image_id": 139, "category_id": 90, "bbox": [1, 1, 2, 2], "iscrowd": True},
        {"id": 3, "image_id": 2, "category_id": 90, "bbox": [5, 5, 4, 4], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 139, "file_name": "000139.jpg"}, {"id": 2}, {"id": 7, "height": None}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": rows,
    }
    images = read_coco_annotations(write(tmp_path, content))
    assert images.image_ids == ("000139.jpg", "2", "7")
    assert images.class_names == ("toothbrush", "person")
    assert (images.image_numbers, images.category_ids) == ((139, 2, 7), (90, 1))
    assert not images.sizes.any()
    assert [images[i].labels.tolist() for i in range(3)] == [[0], [1, 0], []]
    assert images.difficult.tolist() == [True, False, False]
    assert images.boxes_xyxy.tolist() == [[2, 2, 3, 3], [1, 1, 9, 9], [6, 6, 9, 9]]
    assert images.areas.tolist() == [4, 50.5, 16]
    assert [one["area"] for one in coco_annotations(images)["annotations"]] == [4, 50.5, 16]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 5}], "categories with id"),  # results in the place of annotations
        ({"images": [], "annotations": []}, "KeyError 'categories'"),
        (CONTENT | {"annotations": [{**ROW, "image_id": [6]}]}, "categories with id"),
        (CONTENT | {"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]}, "x, x"),
        (CONTENT | {"categories": [{"id": 1, "name": "x"}] * 2}, "an id of its own"),
        (CONTENT | {"annotations": [ROW, {**ROW, "image_id": 6}]}, "annotation 2"),
        (CONTENT | {"annotations": [ROW, {**ROW, "category_id": 4}]}, "annotation 2"),
        (CONTENT | {"annotations": [{**ROW, "bbox": [1, 2, 3]}]}, "annotation 1"),
        (CONTENT | {"annotations": [{**ROW, "bbox": [0, 0, float("inf"), 1]}]}, "annotation 1"),
    ],
)
def test_refuses_annotations(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_coco_annotations(write(tmp_path, content))
