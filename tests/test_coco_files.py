"""COCO's files: written, read, and refused."""

import dataclasses
import json

import numpy as np
import pytest
from annotated_sets import found, images_of, truth

from yolov1_jax.evaluation.average_precision import inclusive_overlap
from yolov1_jax.evaluation.coco_files import (
    coco_annotations,
    coco_results,
    from_coco_boxes,
    read_coco_annotations,
    read_coco_results,
    to_coco_boxes,
)
from yolov1_jax.evaluation.results import ResultsFileError

IMAGES = images_of(
    "VOC2007/000005",
    "VOC2007/000007",
    truths=[
        truth(((1, 2, 30, 40), 1, True), ((1, 1, 10, 5), 0, False)),
        truth(((3, 3, 3, 3), 1, False)),
    ],
)
ROW = {"image_id": 5, "category_id": 1, "bbox": [0, 1, 30, 39], "score": 0.5}


def write(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    return path


# -------------------------------------------------------------------------------------- boxes


def test_a_box_of_pixels_in_cocos_frame():
    """Ten pixels from 1 to 10, five from 1 to 5; one pixel, the third."""
    boxes = [[1, 1, 10, 5], [3, 3, 3, 3]]
    np.testing.assert_array_equal(to_coco_boxes(np.array(boxes)), [[0, 0, 10, 5], [2, 2, 1, 1]])
    np.testing.assert_array_equal(from_coco_boxes(to_coco_boxes(np.array(boxes))), boxes)
    assert to_coco_boxes(np.zeros((0, 4))).shape == from_coco_boxes(np.zeros(0)).shape == (0, 4)


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


# ------------------------------------------------------------------------------------ results


def test_results_are_what_coco_asks_for():
    detections = [found(((1, 2, 30, 40), 0.5, 1)), found()]
    expected = {"image_id": 5, "category_id": 2, "bbox": [0.0, 1.0, 30.0, 39.0], "score": 0.5}
    assert coco_results(detections, IMAGES) == [expected]


def test_the_detections_of_a_network_come_back_to_the_last_digit(tmp_path):
    """They are float32 of [0, 1], times the size of the image."""
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.random((2, 500, 2), np.float32), axis=0)
    boxes = np.concatenate([low, high], axis=-1) * np.array([500, 375, 500, 375])
    detections = [found(), found()]
    scores = rng.choice([0.1, 1 / 3, 1e-30], 500).astype(np.float32)
    detections[1] = detections[1]._replace(
        boxes_xyxy=boxes, scores=scores, labels=rng.integers(0, 2, 500)
    )
    results = read_coco_results(write(tmp_path, coco_results(detections, IMAGES)), IMAGES)
    for field, other in zip(results.detections[1], detections[1], strict=True):
        np.testing.assert_allclose(field, other, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(results.detections[1].scores, scores)
    assert results.notes == ["1 of 2 images have no detections"]


@pytest.mark.parametrize("image", [7, 7.0, "VOC2007/000007", "000007", "000007.jpg"])
@pytest.mark.parametrize("category", [2, "dog"])
def test_images_and_classes_by_number_or_name(tmp_path, image, category):
    row = {**ROW, "image_id": image, "category_id": category, "segmentation": [], "id": 9}
    results = read_coco_results(write(tmp_path, [row]), IMAGES)
    assert [len(one.labels) for one in results.detections] == [0, 1]
    assert results.detections[1].labels.tolist() == [1]
    np.testing.assert_array_equal(results.detections[1].boxes_xyxy, [[1, 2, 30, 40]])


@pytest.mark.parametrize("key", ["annotations", "detections"])
def test_results_with_tables_of_their_own(tmp_path, key):
    tables = {
        "images": [{"id": 1, "file_name": "a/000007.jpg"}, {"id": 5, "file_name": "000005.jpg"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 18, "name": "cat"}],
    }
    rows = [{**ROW, "image_id": 1}, {**ROW, "category_id": 18}]
    results = read_coco_results(write(tmp_path, {**tables, key: rows}), IMAGES)
    assert [one.labels.tolist() for one in results.detections] == [[0], [1]]
    # What the tables lack is not looked up elsewhere.
    path = write(tmp_path, {**tables, key: [{**ROW, "image_id": 7}]})
    with pytest.raises(ResultsFileError, match="found 'image_id 7'"):
        read_coco_results(path, IMAGES)
    path = write(tmp_path, {**tables, key: [{**ROW, "category_id": 2}]})
    with pytest.raises(ResultsFileError, match="found 'category_id 2'"):
        read_coco_results(path, IMAGES)


def test_counting_images_is_said(tmp_path):
    images = images_of("a/tulip", "a/rose")
    results = read_coco_results(write(tmp_path, [{**ROW, "image_id": 2}]), images)
    assert [len(one.labels) for one in results.detections] == [0, 1]
    assert results.notes[0].startswith("the images have no numbers in their names: image_id 1, 2")
    results = read_coco_results(write(tmp_path, [{**ROW, "image_id": "rose"}]), images)
    assert results.notes == ["1 of 2 images have no detections"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"info": {}}, r"expected a list of detections in .*, found none"),
        (3, r"expected a list of detections"),
        (
            [ROW, {**ROW, "bbox": [1, 2, 3]}],
            r"detection 2: expected image_id, .* found {.*\[1, 2, 3\]",
        ),
        ([{**ROW, "bbox": None}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "bbox": [1, 2, 3, "x"]}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "image_id": [5]}], "detection 1: expected image_id"),
        ([{"image_id": 5}], r"detection 1: expected image_id, .* found {\"image_id\": 5}"),
        ([7], "detection 1: expected image_id"),
        (
            [{**ROW, "score": float("nan")}],
            r"detection 1: expected finite numbers, found score nan",
        ),
        ([{**ROW, "category_id": 0}], r"expected a class .*, found 'category_id 0'"),
        ([{**ROW, "category_id": "dogs"}], r"expected a class .*, found 'dogs' \(nearest: 'dog'\)"),
        ([{**ROW, "image_id": 6}], "expected an image of the annotations such as 5, found 6"),
        ([{**ROW, "bbox": "1234"}], 'detection 1: expected image_id, .* "bbox": "1234"'),
        ([{**ROW, "bbox": [0, 1, 30, True]}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "bbox": [0, 1, 30, "9"]}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "bbox": {"x": 0, "y": 1, "w": 2, "h": 3}}], "detection 1: expected image_id"),
        ([{**ROW, "score": True}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "score": "0.5"}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "score": 10**400}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "category_id": True}], "detection 1: expected image_id, category_id, bbox"),
        ([{**ROW, "image_id": 5.5}], "detection 1: expected image_id, category_id, bbox"),
        (
            {
                "images": [{"id": 1, "file_name": "000005"}, {"id": 2, "file_name": "000005"}],
                "annotations": [],
            },
            "expected every file_name of 'images' once in .*, found one twice",
        ),
        ({"images": [{"name": "x"}], "annotations": []}, "expected an id and a file_name for each"),
        (
            {"categories": 3, "annotations": []},
            "expected an id and a name for each of 'categories'",
        ),
    ],
)
def test_refuses_results(tmp_path, content, message):
    with pytest.raises(ResultsFileError, match=message):
        read_coco_results(write(tmp_path, content), IMAGES)


def test_refuses_what_is_no_json(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("[{")
    with pytest.raises(ResultsFileError, match=r"expected JSON in .*file\.json, found: Expecting"):
        read_coco_results(path, IMAGES)
    for content in (b"\x89PNG", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ResultsFileError, match=r"expected JSON in .*file\.json, found: "):
            read_coco_annotations(path)
        with pytest.raises(ResultsFileError, match=r"expected JSON in .*file\.json, found: "):
            read_coco_results(path, IMAGES)


# -------------------------------------------------------------------------------- annotations


def test_annotations_are_what_coco_asks_for():
    content = coco_annotations(IMAGES)
    assert content["images"][0] == {
        "id": 5,
        "file_name": "VOC2007/000005",
        "width": 100,
        "height": 100,
    }
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert content["annotations"][0] == {
        "id": 1,
        "image_id": 5,
        "category_id": 2,
        "bbox": [0, 1, 30, 39],
        "area": 30 * 39,
        "iscrowd": 1,
    }
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3]


def test_annotations_come_back(tmp_path):
    images = read_coco_annotations(write(tmp_path, coco_annotations(IMAGES)))
    assert images.fingerprint() == IMAGES.fingerprint()
    for key in ("image_ids", "class_names", "image_numbers", "category_ids"):
        assert getattr(images, key) == getattr(IMAGES, key)
    np.testing.assert_array_equal(images.sizes, IMAGES.sizes)
    for one, other in zip(images.ground_truth, IMAGES.ground_truth, strict=True):
        for field, other_field in zip(one, other, strict=True):
            np.testing.assert_array_equal(field, other_field)
    assert coco_annotations(images) == coco_annotations(IMAGES)


def test_annotations_of_other_programs(tmp_path):
    content = {
        "images": [{"id": 139, "file_name": "000139.jpg"}, {"id": 2}],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 0, "image_id": 139, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 50.5}
        ],
    }
    images = read_coco_annotations(write(tmp_path, content))
    assert images.image_ids == ("000139.jpg", "2")
    assert images.class_names == ("toothbrush", "person")
    assert images.ground_truth[0].labels.tolist() == [1]
    assert images.ground_truth[0].difficult.tolist() == [False]
    assert [area.tolist() for area in images.areas] == [[50.5], []]
    # Numbers in a bare list of results are theirs, and no longer 1, 2, 3.
    results = read_coco_results(
        write(tmp_path, [{**ROW, "image_id": 139, "category_id": 90}]), images
    )
    assert results.detections[0].labels.tolist() == [0]
    assert coco_annotations(images)["annotations"][0]["area"] == 50.5


def changed(key, *path):
    """The annotations of IMAGES with another value somewhere."""
    content = json.loads(json.dumps(coco_annotations(IMAGES)))
    *path, last, value = path
    node = content[key]
    for part in path:
        node = node[part]
    node[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ROW], "expected images, categories and annotations in .*, found list"),
        ({"images": []}, r"expected images, categories and annotations in .*, found \['images'\]"),
        ({**coco_annotations(IMAGES), "images": []}, "expected a list of images in .* empty one"),
        ({**coco_annotations(IMAGES), "annotations": {}}, "expected a list of annotations in"),
        (
            changed("images", 1, "file_name", "VOC2007/000005"),
            "every file_name of 'images' once in",
        ),
        (changed("categories", 1, "name", "cat"), "every name of 'categories' once in"),
        (changed("annotations", 1, "image_id", 6), "annotation 2: expected the image_id and the"),
        (changed("annotations", 0, "category_id", 3), "annotation 1: expected the image_id and"),
        (changed("annotations", 0, "bbox", [1, 2, 3]), "annotation 1: expected the image_id and"),
        (changed("annotations", 0, "bbox", 0, float("inf")), "annotation 1: expected the image"),
        (changed("annotations", 0, "bbox", "1234"), 'annotation 1: .* "bbox": "1234"'),
        (changed("annotations", 0, "bbox", 0, True), "annotation 1: expected the image_id and"),
        (changed("annotations", 0, "area", "9"), "annotation 1: expected the image_id and"),
        (changed("annotations", 0, "area", 10**400), "annotation 1: expected the image_id and"),
        (changed("annotations", 0, "category_id", True), "annotation 1: expected the image_id"),
        *(
            (changed("annotations", 2, "iscrowd", value), "annotation 3: .* iscrowd 0 or 1")
            for value in ("0", "false", float("nan"), None, 2, [])
        ),
        (changed("images", 0, "id", True), "expected an id and a file_name for each of 'images'"),
        (changed("categories", 0, "id", 1.5), "expected an id and a name for each of 'categories'"),
        *(
            (changed("images", 1, "height", value), "pixels for the height of image 7 in .*, found")
            for value in (0, -3, True, None, "100", 1e30, 10**30, 100.0)
        ),
        (changed("images", 0, "width", 0), "pixels for the width of image 5 in .*, found 0; corr"),
    ],
)
def test_refuses_annotations(tmp_path, content, message):
    with pytest.raises(ResultsFileError, match=message):
        read_coco_annotations(write(tmp_path, content))


def test_areas_of_masks_are_kept():
    images = dataclasses.replace(IMAGES, areas=[np.array([3.0, 4.0]), np.array([5.0])])
    assert [one["area"] for one in coco_annotations(images)["annotations"]] == [3, 4, 5]


def test_what_is_difficult_and_how_large_images_are(tmp_path):
    for value in (True, False, 1, 0):
        images = read_coco_annotations(write(tmp_path, changed("annotations", 2, "iscrowd", value)))
        assert images.ground_truth[1].difficult.tolist() == [bool(value)]
    content = coco_annotations(IMAGES)
    del content["images"][0]["height"], content["annotations"][0]["iscrowd"]
    images = read_coco_annotations(write(tmp_path, content))
    assert images.sizes.tolist() == [[0, 100], [100, 100]]
    assert images.ground_truth[0].difficult.tolist() == [False, False]


def test_boxes_that_nothing_can_find_are_counted_and_noted(tmp_path):
    """COCO's evaluation counts them, and its own training set has some."""
    path = write(tmp_path, changed("annotations", 1, "bbox", [5, 5, 0, 9]))
    images = read_coco_annotations(path)
    assert [len(one.labels) for one in images.ground_truth] == [2, 1]
    assert images.notes == (
        "1 objects have no width or no height, so that nothing can find them: annotation 2",
    )
    content = json.loads(path.read_text())
    content["annotations"][2]["bbox"][3] = -1
    (note,) = read_coco_annotations(write(tmp_path, content)).notes
    assert note.startswith("2 objects have no width")
    assert note.endswith("annotation 2, ...")
    assert read_coco_annotations(write(tmp_path, coco_annotations(IMAGES))).notes == ()
