"""Every number as a row."""

import csv

from comparison_runs import make_run, result

from yolov1_jax.comparison.entries import NO_FINGERPRINT
from yolov1_jax.comparison.published import published
from yolov1_jax.comparison.runs import read_run
from yolov1_jax.comparison.values import COLUMNS, write_csv


def test_every_number_is_there_with_what_it_needs(tmp_path):
    whole = (4952, 12032, 2944)
    folder = make_run(
        tmp_path / "a",
        [result(10, 0.5, protocols={"seed": 0.4}, fingerprint="f", counts=whole)],
        history=[(5, 10.0)],
    )
    write_csv(tmp_path / "compare.csv", [read_run(folder), *published(["article-r34"])])
    with (tmp_path / "compare.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == COLUMNS

    def find(**fields):
        return [row for row in rows if all(row[key] == value for key, value in fields.items())]

    (official,) = find(key="A", quantity="mAP", protocol="voc07")
    assert (official["value"], official["fingerprint"], official["step"]) == ("0.5", "f", "10")
    (absent,) = find(key="A", quantity="AP", protocol="seed", **{"class": "sofa"})
    assert absent["value"] == ""
    (theirs,) = find(key="B", quantity="mAP")
    assert (theirs["data"], theirs["fingerprint"]) == ("VOC2007 test", "")
    assert NO_FINGERPRINT in theirs["notes"]
    assert len(find(key="B", quantity="AP")) == 20
    assert len(find(key="B", quantity="mAP by epoch")) == 15
    assert [row["value"] for row in find(quantity="loss")] == ["20.0"]
    assert [row["notes"] for row in find(quantity="images_per_second")] == ["device not recorded"]
    assert [row["value"] for row in find(setting="train.batch_size")] == ["16"]
