"""The run folder: config.json, and the places of everything else.

<workdir>/config.json        resolved config, class names, versions of the libraries, device
<workdir>/metrics.jsonl      a JSON object per row, train and eval
<workdir>/checkpoints/<step> latest, and best by mAP
<workdir>/eval/<step>.json   results of an evaluation
<workdir>/report/            pictures
<workdir>/tensorboard/
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.errors import UserError

log = logging.getLogger(__name__)

_PACKAGES = ("yolov1_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# What makes a checkpoint's arrays others, or mean something else: never changed in the middle of a
# run. Of the last three it matters only whether they are in use.
_FIXED = ("model", "image_size", "optimizer.name", "loss.xy_unit", "loss.class_loss")
# But not what only the first step has read: files may move.
_ONLY_AT_START = ("model.pretrained", "model.pretrained_format")
_FIXED_USE = {
    "optimizer.ema_decay": lambda value: value is not None,
    "optimizer.clip_norm": lambda value: value is not None,
    "train.accumulation_steps": lambda value: value is not None and value > 1,
}


def checkpoints_dir(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "checkpoints"


def has_checkpoints(workdir: pathlib.Path) -> bool:
    directory = checkpoints_dir(workdir)
    return os.path.isdir(directory) and any(directory.glob("[0-9]*"))  # also of any odd path


def metrics_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "metrics.jsonl"


def make(workdir: pathlib.Path) -> None:
    """Makes the folder, and looks whether files can be written there.

    Raises:
      UserError: they cannot.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()
    except OSError as error:
        raise UserError(
            f"expected a --workdir to write in, found {workdir}: {error.strerror}; choose another"
        ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file that is either there and whole, or not there.

    Raises:
      UserError: it cannot be written there.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if not path.name:
        raise UserError(f"expected the path of a file to write, found {str(path)!r}: name a file")
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"expected to write {path}, found: {error.strerror}; choose another place"
        ) from error


def check_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Compares a config with the one that a run here has left; `write_config` does so as well.

    Raises:
      UserError: the folder holds a run of another model.
    """
    if (workdir / "config.json").exists():
        _compare(workdir, read_config(workdir), config, warn=False)


def write_config(
    workdir: pathlib.Path, config: ConfigDict, *, is_main_process: bool = True
) -> None:
    """Writes config.json, after comparing it with the one that a run here has left.

    Every process compares, so that all of them refuse a folder; the main process writes.

    Raises:
      UserError: the folder holds a run of another model.
    """
    path = workdir / "config.json"
    if path.exists():
        _compare(workdir, read_config(workdir), config, warn=is_main_process)
    if not is_main_process:
        return
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.default_backend() == "cpu":
        device += f", {os.cpu_count()} cores"
    write_json(path, {"config": configs.to_json(config), "versions": versions, "device": device})


def read_config(workdir: pathlib.Path) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = workdir / "config.json"
    if not os.path.isfile(path):  # also of a path that is too long to be one
        raise UserError(
            f"expected the config.json of a run in {workdir}, found none: give the --workdir of a "
            "run that was started with yolov1_jax.main"
        )
    try:
        return configs.from_json(json.loads(path.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"expected a run's config in {path}, found {type(error).__name__}: {error}; "
            "start again with another --workdir"
        ) from error


def check_length(workdir: pathlib.Path, steps: Sequence[int], num_steps: int) -> None:
    """Refuses to end a run before the last of its checkpointed `steps`.

    Its config.json would then tell of another training than that of the weights.

    Raises:
      UserError: the run is longer than `num_steps`.
    """
    if steps and max(steps) > num_steps:
        raise UserError(
            f"{workdir} holds a run that has made {max(steps):,} steps, this command asks for "
            f"{num_steps:,}: choose another --workdir, or train.num_epochs or num_steps of at "
            "least as many; yolov1_jax.evaluate --step=N evaluates an earlier checkpoint"
        )


def _compare(workdir: pathlib.Path, old: ConfigDict, new: ConfigDict, *, warn: bool) -> None:
    before, after = configs.flatten(old), configs.flatten(new)
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    fixed = [
        key
        for key in changed
        if key in before  # else the run is older than the key, and has what is now its default
        and key not in _ONLY_AT_START
        and (
            key in _FIXED
            or key.split(".")[0] in _FIXED
            or (key in _FIXED_USE and _FIXED_USE[key](before[key]) != _FIXED_USE[key](after[key]))
        )
    ]
    # A run that failed before its first checkpoint, of a wrong setting maybe, binds nobody.
    if fixed and has_checkpoints(workdir):
        key = fixed[0]
        raise UserError(
            f"{workdir} holds a run with config.{key}={before.get(key)!r}, this command asks for "
            f"{after.get(key)!r}: choose another --workdir, or the config of that run"
        )
    for key in changed if warn else ():
        log.warning("config.%s was %r, is now %r", key, before.get(key), after.get(key))
