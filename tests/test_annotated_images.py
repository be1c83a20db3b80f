"""What all readers of folders share, with a reader of the test's own."""

import os

import numpy as np
import pytest
from annotated_sets import truth
from voc_tree import encode, exif, pixels

from yolov1_jax.data.annotated_images import (
    AnnotatedImages,
    AnnotatedObject,
    Annotation,
    ListedImage,
)
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.images import read_image
from yolov1_jax.data.own_folder import files_below


def lower_half(size):
    """A reader whose boxes are of the image as EXIF turns it."""
    height, width = size
    box = 1.0, height / 2 + 1, float(width), float(height)
    return Annotation(size, [AnnotatedObject(1, "cat", box, False)])


def source(tmp_path, *, orientation=1, **options):
    (tmp_path / "a.png").write_bytes(encode(pixels(), exif=exif(orientation)))
    image = ListedImage("a", "a.png", lower_half, upright=True)
    return AnnotatedImages(str(tmp_path), [image, image], Report(), **options)


def test_files_of_a_folder(tmp_path):
    for path in ("b/x.png", "b/.hidden/y.png", "a.txt", "b/.y.png"):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z.png").touch()
    for link, target in {"b/c": "elsewhere", "d": "data/b", "b/up": "data"}.items():
        (tmp_path / "data" / link).symlink_to(tmp_path / target)
    os.mkfifo(tmp_path / "data" / "pipe.png")  # would be waited for without end
    with pytest.raises(UnusableFile):
        read_image(tmp_path / "data" / "pipe.png")
    assert files_below(tmp_path / "data") == ["a.txt", "b/c/z.png", "b/x.png"]
    assert files_below(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("orientation", "box", "first_row"),
    [
        (1, (1, 21, 60, 40), pixels()[0]),
        (3, (1, 21, 60, 40), pixels()[-1, ::-1]),
        (6, (1, 31, 40, 60), pixels()[::-1, 0]),
    ],
)
def test_boxes_of_the_image_as_it_is_shown(tmp_path, orientation, box, first_row):
    found = source(tmp_path, orientation=orientation)
    assert len(found) == 1  # the second is the same
    assert ["a"] in found.annotations().report.corrected.values()
    np.testing.assert_equal(found.annotations()[0], truth((box, 0, False)))
    np.testing.assert_array_equal(found[0].image[0], first_row)
