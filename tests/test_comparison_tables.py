"""What may stand side by side, and what is said of it."""

import dataclasses

import pytest
from comparison_runs import VOC_TEST, entry, make_run, result

from yolov1_jax.comparison.entries import (
    NO_FINGERPRINT,
    Curve,
    Entry,
    EvaluationSet,
    Score,
    Speed,
    with_names_apart,
)
from yolov1_jax.comparison.published import published
from yolov1_jax.comparison.run_tables import (
    all_tables,
    curve_tables,
    settings_table,
    speed_table,
)
from yolov1_jax.comparison.runs import CHOSEN_HERE, read_run
from yolov1_jax.comparison.tables import entries_table, percent, result_tables

ONE = EvaluationSet("VOC2007 test", 10, 20, 2, "one")
OTHER = EvaluationSet("VOC2007 test", 10, 20, 2, "other")


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def column(table, text):
    """{name: (value, notes)} of the column with this head."""
    (index,) = [i for i, cell in enumerate(table.head) if cell.text == text]
    return {
        row[1].text: (row[index].text, {*row[1].notes, *row[index].notes})
        for row in table.rows
        if row[index].text
    }


# --------------------------------------------------------------------------- the mixing rule


def test_other_data_never_shares_a_table(tmp_path):
    """Two runs on data of one name and one size, which is still not the same."""
    runs = [
        read_run(make_run(tmp_path / name, [result(10, value, fingerprint=name)]))
        for name, value in (("a", 0.5), ("b", 0.6))
    ]
    tables = result_tables(runs)
    assert len(tables) == 4
    assert len({table.title for table in tables}) == 4
    assert [texts(table) for table in tables[::2]] == [
        [["A", "a", "50.0"]],
        [["B", "b", "60.0"]],
    ]
    # No number of one anywhere in a table of the other, and none stands out as the better.
    assert not any(cell.strong for table in tables for row in table.rows for cell in row)
    assert len(curve_tables(runs)) == 2


def test_the_same_data_shares_a_table(tmp_path):
    runs = [
        read_run(make_run(tmp_path / name, [result(10, value, fingerprint="same")]))
        for name, value in (("a", 0.5), ("b", 0.6))
    ]
    mean_ap, by_class = result_tables(runs)
    assert texts(mean_ap) == [["A", "a", "50.0"], ["B", "b", "60.0"]]
    assert [row[2].strong for row in mean_ap.rows] == [False, True]
    assert texts(by_class)[0] == ["cat", "50.0", "60.0"]
    assert len(curve_tables(runs)) == 1


def test_other_protocols_never_share_a_column():
    entries = [entry("a", ("voc07", ONE, 0.5)), entry("b", ("seed", ONE, 0.6))]
    mean_ap, by_class = result_tables(entries)
    assert [cell.text for cell in mean_ap.head] == ["", "name", "voc07", "seed"]
    assert texts(mean_ap) == [["A", "a", "50.0", ""], ["B", "b", "", "60.0"]]
    assert [cell.text for cell in by_class.head] == ["class", "voc07\nA\na", "seed\nB\nb"]
    assert not any(
        cell.strong for table in (mean_ap, by_class) for row in table.rows for cell in row
    )
    assert any("official" in note for note in mean_ap.head[2].notes)


def test_a_run_on_the_whole_test_set_stands_beside_the_published_numbers_with_a_note():
    whole = EvaluationSet("VOC2007 test", 4952, 12032, 2944, "f")
    entries = [entry("a", ("voc07", whole, 0.65)), *published(["yolo", "article-r34"])]
    (mean_ap, _) = result_tables(entries)
    official = column(mean_ap, "voc07")
    assert official["a"] == ("65.0", set())
    assert official["yolo"][0] == "63.4"
    assert NO_FINGERPRINT in official["yolo"][1]
    assert any("does not name its rule" in note for note in official["yolo"][1])
    assert column(mean_ap, "seed").keys() == {"article-r34"}
    # On another part of it: another table.
    part = dataclasses.replace(whole, num_images=410, num_objects=827, num_difficult=114)
    titles = [
        table.title
        for table in result_tables([entry("a", ("voc07", part, 0.65)), *published(["yolo"])])
    ]
    assert titles == [
        "mAP (%) on VOC2007 test (410 images, 827 objects, 114 difficult)",
        "AP by class (%) on VOC2007 test (410 images, 827 objects, 114 difficult)",
        "mAP (%) on VOC2007 test (4,952 images, 12,032 objects, 2,944 difficult)",
    ]


def test_rules_of_other_programs_have_columns_of_their_own():
    (table,) = result_tables(published(["zjykzj-s7", "pjh5672-r18", "yolo"]))
    assert [cell.text for cell in table.head[2:]] == ["voc07", "zjykzj's own", "pjh5672's own"]


# -------------------------------------------------------------------------------- the tables


def test_how_the_step_was_chosen_is_noted_at_the_number(tmp_path):
    one = read_run(
        make_run(tmp_path / "a", [result(step, step / 100, fingerprint="f") for step in (10, 20)])
    )
    mean_ap, by_class = result_tables([one])
    assert column(mean_ap, "voc07") == {"a": ("20.0", {CHOSEN_HERE})}
    assert by_class.head[1].notes == (CHOSEN_HERE,)


def test_two_numbers_whose_data_is_known_by_name_only_say_so():
    """However equal the names and sizes are."""
    data = EvaluationSet("BCCD val", 87)
    entries = [
        Entry(name, "run", name, scores=(Score("voc07", data, value),))
        for name, value in (("a", 0.5), ("b", 0.9))
    ]
    (table,) = result_tables(entries)
    assert [row[1].notes for row in table.rows] == [(NO_FINGERPRINT,), (NO_FINGERPRINT,)]
    (alone,) = result_tables(entries[:1])
    assert alone.rows[0][1].notes == ()


def test_a_single_entry_has_no_others_to_be_taken_for():
    """Though its seed score counts objects in its own way, and so knows less of its data."""
    less = dataclasses.replace(VOC_TEST, num_objects=None)
    old = entry("a", ("voc07", VOC_TEST, 0.5), ("seed", less, 0.4))
    mean_ap, by_class = result_tables([old])
    assert [cell.notes for cell in mean_ap.rows[0][1:]] == [(), (), ()]
    assert [cell.notes for cell in by_class.head] == [(), (), ()]
    # With a fingerprint in the same table there is one to be the same as.
    known = dataclasses.replace(VOC_TEST, fingerprint="f")
    mean_ap, _ = result_tables([entry("a", ("voc07", known, 0.5), ("seed", less, 0.4))])
    assert [cell.notes for cell in mean_ap.rows[0][1:]] == [(), (), (NO_FINGERPRINT,)]


def test_notes_of_some_numbers_stand_at_those():
    one = entry("a", ("voc07", ONE, 0.5), ("seed", ONE, 0.4))
    noted = dataclasses.replace(one.scores[1], notes=("odd",))
    (table, _) = result_tables([dataclasses.replace(one, scores=(one.scores[0], noted))])
    assert [cell.notes for cell in table.rows[0][1:]] == [(), (), ("odd",)]


def test_parts_of_coco_are_columns():
    score = Score("coco", ONE, 0.3, {}, {"AP50": 0.5, "AP_small": None})
    (table,) = result_tables([dataclasses.replace(entry("a"), scores=(score,))])
    assert [cell.text for cell in table.head] == ["", "name", "coco", "AP50", "small"]
    assert texts(table) == [["A", "a", "30.0", "50.0", "-"]]


def test_classes_that_only_one_knows_and_classes_without_objects():
    first = Score("voc07", ONE, 0.5, {"cat": 0.5, "dog": None})
    second = Score("voc07", ONE, 0.25, {"cat": 0.25, "zebra": 0.25})
    entries = [
        dataclasses.replace(entry(name), scores=(s,)) for name, s in (("a", first), ("b", second))
    ]
    table = result_tables(entries)[1]
    assert texts(table) == [
        ["cat", "50.0", "25.0"],
        ["dog", "-", ""],
        ["zebra", "", "25.0"],
        ["mAP", "50.0", "25.0"],
    ]


def test_what_is_compared():
    table = entries_table([*published(["article-r34"]), entry("a", step=1200, epoch=3.0)])
    (_, name, about), (_, _, second) = table.rows
    assert name.notes == (
        "The article's text says VOC2012 trainval; the code that gave the numbers trained on both.",
    )
    assert "16,551 images" in about.text
    assert about.text.endswith("Epoch 130: the best by mAP on the test set itself.")
    assert second.text == "run: /runs/a. Step 1,200 (epoch 3)."


@pytest.mark.parametrize(("value", "text"), [(0.6685, "66.9"), (0.57312, "57.3"), (None, "-")])
def test_percent(value, text):
    assert percent(value) == text


def test_curves_of_one_protocol_on_one_set_share_a_table():
    points = ((1.0, 0.1), (2.0, 0.2))
    entries = [
        dataclasses.replace(entry("a"), curves=(Curve("voc07", ONE, points),)),
        dataclasses.replace(entry("b"), curves=(Curve("voc07", ONE, points[1:]),)),
        dataclasses.replace(entry("c"), curves=(Curve("seed", ONE, points),)),
        dataclasses.replace(entry("d"), curves=(Curve("voc07", OTHER, points),)),
    ]
    tables = curve_tables(entries)
    assert [[cell.text for cell in table.head] for table in tables] == [
        ["epoch", "A\na", "B\nb"],
        ["epoch", "C\nc"],
        ["epoch", "D\nd"],
    ]
    assert texts(tables[0]) == [["1", "10.0", ""], ["2", "20.0", "20.0"]]


def test_long_curves_are_thinned_and_say_so():
    points = tuple((float(epoch), epoch / 1000) for epoch in range(1, 101))
    one = dataclasses.replace(entry("a"), curves=(Curve("voc07", ONE, points),))
    (table,) = curve_tables([one])
    assert len(table.rows) == 16
    assert [table.rows[0][0].text, table.rows[-1][0].text] == ["1", "100"]
    assert "16 of 100 epochs" in table.title


def test_speed_names_the_device():
    entries = [
        dataclasses.replace(entry("a"), speed=Speed(46.51, 11, "1 x cpu, 2 cores")),
        dataclasses.replace(entry("b"), speed=Speed(1246.0, 3, None)),
        entry("c"),
    ]
    assert texts(speed_table(entries)) == [
        ["A", "a", "46.5", "11", "1 x cpu, 2 cores"],
        ["B", "b", "1,246.0", "3", "not recorded"],
    ]
    assert speed_table([entry("c")]) is None


def test_only_settings_that_differ_are_shown():
    first = entry("a", settings={"x": 1e-05, "y": [1, 2], "same": 0, "old": None})
    second = entry("b", settings={"x": 0.1, "y": [1, 3], "same": 0})
    table = settings_table([first, entry("not a run"), second])
    assert table.title == "Settings that differ (1 are equal)"
    assert texts(table) == [
        ["x", "1e-05", "0.1"],
        ["y", "1, 2", "1, 3"],
        ["old", "None", "(not there)"],
    ]
    assert settings_table([first]) is None
    assert settings_table([first, first]).title == "Settings that differ (all 4 are equal)"


def test_everything_of_two_runs(tmp_path):
    runs = [
        read_run(
            make_run(
                tmp_path / name,
                [result(10, 0.5, fingerprint="f")],
                history=[(5, 10.0)],
                train__batch_size=size,
            )
        )
        for name, size in (("a", 16), ("b", 32))
    ]
    titles = [table.title for table in all_tables(with_names_apart(runs))]
    size = "VOC2007 test (10 images, 20 objects, 2 difficult)"
    assert titles == [
        "What is compared",
        f"mAP (%) on {size}",
        f"AP by class (%) on {size}",
        f"mAP (%) by epoch, voc07 on {size}",
        "Speed of training",
        "Settings that differ (9 are equal)",
    ]
