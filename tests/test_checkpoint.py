"""Checkpoints: which are kept, which are never resumed from, and that their content is exact."""

import functools
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.training.checkpoint import Checkpoints, DamagedCheckpoint
from yolov1_jax.training.sharding import data_mesh, replicated_sharding

# Orbax reads the arrays of a damaged checkpoint concurrently and raises one of their errors. Python
# may warn of the others, at any time.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@functools.partial(jax.jit, out_shardings=replicated_sharding(data_mesh()))
def create(step):
    return {"step": step, "params": {"kernel": jnp.arange(600.0).reshape(20, 30) + step}}


ABSTRACT = create.eval_shape(0)


def save_all(directory, mean_aps, keep=2):
    with Checkpoints(directory, keep=keep) as checkpoints:
        for step, mean_ap in mean_aps.items():
            checkpoints.save(step, create(step), {"note": step}, mean_ap=mean_ap)
        checkpoints.wait()
        return checkpoints.steps(), checkpoints.best_step()


def test_content_meta_and_sharding_come_back(tmp_path):
    save_all(tmp_path, {3: None})
    # The folder that orbax leaves when it is killed: it has not got its final name yet.
    (tmp_path / "4.orbax-checkpoint-tmp-0" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]
        state, meta = checkpoints.restore_latest(ABSTRACT)
    assert meta == {"note": 3}
    jax.tree.map(np.testing.assert_array_equal, state, create(3))
    assert state["params"]["kernel"].sharding == ABSTRACT["params"]["kernel"].sharding


@pytest.mark.parametrize(
    ("mean_aps", "keep", "steps", "best"),
    [
        ({1: 0.1, 2: 0.9, 3: 0.2, 4: None, 5: 0.3, 6: None}, 2, [2, 5, 6], 2),
        ({1: None, 2: None, 3: None}, 1, [3], None),
        ({1: float("nan"), 2: 0.0, 3: None}, 1, [2, 3], 2),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, mean_aps, keep, steps, best):
    assert save_all(tmp_path, mean_aps, keep) == (steps, best)


def test_a_step_that_is_saved_again_is_replaced(tmp_path):
    save_all(tmp_path, {1: None})
    assert save_all(tmp_path, {1: 0.5}) == ([1], 1)


@pytest.mark.parametrize("read_only", [True, False])
def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path, read_only):
    with Checkpoints(tmp_path / "checkpoints", read_only=read_only) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.restore_latest(ABSTRACT) is None
    assert (tmp_path / "checkpoints").exists() != read_only


def truncate(state: pathlib.Path):
    largest = max(state.rglob("d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def exchange(state: pathlib.Path):
    """The arrays of another step: only the checksum can tell."""
    shutil.rmtree(state)
    shutil.copytree(state.parents[1] / "1" / "state", state)


@pytest.mark.parametrize("damage", [truncate, shutil.rmtree, exchange])
def test_a_damaged_latest_is_set_aside_for_the_one_before(tmp_path, caplog, damage):
    save_all(tmp_path, {1: None, 2: None})
    damage(tmp_path / "2" / "state")
    with Checkpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
        with pytest.raises(DamagedCheckpoint):
            checkpoints.restore(2, ABSTRACT)
        state, meta = checkpoints.restore_latest(ABSTRACT)
        assert int(state["step"]) == meta["note"] == 1
        assert "checkpoint 2 is damaged" in caplog.text
    assert (tmp_path / "2.damaged").is_dir()
    # The step can be written again.
    assert save_all(tmp_path, {2: None}) == ([1, 2], None)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    save_all(tmp_path, {1: None})
    shutil.rmtree(tmp_path / "1" / "state")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="damaged"):
        checkpoints.restore_latest(ABSTRACT)
