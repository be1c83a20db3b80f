"""From the network's output to boxes in an image."""

import numpy as np
import pytest
from PIL import Image

from yolov1_jax.data.transforms import resize_image
from yolov1_jax.detector import Detector, detections_from_predictions
from yolov1_jax.errors import UserError
from yolov1_jax.yolo.grid import Predictions

SELECT = {
    "xy_unit": "cell",
    "score_threshold": 0.25,
    "nms_iou_threshold": 0.5,
    "classes_per_box": "best",
}


def silent(num_images, num_classes=2):
    """Predictions of a 2 x 2 grid with two boxes per cell, none of which is sure of anything."""
    return Predictions(
        boxes=np.full((num_images, 2, 2, 2, 4), 0.5, np.float32),
        confidence=np.zeros((num_images, 2, 2, 2), np.float32),
        class_scores=np.zeros((num_images, 2, 2, num_classes), np.float32),
    )


def detect(predictions, sizes, **options):
    return detections_from_predictions(predictions, np.array(sizes), **{**SELECT, **options})


# ------------------------------------------------------------------------- values by hand


@pytest.mark.parametrize(
    ("xy_unit", "x", "y"),
    [
        # Row 0, column 1 of two: the cell's corner is (0.5, 0). The centre is (0.625, 0.25).
        ("cell", 0.25, 0.5),
        ("image", 0.125, 0.25),
    ],
)
def test_a_box_by_hand(xy_unit, x, y):
    predictions = silent(1)
    predictions.boxes[0, 0, 1, 0] = [x, y, 0.5, 0.25]
    predictions.confidence[0, 0, 1, 0] = 0.5
    predictions.class_scores[0, 0, 1] = [0.25, 0.75]
    (found,) = detect(predictions, [(200, 400)], xy_unit=xy_unit)  # height, width
    # x: 0.625 -+ 0.25 of 400 pixels, y: 0.25 -+ 0.125 of 200 pixels.
    np.testing.assert_allclose(found.boxes_xyxy, [[150, 25, 350, 75]])
    np.testing.assert_allclose(found.scores, [0.5 * 0.75])
    np.testing.assert_array_equal(found.labels, [1])


def test_boxes_end_at_the_edge_of_the_image():
    predictions = silent(1)
    predictions.boxes[0, 0, 0, 0] = [0.5, 0.5, 0.75, 1.5]  # centre (0.25, 0.25)
    predictions.confidence[0, 0, 0, 0] = predictions.class_scores[0, 0, 0, 0] = 1
    (found,) = detect(predictions, [(100, 80)])
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 0.625 * 80, 100]])


@pytest.mark.parametrize(
    "box",
    [
        [0.5, 0.5, -0.5, 0.5],  # inside out: the network has made a width negative
        [0.5, 0.5, 0.5, 0.0],
        [-1.5, 0.5, 0.25, 0.5],  # ends at -0.375: wholly to the left of the image
    ],
)
def test_a_box_without_area_is_no_detection(box):
    predictions = silent(1)
    predictions.boxes[0, 0, 0, 0] = box
    predictions.confidence[0, 0, 0, 0] = predictions.class_scores[0, 0, 0, 0] = 1
    (found,) = detect(predictions, [(100, 80)])
    assert len(found.scores) == 0


def test_each_image_has_its_own_size_and_objects():
    predictions = silent(3)
    for image, label in ((0, 0), (2, 1)):
        predictions.boxes[image, 1, 1, 1] = [0.0, 0.0, 0.5, 0.5]  # centre (0.5, 0.5)
        predictions.confidence[image, 1, 1, 1] = predictions.class_scores[image, 1, 1, label] = 1
    first, second, third = detect(predictions, [(8, 16), (9, 9), (400, 40)])
    np.testing.assert_allclose(first.boxes_xyxy, [[4, 2, 12, 6]])
    assert second.boxes_xyxy.shape == (0, 4)
    np.testing.assert_allclose(third.boxes_xyxy, [[10, 100, 30, 300]])
    assert (first.labels.item(), third.labels.item()) == (0, 1)


def test_repeats_are_suppressed_within_a_class():
    predictions = silent(1)
    predictions.boxes[0, 0, 0] = [[0.5, 0.5, 0.4, 0.4], [0.52, 0.5, 0.4, 0.4]]
    predictions.confidence[0, 0, 0] = [0.5, 1.0]
    predictions.class_scores[0, 0, 0] = [0.8, 0.6]
    (found,) = detect(predictions, [(100, 100)])
    np.testing.assert_allclose(found.scores, [0.8])
    np.testing.assert_allclose(found.boxes_xyxy, [[6, 5, 46, 45]], atol=1e-4)
    (found,) = detect(predictions, [(100, 100)], nms_iou_threshold=0.99)
    np.testing.assert_allclose(found.scores, [0.8, 0.4])
    (found,) = detect(predictions, [(100, 100)], classes_per_box="all")
    np.testing.assert_allclose(found.scores, [0.8, 0.6])
    np.testing.assert_array_equal(found.labels, [0, 1])


def test_the_threshold_is_enough():
    predictions = silent(1)
    predictions.confidence[0, :, :, 0] = 0.5
    predictions.class_scores[0, :, :, 0] = [[0.25, 0.5], [0.75, 0.499]]
    (found,) = detect(predictions, [(100, 100)])
    np.testing.assert_allclose(found.scores, [0.375, 0.25])


def test_of_equal_scores_the_first_box_of_the_cells_comes_first():
    predictions = silent(1)
    predictions.boxes[..., 2:] = 0.1
    # Far enough apart that nobody suppresses anybody.
    predictions.boxes[..., 0, 0], predictions.boxes[..., 1, 0] = 0.2, 0.8
    predictions.confidence[:] = predictions.class_scores[..., 0] = 1
    (found,) = detect(predictions, [(100, 100)])
    centres = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 2
    first = [[10, 25], [60, 25], [10, 75], [60, 75]]  # row by row
    second = [[40, 25], [90, 25], [40, 75], [90, 75]]
    np.testing.assert_allclose(centres, first + second, atol=1e-4)


# ------------------------------------------------------------------------------- Detector


class Recorder:
    """A network that remembers its batches and finds one object in the middle of every image."""

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(images.copy())
        predictions = silent(len(images))
        predictions.boxes[:, 1, 1, 0] = [0.0, 0.0, 0.5, 0.5]
        predictions.confidence[:, 1, 1, 0] = 0.5
        predictions.class_scores[:, 1, 1, 1] = 1
        return predictions


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def detector(recorder):
    return Detector(
        recorder, class_names=["cat", "dog"], image_size=16, batch_size=4, select_options=SELECT
    )


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 90), (333, 500), (17, 3)])
def test_any_size_of_image(detector, recorder, size):
    image = pixels(*size)
    (found,) = detector(image)
    height, width = size
    np.testing.assert_allclose(
        found.boxes_xyxy, [[width / 4, height / 4, 3 * width / 4, 3 * height / 4]]
    )
    (batch,) = recorder.batches
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, resize_image(image, 16)[None])


def test_paths_arrays_and_views_are_the_same_image(detector, recorder, tmp_path):
    image = pixels(20, 30)
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    mirrored_twice = image[:, ::-1].copy()[:, ::-1]
    assert not mirrored_twice.flags.c_contiguous
    found = detector([path, str(path), image, mirrored_twice])
    assert len(found) == 4
    (batch,) = recorder.batches
    for row in batch:
        np.testing.assert_array_equal(row, resize_image(image, 16))


def test_a_single_image_needs_no_list(detector, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels(20, 30)).save(path)
    for image in (path, str(path), pixels(20, 30)):
        assert len(detector(image)) == 1


def test_many_images_go_in_batches_of_one_size(detector, recorder):
    images = [pixels(10 + i, 40, seed=i) for i in range(9)]
    found = detector(images)
    assert [len(batch) for batch in recorder.batches] == [4, 4, 4]
    assert len(found) == 9  # what the padding of the last batch gave is left out
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.boxes_xyxy[0, 3], 3 * (10 + i) / 4)
    np.testing.assert_array_equal(recorder.batches[2][0], resize_image(images[8], 16))
    assert detector([]) == []


def test_the_threshold_can_be_another(detector):
    image = pixels(8, 8)
    assert [len(detector(image, score_threshold=score)[0].scores) for score in (0.5, 0.6)] == [1, 0]
    assert len(detector(image)[0].scores) == 1  # and is forgotten again


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype} {image.shape}",
)
def test_arrays_that_are_no_image(detector, image):
    with pytest.raises(UserError, match="expected a uint8 RGB image") as caught:
        detector(image)
    assert str(image.shape) in str(caught.value)


def test_paths_that_are_no_image(detector, tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        detector(tmp_path / "nothing.jpg")
    with pytest.raises(UserError, match="found no such file"):
        detector(tmp_path)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        detector(broken)
