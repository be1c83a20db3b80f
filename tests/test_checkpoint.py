"""Checkpoints: what is kept, what is never resumed from, and that content comes back exactly."""

import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.errors import UserError
from yolov1_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, checksum
from yolov1_jax.training.sharding import data_mesh, replicated_sharding


def state_at(step):
    sharding = replicated_sharding(data_mesh())
    state = {
        "step": jnp.asarray(step, jnp.int32),
        "params": {"kernel": jnp.arange(600.0).reshape(20, 30) + step},
    }
    return jax.device_put(state, sharding)


def abstract():
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(0)
    )


def save_all(directory, mean_aps, keep=2):
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step, mean_ap in mean_aps.items():
            checkpoints.save(step, state_at(step), {"note": step}, mean_ap=mean_ap)
        checkpoints.wait()
        return checkpoints.steps(), checkpoints.best_step()


def test_content_and_meta_come_back(tmp_path):
    save_all(tmp_path, {3: None})
    with Checkpoints(tmp_path) as checkpoints:
        state, meta = checkpoints.restore_latest(abstract())
    assert meta == {"note": 3}
    jax.tree.map(np.testing.assert_array_equal, state, state_at(3))
    assert state["params"]["kernel"].sharding == state_at(3)["params"]["kernel"].sharding


def test_the_latest_and_the_best_are_kept(tmp_path):
    steps, best = save_all(tmp_path, {1: 0.1, 2: 0.9, 3: 0.2, 4: None, 5: 0.3, 6: None})
    assert steps == [2, 5, 6]
    assert best == 2


def test_without_an_evaluation_there_is_no_best(tmp_path):
    steps, best = save_all(tmp_path, {1: None, 2: None, 3: None}, keep=1)
    assert steps == [3]
    assert best is None


def test_an_empty_run_has_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(abstract()) is None


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    save_all(tmp_path, {1: None})
    # What orbax leaves behind when it is killed: a folder that has not got its final name yet.
    half = tmp_path / "2.orbax-checkpoint-tmp-0"
    (half / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
        state, _ = checkpoints.restore_latest(abstract())
        assert int(state["step"]) == 1


def data_files(step_dir: pathlib.Path) -> list[pathlib.Path]:
    files = [path for path in (step_dir / "state").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size)


def truncate(step_dir):
    path = data_files(step_dir)[-1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(step_dir):
    for path in data_files(step_dir):
        path.unlink()


def empty(step_dir):
    data_files(step_dir)[-1].write_bytes(b"")


# Orbax reads the arrays at once, and of several that fail it passes on one: whether the others are
# noticed when they are collected is a matter of time.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [truncate, delete, empty])
def test_a_damaged_latest_falls_back_to_the_one_before(tmp_path, caplog, damage):
    save_all(tmp_path, {1: None, 2: None})
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
        state, meta = checkpoints.restore_latest(abstract())
        assert int(state["step"]) == meta["note"] == 1
        assert "checkpoint 2 is damaged" in caplog.text
        # The step can be written again, and the damaged files are kept for a look.
        checkpoints.save(2, state_at(2), {"note": 2})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2]
    assert (tmp_path / "2.damaged").is_dir()


def test_content_that_changed_on_disk_is_noticed(tmp_path, monkeypatch):
    save_all(tmp_path, {1: None})
    monkeypatch.setattr(
        "yolov1_jax.training.checkpoint.checksum", lambda state: checksum(state) ^ 1
    )
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(DamagedCheckpoint, match="checksum"),
    ):
        checkpoints.restore(1, abstract())


def test_only_damaged_checkpoints_end_the_run(tmp_path):
    save_all(tmp_path, {1: None})
    delete(tmp_path / "1")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="only damaged"):
        checkpoints.restore_latest(abstract())


def test_reading_does_not_create_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Checkpoints(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


def test_checksum_sees_every_value():
    state = {"a": np.zeros(3), "b": np.zeros((2, 2), np.float32)}
    changed = {"a": np.zeros(3), "b": np.array([[0, 0], [0, 1]], np.float32)}
    assert checksum(state) == checksum({"a": np.zeros(3), "b": np.zeros((2, 2), np.float32)})
    assert checksum(state) != checksum(changed)
