"""The run folder: config.json, and the places of everything else.

<workdir>/config.json        resolved config, class names, versions of the libraries, device
<workdir>/metrics.jsonl      one JSON object per row, train and eval
<workdir>/checkpoints/<step> latest, and best by mAP
<workdir>/eval/<step>.json   results of an evaluation
<workdir>/report/            pictures
<workdir>/tensorboard/
"""

import contextlib
import glob
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.config import UserError

log = logging.getLogger(__name__)

_PACKAGES = ("yolov1_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def checkpoints_dir(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "checkpoints"


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    names = glob.glob("[0-9]*", root_dir=checkpoints_dir(workdir))
    return [int(name) for name in names if name.isdecimal()]  # without "3.damaged"


def metrics_path(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "metrics.jsonl"


def make(workdir: pathlib.Path) -> None:
    """Makes the folder and tries to write in it; UserError if that fails."""
    with _writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workdir).close()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that after a crash it holds its old content or the new, never a part.

    Raises:
      UserError: it cannot be written there.
    """
    temporary = path.parent / f"{path.name}.{os.getpid()}.tmp"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"expected to write {path}, found: {error.strerror}; choose another place"
        ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """`write_text` for a JSON value."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_run(workdir: pathlib.Path, config: ConfigDict, num_steps: int) -> None:
    """Compares a config with the run in the folder, if that has checkpoints.

    Raises:
      UserError: they are of another model or optimizer, or of more steps than `num_steps`; the
        folder's config.json would then describe another training than that of the weights.
    """
    steps = checkpoint_steps(workdir)
    if not steps or not (workdir / "config.json").exists():
        return
    after = configs.flatten(config)
    # A key that an older run lacks was what is now its default.
    differences = [
        (f"config.{key}={old!r}", repr(after.get(key)))
        for key, old in configs.flatten(read_config(workdir)).items()
        if _in_state(key, old) != _in_state(key, after.get(key))
    ]
    if max(steps) > num_steps:
        differences.append((f"{max(steps):,} steps", f"{num_steps:,}"))
    for found, wanted in differences:
        raise UserError(
            f"{workdir} holds a run with {found}, this command asks for {wanted}: choose another "
            "--workdir, or the settings of that run"
        )


def _in_state(key: str, value: Any) -> Any:
    """What of a setting decides the shapes or the meaning of the arrays in a checkpoint."""
    if key in ("optimizer.ema_decay", "optimizer.clip_norm"):
        return value is not None  # whether the optimizer has this part, and so its arrays
    if key == "train.accumulation_steps":
        return value > 1
    if key.startswith("model.") and not key.startswith("model.pretrained"):  # files may move
        return value
    names = ("image_size", "optimizer.name", "loss.xy_unit", "loss.class_loss")
    return value if key in names else None


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes config.json and logs how it differs from that of the run before."""
    path = workdir / "config.json"
    if path.exists():
        before, after = configs.flatten(read_config(workdir)), configs.flatten(config)
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                log.warning("config.%s was %r, is now %r", key, before.get(key), after.get(key))
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
    try:
        return configs.from_json(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"expected the config.json of a run in {workdir}, found {type(error).__name__}: "
            f"{error}; restore it, or give the --workdir of a run that yolov1_jax.main started"
        ) from error
