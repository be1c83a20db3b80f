"""Run folders and results as entries."""

import json

import pytest
from comparison_runs import make_run, result, write_result

from yolov1_jax.comparison.evaluations import (
    OLD_RESULT,
    data_name,
    read_evaluation,
    read_results_summary,
)
from yolov1_jax.comparison.runs import CHOSEN_HERE, read_run
from yolov1_jax.errors import UserError

FRACTION = r"a fraction from 0 to 1 \(divide percent by 100\)"


def test_a_run_has_the_scores_of_its_best_step(tmp_path):
    new = result(20, 0.5, protocols={"seed": 0.4, "voc10": 0.6}, fingerprint="f")
    folder = make_run(
        tmp_path / "a",
        [result(10, 0.3, fingerprint="f"), new, result(30, 0.4, fingerprint="f")],
        history=[(1, 5.0), (2, 40.0), (3, 60.0)],
        device="1 x cpu, 2 cores",
    )
    entry = read_run(folder)
    assert (entry.name, entry.kind, entry.step, entry.epoch) == ("a", "run", 20, 2.0)
    assert entry.chosen == "the best by mAP of 3 evaluated"
    assert entry.trained_on == "VOC2007 trainval"
    assert {score.protocol: score.mean_ap for score in entry.scores} == {
        "voc07": 0.5,
        "seed": 0.4,
        "voc10": 0.6,
    }
    for score in entry.scores:
        assert score.data.label == "VOC2007 test (10 images, 20 objects, 2 difficult)"
        assert score.data.fingerprint == "f"
        assert score.ap["sofa"] is None
        assert score.notes == (CHOSEN_HERE,)
    assert entry.speed == (entry.speed.__class__)(40.0, 3, "1 x cpu, 2 cores")
    (curve,) = entry.curves
    assert curve.points == ((1.0, 0.3), (2.0, 0.5), (3.0, 0.4))
    assert curve.data.fingerprint == "f"
    assert entry.losses == ((0.1, 100.0), (0.2, 50.0), (0.3, 100 / 3))
    assert entry.settings["train.batch_size"] == 16
    assert entry.settings["versions.jax"] == "0.10.2"
    assert entry.notes == ()


def test_other_steps(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5), result(20, 0.3)])
    assert read_run(folder, "latest").step == 20
    entry = read_run(folder, "20")
    assert (entry.step, entry.chosen, entry.scores[0].mean_ap) == (20, "as asked for", 0.3)
    assert entry.scores[0].notes == ()
    with pytest.raises(UserError, match=r"has evaluated \(10, 20\), got '15'"):
        read_run(folder, "15")


def test_of_equal_steps_the_first_is_the_best(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.3), result(20, 0.5), result(30, 0.5)])
    assert read_run(folder).step == 20


def test_results_on_other_data_and_protocols_of_the_step_belong_to_it(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    other = result(10, 0.2) | {"splits": ["VOC2012:val"]}
    write_result(folder, other, "10-VOC2012_val")
    write_result(folder, result(10, 0.4, protocol="seed"), "10-seed")
    entry = read_run(folder)
    assert {(score.protocol, score.data.name): score.mean_ap for score in entry.scores} == {
        ("voc07", "VOC2007 test"): 0.5,
        ("voc07", "VOC2012 val"): 0.2,
        ("seed", "VOC2007 test"): 0.4,
    }
    # The seed protocol counts objects in its own way.
    assert [s.data.num_objects for s in entry.scores if s.protocol == "seed"] == [None]


def test_splits_of_the_same_name_in_another_folder_are_other_data(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5, fingerprint="ours")])
    write_result(folder, result(10, 0.9, fingerprint="theirs"), "10-OTHER_VOC2007_test")
    scores = {score.data.fingerprint: score for score in read_run(folder).scores}
    assert {name: score.mean_ap for name, score in scores.items()} == {"ours": 0.5, "theirs": 0.9}
    assert scores["theirs"].notes == ()


def test_older_results_are_read_and_marked(tmp_path):
    entry = read_run(make_run(tmp_path / "a", [result(10, 0.5)]))
    assert entry.scores[0].data.fingerprint is None
    assert entry.scores[0].data.name == "VOC2007 test"
    assert entry.notes == (OLD_RESULT,)
    assert entry.chosen == "the only one evaluated"


def test_a_newer_result_of_the_step_wins_over_an_older(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    write_result(folder, result(10, 0.5, fingerprint="f"), "10-again")
    (score,) = read_run(folder).scores
    assert score.data.fingerprint == "f"


def test_a_curve_is_not_of_data_that_was_changed_after_training(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    write_result(folder, result(10, 0.7, fingerprint="f"))
    entry = read_run(folder)
    assert entry.scores[0].mean_ap == 0.7
    (curve,) = entry.curves
    assert curve.data.name == "VOC2007 test, as it was in training"
    assert curve.data.fingerprint is None
    assert not curve.data.agrees_with(entry.scores[0].data)


def test_a_run_without_evaluations_or_with_rows_only(tmp_path):
    entry = read_run(make_run(tmp_path / "new"))
    assert (entry.step, entry.scores, entry.curves, entry.speed) == (None, (), (), None)
    assert entry.chosen == "not evaluated yet"
    folder = make_run(tmp_path / "rows", [result(10, 0.5)])
    (folder / "eval" / "10.json").unlink()
    row = {"split": "eval", "step": 10, "epoch": 1, "mAP": 0.5, "protocol": "seed", "ap/cat": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(row))
    (score,) = read_run(folder).scores
    assert (score.protocol, score.mean_ap, score.ap) == ("seed", 0.5, {"cat": 0.5})


def test_results_of_detections_in_the_folder_are_not_those_of_a_step(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    write_result(folder, result(None, 0.9), "of-a-file")
    (folder / "eval" / "10").mkdir()
    assert [score.mean_ap for score in read_run(folder).scores] == [0.5]


def test_mistakes_are_the_users(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    (folder / "eval" / "10.json").write_text("{")
    with pytest.raises(UserError, match=r"expected a JSON file at .*10\.json, found JSONDecode"):
        read_run(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"expected a JSON object in .*, found list"):
        read_run(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="expected a run's config in"):
        read_run(folder)


def test_a_result_alone(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps(result(10, 0.5)))
    entry = read_evaluation(path)
    assert (entry.name, entry.kind, entry.step) == ("numbers", "evaluation", 10)
    # No other result's data is taken for the same.
    assert entry.scores[0].data.name == f"unnamed data of {path}"
    assert entry.notes == (OLD_RESULT,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mAP": "0.5"}, rf"{FRACTION} as mAP, found '0.5'"),
        ({"mAP": 50.0}, rf"{FRACTION} as mAP, found '50.0'"),
        ({"mAP": True}, rf"{FRACTION} as mAP, found 'True'"),
        ({"mAP": float("nan")}, rf"{FRACTION} as mAP, found 'nan'"),
        ({"ap": {"cat": [0.5]}}, rf"{FRACTION} as ap\.cat, found '\[0\.5\]'"),
        ({"ap": 3}, "an object as ap, found '3'"),
        ({"mAP": 1.001}, rf"{FRACTION} as mAP, found '1.001'"),
        ({"mAP": 10**400}, rf"{FRACTION} as mAP, found '10000"),
        ({"protocol": 7}, "a text as protocol, found '7'"),
        ({"protocol": None}, "a text as protocol, found 'None'"),
        (
            {"protocols": {"coco": {"AP50": "x"}}},
            rf"{FRACTION} as protocols\.coco\.AP50, found 'x'",
        ),
        ({"protocols": {"coco": 3}}, r"an object as protocols\.coco, found '3'"),
        ({"protocols": []}, r"an object as protocols, found '\[\]'"),
        ({"step": "10"}, "a whole number as step, found '10'"),
        ({"num_images": 1.5}, "a whole number as num_images, found '1.5'"),
        ({"splits": 5}, "a list of texts as splits, found '5'"),
        ({"splits": [5]}, r"a list of texts as splits, found '\[5\]'"),
        ({"notes": "x"}, "a list of texts as notes, found 'x'"),
        ({"evaluation_set": {"fingerprint": []}}, r"a text as evaluation_set\.fingerprint"),
        ({"evaluation_set": {"splits": "x"}}, r"a list of texts as evaluation_set\.splits"),
        ({"evaluation_set": "x"}, "an object as evaluation_set, found 'x'"),
    ],
)
def test_a_result_of_other_content_is_refused(tmp_path, change, message):
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps(result(10, 0.5) | change))
    with pytest.raises(UserError, match=rf"numbers\.json: expected {message}"):
        read_evaluation(path)
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    (folder / "eval" / "10.json").write_text(path.read_text())
    with pytest.raises(UserError, match=rf"10\.json: expected {message}"):
        read_run(folder)


def test_a_mean_that_has_rounded_up_is_read(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps(result(10, 1 + 2e-16)))
    assert read_evaluation(path).scores[0].mean_ap == 1 + 2e-16


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"split": "eval", "mAP": "x"}, f"{FRACTION} as mAP, found 'x'"),
        ({"split": "eval", "mAP": 0.5, "ap/cat": 50}, rf"{FRACTION} as ap\.cat, found '50'"),
        ({"split": "eval", "mAP": 0.5, "protocol": []}, r"a text as protocol, found '\[\]'"),
        ({"split": "eval", "mAP": 0.5, "epoch": "x"}, "a number as eval epoch, found 'x'"),
        ({"split": "train", "epoch": "x", "loss": 3.0}, "a number as train epoch, found 'x'"),
        ({"split": "train", "epoch": 1.0, "loss": "x"}, "a number as train loss, found 'x'"),
        ({"split": "train", "epoch": 1.0, "loss": 10**400}, "a number as train loss, found '1000"),
    ],
)
def test_a_row_of_other_content_is_refused(tmp_path, row, message):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 20, **row}) + "\n")
    with pytest.raises(UserError, match=rf"metrics\.jsonl: expected {message}"):
        read_run(folder)


def test_speeds_that_are_no_numbers_and_empty_places_are_left_out(tmp_path):
    speeds = [float("nan"), True, 7, float("inf"), 10**400, None, 9.0]
    folder = make_run(tmp_path / "a", [result(10, 0.5)], history=list(enumerate(speeds, 1)))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"split": "train", "step": 8, "epoch": None, "loss": 3.0}) + "\n")
        file.write(json.dumps({"split": "eval", "step": 8, "epoch": None, "mAP": 0.3}) + "\n")
    entry = read_run(folder)
    assert (entry.speed.images_per_second, entry.speed.num_rows) == (8.0, 2)
    assert len(entry.losses) == len(speeds)
    assert entry.curves[0].points == ((1.0, 0.5),)


def test_data_without_a_name_is_nobody_elses(tmp_path):
    names = set()
    for file in ("a", "b"):
        path = tmp_path / f"{file}.json"
        path.write_text(json.dumps(result(10, 0.5) | {"evaluation_set": {"splits": []}}))
        names.add(read_evaluation(path).scores[0].data.name)
        results = [result(10, 0.5), result(20, 0.4)]
        folder = make_run(tmp_path / file, results, data__eval=[])
        entry = read_run(folder)
        assert entry.scores[0].notes == (CHOSEN_HERE,)
        assert entry.scores[0].data.name == entry.curves[0].data.name
        names.add(entry.scores[0].data.name)
    assert names == {f"unnamed data of {tmp_path / n}" for n in ("a", "b", "a.json", "b.json")}


def test_a_run_of_other_content_is_refused_or_read_as_far_as_it_goes(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)], history=[(1, "fast")])
    assert read_run(folder).speed is None
    content = json.loads((folder / "config.json").read_text())
    content["config"]["data"]["train"] = 5
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"expected a list of texts as config\.data\.train, found"):
        read_run(folder)


def test_a_result_in_a_run_folder_knows_its_data(tmp_path):
    folder = make_run(tmp_path / "a", [result(10, 0.5)])
    entry = read_evaluation(folder / "eval" / "10.json")
    assert (entry.name, entry.trained_on) == ("a/10", "VOC2007 trainval")
    assert entry.scores[0].data.name == "VOC2007 test"
    assert entry.settings == {}


def test_coco_has_parts(tmp_path):
    written = result(10, 0.5, fingerprint="f")
    written["protocols"]["coco"] = {"mAP": 0.3, "AP50": 0.5, "AP_small": None, "ap": {"cat": 0.3}}
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps(written))
    scores = {score.protocol: score for score in read_evaluation(path).scores}
    assert scores["coco"].parts == {"AP50": 0.5, "AP_small": None}
    assert scores["coco"].mean_ap == 0.3


def test_the_summary_of_a_results_file():
    summary = result(None, 0.5, fingerprint="f") | {"notes": ["3 of 10 images have no detections"]}
    entry = read_results_summary("results/comp4_det_test", summary)
    assert (entry.name, entry.kind) == ("comp4_det_test", "detections")
    assert entry.scores[0].notes == ("3 of 10 images have no detections.",)
    assert entry.scores[0].data.fingerprint == "f"


@pytest.mark.parametrize(
    ("source", "splits", "name"),
    [
        ("tfds", ["voc/2007:test"], "VOC2007 test"),
        ("folder", ["VOC2007:test"], "VOC2007 test"),
        (
            "tfds",
            ["voc/2007:train+validation", "voc/2012:validation"],
            "VOC2007 trainval + VOC2012 val",
        ),
        ("folder", ["BCCD:val"], "BCCD val"),
        ("synthetic", ["eval:6"], "painted scenes eval:6, 64 px"),
        ("synthetic", ["train"], "painted scenes train, 64 px, seed 3"),
        ("coco", ["a/instances.json"], "a/instances.json"),
    ],
)
def test_names_of_data(source, splits, name):
    config = {"image_size": 64, "seed": 3, "data": {"source": "folder"}}
    assert data_name(config, splits, source=source) == name
