"""The names that images go by, and the fingerprint of an evaluation set."""

import dataclasses

import numpy as np
import pytest
from annotated_sets import images_of, truth

from yolov1_jax.evaluation.ground_truth import (
    ImageFinder,
    image_name,
    number_images,
    numbers_in_names,
    short_names,
)

# ------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("VOC2007/000005", "000005"),
        ("000005.jpg", "000005"),
        ("JPEGImages/000005.JPEG", "000005"),
        ("a/b.c", "b.c"),  # no extension of an image
        ("2007_000027", "2007_000027"),
    ],
)
def test_the_name_of_an_image(image_id, name):
    assert image_name(image_id) == name


def test_numbers_are_the_digits_of_the_names():
    assert number_images(["VOC2007/000005", "VOC2012/2008_000008"]) == (5, 2008000008)


@pytest.mark.parametrize(
    "image_ids",
    [
        ["mine/tulip", "mine/rose 2"],  # no digits
        ["VOC2007/000005", "other/5"],  # the same number
        ["a/12345678901234567", "a/2"],  # more digits than a double has
    ],
)
def test_else_images_are_counted(image_ids):
    assert numbers_in_names(image_ids) is None
    assert number_images(image_ids) == (1, 2)


def test_names_that_are_shared_are_written_whole():
    image_ids = ["a/1", "b/1", "b/2"]
    assert short_names(image_ids) == ["a/1", "b/1", "2"]


def test_an_image_is_found_by_id_name_and_number():
    finder = ImageFinder(images_of("VOC2007/000005", "VOC2012/2008_000008"))
    for name in ("VOC2007/000005", "000005", "JPEGImages/000005.jpg", 5):
        assert finder.find(name) == 0
    assert finder.find("2008_000008") == finder.find(2008000008) == 1
    for name in ("5", "00005", 8, "VOC2012", ""):  # a name is not a number
        assert finder.find(name) is None


def test_a_name_of_two_images_is_refused():
    finder = ImageFinder(images_of("a/1", "b/1"))
    assert finder.find("b/1") == 1
    with pytest.raises(LookupError, match=r"image '1' may be a/1 and b/1: write the whole id"):
        finder.find("1")


# ------------------------------------------------------------------------------- fingerprint


CAT, DOG = ((1, 2, 30, 40), 0, False), ((5, 6, 7, 8), 1, True)
IMAGES = images_of("a/1", "a/2", truths=[truth(CAT, DOG), truth(DOG)])


def test_a_fingerprint_knows_no_order():
    fingerprint = IMAGES.fingerprint()
    assert len(fingerprint) == 64
    turned = images_of("a/2", "a/1", truths=[truth(DOG), truth(DOG, CAT)])
    assert turned.fingerprint() == fingerprint
    # Nor how the classes are numbered.
    labels = [one._replace(labels=1 - one.labels) for one in IMAGES.ground_truth]
    renamed = dataclasses.replace(IMAGES, class_names=("dog", "cat"), ground_truth=labels)
    assert renamed.fingerprint() == fingerprint
    # Nor what is below a hundredth of a pixel: other programs divide and multiply otherwise.
    blurred = [one._replace(boxes_xyxy=one.boxes_xyxy + 1e-4) for one in IMAGES.ground_truth]
    assert dataclasses.replace(IMAGES, ground_truth=blurred).fingerprint() == fingerprint


@pytest.mark.parametrize(
    "other",
    [
        images_of("a/1", "a/3", truths=IMAGES.ground_truth),
        images_of("a/1", "a/2", truths=IMAGES.ground_truth, class_names=("cat", "bird")),
        images_of("a/1", "a/2", truths=[truth(CAT), truth(DOG)]),
        images_of("a/1", "a/2", truths=[truth(CAT, (*DOG[:2], False)), truth(DOG)]),
        images_of("a/1", "a/2", truths=[truth(CAT, ((5, 6, 7, 8.1), 1, True)), truth(DOG)]),
        images_of("a/1", "a/2", truths=[truth(DOG), truth(CAT, DOG)]),
        images_of("a/1", "a/2", "a/3", truths=[*IMAGES.ground_truth, truth(DOG)]),
    ],
    ids=["image", "class", "one less", "difficult", "box", "other image", "one more image"],
)
def test_a_fingerprint_sees(other):
    assert other.fingerprint() != IMAGES.fingerprint()


def with_areas(*areas):
    return dataclasses.replace(IMAGES, areas=[np.array(one, float) for one in areas])


def test_a_fingerprint_sees_areas_that_are_not_those_of_the_boxes():
    """They decide what is small, medium and large to COCO."""
    boxes = with_areas([30 * 39, 9], [9])
    assert boxes.fingerprint() == IMAGES.fingerprint()
    # As other programs write them, from boxes rounded to 1/100 pixel.
    assert with_areas([30 * 39 + 0.6, 9.05], [8.95]).fingerprint() == IMAGES.fingerprint()
    masks = with_areas([700, 9], [9])
    others = [boxes, with_areas([700.5, 9], [9]), with_areas([30 * 39, 9], [7])]
    assert all(other.fingerprint() != masks.fingerprint() for other in others)
    assert masks.fingerprint() == with_areas([700, 9], [9]).fingerprint()
