"""The promises about training, each through the real entry point in a process of its own.

`reference` is the run that nothing interrupts; the others must come to the same end. test_train.py
shows the same promises within one process, as far as that can show them.
"""

import json
import pathlib
import signal

import pytest
from end_to_end import (
    LOSSES,
    assert_same_losses,
    assert_same_run,
    checkpoint_steps,
    evaluations,
    rows,
)
from voc_tree import VocTree, annotation_xml, object_xml

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def test_a_run_leaves_what_it_promises(reference):
    workdir, ended = reference
    assert (ended.code, ended.err) == (0, "")

    order = [(row["split"], row["step"]) for row in rows(workdir)]
    train = [("train", step) for step in range(2, 13, 2)]
    assert order == [*train[:3], ("eval", 6), *train[3:], ("eval", 12)]
    losses = [row for row in rows(workdir) if row["split"] == "train"]
    for row in losses:
        assert row["epoch"] == pytest.approx(row["step"] * 8 / 28)
        assert row["loss"] == pytest.approx(sum(row[term] for term in LOSSES[1:]), rel=1e-5)
    # The rate is multiplied by 0.1 after two epochs: 7 steps of 4, which make 3.5 updates of 2.
    rates = [row["learning_rate"] for row in losses]
    assert rates == pytest.approx([2e-6] * 4 + [2e-7] * 2)

    assert checkpoint_steps(workdir) == [3, 6, 9, 12]
    assert sorted(evaluations(workdir)) == ["12.json", "6.json"]
    result = evaluations(workdir)["12.json"]
    assert (result["step"], result["protocol"], result["num_images"]) == (12, "voc10", 20)
    config = json.loads((workdir / "config.json").read_text())["config"]
    assert config["model"]["class_names"] == list(result["ap"])

    # The last lines say where everything is.
    places = dict(line.split() for line in ended.out.splitlines()[-7:-3])
    assert list(places) == ["pictures", "metrics", "results", "weights"]
    assert all(pathlib.Path(place).exists() for place in places.values())
    best = max(evaluations(workdir).values(), key=lambda result: result["mAP"])
    assert f"{best['mAP']:.1%} (voc10) at step {best['step']}" in ended.out


def test_interrupted_again_and_again_it_ends_like_a_run_never_interrupted(
    program, reference, tmp_path
):
    workdir = tmp_path / "run"
    keep_two = {"train.keep_checkpoints": 2}  # so that older ones are deleted

    def interrupted(at: str, by: str = "SIGKILL") -> list[int]:
        ended = program.train(workdir, keep_two, interrupt_at=at, by=by)
        told = "stopping after this step; again to quit at once\n"
        expected = {"SIGKILL": (-9, ""), "SIGTERM": (143, told), "SIGINT": (130, told)}
        assert (ended.code, ended.err) == expected[by]
        return checkpoint_steps(workdir)

    # Three steps are done, nothing is saved.
    assert interrupted(r"os\.mkdir .*/3\.orbax-checkpoint-tmp$") == []
    assert rows(workdir)[-1]["step"] == 2
    # In the middle of an evaluation. Checkpoint 3 may still be on its way to the disk.
    assert interrupted(r"open .*/jit_evaluation_step-") in ([], [3])
    assert rows(workdir)[-1]["step"] == 6
    # In the middle of writing a checkpoint: it has not got its name. The evaluation has its row.
    assert interrupted(r"os\.rename .*/checkpoints/6$") == [3]
    assert (workdir / "checkpoints" / "6.orbax-checkpoint-tmp").is_dir()
    assert "eval" in [row["split"] for row in rows(workdir)]
    # Stopped in the middle of an evaluation, which is given up: the next start makes up for it.
    assert interrupted(r"open .*/jit_evaluation_step-", "SIGTERM") == [3, 6]
    # Stopped while a checkpoint is written: one step more is done, and saved.
    assert interrupted(r"os\.mkdir .*/9\.orbax-checkpoint-tmp$", "SIGINT")[-1] in (10, 11)
    # After the last checkpoint, while an older one is deleted.
    assert interrupted(r"shutil\.rmtree .*/checkpoints/9\.orbax-checkpoint-tmp$")[-1] == 12

    ended = program.train(workdir, keep_two)
    assert (ended.code, ended.err) == (0, "")
    assert_same_run(workdir, reference[0])


def test_four_devices_give_the_losses_of_one(program, reference, tmp_path):
    ended = program.train(tmp_path / "run", {"train.num_steps": 6}, num_devices=4)
    assert (ended.code, ended.err) == (0, "")
    assert_same_losses(tmp_path / "run", reference[0])


def test_own_data_killed_and_resumed_with_workers(program, tmp_path):
    tree = VocTree(tmp_path / "data")
    names = [f"image{i}" for i in range(11)]
    for i, name in enumerate(names):
        box = (1 + i, 2 + i, 31 + i, 27 + i)
        tree.add(name, xml=annotation_xml(object_xml("cat" if i % 3 else "dog", box)))
    tree.list("train", names[:7])
    tree.list("val", names[7:])
    # With Adam and bfloat16, which the reference does not use.
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
    split = (tmp_path / "whole" / "splits" / "train.txt").read_text().split()
    assert split == [f"own/{name}" for name in names[:7]]

    saving = r"os\.mkdir .*/4\.orbax-checkpoint-tmp$"
    ended = program.train(tmp_path / "run", overrides, interrupt_at=saving)
    assert ended.code == -signal.SIGKILL
    assert checkpoint_steps(tmp_path / "run") == [2]
    ended = program.train(tmp_path / "run", {**overrides, "data.num_workers": 2})
    assert ended.code == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")
