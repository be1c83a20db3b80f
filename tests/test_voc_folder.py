"""Own data: what of a folder is used, left out, corrected or refused, and what is said of it."""

import io
import math
import pickle
import shutil

import cv2
import numpy as np
import pytest
from annotated_sets import truth
from PIL import Image, ImageOps
from voc_tree import VocTree, annotation_xml, encode, exif, object_xml, pixels, refusal

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Record
from yolov1_jax.data.source import open_folder

CAT, SMALL_CAT = ((10, 10, 30, 30), 0, False), ((30, 20, 60, 40), 0, False)


@pytest.fixture
def tree(tmp_path):
    """Three images: a cat; a difficult dog and a small cat; nothing."""
    tree = VocTree(tmp_path)
    tree.add("a")
    difficult_dog = object_xml("dog", (1, 2.5, 30, 20), more="<difficult>1</difficult>")
    tree.add("b", xml=annotation_xml(difficult_dog, object_xml("cat", SMALL_CAT[0])))
    tree.add("c", xml=annotation_xml())
    tree.list("train", "abc")
    tree.list("val", "c")
    return tree


def read(root, xml: str | bytes, image: bytes | None = None, class_names=("cat",)):
    """A source of one image of 40 x 60 pixels with this annotation."""
    VocTree(root).add("a", xml=xml, image=image)
    return open_folder(root, ["own:all"], class_names)


def test_records_by_hand(tree):
    source = open_folder(tree.root, ["own:train"])
    # The numbers of the files: no shift, no division.
    dog = ((1, 2.5, 30, 20), 1, True)
    np.testing.assert_equal(source[1], Record(pixels(), "own/b", *truth(dog, SMALL_CAT)))
    annotations = source.annotations()
    assert annotations.image_ids == ("own/a", "own/b", "own/c")
    assert annotations.sizes.tolist() == [[40, 60]] * 3
    np.testing.assert_equal(list(annotations), [truth(CAT), truth(dog, SMALL_CAT), truth()])
    np.testing.assert_equal(list(source.annotations(limit=2)), list(annotations)[:2])


def test_a_copy_for_a_worker_in_another_folder(tree, monkeypatch):
    monkeypatch.chdir(tree.root)
    source = open_folder(".", ["own:train"])
    monkeypatch.chdir("/")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_equal(list(copy), list(source))
    tree.write("own/JPEGImages/b.png", b"broken since")
    with pytest.raises(UserError, match=r"own/JPEGImages/b\.png"):
        copy[1]


def test_one_annotation_by_hand(tmp_path):
    xml = annotation_xml(
        "<object><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part><name>person</name>"
        "<bndbox><xmax>45.5</xmax><ymin>20</ymin><ymax>40</ymax><xmin>10</xmin></bndbox></object>",
        object_xml("\n  traffic\n light ", (" 1 ", 1, 9, 9)),
    )
    source = read(tmp_path, xml, class_names=None)
    assert source.class_names == ("person", "traffic light")
    # Corners by name, not by place; fractions kept; the person's head is no object.
    assert source.annotations().boxes_xyxy.tolist() == [[10, 20, 45.5, 40], [1, 1, 9, 9]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings(tmp_path, encoding):
    declared = encoding.removesuffix("-sig")
    xml = f'<?xml version="1.0" encoding="{declared}"?>' + annotation_xml(object_xml("größe"))
    assert read(tmp_path, xml.encode(encoding), class_names=None).class_names == ("größe",)


@pytest.mark.parametrize("entity", ['a "ha"><!ENTITY b "&a;&a;"', 'b SYSTEM "file:///etc/hosts"'])
def test_annotations_with_entities_are_left_out(tree, entity):
    xml = f"<!DOCTYPE l [<!ENTITY {entity}>]>" + annotation_xml(object_xml("&b;"))
    tree.write("own/Annotations/b.xml", xml)
    (left_out,) = open_folder(tree.root, ["own:train"]).annotations().report.skipped.items()
    assert "entities" in left_out[0]
    assert left_out[1] == ["own/b"]


def test_what_is_left_out_of_an_image_leaves_the_rest_in_order(tmp_path):
    flags = [
        object_xml(box=(10, 10, 30, bottom), more=f"<difficult>{text}</difficult>")
        for bottom, text in enumerate(("1", "0", "True", "2"), start=30)
    ]
    wrong = [object_xml(box=(1, 1, value, 9)) for value in ("", "many", "-inf", "1,5")]
    wrong += [object_xml(box=(5, 5, 5, 9)), object_xml(box=(100, 1, 109, 9)), object_xml(None)]
    last = object_xml(box=(1, 2, 3, 4))
    found = read(tmp_path, annotation_xml(*flags, *wrong, last)).annotations()
    kept = [[10, 10, 30, bottom] for bottom in (30, 31, 32, 33)]
    assert found.boxes_xyxy.tolist() == [*kept, [1, 2, 3, 4]]
    assert found.difficult.tolist() == [True, False, True, False, False]
    assert found.report.skipped_objects == {
        "box is missing or not a number": [
            f"own/a object {number} (cat)" for number in range(5, 9)
        ],
        "box is empty or inverted": ["own/a object 9 (cat)"],
        "box is outside the image": ["own/a object 10 (cat)"],
        "object without a class name": ["own/a object 11 (?)"],
    }


BOX = [[10.0, 10.0, 30.0, 30.0]]


@pytest.mark.parametrize(
    ("xml", "boxes", "note"),
    [
        (annotation_xml(object_xml()), BOX, None),  # no <difficult>, <truncated>, <pose>
        (annotation_xml(object_xml(box=(9.5, 1, 20.25, 9))), [[9.5, 1, 20.25, 9]], None),
        (annotation_xml(object_xml(box=(-2, -0.5, 9, 9))), [[0, 0, 9, 9]], "clipped"),
        (annotation_xml(object_xml(box=(9, 9, 61, 41))), [[9, 9, 60, 40]], "clipped"),
        (annotation_xml(object_xml(), size=(0, 0)), BOX, "size missing or wrong"),
        (annotation_xml(object_xml(), more="<filename>b.jpg</filename>"), BOX, "another file name"),
        (annotation_xml(object_xml(), more="<filename>C:\\x\\A.jpg</filename>"), BOX, None),
        (annotation_xml(object_xml()).replace("><", ">\r\n<"), BOX, None),
        ("\n<?xml version='1.0'?>" + annotation_xml(object_xml()), BOX, None),
        (annotation_xml(*[object_xml()] * 3), BOX, "repeated"),
        # Of 60 x 40 pixels, the first of which is 1.
        (annotation_xml(object_xml(box=(0.25, 0.5, 0.5, 1))), [[16, 21, 30, 40]], "relative"),
        (annotation_xml(object_xml(box=(0, 0, 0.5, 2))), [[0, 0, 0.5, 2]], None),
    ],
)
def test_what_annotation_tools_write_is_used(tmp_path, xml, boxes, note):
    found = read(tmp_path, xml).annotations()
    assert found.boxes_xyxy.tolist() == boxes
    assert [note in reason for reason in found.report.corrected] == [True] * (note is not None)
    assert not found.report.skipped_objects


APPLIED = "EXIF rotation applied, as in the annotation"
IGNORED = "EXIF orientation ignored, as in the annotation"
WRONG = "size missing or wrong in the annotation, image's own used"


@pytest.mark.parametrize(
    ("orientation", "annotated", "stored", "correction"),
    [
        (1, (40, 60), (40, 60), None),
        (6, (40, 60), (40, 60), IGNORED),
        *((n, (60, 40), (40, 60), APPLIED) for n in (5, 6, 7, 8)),
        *((n, (60, 40), (40, 60), WRONG) for n in (1, 3)),  # EXIF does not swap the sides
        *((6, size, (40, 60), WRONG) for size in ((80, 90), (-4, math.nan), ("", "wide"), None)),
        (6, (40, 40), (40, 40), IGNORED),  # cannot tell, and VOC's own rule is stored pixels
    ],
)
def test_which_pixels_the_boxes_refer_to(tmp_path, orientation, annotated, stored, correction):
    image = encode(pixels(*stored), exif=exif(orientation))
    picture = Image.open(io.BytesIO(image))
    seen = np.asarray(ImageOps.exif_transpose(picture) if correction == APPLIED else picture)
    # The box frames the blue corner in the picture as the annotator saw it.
    rows, columns = np.nonzero(seen[..., 2] == 250)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    source = read(tmp_path, annotation_xml(object_xml(box=box), size=annotated), image)
    np.testing.assert_equal(source[0], Record(seen, "own/a", *truth((box, 0, False))))
    found = source.annotations()
    assert found.report.corrected == ({} if correction is None else {correction: ["own/a"]})
    assert tuple(found.sizes[0]) == seen.shape[:2]


def test_bad_files_are_reported_and_the_rest_used(tree):
    skipped = {
        "image is cut short or broken": {"image": encode(pixels(), "JPEG")[:-50]},
        "image is not JPEG, PNG, BMP, TIFF, WEBP": {"image": b"no image at all"},
        "image is empty": {"image": b""},
        "annotation is not well-formed XML, or has entities": {
            "xml": "<?xml version='1.0' encoding='klingon'?><a/>"
        },
        "annotation is not in VOC format": {"xml": "<html/>"},
        "annotation is larger than 2 MiB": {"xml": annotation_xml(" " * 2**21)},
    }
    image_16 = bytes(cv2.imencode(".png", np.ones((40, 60), np.uint16))[1])
    corrected = {"16-bit image, high 8 bits used": {"image": image_16}}
    for i, files in enumerate([*skipped.values(), *corrected.values()]):
        tree.add(str(i), **files)
    tree.list("odd", [*map(str, range(7)), "a", "no file"])
    found = open_folder(tree.root, ["own:odd"]).annotations()
    assert found.image_ids == ("own/6", "own/a")
    reported = {reason: [f"own/{i}"] for i, reason in enumerate([*skipped, *corrected])}
    reported["image is missing or cannot be read"] = ["own/no file"]
    assert found.report.skipped | found.report.corrected == reported
    tree.remove("own/Annotations/a.xml")
    tree.list("none", ["a"])
    assert "annotation is missing: own/a" in refusal(tree.root, ["own:none"])


def test_annotations_are_enough_to_evaluate_detections(tree):
    with_images = open_folder(tree.root, ["own:train"]).annotations()
    shutil.rmtree(tree.root / "own/JPEGImages")
    tree.write("more/Annotations/no size.xml", annotation_xml(size=None))
    splits = ["own:train", "more:all"]
    found = open_folder(tree.root, splits, images_required=False).annotations()
    assert found.fingerprint() == with_images.fingerprint()
    assert found.sizes.tolist() == with_images.sizes.tolist()
    assert list(found.report.skipped.values()) == [["more/no size"]]


def test_images_without_annotation_are_background_on_request(tree):
    tree.remove("own/Annotations/a.xml")
    tree.write("own/Annotations/b.xml", "broken")
    tree.write("own/Annotations/d.xml", annotation_xml(object_xml()))
    skipped = open_folder(tree.root, ["own:all"], ["cat"]).annotations()
    assert skipped.image_ids == ("own/c",)
    found = open_folder(tree.root, ["own:all"], ["cat"], unannotated="background").annotations()
    assert found.image_ids == ("own/a", "own/c")
    assert len(found.labels) == 0
    assert list(found.report.corrected.values()) == [["own/a"]]
    assert sorted(found.report.skipped.values()) == [["own/b"], ["own/d"]]


def test_class_names_are_collected_and_sorted_or_given(tree):
    tree.list("dog first", ["b", "a"])
    assert open_folder(tree.root, ["own:dog first"]).class_names == ("cat", "dog")
    source = open_folder(tree.root, ["own:train"], ["dog", "cow", "cat"])
    assert source.class_names == ("dog", "cow", "cat")
    assert source.annotations()[1].labels.tolist() == [0, 2]
    assert len(open_folder(tree.root, ["own:val"], ["cat"])) == 1  # without objects
    for split, names in (("own:val", None), ("own:train", ["cat", "dog", "cat"])):
        assert "model.class_names" in refusal(tree.root, [split], names)


def test_unknown_classes_are_refused_or_skipped(tree):
    line = refusal(tree.root, ["own:train"], ["Cat", "dgo", "person"])
    for part in ("own/a", "Cat, dgo, person", "cat, dog", '"skip"'):
        assert part in line
    source = open_folder(tree.root, ["own:train"], ["cat"], unknown_classes="skip")
    found = source.annotations()
    assert found.report.skipped_objects == {"class is not in class_names": ["own/b object 1 (dog)"]}
    np.testing.assert_equal(list(found), [truth(CAT), truth(SMALL_CAT), truth()])
    tree.add("a", xml=annotation_xml(object_xml("x" * 10**5)))
    assert len(refusal(tree.root, ["own:train"], ["cat"])) < 1000


@pytest.mark.parametrize(
    ("root", "splits", "counts", "fingerprint"),
    [
        ("VOCdevkit", "VOC2012:val VOC2007:train+val", (671, 20, 1648, 0), "6c5ff22c5caed079"),
        (".", "BCCD:all", (364, 3, 361 + 4155 + 372 - 2, 2), "a1d675160b591828"),  # 2 of no size
    ],
)
def test_real_data(shared_dir, root, splits, counts, fingerprint):
    # Counted in the files: lines of the lists, kinds of <name>, <object> elements.
    source = open_folder(shared_dir / "data" / root, splits.split())
    found = source.annotations()
    left_out = sum(map(len, found.report.skipped_objects.values()))
    assert (len(source), len(source.class_names), len(found.labels), left_out) == counts
    assert found.fingerprint().startswith(fingerprint)
    for i in range(0, len(source), 60):
        assert source[i].image.shape[:2] == tuple(found.sizes[i])
