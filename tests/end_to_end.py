"""Runs of a shrunk config: in processes of their own as a user starts them, and what they leave."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from yolov1_jax.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The quickstart in seconds, with everything on that makes it hard to continue a run exactly.
SHRUNK = {
    "image_size": 64,
    "data.train": "train:28",  # three and a half batches an epoch
    "data.eval": "eval:20",
    "data.images_per_epoch": 28,
    "data.augmentation.enabled": True,
    "model.grid_size": 2,
    "model.width_multiplier": 0.125,
    "model.head_channels": 64,
    # The reference's loss and predictions.
    "model.prediction": "raw",
    "loss.box": "squared_roots",
    "loss.confidence": "squared",
    "loss.class_loss": "squared",
    "loss.class_target": "all",
    # The derivative of the square root near zero would turn rounding into chaos within few steps.
    "loss.sqrt_epsilon": 0.01,
    "train.batch_size": 8,
    "train.accumulation_steps": 2,
    "train.num_steps": 12,
    "train.log_every_steps": 2,  # so that checkpoint 3 holds half a row
    "train.eval_every_steps": 6,
    "train.checkpoint_every_steps": 3,
    "train.keep_checkpoints": 9,
    "optimizer.name": "sgd",
    # So small that a gradient that flips (see assert_same_losses) does not show in the losses.
    "optimizer.learning_rate": 2e-6,
    "optimizer.clip_norm": 10.0,
    "optimizer.weight_decay": 1e-3,
    "optimizer.schedule": "step",
    "optimizer.warmup_epochs": 0,
    "optimizer.decay_epochs": "(2,)",
    "optimizer.ema_decay": 0.5,
    "eval.protocol": "voc10",
    "eval.classes_per_box": "all",
    "eval.score_threshold": 0.02,
    "eval.batch_size": 8,
}
LOSSES = ("loss", "loss/xy", "loss/wh", "loss/object", "loss/no_object", "loss/class")


class Ended(NamedTuple):
    code: int  # negative if a signal ended the program
    out: str
    err: str


@dataclasses.dataclass
class Program:
    """`python -m yolov1_jax.main` on the CPU. What one start has compiled, the next ones reuse."""

    cache: pathlib.Path

    def start(
        self,
        workdir: pathlib.Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        num_devices: int = 1,
        num_processes: int | None = None,
        interrupt_at: str | None = None,
        by: str = "SIGKILL",
    ) -> subprocess.Popen[str]:
        """Starts a run of SHRUNK with `overrides`, by launch/local.sh if num_processes is given.

        Arguments `interrupt_at` and `by` as in interruptions/sitecustomize.py.
        """
        command = [sys.executable, "-m", "yolov1_jax.main"]
        if num_processes is not None:
            command = [str(ROOT / "launch" / "local.sh"), str(num_processes)]
        config = {**SHRUNK, **(overrides or {})}
        environment = {
            **os.environ,
            # The launch script starts "python".
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(num_devices),
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # a third of the time to compile
        }
        if interrupt_at is not None:
            environment["PYTHONPATH"] = str(ROOT / "tests" / "interruptions")
            environment["INTERRUPT"] = f"{interrupt_at}\n{by}"
        return subprocess.Popen(
            [*command, f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in config.items())],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that all its processes can be ended together
        )

    def train(self, workdir: pathlib.Path, *args: Any, **options: Any) -> Ended:
        """As `start`; waits for the end."""
        return finish(self.start(workdir, *args, **options))


def finish(process: subprocess.Popen[str], timeout: float = 300) -> Ended:
    """Waits for the end of a program; kills one that does not end, with all that it has started."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return Ended(process.returncode, out, err)


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return sorted(int(name) for name in names if name.isdigit())


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by their place in the state."""
    path = workdir / "checkpoints" / str(step) / "state"
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(path).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    state = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    handler.close()
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(where, simple=True, separator="/"): leaf for where, leaf in leaves}


def rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the speed."""
    found = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in found]


def evaluations(workdir: pathlib.Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in (workdir / "eval").glob("*")}


def assert_same_run(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    """Both came to the same end the same way: metrics, results and final state, bit for bit."""
    assert rows(workdir) == rows(reference)
    assert evaluations(workdir) == evaluations(reference)
    last_step = checkpoint_steps(reference)[-1]
    assert checkpoint_steps(workdir)[-1] == last_step
    assert_same_arrays(workdir, reference, last_step)


def assert_same_arrays(workdir: pathlib.Path, reference: pathlib.Path, step: int) -> None:
    ours, theirs = arrays(workdir, step), arrays(reference, step)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name, strict=True)


def assert_same_losses(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    """The promise for other numbers of devices and processes: the losses are equal up to rounding.

    Gradients are not: where rounding makes an activation or the better of two boxes change sides,
    they jump. Hence the small learning rate, and only six steps.
    """
    for one, other in zip(rows(workdir)[:3], rows(reference)[:3], strict=True):
        assert (one["split"], one["step"]) == (other["split"], other["step"])
        for term in LOSSES:
            assert one[term] == pytest.approx(other[term], rel=1e-5, abs=1e-5 * other["loss"])
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=0.02)
    ours, theirs = arrays(workdir, 6), arrays(reference, 6)
    statistics = [name for name in theirs if name.startswith("batch_stats/")]
    assert len(statistics) > 40
    for name in statistics:
        scale = np.abs(theirs[name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5 * scale)
