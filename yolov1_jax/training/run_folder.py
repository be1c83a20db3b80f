"""The run folder: config.json, and the places of everything else.

<workdir>/config.json        resolved config, class names, versions of the libraries, device
<workdir>/metrics.jsonl      one JSON object per row, train and eval
<workdir>/checkpoints/<step> latest, and best by mAP or top-1
<workdir>/eval/<step>.json   results of an evaluation
<workdir>/splits/            the image ids of own data in each split
<workdir>/report/            pictures
<workdir>/tensorboard/
"""

import contextlib
import errno
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import filelock
import jax
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.config import UserError
from yolov1_jax.training.sharding import agreed, start_devices

log = logging.getLogger(__name__)

_PACKAGES = ("yolov1_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def checkpoints_dir(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "checkpoints"


def checkpoint_steps(checkpoints: pathlib.Path) -> list[int]:
    """The steps in a `checkpoints_dir`, ascending; OSError if it is there and cannot be read."""
    try:
        names = [entry.name for entry in os.scandir(checkpoints) if entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def metrics_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "metrics.jsonl"


def make(workdir: pathlib.Path) -> None:
    """Makes the folder and tries to write in it; UserError if that fails."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as error:
        raise UserError(
            f"expected to write in {workdir}, found: {error.strerror}; choose another place"
        ) from error


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps the folder for this run until the process ends, however it ends.

    All processes of a run call it; `evaluate` and `predict`, which only read, do not. Raises
    UserError if another run has the folder.
    """
    held, free = filelock.FileLock(workdir / ".lock"), True
    if jax.process_index() == 0:
        try:
            held.acquire(blocking=False)
        except filelock.Timeout:
            free = False
        except (OSError, NotImplementedError) as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): start no second run in it", workdir, error)
    if not agreed(free):
        raise UserError(
            f"expected a run folder of its own, found another run at work in {workdir}: wait for "
            "its end, stop it, or choose another --workdir"
        )
    try:
        yield
    finally:
        held.release()


def check_space(workdir: pathlib.Path, num_bytes: int) -> None:
    """Raises OSError unless the disk of the folder has room for so many bytes."""
    free = shutil.disk_usage(workdir).free
    if free < num_bytes:
        found = f"{free / 1e6:,.1f} MB free for a checkpoint of {num_bytes / 1e6:,.1f} MB"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {found}", str(workdir))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that after a crash it holds its old content or the new, never a part."""
    # A name in a foreign file may have half a surrogate pair, which UTF-8 has no bytes for.
    content = text.encode("utf-8", errors="backslashreplace")
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a new path, and moves what was written there to `path` if nothing was raised."""
    # A short name, because that of `path` may be as long as the system allows.
    temporary = path.parent / f".{os.getpid()}{path.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """`write_text` for a JSON value."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_run(
    workdir: pathlib.Path, config: ConfigDict, num_steps: int, prediction: str | None = None
) -> None:
    """Compares a config with the run in the folder, if that has checkpoints.

    Raises UserError if these are of another model or optimizer, or of more steps than `num_steps`:
    config.json would then describe another training than that of the weights. `prediction`:
    config.model.prediction of a checkpoint, which its arrays do not show if config.json was lost.
    """
    steps = checkpoint_steps(checkpoints_dir(workdir))
    if not steps:
        return
    known, after = _config_before(workdir), configs.flatten(config)
    if prediction is not None:
        known["model.prediction"] = prediction
    differences = [
        (f"config.{key}={before!r}", repr(after.get(key)))
        for key, before in known.items()
        if _in_state(key, before) != _in_state(key, after.get(key))
    ]
    if max(steps) > num_steps:
        differences.append((f"{max(steps):,} steps", f"{num_steps:,}"))
    if differences:
        found, wanted = differences[0]
        raise UserError(
            f"{workdir} holds a run with {found}, this command asks for {wanted}: choose another "
            "--workdir, or the settings of that run"
        )


def _config_before(workdir: pathlib.Path) -> dict[str, Any]:
    """The flat config of the run in a folder; empty if there is none, or if it is damaged."""
    with contextlib.suppress(UserError):
        return configs.flatten(read_config(workdir))
    return {}


def _in_state(key: str, value: Any) -> Any:
    """What of a setting decides the shapes or the meaning of the arrays in a checkpoint."""
    if key in ("optimizer.ema_decay", "optimizer.clip_norm"):
        return value is not None  # whether the optimizer has this part, and so its arrays
    if key == "train.accumulation_steps":
        return value > 1
    if key.startswith("model.") and not key.startswith("model.pretrained"):  # files may move
        return value
    names = ("task", "image_size", "optimizer.name", "loss.xy_unit", "loss.class_loss")
    return value if key in names else None


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes config.json and logs how it differs from that of the run before."""
    path = workdir / "config.json"
    before, after = _config_before(workdir), configs.flatten(config)
    if before:
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                log.warning("config.%s was %r, is now %r", key, before.get(key), after.get(key))
    elif path.exists():
        log.warning("%s cannot be read: it is written anew, with the config of this command", path)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    about = {"versions": versions, "device": start_devices()}
    write_json(path, {"config": configs.to_json(config), **about})


def read_config(workdir: pathlib.Path) -> ConfigDict:
    """The config of the run in a folder, with its class names.

    Raises UserError if there is none, it cannot be read, or a value in it cannot be right.
    """
    path = workdir / "config.json"
    advice = "the same train command as before writes it anew, beside its checkpoints"
    if not path.exists():
        raise UserError(
            f"expected a run folder, found no config.json in {workdir}: give the --workdir of a run"
            + (f", or {advice}" if checkpoint_steps(checkpoints_dir(workdir)) else "")
        )
    try:
        config = configs.from_json(json.loads(path.read_text(encoding="utf-8"))["config"])
        configs.check(config)
        if not config.model.class_names:
            raise ValueError("config.model.class_names is empty")
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}".removeprefix("UserError: ")
        raise UserError(f"{path} is damaged or was changed ({found}): {advice}") from error
    return config
