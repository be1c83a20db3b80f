import io

import numpy as np
import pytest
from rich.console import Console
from voc_tree import VocTree, annotation_xml, object_xml

from yolov1_jax.data.dataset import Record, SourceReport
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.data.voc_folder import FolderSource


class Boxes:
    """A source of objects given by their centres, all of one small size."""

    def __init__(self, *images: list[tuple[float, float]], class_names=("cat", "dog")) -> None:
        self.images = images
        self.class_names = class_names
        self.report = SourceReport(num_images=len(images))

    def __len__(self) -> int:
        return len(self.images)

    def annotation(self, index: int) -> Record:
        centres = np.array(self.images[index], np.float64).reshape(-1, 2)
        n = len(centres)
        return Record(
            image=b"",
            boxes_xyxy=np.concatenate([centres - 0.01, centres + 0.01], axis=1),
            labels=np.arange(n, dtype=np.int32) % 2,
            difficult=np.arange(n) == 1,
            image_id=str(index),
            height=100,
            width=100,
        )

    def __getitem__(self, index: int) -> Record:
        raise AssertionError("a summary reads no image")


class TestSummarise:
    def test_counts_by_hand(self):
        source = Boxes([], [(0.1, 0.1), (0.9, 0.9), (0.5, 0.5)], [(0.5, 0.5)])
        found = summarise(source, grid_size=7)
        assert (found.num_images, found.num_without_objects) == (3, 1)
        assert (found.num_objects, found.num_difficult, found.most_objects) == (4, 1, 3)
        assert found.objects_per_class == {"cat": 3, "dog": 1}
        assert found.lost_to_collisions == 0

    @pytest.mark.parametrize(
        ("centres", "grid_size", "lost"),
        [
            ([(0.1, 0.1), (0.2, 0.2)], 2, 1),
            ([(0.1, 0.1), (0.2, 0.2)], 7, 0),
            ([(0.1, 0.6), (0.6, 0.1)], 2, 0),  # rows and columns are not mixed up
            ([(0.1, 0.1), (0.1, 0.6), (0.6, 0.1)], 2, 0),
            ([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.9, 0.9)], 2, 2),  # the last of three stays
            ([(1.0, 1.0), (0.99, 0.99)], 7, 1),  # the far edge belongs to the last cell
            ([(0.49, 0.1), (0.51, 0.1)], 2, 0),
            ([(0.49, 0.1), (0.51, 0.1)], 1, 1),
        ],
    )
    def test_collisions(self, centres, grid_size, lost):
        assert summarise(Boxes(centres), grid_size).lost_to_collisions == lost

    def test_images_do_not_collide_with_each_other(self):
        assert summarise(Boxes([(0.5, 0.5)], [(0.5, 0.5)]), 7).lost_to_collisions == 0

    def test_agrees_with_the_report_of_a_real_source(self, tmp_path):
        tree = VocTree(tmp_path)
        tree.add("a", xml=annotation_xml(object_xml("dog"), object_xml(box=(1, 1, 1, 1))))
        tree.add("b", xml=annotation_xml())
        tree.add("c", image=b"broken")
        source = FolderSource(tmp_path, ["own:all"])
        found = summarise(source, 7)
        assert found.num_images == source.report.num_images == 2
        assert found.num_objects == source.report.num_objects == 1
        assert found.num_without_objects == source.report.num_without_objects == 1
        assert (found.num_skipped_images, found.num_skipped_objects) == (1, 1)

    def test_counts_what_is_too_small_to_be_trained_on(self):
        source = Boxes([(0.5, 0.5), (0.2, 0.2)], [(0.7, 0.7)])  # boxes of 0.02 x 0.02
        assert summarise(source, 7).num_too_small == 0
        assert summarise(source, 7, min_relative_area=0.0003).num_too_small == 0
        assert summarise(source, 7, min_relative_area=0.0005).num_too_small == 3
        assert "too small" in printed({"train": summarise(source, 7, min_relative_area=0.0005)})

    def test_what_training_leaves_out_is_not_lost_to_it(self):
        # The second object is difficult.
        source = Boxes([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)])
        options = {"min_relative_area": 0.0005}
        for train_difficult, trained in ((True, 3), (False, 2)):
            found = summarise(source, 7, train_difficult=train_difficult)
            assert (found.num_trained, found.lost_to_collisions) == (trained, trained - 1)
            assert (found.num_objects, found.num_difficult) == (3, 1)
            assert found.most_objects == 3  # of the annotation: evaluation sees them all
            found = summarise(source, 7, train_difficult=train_difficult, **options)
            assert (found.num_too_small, found.lost_to_collisions) == (trained, 0)
        assert "50.0%" in printed({"train": summarise(source, 7, train_difficult=False)})

    def test_a_sample_stands_for_what_never_ends(self):
        source = Boxes([(0.5, 0.5)], [(0.5, 0.5)], [(0.5, 0.5)])
        found = summarise(source, 7, max_images=2)
        assert (found.num_images, found.num_counted, found.num_objects) == (3, 2, 2)
        assert "counted below, the first" in printed({"train": found})


def printed(summaries, width: int = 80) -> str:
    stream = io.StringIO()
    print_summary(summaries, Console(file=stream, width=width))
    return stream.getvalue()


class TestPrintSummary:
    def test_every_number_is_in_its_row(self):
        source = Boxes([], [(0.1, 0.1), (0.1, 0.1), (0.5, 0.5)])
        source.report.skip("image is empty", "own/x")
        source.report.skip_object("box is empty or inverted", "own/y object 1 (cat)")
        rows = printed({"train": summarise(source, 7), "eval": summarise(Boxes([]), 7)})
        found = {" ".join(line.split()[:-2]): line.split()[-2:] for line in rows.splitlines()}
        assert found["images"] == ["2", "1"]
        assert found["without objects"] == ["1", "1"]
        assert found["skipped images"] == ["1", "0"]
        assert found["objects"] == ["3", "0"]
        assert found["difficult"] == ["1", "0"]
        assert found["most in one image"] == ["3", "0"]
        assert found["lost to cell collisions, 7x7"] == ["1", "0"]
        assert found["as a share"] == ["33.3%", "0.0%"]
        assert found["skipped objects"] == ["1", "0"]

    def test_reasons_come_with_count_and_first_names(self):
        source = Boxes([(0.5, 0.5)])
        for i in range(1005):
            source.report.correct("box clipped to the image", f"own/{i}")
        text = printed({"train": summarise(source, 7)})
        assert "1,005   corrected: box clipped to the image" in text
        for expected in ("own/0", "own/2", "and 1,002 more"):
            assert expected in text
        assert "own/3" not in text

    def test_nothing_to_tell_prints_no_second_table(self):
        assert "corrected" not in printed({"train": summarise(Boxes([(0.5, 0.5)]), 7)})

    def test_classes_and_their_counts_are_not_torn_apart(self):
        names = tuple(f"traffic-light kind {i}" for i in range(40))
        text = printed({"train": summarise(Boxes([(0.5, 0.5)], class_names=names), 7)})
        for name in names:
            assert f"{name} {int(name == names[0])}" in text

    @pytest.mark.parametrize("width", [60, 80, 100])
    def test_lines_fit(self, width):
        source = Boxes([(0.5, 0.5)], class_names=tuple(f"class {i}" for i in range(30)))
        source.report.skip("image is missing", "own/" + "long" * 40)
        text = printed({"train": summarise(source, 7), "eval": summarise(source, 7)}, width)
        assert max(map(len, text.splitlines())) <= width

    def test_names_are_shown_as_they_are(self):
        source = Boxes([(0.5, 0.5)], class_names=("[bold]cat[/bold]", "[/]"))
        source.report.skip("image is missing", "own/[red]1[/red]")
        text = printed({"[b]train": summarise(source, 7)})
        for expected in ("[bold]cat[/bold] 1", "own/[red]1[/red]", "[b]train"):
            assert expected in text
