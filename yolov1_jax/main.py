"""Trains a YOLOv1 detector, evaluates it and draws the results.

    python -m yolov1_jax.main
    python -m yolov1_jax.main --config=configs/r34.py --workdir=runs/r34 \\
        --config.train.batch_size=8

The same command run again continues from the last checkpoint. All config keys stand, with their
meaning, in configs/r34.py; any of them can be set as --config.<section>.<key>=<value>.
"""

import os
import pathlib
import threading

import jax
from absl import flags
from ml_collections import config_flags

from yolov1_jax import command_line
from yolov1_jax.errors import UserError
from yolov1_jax.train import train_and_evaluate

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run folder; by default runs/<name of the config file>"
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "one of several processes; SLURM, TPU and Kubernetes tell which"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, where nothing tells; implies --distributed"
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "with --coordinator: how many there are"
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "with --coordinator: which of them this is")


def main(_: list[str]) -> None:
    if _DISTRIBUTED.value or _COORDINATOR.value is not None:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    elif _NUM_PROCESSES.value is not None or _PROCESS_ID.value is not None:
        raise UserError(
            "--num_processes and --process_id need --coordinator=host:port or --distributed: "
            "else every process would train on its own"
        )
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name}")
    try:
        train_and_evaluate(_CONFIG.value, workdir)
    except Exception:
        if jax.process_count() > 1:
            # The way out of the interpreter waits for the other processes, which may be waiting for
            # this one: not for ever.
            watchdog = threading.Timer(10, os._exit, [1])
            watchdog.daemon = True
            watchdog.start()
        raise


if __name__ == "__main__":
    command_line.run(main, takes_arguments=False)
