"""`yolov1 NAME`, and the same `python -m yolov1_jax NAME`."""

import signal
import sys

from yolov1_jax.training.preemption import watch_signals


def main() -> int:
    with watch_signals():  # before the imports of what the command needs
        from yolov1_jax import command_line

        code = command_line.main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    return code


if __name__ == "__main__":
    sys.exit(main())
