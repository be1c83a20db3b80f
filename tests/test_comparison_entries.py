"""What was measured alike, and what was not."""

import pytest
from comparison_runs import VOC_TEST, entry

from yolov1_jax.comparison.entries import (
    EvaluationSet,
    group_data,
    key_of,
    only_protocols,
    protocols_of,
    with_names_apart,
)
from yolov1_jax.errors import UserError


def data(fingerprint=None, *counts, name="VOC2007 test"):
    return EvaluationSet(name, *counts, fingerprint=fingerprint)


def names(groups):
    return [[one.fingerprint or one.num_images for one in group.members] for group in groups]


def test_equal_fingerprints_are_the_same_data_whatever_the_name():
    assert len(group_data([data("f", 10), data("f", 10, name="my copy")])) == 1


def test_other_fingerprints_are_other_data_although_everything_else_is_equal():
    groups = group_data([data("f", 10, 20, 2), data("g", 10, 20, 2)])
    assert names(groups) == [["f"], ["g"]]
    # Their headings tell them apart.
    assert [group.label for group in groups] == [
        "VOC2007 test (10 images, 20 objects, 2 difficult) [data 1]",
        "VOC2007 test (10 images, 20 objects, 2 difficult) [data 2]",
    ]


def test_without_a_fingerprint_name_and_known_counts_must_agree():
    published = VOC_TEST
    whole = data("f", 4952, 12032, 2944)
    assert len(group_data([whole, published])) == 1
    assert len(group_data([data("f", 410, 827, 114), published])) == 2
    assert len(group_data([data("f", 4952, 12031, 2944), published])) == 2
    assert len(group_data([data("f", 4952, 12032, 2944, name="VOC2012 val"), published])) == 2
    assert len(group_data([whole, data(None, 4952)])) == 1
    assert len(group_data([data(None, 4952), data(None, 4952), data()])) == 1


def test_what_could_be_either_is_neither():
    groups = group_data([data(), data("f", 10), data("g", 10)])
    assert len(groups) == 3
    assert len({group.label for group in groups}) == 3
    # One that agrees with one member of a group only.
    groups = group_data([data("f", 10), data(None, 10, 20), data(None, 10, 21)])
    assert names(groups) == [["f", 10], [10]]


def test_groups_stand_in_the_order_in_which_they_come():
    groups = group_data([data(None, 5, name="b"), data("f", name="a")])
    assert [group.data.name for group in groups] == ["b", "a"]


def test_labels():
    assert EvaluationSet("BCCD val", 1, 1, 0).label == "BCCD val (1 image, 1 object)"
    assert VOC_TEST.label == "VOC2007 test (4,952 images, 12,032 objects, 2,944 difficult)"
    assert EvaluationSet("x").label == "x"


def test_keys():
    assert [key_of(index) for index in (0, 25, 26, 51, 52, 701, 702)] == [
        *("A", "Z", "AA", "AZ", "BA", "ZZ", "AAA")
    ]


def test_protocols_stand_in_their_order():
    one = entry("a", ("x's own", VOC_TEST, 0.1), ("seed", VOC_TEST, 0.1), ("voc07", VOC_TEST, 0.1))
    assert protocols_of(one.scores) == ["voc07", "seed", "x's own"]


def test_entries_of_one_name_get_their_origin():
    entries = [entry("a"), entry("b"), entry("a")]
    assert [one.name for one in with_names_apart(entries)] == ["/runs/a", "b", "/runs/a"]


def test_only_some_protocols():
    one = entry("a", ("seed", VOC_TEST, 0.1), ("voc07", VOC_TEST, 0.2))
    (kept,) = only_protocols([one], ["seed"])
    assert [score.protocol for score in kept.scores] == ["seed"]
    with pytest.raises(UserError, match=r"\(voc07, seed\), found 'coco'"):
        only_protocols([one], ["coco"])
