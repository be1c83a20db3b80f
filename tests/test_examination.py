import numpy as np
import pytest
from voc_tree import VocTree

from yolov1_jax.data.annotations import Annotation
from yolov1_jax.data.dataset import SourceReport, UnusableFile
from yolov1_jax.data.examination import examine, read_both
from yolov1_jax.data.image_sets import ListedImage
from yolov1_jax.data.images import ImageHeader

LISTED = ListedImage("own/a", "own/JPEGImages/a.png", "own/Annotations/a.xml")


def annotation(*boxes, names=None, difficult=None, height=40, width=60) -> Annotation:
    return Annotation(
        height,
        width,
        np.array(boxes, np.float64).reshape(-1, 4),
        names or ("cat",) * len(boxes),
        difficult or (False,) * len(boxes),
    )


class TestPixels:
    """Which pixels are used, at what size, and what is said about it."""

    @pytest.mark.parametrize(
        ("orientation", "annotated", "used", "correction"),
        [
            (1, (40, 60), (40, 60, 1), None),
            (6, (40, 60), (40, 60, 1), "EXIF orientation ignored, as in the annotation"),
            (3, (40, 60), (40, 60, 1), "EXIF orientation ignored, as in the annotation"),
            (5, (60, 40), (60, 40, 5), "EXIF rotation applied, as in the annotation"),
            (6, (60, 40), (60, 40, 6), "EXIF rotation applied, as in the annotation"),
            (8, (60, 40), (60, 40, 8), "EXIF rotation applied, as in the annotation"),
            # Swapped sides, but EXIF does not swap them: a plain mistake.
            (1, (60, 40), (40, 60, 1), "size wrong in the annotation, image's own used"),
            (3, (60, 40), (40, 60, 1), "size wrong in the annotation, image's own used"),
            (6, (80, 90), (40, 60, 1), "size wrong in the annotation, image's own used"),
            (1, (0, 60), (40, 60, 1), "size missing in the annotation, image's own used"),
            (6, (0, 0), (40, 60, 1), "size missing in the annotation, image's own used"),
        ],
    )
    def test_frame(self, orientation, annotated, used, correction):
        report = SourceReport()
        found = examine(
            LISTED,
            ImageHeader(40, 60, orientation),
            annotation(height=annotated[0], width=annotated[1]),
            report,
        )
        assert found[:3] == used
        assert report.corrected == ({} if correction is None else {correction: ["own/a"]})

    def test_a_square_image_is_never_turned(self):
        # The annotation's size cannot tell, and VOC's own rule is stored pixels.
        report = SourceReport()
        found = examine(LISTED, ImageHeader(50, 50, 6), annotation(height=50, width=50), report)
        assert found.orientation == 1

    def test_boxes_are_placed_in_the_pixels_that_are_used(self):
        box = (10, 10, 20, 20)
        cases = [
            (ImageHeader(40, 60, 6), annotation(box, height=60, width=40), [10 / 40, 10 / 60]),
            (ImageHeader(40, 60, 6), annotation(box, height=40, width=60), [10 / 60, 10 / 40]),
            (ImageHeader(40, 60), annotation(box, height=400, width=600), [10 / 60, 10 / 40]),
            (ImageHeader(40, 60), annotation(box, height=0, width=0), [10 / 60, 10 / 40]),
        ]
        for header, note, corner in cases:
            (found,) = examine(LISTED, header, note, SourceReport()).objects
            assert found.box_xyxy[:2].tolist() == corner

    def test_lossy_decoding_is_noted(self):
        report = SourceReport()
        examine(LISTED, ImageHeader(40, 60, has_alpha=True, is_16_bit=True), annotation(), report)
        assert report.corrected == {
            "transparency dropped": ["own/a"],
            "16-bit image, high 8 bits used": ["own/a"],
        }


class TestObjects:
    def test_what_is_left_out_is_noted_and_the_rest_kept_in_order(self):
        report = SourceReport()
        note = annotation(
            (1, 1, 30, 30),
            (np.nan, 1, 30, 30),
            (30, 1, 30, 30),
            (70, 1, 90, 30),
            (10, 10, 20, 20),
            (-5, 20, 30, 30),
            names=("dog", "cat", "cat", "cat", "", "cow"),
            difficult=(True, False, False, False, False, None),
        )
        found = examine(LISTED, ImageHeader(40, 60), note, report)
        assert [(item.class_name, item.difficult) for item in found.objects] == [
            ("dog", True),
            ("cow", False),
        ]
        assert found.objects[1].box_xyxy.tolist() == [0, 0.5, 0.5, 0.75]
        assert report.skipped_objects == {
            "box is missing or not a number": ["own/a object 2 (cat)"],
            "box is empty or inverted": ["own/a object 3 (cat)"],
            "box is outside the image": ["own/a object 4 (cat)"],
            "object without a class name": ["own/a object 5 (?)"],
        }
        assert report.corrected == {
            "box clipped to the image": ["own/a object 6 (cow)"],
            "difficult is neither 0 nor 1, taken as 0": ["own/a object 6 (cow)"],
        }
        assert report.skipped == {}

    def test_an_image_without_objects_is_used(self):
        report = SourceReport()
        assert examine(LISTED, ImageHeader(40, 60), annotation(), report) == (40, 60, 1, [])
        assert report == SourceReport()


class TestReadBoth:
    def test_both(self, tmp_path):
        VocTree(tmp_path).add("a")
        header, note = read_both(str(tmp_path), LISTED)
        assert header == ImageHeader(40, 60)
        assert note.names == ("cat",)

    @pytest.mark.parametrize(
        ("paths", "reason"),
        [
            ((None, LISTED.annotation_path), "image is missing"),
            ((LISTED.image_path, None), "annotation is missing"),
            ((None, None), "neither image nor annotation found"),
            (("own/JPEGImages/empty.png", LISTED.annotation_path), "image is empty"),
        ],
    )
    def test_the_reason_is_returned(self, tmp_path, paths, reason):
        tree = VocTree(tmp_path)
        tree.add("a")
        tree.write("own/JPEGImages/empty.png", b"")
        found = read_both(str(tmp_path), ListedImage("own/a", *paths))
        assert isinstance(found, UnusableFile)
        assert str(found) == reason
