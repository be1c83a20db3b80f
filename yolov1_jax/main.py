"""Trains a YOLOv1 detector, evaluates it and draws the results.

    python -m yolov1_jax.main
    python -m yolov1_jax.main --config=configs/r34.py --workdir=runs/r34 \\
        --config.train.batch_size=8

The same command run again continues from the last checkpoint. All config keys stand, with their
meaning, in configs/r34.py; any of them can be set as --config.<section>.<key>=<value>.
"""

import functools
import os
import sys
import threading
from collections.abc import Sequence

from absl import flags

from yolov1_jax import command_line
from yolov1_jax.config import local_path

FLAGS = flags.FlagValues()
_CONFIG = command_line.ConfigFlag(FLAGS)
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_integer = functools.partial(flags.DEFINE_integer, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder; by default runs/<name of the config file>")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "one of several processes, on SLURM, TPU or Kubernetes", flag_values=FLAGS
)
_COORDINATOR = _string("coordinator", None, "elsewhere: host:port of process 0")
_NUM_PROCESSES = _integer("num_processes", None, "with --coordinator: how many there are")
_PROCESS_ID = _integer("process_id", None, "with --coordinator: which of them this is")


def run(_: list[str]) -> int:
    config, workdir = _CONFIG.value, local_path(_WORKDIR.value or f"runs/{_CONFIG.name}")
    # Not before the signals are watched: these imports take seconds.
    import jax

    from yolov1_jax.train import train_and_evaluate
    from yolov1_jax.training import cpu

    cpu.keep_freed_memory()
    several = _DISTRIBUTED.value or _COORDINATOR.value is not None
    if several:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    try:
        return train_and_evaluate(config, workdir)
    except Exception:
        if several:
            # The interpreter's exit waits for the other processes, which may wait for this one.
            watchdog = threading.Timer(10, os._exit, [1])
            watchdog.daemon = True
            watchdog.start()
        raise


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
