import os
import pickle

import numpy as np
import pytest
from PIL import Image
from voc_tree import VocTree, annotation_xml, encode, exif, object_xml, pixels

from yolov1_jax.data.images import decode_image
from yolov1_jax.data.voc_folder import FolderSource
from yolov1_jax.errors import UserError


@pytest.fixture
def tree(tmp_path):
    """Three images: a cat; a difficult dog and a cat; nothing."""
    tree = VocTree(tmp_path)
    tree.add("a")
    difficult_dog = object_xml("dog", (1, 2.5, 30, 20), more="<difficult>1</difficult>")
    tree.add("b", xml=annotation_xml(difficult_dog, object_xml("cat", (30, 20, 60, 40))))
    tree.add("c", xml=annotation_xml())
    tree.list("train", ["a", "b", "c"])
    return tree


def refusal(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        FolderSource(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRecords:
    def test_one_by_hand(self, tree):
        source = FolderSource(tree.root, ["own:train"])
        assert len(source) == 3
        record = source[1]
        assert record["image_id"] == "own/b"
        assert (record["height"], record["width"]) == (40, 60)
        expected = [[1 / 60, 2.5 / 40, 0.5, 0.5], [0.5, 0.5, 1, 1]]
        np.testing.assert_array_equal(record["boxes_xyxy"], np.array(expected), strict=True)
        np.testing.assert_array_equal(record["labels"], np.array([1, 0], np.int32), strict=True)
        np.testing.assert_array_equal(record["difficult"], np.array([True, False]), strict=True)
        np.testing.assert_array_equal(decode_image(record["image"], "b"), pixels())

    def test_without_objects(self, tree):
        record = FolderSource(tree.root, ["own:train"])[2]
        assert record["boxes_xyxy"].shape == (0, 4)
        assert record["boxes_xyxy"].dtype == np.float64
        assert record["labels"].shape == record["difficult"].shape == (0,)

    def test_annotation_is_the_record_without_its_image(self, tree):
        source = FolderSource(tree.root, ["own:train"])
        full, light = source[1], source.annotation(1)
        assert light.pop("image") == b""
        full.pop("image")
        np.testing.assert_equal(light, full)

    def test_a_changed_record_leaves_the_source_as_it_was(self, tree):
        source = FolderSource(tree.root, ["own:train"])
        for key in ("boxes_xyxy", "labels", "difficult"):
            source.annotation(1)[key][:] = 0
        assert source.annotation(1)["difficult"].tolist() == [True, False]
        assert source.annotation(1)["labels"].tolist() == [1, 0]
        assert source.annotation(1)["boxes_xyxy"].all()

    @pytest.mark.parametrize("index", [3, -1])
    def test_index_out_of_range(self, tree, index):
        with pytest.raises(IndexError):
            FolderSource(tree.root, ["own:train"]).annotation(index)

    def test_rotated_image_annotated_as_stored(self, tree):
        image = encode(pixels(), exif=exif(6))
        tree.add("a", image=image, xml=annotation_xml(object_xml(), size=(40, 60)))
        record = FolderSource(tree.root, ["own:train"])[0]
        assert record["image"] == image
        np.testing.assert_array_equal(decode_image(image, "a"), pixels())

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_rotated_image_annotated_upright(self, tree, orientation):
        # The box frames the blue corner as the annotator saw it, in the turned picture.
        tree.add("a", image=encode(pixels(), exif=exif(orientation)))
        turned = {5: 5, 6: 4, 7: 6, 8: 2}[orientation]  # Image.Transpose: TRANSPOSE, ROTATE_270, ..
        seen = np.asarray(Image.fromarray(pixels()).transpose(Image.Transpose(turned)))
        rows, columns = np.nonzero(seen[..., 2] == 250)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        tree.write(
            "own/Annotations/a.xml", annotation_xml(object_xml("cat", box), size=seen.shape[:2])
        )
        record = FolderSource(tree.root, ["own:train"])[0]
        assert (record["height"], record["width"]) == (60, 40) == record["image"].shape[:2]
        left, top, right, bottom = (record["boxes_xyxy"][0] * [40, 60, 40, 60]).round().astype(int)
        assert (record["image"][top:bottom, left:right, 2] == 250).all()
        assert (record["image"][..., 2] == 250).sum() == (bottom - top) * (right - left)


class TestReport:
    def test_counts(self, tree):
        report = FolderSource(tree.root, ["own:train"]).report
        assert (report.num_images, report.num_objects) == (3, 3)
        assert (report.num_difficult, report.num_without_objects) == (1, 1)
        assert report.skipped == report.skipped_objects == report.corrected == {}

    def test_every_unusable_file_is_counted_and_the_rest_used(self, tree):
        jpeg = encode(pixels(200, 300), "JPEG")
        tree.add("no image")
        tree.remove("own/JPEGImages/no image.png")
        tree.add("no xml")
        tree.remove("own/Annotations/no xml.xml")
        tree.add("empty")
        tree.write("own/JPEGImages/empty.png", b"")
        tree.add("text", image=b"<html>404</html>", extension=".jpg")
        tree.add("cut", image=jpeg[: len(jpeg) // 2], extension=".jpg")
        tree.add("bad xml", xml="<annotation><object>")
        tree.list(
            "bad", ["no image", "a", "no xml", "empty", "text", "cut", "b", "bad xml", "typo"]
        )
        source = FolderSource(tree.root, ["own:bad"])
        assert [source[i]["image_id"] for i in range(len(source))] == ["own/a", "own/b"]
        assert source.report.skipped == {
            "image is missing": ["own/no image"],
            "annotation is missing": ["own/no xml"],
            "image is empty": ["own/empty"],
            "image is not JPEG, PNG, BMP or WebP": ["own/text"],
            "image is cut short or broken": ["own/cut"],
            "annotation is not well-formed XML": ["own/bad xml"],
            "neither image nor annotation found": ["own/typo"],
        }

    def test_objects_left_out_leave_their_image_in(self, tree):
        bad = annotation_xml(object_xml(box=(5, 5, 5, 9)), object_xml(box=("nan", 1, 2, 3)))
        tree.add("b", xml=bad)
        source = FolderSource(tree.root, ["own:train"])
        assert len(source) == 3
        assert source.annotation(1)["boxes_xyxy"].shape == (0, 4)
        assert source.report.num_without_objects == 2
        assert sum(map(len, source.report.skipped_objects.values())) == 2

    def test_nothing_usable(self, tree):
        tree.list("none", ["x", "y"])
        line = refusal(tree.root, ["own:none"])
        assert "neither image nor annotation found (2, first own/x)" in line

    def test_entities_refuse_the_data(self, tree):
        tree.write("own/Annotations/b.xml", '<!DOCTYPE a [<!ENTITY b "b">]><annotation/>')
        line = refusal(tree.root, ["own:train"])
        assert os.path.join("own", "Annotations", "b.xml") in line


class TestClassNames:
    def test_collected_and_sorted(self, tree):
        tree.list("dog first", ["b", "a"])
        assert FolderSource(tree.root, ["own:dog first"]).class_names == ("cat", "dog")

    def test_given_in_their_order(self, tree):
        source = FolderSource(tree.root, ["own:train"], ["dog", "cow", "cat"])
        assert source.class_names == ("dog", "cow", "cat")
        assert source.annotation(1)["labels"].tolist() == [0, 2]

    def test_an_unknown_one_is_refused_with_file_and_nearest_name(self, tree):
        line = refusal(tree.root, ["own:train"], ["Cat", "dgo", "person"])
        assert line.startswith("own/Annotations/a.xml: ")
        assert 'found "cat" (nearest: "Cat")' in line
        assert "unknown elsewhere: dog;" in line
        assert 'data.unknown_classes="skip"' in line
        assert 'found "dog" (nearest: "dgo")' in refusal(
            tree.root, ["own:train"], ["cat", "dgo", "person"]
        )

    def test_unknown_ones_can_be_skipped(self, tree):
        source = FolderSource(tree.root, ["own:train"], ["cat"], unknown_classes="skip")
        assert source.report.skipped_objects == {
            "class is not in class_names": ["own/b object 1 (dog)"]
        }
        assert len(source) == 3
        assert source.report.num_objects == 2
        assert source.report.num_difficult == 0
        np.testing.assert_array_equal(source.annotation(1)["boxes_xyxy"], [[0.5, 0.5, 1, 1]])
        assert source.annotation(1)["labels"].tolist() == [0]
        assert source.annotation(2)["labels"].tolist() == []

    def test_skipping_them_all_leaves_images_without_objects(self, tree):
        source = FolderSource(tree.root, ["own:train"], ["bus"], unknown_classes="skip")
        assert [len(source.annotation(i)["labels"]) for i in range(3)] == [0, 0, 0]
        assert source.report.num_without_objects == 3

    def test_nothing_to_collect_from(self, tree):
        tree.list("background", ["c"])
        assert "found none" in refusal(tree.root, ["own:background"])
        assert len(FolderSource(tree.root, ["own:background"], ["cat"])) == 1

    @pytest.mark.parametrize("names", [["cat", "dog", "cat"], []])
    def test_bad_lists_of_names(self, tree, names):
        assert "each class once" in refusal(tree.root, ["own:train"], names)

    def test_bad_choice_for_unknown_ones(self, tree):
        assert "ignore" in refusal(tree.root, ["own:train"], unknown_classes="ignore")


class TestLoading:
    def test_pickle_gives_the_same_records(self, tree):
        source = FolderSource(tree.root, ["own:train"])
        copy = pickle.loads(pickle.dumps(source))
        assert copy.class_names == source.class_names
        for i in range(3):
            np.testing.assert_equal(copy[i], source[i])

    def test_a_worker_may_run_in_another_folder(self, tree, monkeypatch):
        monkeypatch.chdir(tree.root)
        source = FolderSource(".", ["own:train"])
        monkeypatch.chdir("/")
        assert source[0]["image"]

    def test_built_twice_it_is_the_same(self, tree):
        once, again = (pickle.dumps(FolderSource(tree.root, ["own:train"])) for _ in range(2))
        assert once == again

    def test_a_file_that_went_away_is_named(self, tree):
        source = FolderSource(tree.root, ["own:train"])
        tree.remove("own/JPEGImages/b.png")
        with pytest.raises(UserError, match=r"own/JPEGImages/b\.png.*No such file"):
            source[1]

    def test_a_turned_image_that_broke_is_named(self, tree):
        tree.add("a", image=encode(pixels(), exif=exif(6)), xml=annotation_xml(size=(60, 40)))
        source = FolderSource(tree.root, ["own:train"])
        tree.write("own/JPEGImages/a.png", b"broken")
        with pytest.raises(UserError, match=r"own/JPEGImages/a\.png"):
            source[0]


class TestRealData:
    def test_voc_tfds(self, shared_dir):
        splits = ["VOC2012:val", "VOC2007:train+val"]
        source = FolderSource(shared_dir / "data" / "VOCdevkit", splits)
        assert len(source) == 410 + 123 + 138
        assert len(source.class_names) == 20
        assert source.report.skipped == source.report.skipped_objects == {}
        assert source.report.corrected == {}
        for i in range(0, len(source), 60):
            record = source[i]
            assert decode_image(record["image"], "").shape[:2] == (
                record["height"],
                record["width"],
            )

    def test_own_data(self, shared_dir):
        source = FolderSource(shared_dir / "data", ["BCCD:all"])
        assert source.class_names == ("Platelets", "RBC", "WBC")
        assert len(source) == 364
        # 361 + 4155 + 372 <name> elements in its files, two of them with a box of no size.
        assert source.report.num_objects == 4886
        assert list(source.report.skipped_objects) == ["box is empty or inverted"]
