"""`python -m yolov1_jax NAME` is `yolov1 NAME`."""

import sys

from yolov1_jax.command_line import main

sys.exit(main())
