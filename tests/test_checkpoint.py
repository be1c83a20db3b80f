"""Checkpoints: which are kept, which are never resumed from, and that their content is exact."""

import functools
import logging
import os
import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.training.checkpoint import Checkpoints, DamagedCheckpoint
from yolov1_jax.training.sharding import shardings


@functools.partial(jax.jit, out_shardings=shardings()[1])
def create(step):
    return {"step": step, "params": {"kernel": jnp.arange(600.0).reshape(20, 30) + step}}


ABSTRACT = create.eval_shape(0)


def save_all(directory, scores, keep=2):
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, create(step), {"note": step}, score=score)
        checkpoints.wait()
        return checkpoints.steps(), checkpoints.best_step()


def test_content_meta_and_sharding_come_back(tmp_path):
    save_all(tmp_path, {3: None})
    # The folder that orbax leaves when it is killed: it has not got its final name yet.
    (tmp_path / "4.orbax-checkpoint-tmp-0" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]
        state, meta = checkpoints.restore_latest(ABSTRACT)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    assert meta == {"note": 3}
    jax.tree.map(np.testing.assert_array_equal, state, create(3))
    assert state["params"]["kernel"].sharding == ABSTRACT["params"]["kernel"].sharding


@pytest.mark.parametrize(
    ("scores", "keep", "steps", "best"),
    [
        ({1: 0.1, 2: 0.9, 3: 0.2, 4: None, 5: 0.3, 6: None}, 2, [2, 5, 6], 2),
        ({1: None, 2: None, 3: None}, 1, [3], None),
        ({1: float("nan"), 2: 0.0, 3: None}, 1, [2, 3], 2),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, scores, keep, steps, best):
    assert save_all(tmp_path, scores, keep) == (steps, best)


def test_scores_of_older_runs_are_read(tmp_path):
    save_all(tmp_path, {1: 0.1, 2: 0.5})
    (tmp_path / "1/metrics/metrics").write_text('{"mAP": 0.9}')
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 1


def test_a_step_that_is_saved_again_gets_its_map_and_keeps_its_state(tmp_path):
    """An interruption while it is written anew would lose the only checkpoint."""
    save_all(tmp_path, {1: None})
    before = (tmp_path / "1" / "state" / "manifest.ocdbt").stat().st_ino
    assert save_all(tmp_path, {1: 0.5}) == ([1], 1)
    assert (tmp_path / "1" / "state" / "manifest.ocdbt").stat().st_ino == before
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(1, ABSTRACT)[1] == {"note": 1}


@pytest.mark.parametrize("name", ["run[1]", "a*b", "a\\b", "gs:", os.fsdecode(b"\xe9"), "a b~"])
def test_a_folder_of_any_name_can_be_read_again(tmp_path, name):
    save_all(tmp_path / name, {1: 0.5, 2: None})
    with Checkpoints(tmp_path / name) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1, 2], 1)
        assert int(checkpoints.restore(2, ABSTRACT)[0]["step"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore_latest(ABSTRACT) is None
    assert not (tmp_path / "checkpoints").exists()


def largest_file(checkpoint: pathlib.Path) -> pathlib.Path:
    return max(checkpoint.rglob("d/*"), key=lambda path: path.stat().st_size)


def truncate(checkpoint: pathlib.Path):
    path = largest_file(checkpoint)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_state(checkpoint: pathlib.Path):
    shutil.rmtree(checkpoint / "state")


def exchange(checkpoint: pathlib.Path):
    """The arrays of another step: only the checksum can tell."""
    remove_state(checkpoint)
    shutil.copytree(checkpoint.with_name("1") / "state", checkpoint / "state")


def text(path: str, content: str):
    return lambda checkpoint: (checkpoint / path).write_text(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        remove_state,
        exchange,
        text("metrics/metrics", "{}"),
        text("meta/metadata", "[]"),
        text("_CHECKPOINT_METADATA", ""),
    ],
)
def test_a_damaged_latest_is_set_aside_for_the_one_before(tmp_path, caplog, capfd, damage):
    save_all(tmp_path, {1: 0.5, 2: None})
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
        with pytest.raises(DamagedCheckpoint):
            checkpoints.restore(2, ABSTRACT)
        state, meta = checkpoints.restore_latest(ABSTRACT)
        assert int(state["step"]) == meta["note"] == 1
        assert checkpoints.best_step() == 1
    (record,) = caplog.records
    assert "checkpoint 2 is damaged" in record.getMessage()
    assert capfd.readouterr().err == ""
    assert (tmp_path / "2.damaged").is_dir()
    # The step can be written again.
    assert save_all(tmp_path, {2: None}) == ([1, 2], 1)


def test_a_checkpoint_that_the_system_cannot_read_is_not_damaged(tmp_path):
    save_all(tmp_path, {1: None, 2: None})
    path = largest_file(tmp_path / "2")
    path.unlink()
    path.symlink_to(path)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(OSError, match="symbolic links"):
            checkpoints.restore_latest(ABSTRACT)
        assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("cause", [KeyboardInterrupt, MemoryError])
def test_a_checkpoint_is_not_damaged_because_its_reading_was_stopped(tmp_path, monkeypatch, cause):
    save_all(tmp_path, {1: None, 2: None})

    def restore(*_):
        raise ValueError("as orbax does") from cause

    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", restore)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match="as orbax does"):
            checkpoints.restore_latest(ABSTRACT)
        assert checkpoints.steps() == [1, 2]


def test_a_checkpoint_of_another_model_is_refused_and_stays(tmp_path):
    save_all(tmp_path, {1: None})
    kernel = ABSTRACT["params"]["kernel"]
    wider = jax.ShapeDtypeStruct((20, 31), kernel.dtype, sharding=kernel.sharding)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(UserError, match="params/kernel"):
            checkpoints.restore_latest({**ABSTRACT, "params": {"kernel": wider}})
        assert checkpoints.steps() == [1]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    (tmp_path / "1").mkdir()
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="damaged"):
        checkpoints.restore_latest(ABSTRACT)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, capfd):
    save_all(tmp_path, {1: None})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OSError, match=r"too large.*/2'"):
            save_all(tmp_path, {2: None})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr().err == ""
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_only_folders_that_orbax_left_are_removed(tmp_path):
    for name in ("2.orbax-checkpoint-tmp", "2 (copy)", "old-tmp", "007"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert save_all(tmp_path, {3: None}) == ([3], None)
    assert {path.name for path in tmp_path.iterdir()} == {"007", "2 (copy)", "3", "7", "old-tmp"}
