"""The promises about training, each through the real entry point in a process of its own.

`reference` is the run that nothing interrupts; the others must come to the same end.
"""

import json
import pathlib
import re
import shutil
import signal
import time

import numpy as np
import pytest
from end_to_end import (
    ENDLESS,
    LOSSES,
    Interruption,
    arrays,
    assert_same_losses,
    assert_same_run,
    checkpoint_steps,
    end,
    evaluations,
    finish,
    rows,
    wait_until,
)
from voc_tree import VocTree, annotation_xml, object_xml


@pytest.fixture
def finished(reference, tmp_path) -> pathlib.Path:
    """A copy of the reference's run folder."""
    return shutil.copytree(reference[0], tmp_path / "run")


@pytest.fixture(scope="module")
def side_runs(program, reference, tmp_path_factory):
    """Runs that need no attention, all at once. The reference has compiled what they share."""
    runs = {
        "four devices": ({"train.num_steps": 6}, 4),
        "two workers": ({"train.num_steps": 6, "data.num_workers": 2}, 1),
        "another seed": ({"train.num_steps": 2, "seed": 1}, 1),
    }
    folder = tmp_path_factory.mktemp("side_runs")
    started = {
        name: (folder / name, program.start(folder / name, overrides, num_devices=num_devices))
        for name, (overrides, num_devices) in runs.items()
    }
    yield started
    for _, process in started.values():
        end(process)


def truncate_largest_file(folder: pathlib.Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_a_run_leaves_what_it_promises(reference):
    workdir, ended = reference
    assert (ended.code, ended.err) == (0, "")

    order = [(row["split"], row["step"]) for row in rows(workdir)]
    train = [("train", step) for step in range(2, 13, 2)]
    assert order == [*train[:3], ("eval", 6), *train[3:], ("eval", 12)]
    for row in rows(workdir):
        assert row["epoch"] == pytest.approx(row["step"] * 8 / 28, abs=1e-6)
        if row["split"] == "train":
            assert {*LOSSES, "learning_rate"} < row.keys()
            assert row["loss"] == pytest.approx(sum(row[term] for term in LOSSES[1:]), rel=1e-5)
    # The rate is multiplied by 0.1 after two epochs: 7 steps of 4, which make 3.5 updates of 2.
    rates = [row["learning_rate"] for row in rows(workdir) if row["split"] == "train"]
    assert rates == pytest.approx([2e-6] * 4 + [2e-7] * 2)

    assert checkpoint_steps(workdir) == [3, 6, 9, 12]
    assert sorted(evaluations(workdir)) == ["12.json", "6.json"]
    result = evaluations(workdir)["12.json"]
    assert {"step", "protocol", "mAP", "ap", "num_images", "num_objects"} <= result.keys()
    assert (result["step"], result["protocol"], result["num_images"]) == (12, "voc10", 20)
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["train"]["num_steps"] == 12
    assert config["config"]["model"]["class_names"] == list(result["ap"])
    assert "jax" in config["versions"]

    # The last lines say where things are, and they are there.
    places = dict(line.split() for line in ended.out.splitlines()[-4:])
    assert list(places) == ["pictures", "metrics", "results", "weights"]
    assert all(pathlib.Path(place).exists() for place in places.values())
    assert len(list((workdir / "report").glob("*"))) == 5


def test_killed_again_and_again_it_ends_like_a_run_never_interrupted(program, reference, tmp_path):
    workdir = tmp_path / "run"
    # With two kept, checkpoint 3 is deleted as soon as 9 is there.
    keep_two = {"train.keep_checkpoints": 2}

    def killed_at(at: str) -> list[int]:
        ended = program.train(workdir, keep_two, interruption=Interruption(at))
        assert (ended.code, ended.err) == (-signal.SIGKILL, "")
        return checkpoint_steps(workdir)

    # Three steps are done, nothing is saved.
    assert killed_at(r"os\.mkdir .*/3\.orbax-checkpoint-tmp$") == []
    assert rows(workdir)[-1]["step"] == 2
    # In the middle of an evaluation. Checkpoint 3 may still be on its way to the disk.
    assert killed_at(r"open .*/jit_predict_step-") in ([], [3])
    assert rows(workdir)[-1]["step"] == 6
    # In the middle of writing a checkpoint: it has not got its name. The evaluation has its row.
    assert killed_at(r"os\.rename .*/checkpoints/6$") == [3]
    assert (workdir / "checkpoints" / "6.orbax-checkpoint-tmp").is_dir()
    assert "eval" in [row["split"] for row in rows(workdir)]
    # Right after a checkpoint, while the one before the last is deleted.
    assert killed_at(r"shutil\.rmtree .*/checkpoints/3$") == [3, 6, 9]

    ended = program.train(workdir, keep_two)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(workdir, reference[0])
    assert checkpoint_steps(workdir) == [9, 12]


def test_stopped_by_a_signal_it_saves_and_continues_to_the_same_result(
    program, reference, tmp_path
):
    workdir = tmp_path / "run"
    # In the middle of an evaluation, which is given up: the next start makes up for it.
    evaluating = Interruption(r"open .*/jit_predict_step-", "SIGTERM")
    ended = program.train(workdir, interruption=evaluating)
    assert (ended.code, ended.err) == (0, "")
    assert "stopped after step 6" in ended.out
    assert checkpoint_steps(workdir) == [3, 6]
    assert not (workdir / "eval").exists()

    # While checkpoint 9 is written. One step more is done, and saved.
    saving = Interruption(r"os\.mkdir .*/9\.orbax-checkpoint-tmp$", "SIGINT")
    ended = program.train(workdir, interruption=saving)
    assert (ended.code, ended.err) == (0, "")
    assert "continues from the checkpoint of step 6" in ended.out
    assert checkpoint_steps(workdir)[-1] in (10, 11)
    assert list(evaluations(workdir)) == ["6.json"]

    ended = program.train(workdir)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(workdir, reference[0])
    # The mAP made up for is with its checkpoint, where the best is looked up.
    for folder in (workdir, reference[0]):
        metrics = json.loads((folder / "checkpoints/6/metrics/metrics").read_text())
        assert metrics == {"mAP": evaluations(reference[0])["6.json"]["mAP"]}


def test_sigterm_ends_a_run_within_seconds(program, tmp_path):
    process = program.start(tmp_path / "run", ENDLESS)
    wait_until(lambda: len(rows(tmp_path / "run")) >= 3, process)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    ended = finish(process)
    assert time.monotonic() - start < 10
    assert (ended.code, ended.err) == (0, "")
    step = rows(tmp_path / "run")[-1]["step"]
    assert ended.out.splitlines()[-1].startswith(f"stopped after step {step};")
    assert checkpoint_steps(tmp_path / "run") == [step]


def test_four_devices_give_the_losses_of_one(side_runs, reference):
    workdir, process = side_runs["four devices"]
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")
    assert_same_losses(workdir, reference[0])


def test_loader_workers_do_not_change_the_run(side_runs, reference):
    workdir, process = side_runs["two workers"]
    ended = finish(process)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(workdir, reference[0], 6)


def test_another_seed_is_another_run(side_runs, reference):
    workdir, process = side_runs["another seed"]
    assert finish(process).code == 0
    ours, theirs = rows(workdir)[0], rows(reference[0])[0]
    assert abs(ours["loss"] - theirs["loss"]) > 0.1


def test_a_finished_run_started_again_changes_nothing(program, reference, finished):
    before = (finished / "metrics.jsonl").read_bytes()
    (finished / "eval" / "12.json").unlink()
    shutil.rmtree(finished / "report")
    ended = program.train(finished)
    assert (ended.code, ended.err) == (0, "")
    assert (finished / "metrics.jsonl").read_bytes() == before
    assert_same_run(finished, reference[0])
    assert checkpoint_steps(finished) == [3, 6, 9, 12]
    assert len(list((finished / "report").glob("*"))) == 5


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(program, reference, finished):
    truncate_largest_file(finished / "checkpoints" / "12" / "state")
    ended = program.train(finished)
    assert ended.code == 0
    assert "checkpoint 12 is damaged and is set aside" in ended.err
    assert ended.err.count("\n") == 1
    assert "continues from the checkpoint of step 9" in ended.out
    assert_same_run(finished, reference[0])


def test_a_loss_that_is_not_finite_ends_the_run_and_spoils_nothing(program, reference, finished):
    shutil.rmtree(finished / "checkpoints" / "12")
    before = {step: arrays(finished, step) for step in (6, 9)}
    ended = program.train(finished, {"optimizer.learning_rate": 1e30})
    assert ended.code == 1
    warning, error = ended.err.splitlines()
    assert "config.optimizer.learning_rate was 2e-06, is now 1e+30" in warning
    # Step 10 makes the update, step 11 meets it.
    assert error.startswith("error: the loss of step 11 is not finite (loss=")
    assert "loss/wh=" in error
    assert error.count("synthetic/train/0000") == 8
    assert "Traceback" not in ended.out
    assert [row["step"] for row in rows(finished)][-1] == 10
    assert checkpoint_steps(finished) == [3, 6, 9]
    for step, state in before.items():
        for name, array in arrays(finished, step).items():
            np.testing.assert_array_equal(array, state[name])

    assert program.train(finished).code == 0
    assert_same_run(finished, reference[0])


def test_own_data_killed_and_resumed_with_workers(program, tmp_path):
    tree = VocTree(tmp_path / "data")
    names = [f"image{i}" for i in range(11)]
    for i, name in enumerate(names):
        box = (1 + i, 2 + i, 31 + i, 27 + i)
        tree.add(name, xml=annotation_xml(object_xml("cat" if i % 3 else "dog", box)))
    tree.list("train", names[:7])
    tree.list("val", names[7:])
    # Adam and bfloat16 are what the synthetic run above does not use.
    overrides = {
        "data.source": "folder",
        "data.root": tree.root,
        "data.train": "own:train",
        "data.eval": "own:val",
        "data.images_per_epoch": 7,
        "compute_dtype": "bfloat16",
        "optimizer.name": "adam",
        "optimizer.schedule": "cosine",
        "train.num_steps": 4,
        "train.eval_every_steps": 2,
        "train.checkpoint_every_steps": 2,
    }
    ended = program.train(tmp_path / "whole", overrides)
    assert (ended.code, ended.err) == (0, "")
    assert set(evaluations(tmp_path / "whole")["4.json"]["ap"]) == {"cat", "dog"}

    killed = Interruption(r"os\.mkdir .*/4\.orbax-checkpoint-tmp$")
    assert program.train(tmp_path / "run", overrides, interruption=killed).code == -signal.SIGKILL
    assert checkpoint_steps(tmp_path / "run") == [2]
    ended = program.train(tmp_path / "run", {**overrides, "data.num_workers": 2})
    assert ended.code == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


MISTAKES = [
    ({"train.batchsize": 4}, "config.train.batchsize .* did you mean config.train.batch_size"),
    ({"train.batch_size": "many"}, "batch_size.*many"),
    ({"loss.xy_unit": "cells"}, "config.loss.xy_unit must be one of .* did you mean 'cell'"),
    ({"data.source": "folder"}, "config.data.root is not set"),
    ({"data.source": "folder", "data.root": "/no/where"}, "/no/where"),
    ({"data.eval": "validation"}, "'validation'"),
    ({"model.grid_size": 5}, "grid.*5"),
    ({"train.batch_size": 6}, "config.train.batch_size=6 .* multiple of 4"),
    ({"model.pretrained": "/no/weights.safetensors"}, "/no/weights.safetensors"),
]


@pytest.fixture(scope="module")
def mistakes(program, tmp_path_factory):
    """A program for each of MISTAKES, all started at once."""
    folder = tmp_path_factory.mktemp("mistakes")
    started = [
        program.start(folder / str(i), overrides, num_devices=4)
        for i, (overrides, _) in enumerate(MISTAKES)
    ]
    yield started
    for process in started:
        end(process)


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=lambda i: "-".join(MISTAKES[i][0]))
def test_a_mistake_gets_one_line_and_exit_code_2(mistakes, index):
    assert_one_line(finish(mistakes[index]), MISTAKES[index][1])


def assert_one_line(ended, message: str) -> None:
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert re.search(message, ended.err)
    assert "Traceback" not in ended.out


def test_another_model_is_refused_in_the_folder_of_a_run(program, finished):
    ended = program.train(finished, {"model.head_channels": 32})
    assert_one_line(ended, r"holds a run with config.model.head_channels=64, .* asks for 32")
    # Nor another state of the optimizer, which would not fit the checkpoints.
    ended = program.train(finished, {"optimizer.name": "adam"})
    assert_one_line(ended, r"holds a run with config.optimizer.name='sgd'")
    assert checkpoint_steps(finished) == [3, 6, 9, 12]


def test_help_is_complete(program):
    ended = finish(program.start_with(["--help"]))
    assert (ended.code, ended.err) == (0, "")
    for flag in ("config", "workdir", "distributed", "coordinator", "num_processes", "process_id"):
        assert re.search(rf"--(\[no\])?{flag}\b", ended.out)
    assert "python -m yolov1_jax.main" in ended.out
    assert "configs/r34.py" in ended.out
