"""The names and numbers of images, and ground truth as COCO's annotations JSON."""

import dataclasses
import json

import numpy as np
import pytest
from annotated_sets import images_of, truth
from pycocotools.coco import COCO

from yolov1_jax import evaluate
from yolov1_jax.data.coco_json import read_coco_annotations
from yolov1_jax.evaluation.average_precision import inclusive_overlap
from yolov1_jax.evaluation.ground_truth import (
    coco_annotations,
    image_places,
    number_images,
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


@pytest.mark.parametrize("image", [139, "a", "a.jpg"])
def test_detections_on_a_folder_go_by_the_numbers_of_its_json(tmp_path, image):
    """Or by names. No image is needed; a class of another split may be detected."""
    (tmp_path / "data").mkdir()
    row = {"image_id": 139, "category_id": 90, "bbox": [12, 10, 12, 10], "score": 0.9}
    names = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    for split, categories in {"train": names, "val": names[:1]}.items():
        images = [{"id": 139, "file_name": "a.jpg", "width": 60, "height": 40}]
        content = {"images": images, "categories": categories, "annotations": [row]}
        (tmp_path / f"data/{split}.json").write_text(json.dumps(content))
    found = [{**row, "image_id": image}, {**row, "category_id": "cat"}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    flags = f"--detections={tmp_path}/found.json --source=folder --root={tmp_path}/data".split()
    output = tmp_path / "result.json"
    assert evaluate.main([*flags, "--splits=valid", f"--output={output}"]) == 0
    assert json.loads(output.read_text())["ap"] == {"cat": None, "dog": 1.0}


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
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    coco = COCO(path)
    assert coco.getAnnIds(imgIds=[7]) == [1, 2]
    assert coco.getAnnIds(catIds=[2], iscrowd=False) == [3]

    images = read_coco_annotations(path)
    assert images.fingerprint() == IMAGES.fingerprint()
    for field in ("image_ids", "class_names", "sizes", "starts", "boxes_xyxy", "labels"):
        np.testing.assert_array_equal(getattr(images, field), getattr(IMAGES, field))
    assert coco_annotations(images) == content
