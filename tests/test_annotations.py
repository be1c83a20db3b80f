import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voc_tree import annotation_xml, object_xml

from yolov1_jax.data.annotations import place_boxes, read_annotation
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.errors import UserError

EVERY_ODDITY = (
    "<?xml version='1.0'?><annotation><size><width>500</width><height>375</height></size>"
    "<object><name>person</name><difficult>1</difficult>"
    "<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    "</bndbox></part>"
    "<bndbox><xmax>345.5</xmax><ymin>20</ymin><ymax>200</ymax><xmin>10</xmin></bndbox></object>"
    "<object><name>\n  traffic\n light </name><bndbox><xmin> 1 </xmin><ymin>1</ymin><xmax>9</xmax>"
    "<ymax>9</ymax></bndbox></object>"
    "</annotation>"
)
LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + annotation_xml(
    object_xml("&b;")
)
FILE = '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + annotation_xml(
    object_xml("&a;")
)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str | bytes):
        path = tmp_path / "note.xml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_annotation(path)

    return write_and_read


class TestReadAnnotation:
    def test_one_file_by_hand(self, read):
        found = read(EVERY_ODDITY)
        assert (found.height, found.width) == (375, 500)
        # Corners by name, not by place; fractions kept; the person's head is no object.
        assert found.boxes_xyxy.tolist() == [[10, 20, 345.5, 200], [1, 1, 9, 9]]
        assert found.boxes_xyxy.dtype == np.float64
        assert found.names == ("person", "traffic light")
        assert found.difficult == (True, False)

    def test_without_objects(self, read):
        found = read(annotation_xml())
        assert found.boxes_xyxy.shape == (0, 4)
        assert found.names == found.difficult == ()

    @pytest.mark.parametrize("value", ["", "many", "nan", "1,5", "0x10"])
    def test_a_corner_that_is_no_number_is_nan(self, read, value):
        found = read(annotation_xml(object_xml(box=(1, value, 3, 4))))
        np.testing.assert_array_equal(found.boxes_xyxy, [[1, math.nan, 3, 4]])

    def test_without_box_or_name(self, read):
        found = read("<annotation><object/><object><name/></object></annotation>")
        assert np.isnan(found.boxes_xyxy).all()
        assert found.boxes_xyxy.shape == (2, 4)
        assert found.names == ("", "")

    @pytest.mark.parametrize(
        ("text", "expected"), [("1", True), ("0", False), ("", False), ("True", True), ("2", None)]
    )
    def test_difficult(self, read, text, expected):
        xml = annotation_xml(object_xml(more=f"<difficult>{text}</difficult>"))
        assert read(xml).difficult == (expected,)

    @pytest.mark.parametrize("side", ["", "0", "-5", "nan", "inf", "wide"])
    def test_a_size_that_is_none_is_zero(self, read, side):
        xml = f"<annotation><size><width>{side}</width><height>20.0</height></size></annotation>"
        assert (read(xml).height, read(xml).width) == (20, 0)

    def test_encodings(self, read):
        xml = '<?xml version="1.0" encoding="{}"?>' + annotation_xml(object_xml("größe"))
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "iso-8859-1"):
            declared = encoding.removesuffix("-sig")
            assert read(xml.format(declared).encode(encoding)).names == ("größe",)

    @pytest.mark.parametrize("xml", [LAUGHS, FILE], ids=["expansion", "external file"])
    def test_entities_are_refused_in_one_line_with_the_file(self, read, xml):
        with pytest.raises(UserError, match=r"note\.xml.*entities") as caught:
            read(xml)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "annotation is not well-formed XML"),
            ("<annotation><object>", "annotation is not well-formed XML"),
            ("{'boxes': []}", "annotation is not well-formed XML"),
            (b"<annotation>\xff\xfe</annotation>", "annotation is not well-formed XML"),
            (
                "<?xml version='1.0' encoding='klingon'?><annotation/>",
                "annotation is not well-form",
            ),
            ("<html/>", "annotation is not in VOC format"),
        ],
    )
    def test_unusable(self, read, content, reason):
        with pytest.raises(UnusableFile, match=f"^{reason}"):
            read(content)

    def test_missing_and_unreadable(self, tmp_path):
        with pytest.raises(UnusableFile, match=r"^annotation is missing$"):
            read_annotation(tmp_path / "none.xml")
        with pytest.raises(UnusableFile, match=r"^annotation cannot be read$"):
            read_annotation(tmp_path)


def place(*box: float):
    """One box in an image of 200 x 100 (width x height)."""
    placed = place_boxes(np.array([box], np.float64), height=100, width=200)
    return placed.boxes_xyxy[0].tolist(), placed.problem[0], bool(placed.clipped[0])


class TestPlaceBoxes:
    def test_division_without_a_shift(self):
        assert place(20, 10, 150.5, 90) == ([0.1, 0.1, 0.7525, 0.9], None, False)
        assert place(1, 1, 200, 100) == ([0.005, 0.01, 1.0, 1.0], None, False)

    def test_what_sticks_out_is_clipped(self):
        assert place(-20, 10, 300, 90) == ([0.0, 0.1, 1.0, 0.9], None, True)
        assert place(20, -1, 40, 101) == ([0.1, 0.0, 0.2, 1.0], None, True)

    @pytest.mark.parametrize(
        "box", [(200, 10, 250, 90), (-50, 10, 0, 90), (10, 100, 20, 200), (10, -9, 20, -1)]
    )
    def test_outside(self, box):
        assert place(*box)[1:] == ("box is outside the image", False)

    @pytest.mark.parametrize("box", [(30, 10, 20, 90), (20, 90, 30, 10), (20, 10, 20, 90)])
    def test_empty_or_inverted(self, box):
        assert place(*box)[1:] == ("box is empty or inverted", False)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("corner", range(4))
    def test_not_finite(self, value, corner):
        box = [10.0, 10.0, 20.0, 20.0]
        box[corner] = value
        assert place(*box)[1:] == ("box is missing or not a number", False)

    def test_no_boxes(self):
        placed = place_boxes(np.zeros((0, 4)), 100, 200)
        assert placed.boxes_xyxy.shape == (0, 4)
        assert placed.problem == ()

    @given(st.tuples(*[st.integers(-300, 500) | st.just(math.nan)] * 4))
    def test_a_box_without_a_problem_has_an_area_inside_the_image(self, box):
        (left, top, right, bottom), problem, clipped = place(*box)
        if problem is None:
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= 200 and box[3] <= 100
            assert clipped == (not inside)
