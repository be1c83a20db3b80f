"""The names and numbers of images, and COCO's annotations JSON: read, written, refused."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from annotated_sets import images_of, truth
from pycocotools.coco import COCO

from yolov1_jax.config import UserError
from yolov1_jax.evaluation.average_precision import inclusive_overlap
from yolov1_jax.evaluation.ground_truth import (
    coco_annotations,
    image_places,
    number_images,
    read_coco_annotations,
    to_coco_boxes,
)

IMAGES = images_of(
    "VOC2007/000007",
    "VOC2007/000005",
    truths=[  # ten pixels from 1 to 10, five from 1 to 5; one pixel, the third
        truth(((1, 2, 30, 40), 1, True), ((1, 1, 10, 5), 0, False)),
        truth(((3, 3, 3, 3), 1, False)),
    ],
)


def write(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("image_ids", "numbers"),
    [
        (["VOC2007/000005", "VOC2012/2008_000008"], (5, 2008000008)),
        (["mine/tulip", "mine/rose 2"], (1, 2)),  # no digits
        (["VOC2007/000005", "other/5"], (1, 2)),  # the same number
        (["a/12345678901234567", "a/2"], (1, 2)),  # more digits than a double has
    ],
)
def test_numbers_are_the_digits_of_the_names_or_count_the_images(image_ids, numbers):
    images = images_of(*image_ids)
    assert number_images(images) == numbers
    assert number_images(dataclasses.replace(images, image_numbers=(7, 9))) == (7, 9)


def test_an_image_is_found_by_id_number_and_a_name_that_no_other_has():
    images = images_of("VOC2007/000005", "VOC2012/2008_000008", "b/000005.jpg")
    ids = dict(zip(images.image_ids, range(3), strict=True))
    numbers = {1: 0, 2: 1, 3: 2}  # two names have the number 5
    assert image_places(images) == ids | numbers | {"2008_000008": 1}


def test_overlap_in_cocos_frame_is_the_devkits():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 20, (2, 500, 2)), rng.uniform(0, 20, (2, 500, 2))
    a, b = np.concatenate([corner, corner + size], axis=-1)
    (x, y, w, h), (u, v, s, t) = to_coco_boxes(a).T, to_coco_boxes(b).T
    width = np.maximum(np.minimum(x + w, u + s) - np.maximum(x, u), 0)
    height = np.maximum(np.minimum(y + h, v + t) - np.maximum(y, v), 0)
    overlap = width * height / (w * h + s * t - width * height)
    np.testing.assert_allclose(overlap, inclusive_overlap(a, b), rtol=0, atol=1e-13)
    assert 100 < np.sum(overlap > 0) < 500


def test_annotations_are_what_coco_asks_for_and_come_back(tmp_path):
    content = coco_annotations(IMAGES)
    image = {"id": 5, "file_name": "VOC2007/000005", "width": 100, "height": 100}
    assert content["images"][1] == image
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [0, 1, 30, 39], "area": 30 * 39}
    assert content["annotations"][0] == {**first, "iscrowd": 1}
    assert [one["bbox"] for one in content["annotations"][1:]] == [[0, 0, 10, 5], [2, 2, 1, 1]]
    path = write(tmp_path, content)
    coco = COCO(path)
    assert coco.getAnnIds(imgIds=[7]) == [1, 2]
    assert coco.getAnnIds(catIds=[2], iscrowd=False) == [3]

    images = read_coco_annotations(path)
    assert images.fingerprint() == IMAGES.fingerprint()
    for field in ("image_ids", "class_names", "sizes", "starts", "boxes_xyxy", "labels"):
        np.testing.assert_array_equal(getattr(images, field), getattr(IMAGES, field))
    assert coco_annotations(images) == content


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


def changed(key, index, **values):
    """The annotations of IMAGES with other values in one place."""
    content = copy.deepcopy(coco_annotations(IMAGES))
    content[key][index] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 5}], "images, categories"),  # results in the place of annotations
        ({"images": [], "annotations": []}, "categories"),
        (changed("categories", 1, name="cat"), "cat, cat"),
        (changed("annotations", 1, image_id=6), "annotation 2"),
        (changed("annotations", 0, category_id=3), "annotation 1"),
        (changed("annotations", 0, bbox=[1, 2, 3]), "annotation 1"),
        (changed("annotations", 0, bbox=[0, 0, float("inf"), 1]), "annotation 1"),
    ],
)
def test_refuses_annotations(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_coco_annotations(write(tmp_path, content))
