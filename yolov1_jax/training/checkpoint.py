"""Checkpoints of the training state; the only file that imports orbax.

<directory>/<step>/ holds the state; `meta`, a JSON value of the loop; and `metrics`, the mAP.
Saving is asynchronous: the state is copied first and written while training continues. A checkpoint
gets its name only when it is complete, so a half-written one is never read. The latest ones and the
best by mAP are kept.
"""

import contextlib
import errno
import gc
import itertools
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from yolov1_jax.config import RunError, UserError
from yolov1_jax.training.run_folder import numbered_folders, write_text

log = logging.getLogger(__name__)
# Orbax logs what it raises as well, with tracebacks, and warns of options that were chosen on
# purpose. It works on several arrays at once and raises one of their errors; asyncio logs the rest.
_FROM_ORBAX = re.compile("orbax|tensorstore|Event loop is closed", re.IGNORECASE)
logging.getLogger("absl").addFilter(lambda record: not _FROM_ORBAX.search(record.pathname))
logging.getLogger("asyncio").addFilter(lambda record: not _FROM_ORBAX.search(record.getMessage()))

# Orbax takes brackets and stars in a path for a pattern, a backslash for a slash, /gs for a cloud,
# and no bytes that are not UTF-8.
_PLAIN_PATH = re.compile(r"(?!(gs|s3|az|hf)(/|$))[\w/. +,=@~-]*")
# Orbax's name for a checkpoint until it is complete; also that of one while it is deleted.
_UNFINISHED = ".orbax-checkpoint-tmp"


class DamagedCheckpoint(Exception):
    """The content of a checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for the last write.

    Args:
      directory: made if missing.
      keep: how many of the latest checkpoints stay; the best one stays besides.
      read_only: nothing is made or changed.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2, read_only: bool = False) -> None:
        self.directory, self._keep = directory.absolute(), keep
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_without_echoes())
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
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
        self._writing: tuple[int, int] | None = None  # step, and bytes of its arrays

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self.wait()
                self._writer.close()
            elif jax.process_count() == 1:
                with contextlib.suppress(Exception):  # the first error tells more
                    self.wait()
                    self._writer.close()
            else:
                # To finish a checkpoint takes all processes; after an error, others may never come.
                closing = threading.Thread(target=self._writer.close, daemon=True)
                closing.start()
                closing.join(timeout=10)

    def steps(self) -> list[int]:
        return numbered_folders(self.directory)

    def best_step(self) -> int | None:
        """The step of the largest mAP, or None if none was evaluated. Passes over damaged ones."""
        found = []
        for step in self.steps():
            try:
                _, mean_ap = self._read_info(step)
            except DamagedCheckpoint as error:
                if (self.directory / str(step)).exists():  # a run at work may just have deleted it
                    log.warning("checkpoint %d is damaged and is passed over: %s", step, error)
            else:
                found += [(mean_ap, step)] if mean_ap is not None else []
        return max(found)[1] if found else None

    def save(
        self, step: int, state: Any, meta: dict[str, Any], *, mean_ap: float | None = None
    ) -> None:
        """Starts to write a checkpoint, after the one before is written.

        If this step is saved already, only its meta and mAP are written anew.

        Args:
          state: a tree of arrays.
          meta: values that JSON can hold.
          mean_ap: the mAP of this state, if it was evaluated.

        Raises:
          RunError: it or the one before cannot be written, for example to a full disk.
        """
        self.wait()
        metrics = {"mAP": None if mean_ap is None or math.isnan(mean_ap) else mean_ap}
        if step in self.steps():
            checksum = self._read_info(step)[0]["checksum"]
            multihost_utils.sync_global_devices("checkpoint read")
            if jax.process_index() == 0:
                folder = self.directory / str(step)
                write_text(folder / "metrics" / "metrics", json.dumps(metrics))
                write_text(folder / "meta" / "metadata", json.dumps({**meta, "checksum": checksum}))
            multihost_utils.sync_global_devices("checkpoint written")
            return
        self._writing = step, sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({**meta, "checksum": _checksum(state)}),
            metrics=ocp.args.JsonSave(metrics),
        )
        self._write(lambda: self._writer.save(self._path / str(step), args=args))

    def wait(self) -> None:
        """Returns when everything saved so far is on disk.

        Raises:
          RunError: it cannot be written.
        """
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
            cause = _cause_outside(error)
            if not isinstance(cause, OSError):
                raise
        # Not within `except`: the exceptions of orbax would keep its unfinished work alive.
        assert self._writing is not None
        (step, size), self._writing = self._writing, None
        self._remove_unfinished()
        steps = self.steps()
        safe = f"the checkpoint of step {steps[-1]} is safe" if steps else "there is none yet"
        raise RunError(
            f"expected to write the checkpoint of step {step} ({size / 1e6:,.1f} MB) in "
            f"{self.directory}, found: {cause.strerror}; {safe}: mend this, and the same "
            "command continues"
        )

    def _remove_unfinished(self) -> None:
        if jax.process_index() == 0:
            for path in self.directory.glob(f"[0-9]*{_UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
        """Returns the state and meta of one step.

        Args:
          abstract_state: a tree of jax.ShapeDtypeStruct with shardings.

        Raises:
          DamagedCheckpoint: its content cannot be read, or differs from what was written.
          UserError: it holds arrays of other names or shapes.
          OSError, MemoryError: it cannot be read for a reason that is not its content.
        """
        meta, _ = self._read_info(step)
        folder = self._path / str(step) / "state"
        failure: BaseException | None = None
        try:
            with ocp.StandardCheckpointer() as reader:
                stored = reader.metadata(folder).item_metadata  # None for an error of any kind
                difference = _difference(stored.tree, abstract_state) if stored else ""
                if not difference:
                    state = reader.restore(folder, abstract_state)
        except Exception as error:  # of many types: a missing file, a failed decompression, ...
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            failure = _cause_outside(error, _PART_IS_MISSING) or DamagedCheckpoint(text)
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
        that step again.

        Raises:
          UserError: all checkpoints are damaged, or of another model.
          OSError, MemoryError: see `restore`.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, abstract_state)
            except DamagedCheckpoint as error:
                log.warning("checkpoint %d is damaged and is set aside: %s", step, error)
            multihost_utils.sync_global_devices("checkpoint is damaged")
            if jax.process_index() == 0:
                names = (f"{step}.damaged{number or ''}" for number in itertools.count())
                aside = next(name for name in names if not (self.directory / name).exists())
                (self.directory / str(step)).rename(self.directory / aside)
            multihost_utils.sync_global_devices("checkpoint set aside")
        if steps:
            raise UserError(
                f"expected an undamaged checkpoint in {self.directory}, found only damaged ones "
                f"(steps {steps}, now renamed): start again with another --workdir"
            )
        return None

    def _read_info(self, step: int) -> tuple[dict[str, Any], float | None]:
        """The meta, with its checksum, and the mAP; DamagedCheckpoint if they cannot be read."""
        folder = self.directory / str(step)
        _read_json(folder / "_CHECKPOINT_METADATA")  # orbax's own
        meta = _read_json(folder / "meta" / "metadata")
        mean_ap = _read_json(folder / "metrics" / "metrics").get("mAP", math.nan)
        if not isinstance(meta.get("checksum"), int) or not (
            mean_ap is None or (isinstance(mean_ap, float | int) and 0 <= mean_ap <= 1)
        ):
            raise DamagedCheckpoint("meta or metrics are not what was written")
        return meta, mean_ap


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        raise DamagedCheckpoint(f"{type(error).__name__} in {path.name}") from error
    if not isinstance(value, dict):
        raise DamagedCheckpoint(f"{path.name} is no JSON object")
    return value


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


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Python prints exceptions that nobody waits for; those of orbax have been raised already."""
    previous, dropped = sys.unraisablehook, False

    def hook(unraisable: Any) -> None:
        nonlocal dropped
        if _FROM_ORBAX.search("".join(traceback.format_exception(unraisable.exc_value))):
            dropped = True
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        gc.collect()
        if dropped:
            time.sleep(0.2)  # more may come
        sys.unraisablehook = previous


# Errors of the system that a lost part of a checkpoint causes.
_PART_IS_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


def _cause_outside(error: BaseException, content: Collection[int] = ()) -> BaseException | None:
    """The interrupt, OSError, or lack of memory behind an exception; None if there is none.

    Orbax wraps them all, KeyboardInterrupt too, and tensorstore names the system's error in text.
    `content`: the errno of errors that do not count, because damaged content causes them.
    """
    not_of_content = KeyboardInterrupt, SystemExit, MemoryError, jax.errors.JaxRuntimeError
    chain = [error]
    for each in chain:  # which grows
        if isinstance(each, not_of_content):
            return each.with_traceback(None)
        number = each.errno if isinstance(each, OSError) else None
        if match := re.search(r"os_error_code='(\d+)'", str(each)):
            number = int(match[1])
        if number is not None and number not in content:
            return OSError(number, os.strerror(number), getattr(each, "filename", None))
        behind = (each.__cause__, each.__context__)
        chain += [one for one in behind if one is not None and one not in chain]
    return None


def _difference(stored: Any, wanted: Any) -> str:
    """The first array whose name, shape or type differs between two trees; else empty."""

    def arrays(tree: Any) -> dict[str, tuple[Any, str]]:
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): (leaf.shape, str(leaf.dtype))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if hasattr(leaf, "shape")
        }

    found, asked = arrays(stored), arrays(wanted)
    for name in sorted(found.keys() | asked.keys()):
        if found.get(name) != asked.get(name):
            return f"{name} is {found.get(name)} there and {asked.get(name)} here"
    return ""


def _checksum(state: Any) -> int:
    """CRC-32 of all arrays of a tree. This process must hold each array as a whole."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
