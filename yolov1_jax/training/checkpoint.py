"""Checkpoints of the training state; the only file that imports orbax.

<directory>/<step>/ holds the state; `meta`, a JSON value of the loop; and `metrics`, the score.
Saving is asynchronous: the state is copied first and written while training continues. A checkpoint
gets its name only when it is complete, so a half-written one is never read. The latest ones and the
best by score are kept.
"""

import contextlib
import errno
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from yolov1_jax.config import UserError
from yolov1_jax.training.run_folder import checkpoint_steps, write_text

log = logging.getLogger(__name__)
# Orbax works on several arrays at once and raises one of their errors. What it logs of that one,
# and what asyncio logs and Python prints of the others, says nothing new.
_FROM_ORBAX = re.compile("orbax|tensorstore|OCDBT|Event loop is closed", re.IGNORECASE)
_text_of = logging.Formatter().format  # the message and the traceback
logging.getLogger("absl").addFilter(lambda record: not _FROM_ORBAX.search(record.pathname))
logging.getLogger("asyncio").addFilter(lambda record: not _FROM_ORBAX.search(_text_of(record)))
_print_unraisable = sys.unraisablehook


def _print_if_not_from_orbax(unraisable: Any) -> None:
    if not _FROM_ORBAX.search("".join(traceback.format_exception(unraisable.exc_value))):
        _print_unraisable(unraisable)


sys.unraisablehook = _print_if_not_from_orbax

# Orbax takes brackets and stars in a path for a pattern, a backslash for a slash, /gs for a cloud,
# and no bytes that are not UTF-8.
_PLAIN_PATH = re.compile(r"(?!(gs|s3|az|hf)(/|$))[\w/. +,=@~-]*")
# Orbax's name for a checkpoint until it is complete; also that of one while it is deleted.
_UNFINISHED = ".orbax-checkpoint-tmp"


class DamagedCheckpoint(Exception):
    """The content of a checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for the last write.

    `keep`: how many of the latest checkpoints stay; the best one stays besides.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2) -> None:
        self.directory, self._keep = directory.absolute(), keep
        self._writing: int | None = None  # step of the checkpoint that is being written
        self._stack = contextlib.ExitStack()
        self._path = self._stack.enter_context(_plain_path(self.directory))
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.StandardCheckpointHandler(),
                meta=ocp.JsonCheckpointHandler(),
                metrics=ocp.JsonCheckpointHandler(filename="metrics"),
            ),
            # Processes wait for each other's writes, and one of them may have failed.
            async_options=ocp.options.AsyncOptions(timeout_secs=300),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is not None and jax.process_count() > 1:
                return  # writing takes all processes, and others may never come
            # The first error tells more than one that follows it.
            with contextlib.suppress(Exception) if kind is not None else contextlib.nullcontext():
                self.wait()
                self._writer.close()

    def steps(self) -> list[int]:
        return checkpoint_steps(self.directory)

    def best_step(self) -> int | None:
        """The step of the largest score; None if none was evaluated. Passes over damaged ones."""
        found = []
        for step in self.steps():
            try:
                _, score = self._read_info(step)
            except DamagedCheckpoint as error:
                if (self.directory / str(step)).exists():  # a run at work may just have deleted it
                    log.warning("checkpoint %d is damaged and is passed over: %s", step, error)
            else:
                found += [(score, step)] if score is not None else []
        return max(found)[1] if found else None

    def save(
        self, step: int, state: Any, meta: dict[str, Any], *, score: float | None = None
    ) -> None:
        """Starts to write a checkpoint, after the one before is written.

        If this step is saved already, only its meta and score are written anew. Raises OSError if
        it or the one before cannot be written, for example to a full disk.

        Args:
          state: a tree of arrays.
          meta: values that JSON can hold.
          score: of this state, if it was evaluated: mAP, top-1.
        """
        self.wait()
        metrics = {"score": None if score is None or math.isnan(score) else score}
        if step in self.steps():
            if jax.process_index() == 0:
                folder = self.directory / str(step)
                meta = {**meta, "checksum": self._read_info(step)[0]["checksum"]}
                write_text(folder / "metrics" / "metrics", json.dumps(metrics))
                write_text(folder / "meta" / "metadata", json.dumps(meta))
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._writing = step
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({**meta, "checksum": _checksum(state)}),
            metrics=ocp.args.JsonSave(metrics),
        )
        self._write(lambda: self._writer.save(self._path / str(step), args=args))

    def wait(self) -> None:
        """Returns when everything saved so far is on disk; OSError if it cannot be written."""
        if self._writing is None:
            return
        self._write(self._writer.wait_until_finished)
        self._writing = None
        if jax.process_index() == 0:
            kept = {*self.steps()[-self._keep :], self.best_step()}
            for step in set(self.steps()) - kept:
                (self.directory / str(step)).rename(self.directory / f"{step}{_UNFINISHED}")
            self._remove_unfinished()

    def _write(self, call: Callable[[], None]) -> None:
        try:
            return call()
        except Exception as error:
            failure = _cause_outside(error, self.directory / str(self._writing))
            if failure is None:
                raise
        # Not within `except`: the exceptions of orbax would keep its unfinished work alive.
        self._writing = None
        self._remove_unfinished()
        raise failure

    def _remove_unfinished(self) -> None:
        if jax.process_index() == 0:
            for path in self.directory.glob(f"[0-9]*{_UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """The state and meta of a step; `abstract_state`: jax.ShapeDtypeStruct with shardings.

        Raises:
          DamagedCheckpoint: its content cannot be read, or differs from what was written.
          UserError: it holds arrays of other names or shapes.
          Exception: what Orbax raises where the cause is not its content, as no memory.
        """
        meta, _ = self._read_info(step)
        folder = self._path / str(step) / "state"
        failure: Exception | None = None
        try:
            with ocp.StandardCheckpointer() as reader:
                stored = reader.metadata(folder).item_metadata  # None for an error of any kind
                difference = _difference(stored.tree, abstract_state) if stored else ""
                if not difference:
                    state = reader.restore(folder, abstract_state)
        except Exception as error:  # of many types: a missing file, a failed decompression, ...
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            failure = _cause_outside(error, self.directory / str(step)) or DamagedCheckpoint(text)
        if failure is not None:  # not within `except`, see `_write`
            raise failure
        if difference:
            raise UserError(
                f"checkpoint {step} in {self.directory} is of another model or optimizer "
                f"({difference}): choose another --workdir, or the settings of that run"
            )
        if meta.pop("checksum") != _checksum(state):
            raise DamagedCheckpoint("the content does not match its checksum")
        return state, meta

    def restore_latest(self, abstract_state: Any) -> tuple[Any, dict[str, Any]] | None:
        """Returns the latest undamaged checkpoint; None if there are no checkpoints.

        Damaged ones are logged and set aside (renamed to `<step>.damaged`), so that training writes
        that step again. What an interrupted write has left is removed.

        Raises:
          UserError: all checkpoints are damaged, or of another model.
          Exception: see `restore`.
        """
        self._remove_unfinished()
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, abstract_state)
            except DamagedCheckpoint as error:
                log.warning("checkpoint %d is damaged and is set aside: %s", step, error)
            multihost_utils.sync_global_devices("checkpoint is damaged")  # nobody reads it now
            if jax.process_index() == 0:
                aside = self.directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)  # from an earlier time
                (self.directory / str(step)).rename(aside)
        if steps:
            raise UserError(
                f"expected an undamaged checkpoint in {self.directory}, found only damaged ones "
                f"(steps {steps}, now renamed): start again with another --workdir"
            )
        return None

    def _read_info(self, step: int) -> tuple[dict[str, Any], float | None]:
        """The meta, with its checksum, and the score; DamagedCheckpoint if they cannot be read."""
        # Orbax itself reads the first.
        files = ("_CHECKPOINT_METADATA", "meta/metadata", "metrics/metrics")
        try:
            _, meta, metrics = (
                dict(json.loads((self.directory / str(step) / file).read_bytes())) for file in files
            )
            (score,) = metrics.values()  # "mAP" in older runs
            return {**meta, "checksum": int(meta["checksum"])}, score
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise DamagedCheckpoint(f"{error.filename} is missing") from error
        except (ValueError, LookupError, TypeError) as error:
            raise DamagedCheckpoint(f"{type(error).__name__} in {', '.join(files)}") from error


@contextlib.contextmanager
def _plain_path(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path of a directory that orbax understands: its own, or that of a temporary link."""
    if _PLAIN_PATH.fullmatch(directory.relative_to(directory.anchor).as_posix()):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="yolov1_jax-") as folder:
        link = pathlib.Path(folder, "checkpoints")
        link.symlink_to(directory, target_is_directory=True)
        yield link


# Errors of the system that a lost part of a checkpoint causes.
_PART_IS_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


def _cause_outside(error: Exception, path: pathlib.Path) -> Exception | None:
    """What to raise for an exception of orbax that does not come from a checkpoint's content.

    Orbax wraps interrupts, lack of memory and OSErrors; tensorstore quotes the numbers of the last.
    """
    text = "".join(traceback.format_exception(error))
    if re.search("KeyboardInterrupt|SystemExit|MemoryError|JaxRuntimeError", text):
        return error
    for digits in re.findall(r"(?:\[Errno |os_error_code=')(\d+)", text):
        if int(digits) not in _PART_IS_MISSING:
            return OSError(int(digits), os.strerror(int(digits)), str(path))
    return None


def _difference(stored: Any, wanted: Any) -> str:
    """The first array whose name, shape or type differs between two trees; else empty."""
    found, asked = (
        {
            f"{jax.tree_util.keystr(path, simple=True, separator='/')} {leaf.shape} {leaf.dtype}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if hasattr(leaf, "shape")
        }
        for tree in (stored, wanted)
    )
    return min(found ^ asked, default="")


def _checksum(state: Any) -> int:
    """CRC-32 of all arrays of a tree. This process must hold each array as a whole."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
