"""Starts the real program, as a user does, on a shrunk config, and reads what it leaves behind."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from yolov1_jax.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]

# configs/quickstart.py in seconds. Everything that shapes the result is set here, because the
# quickstart may be tuned; whatever makes a resumed run hard to continue exactly is switched on.
SHRUNK = {
    "image_size": 64,
    "data.train": "train:28",  # three and a half batches an epoch
    "data.eval": "eval:20",
    "data.images_per_epoch": 28,
    "data.augmentation.enabled": True,
    "model.grid_size": 2,
    "model.width_multiplier": 0.125,
    "model.head_channels": 64,
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
    # So small that a gradient that flips (see assert_same_losses) does not show in the losses; the
    # updates themselves do.
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
# A run that ends only when it is told to.
ENDLESS = {
    "train.log_every_steps": 1,
    "train.num_steps": 1_000_000,
    "train.eval_every_steps": 1_000_000,
    "train.checkpoint_every_steps": 1_000_000,
}


@dataclasses.dataclass(frozen=True)
class Interruption:
    """See interruptions/sitecustomize.py."""

    at: str
    by: str = "SIGKILL"
    argument: str | None = None


class Program:
    """`python -m yolov1_jax.main` on the CPU. What one start has compiled, the next ones reuse."""

    def __init__(self, cache: pathlib.Path) -> None:
        self.cache = cache

    def start(
        self,
        workdir: pathlib.Path,
        overrides: Mapping[str, Any] | None = None,
        *,
        num_devices: int = 1,
        num_processes: int | None = None,
        interruption: Interruption | None = None,
    ) -> subprocess.Popen[str]:
        """Starts a run of SHRUNK with `overrides`; by launch/local.sh if num_processes is given."""
        config = {**SHRUNK, **(overrides or {})}
        flags = [f"--config.{key}={value}" for key, value in config.items()]
        return self.start_with(
            [f"--workdir={workdir}", *flags], num_devices, num_processes, interruption
        )

    def start_with(
        self,
        arguments: Sequence[str],
        num_devices: int = 1,
        num_processes: int | None = None,
        interruption: Interruption | None = None,
    ) -> subprocess.Popen[str]:
        if num_processes is None:
            command = [sys.executable, "-m", "yolov1_jax.main"]
        else:
            command = [str(ROOT / "launch" / "local.sh"), str(num_processes)]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=self._environment(num_devices, interruption),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that all its processes can be ended together
        )

    def train(self, workdir: pathlib.Path, *args: Any, **options: Any) -> "Ended":
        """As `start`; waits for the end."""
        return finish(self.start(workdir, *args, **options))

    def _environment(self, num_devices: int, interruption: Interruption | None) -> dict[str, str]:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("JAX_")},
            # The launch script starts "python".
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(num_devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            # Compiles in a third of the time, for networks that run in no time anyhow.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }
        if interruption is not None:
            environment["PYTHONPATH"] = str(pathlib.Path(__file__).parent / "interruptions")
            environment["INTERRUPT_AT"] = interruption.at
            environment["INTERRUPT_BY"] = interruption.by
            if interruption.argument is not None:
                environment["INTERRUPT_ARG"] = interruption.argument
        return environment


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a program has ended; `code` is negative if a signal ended it."""

    code: int
    out: str
    err: str


def finish(process: subprocess.Popen[str], timeout: float = 300) -> Ended:
    """Waits for the end of a program; one that does not end is killed, and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        end(process)
    return Ended(process.returncode, out, err)


def end(process: subprocess.Popen[str]) -> None:
    """Ends a program with all that it has started, if it still runs."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 300
) -> None:
    """Returns when the condition holds; fails if the program ends before that."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the program has ended: {process.communicate()}")
        if time.monotonic() > deadline:
            end(process)
            raise AssertionError("it never came to that")
        time.sleep(0.01)


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
    timeless = []
    for row in read_metrics(workdir / "metrics.jsonl"):
        row.pop("images_per_second", None)
        timeless.append(row)
    return timeless


def evaluations(workdir: pathlib.Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in (workdir / "eval").glob("*")}


def assert_same_run(
    workdir: pathlib.Path, reference: pathlib.Path, last_step: int | None = None
) -> None:
    """Both came to the same end the same way: metrics, results and final state, bit for bit.

    With `last_step`, the run in `workdir` is compared with as much of the reference.
    """
    last_step = last_step or checkpoint_steps(reference)[-1]
    assert rows(workdir) == [row for row in rows(reference) if row["step"] <= last_step]
    ours, theirs = evaluations(workdir), evaluations(reference)
    if last_step < max(result["step"] for result in theirs.values()):
        # What takes long to compute, only the last evaluation of a run has.
        assert "coco" not in theirs[f"{last_step}.json"]["protocols"]
        del ours[f"{last_step}.json"]["protocols"]["coco"]
    assert ours == {name: one for name, one in theirs.items() if one["step"] <= last_step}
    assert checkpoint_steps(workdir)[-1] == last_step
    ours, theirs = arrays(workdir, last_step), arrays(reference, last_step)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name, strict=True)


def assert_same_losses(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    """The promise for other numbers of devices and processes: the losses are equal up to rounding.

    Gradients are not: where rounding makes an activation or the better of two boxes change sides,
    they jump. Hence the small learning rate, and only six steps.
    """
    last_step = 6
    ours, theirs = (
        [row for row in rows(folder) if row["split"] == "train" and row["step"] <= last_step]
        for folder in (workdir, reference)
    )
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [2, 4, 6]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        for term in LOSSES[1:]:
            assert one[term] == pytest.approx(other[term], rel=1e-5, abs=1e-5 * other["loss"])
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=0.02)
    ours, theirs = arrays(workdir, last_step), arrays(reference, last_step)
    statistics = [name for name in theirs if name.startswith("batch_stats/")]
    assert len(statistics) > 40
    for name in statistics:
        scale = np.abs(theirs[name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5 * scale)
