"""Checkpoints of the training state; the only file that imports orbax.

<directory>/<step>/ holds the state and a JSON of what the loop must know beside it. Saving is
asynchronous: the state is copied first and written while training goes on. A checkpoint appears
under its name only when it is complete, so a half-written one is never read. The latest ones and
the best by mAP are kept.
"""

import logging
import math
import pathlib
import shutil
import threading
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from yolov1_jax.errors import UserError

log = logging.getLogger(__name__)

# In place of an mAP, for the ranking: below every mAP.
_NOT_EVALUATED = -1.0


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or whose content is not what was written."""


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Orbax must not ask JAX whether to stop: the answer is to a count of such questions.

        The loop asks for itself, see preemption.py. Were orbax to ask as well, with a count of its
        own, several processes would not agree on where to stop, and SIGTERM be lost.
        """
        del step
        return False


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for the last write."""

    def __init__(self, directory: pathlib.Path, *, keep: int = 2, read_only: bool = False):
        """Opens the directory, and makes it unless it is opened to read only.

        `keep`: how many of the latest checkpoints stay; the best one stays besides.
        """
        if read_only and not directory.is_dir():
            raise UserError(
                f"expected checkpoints in {directory}, found no such folder: train first, or check "
                "the --workdir"
            )

        latest = checkpoint_managers.LatestN(max(keep, 1))
        best = checkpoint_managers.BestN(
            get_metric_fn=_mean_ap, n=1, keep_checkpoints_without_metrics=False
        )
        self.directory = directory.absolute()
        self._manager = _Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                best_fn=_mean_ap,
                best_mode="max",
                # `max_to_keep` with `best_fn` would delete the latest checkpoint.
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
                enable_async_checkpointing=True,
                read_only=read_only,
                # What reading only implies: Orbax warns where it has to find that out by itself.
                create=not read_only,
                save_interval_steps=0 if read_only else 1,
            ),
            item_names=("state", "meta"),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or jax.process_count() == 1:
            self._manager.close()
            return
        # A checkpoint that is being written is to be finished, but for that the other processes are
        # needed, and this one cannot know whether they have failed as well or will never come.
        closing = threading.Thread(target=self._manager.close, daemon=True)
        closing.start()
        closing.join(timeout=10)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the largest mAP, or None if none was evaluated."""
        best = self._manager.best_step()
        if best is None or _mean_ap(self._manager.metrics(best)) == _NOT_EVALUATED:
            return None
        return best

    def save(
        self,
        step: int,
        state: Any,
        meta: dict[str, Any],
        *,
        mean_ap: float | None = None,
        replace: bool = False,
    ) -> None:
        """Starts writing a checkpoint; waits for the one before, if that is still being written.

        Args:
          state: a tree of arrays.
          meta: JSON-serialisable values.
          mean_ap: the mAP of this state, if it was evaluated.
          replace: what happens to a checkpoint of this step that is there already: it stays, and
            nothing is written, or it makes room for this one.
        """
        if step in self._manager.all_steps():
            if not replace:
                return
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                meta=ocp.args.JsonSave({**meta, "checksum": checksum(state)}),
            ),
            # Always given: orbax would warn of every checkpoint that has none.
            metrics={"mAP": None if mean_ap is None or math.isnan(mean_ap) else mean_ap},
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """The state and meta of one step.

        Args:
          abstract_state: a tree of jax.ShapeDtypeStruct with the shardings to restore to.

        Raises:
          DamagedCheckpoint: it cannot be read, or its content is not what was written.
        """
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore()
                ),
            )
        # Whatever the storage layers raise, from a missing file to a failed decompression.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedCheckpoint(f"{type(error).__name__}: {reason}") from error
        meta = dict(restored["meta"])
        if meta.pop("checksum") != checksum(restored["state"]):
            raise DamagedCheckpoint("the content does not match its checksum")
        return restored["state"], meta

    def restore_latest(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """The latest checkpoint that is whole; None if the run has none at all.

        Damaged ones are reported and set aside (renamed to `<step>.damaged`), so that training
        writes that step again.

        Raises:
          UserError: there are checkpoints, and every one is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, abstract_state)
            except DamagedCheckpoint as error:
                log.warning("checkpoint %d is damaged and is set aside: %s", step, error)
                self._set_aside(step)
        if steps:
            raise UserError(
                f"expected a whole checkpoint in {self.directory}, found only damaged ones (steps "
                f"{steps}, now renamed): start again with another --workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            target = self.directory / f"{step}.damaged"
            shutil.rmtree(target, ignore_errors=True)
            (self.directory / str(step)).rename(target)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("checkpoint set aside")
        self._manager.reload()


def _mean_ap(metrics: dict[str, float | None] | None) -> float:
    value = None if metrics is None else metrics["mAP"]
    return _NOT_EVALUATED if value is None else value


def checksum(state: Any) -> int:
    """CRC-32 of all arrays of a tree whose every array this process can address."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        # A view where the platform allows it: no second copy of the state.
        array = np.ascontiguousarray(np.asarray(leaf))
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def abstract_tree(create: Callable[..., Any], *args: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes, types and sharding of what `create(*args)` returns, without computing it."""

    def with_sharding(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(with_sharding, jax.eval_shape(create, *args))
