"""Checkpoints of the training state; the only file that imports orbax.

<directory>/<step>/ holds the state and a JSON value of the loop, `meta`. Saving is asynchronous:
the state is copied first and written while training continues. A checkpoint gets its name only when
it is complete, so a half-written one is never read. The latest ones and the best by mAP are kept.
"""

import logging
import math
import pathlib
import shutil
import threading
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from yolov1_jax.config import UserError

log = logging.getLogger(__name__)


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or that differs from what was written."""


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        # The loop asks JAX, see preemption.py. JAX counts the questions, so that all processes stop
        # at the same one: if orbax asked as well, SIGTERM would be lost.
        return False


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for the last write.

    Args:
      directory: made if missing.
      keep: how many of the latest checkpoints stay; the best one stays besides.
      read_only: nothing is made or changed.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2, read_only: bool = False) -> None:
        latest = checkpoint_managers.LatestN(keep)
        best = checkpoint_managers.BestN(
            get_metric_fn=_mean_ap, n=1, keep_checkpoints_without_metrics=False
        )
        self.directory = directory.absolute()
        self._manager = _Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                best_fn=_mean_ap,
                # With `max_to_keep` and `best_fn`, orbax would delete the latest checkpoint.
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
                read_only=read_only,
                # These follow from `read_only`, but orbax warns if they are not given.
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
        # To finish a checkpoint takes all processes, and after an error the others may never come.
        closing = threading.Thread(target=self._manager.close, daemon=True)
        closing.start()
        closing.join(timeout=10)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the largest mAP, or None if none was evaluated."""
        best = self._manager.best_step()
        return best if best is not None and _mean_ap(self._manager.metrics(best)) >= 0 else None

    def save(
        self, step: int, state: Any, meta: dict[str, Any], *, mean_ap: float | None = None
    ) -> None:
        """Starts to write a checkpoint, after the one before is written; replaces one of this step.

        Args:
          state: a tree of arrays.
          meta: values that JSON can hold.
          mean_ap: the mAP of this state, if it was evaluated.
        """
        if step in self._manager.all_steps():
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                meta=ocp.args.JsonSave({**meta, "checksum": _checksum(state)}),
            ),
            # Always given: orbax warns of a checkpoint without metrics.
            metrics={"mAP": None if mean_ap is None or math.isnan(mean_ap) else mean_ap},
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the state and meta of one step.

        Args:
          abstract_state: a tree of jax.ShapeDtypeStruct with shardings.

        Raises:
          DamagedCheckpoint: it cannot be read, or it differs from what was written.
        """
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=items)
        except Exception as error:  # of many types: a missing file, a failed decompression, ...
            raise DamagedCheckpoint(f"{type(error).__name__}: {str(error)[:200]}") from error
        meta = dict(restored["meta"])
        if meta.pop("checksum") != _checksum(restored["state"]):
            raise DamagedCheckpoint("the content does not match its checksum")
        return restored["state"], meta

    def restore_latest(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns the latest undamaged checkpoint; None if there are no checkpoints.

        Damaged ones are logged and set aside (renamed to `<step>.damaged`), so that training writes
        that step again.

        Raises:
          UserError: all checkpoints are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, abstract_state)
            except DamagedCheckpoint as error:
                log.warning("checkpoint %d is damaged and is set aside: %s", step, error)
            if jax.process_index() == 0:
                aside = self.directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self.directory / str(step)).rename(aside)
            multihost_utils.sync_global_devices("checkpoint set aside")
            self._manager.reload()
        if steps:
            raise UserError(
                f"expected an undamaged checkpoint in {self.directory}, found only damaged ones "
                f"(steps {steps}, now renamed): start again with another --workdir"
            )
        return None


def _mean_ap(metrics: dict[str, float | None] | None) -> float:
    value = None if metrics is None else metrics["mAP"]
    return -1.0 if value is None else value  # not evaluated: below all others


def _checksum(state: Any) -> int:
    """CRC-32 of all arrays of a tree. This process must hold each array as a whole."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
