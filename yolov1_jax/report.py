"""Explains a run in pictures, on one page: <workdir>/report/report.html.

    yolov1 report --workdir=runs/r34 [--step=best|latest|N] [--protocol=voc07]

The checkpoint is evaluated on the run's own evaluation set, and the pictures are drawn anew; the
page holds all of them and loads nothing from elsewhere. Training ends with the same page, of its
last step. Kinds of errors, best and worst images and doubtful labels need
pip install "yolov1_jax[errors]". docs/report.md explains the pictures.
"""

import sys
from collections.abc import Sequence

from absl import flags

from yolov1_jax import command_line
from yolov1_jax.config import UserError, local_path
from yolov1_jax.evaluate import evaluate_step
from yolov1_jax.evaluation.evaluator import PROTOCOLS
from yolov1_jax.training import build, cpu, run_folder
from yolov1_jax.visualization.report import report_run

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run folder", flag_values=FLAGS)
_STEP = flags.DEFINE_string(
    "step", "best", "checkpoint: best, latest or a step number", flag_values=FLAGS
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", None, PROTOCOLS, "whose mAP comes first; else the run's", flag_values=FLAGS
)


def run(_: list[str]) -> None:
    if _WORKDIR.value is None:
        raise UserError("expected --workdir=RUN, the folder of a trained run, found none")
    workdir = local_path(_WORKDIR.value)
    restored = build.restore_run(workdir, _STEP.value)
    config, step = restored.setup.config, restored.step
    print(f"{workdir}: step {step:,}, {restored.reason}")
    result, source = evaluate_step(restored, config, _PROTOCOL.value or config.eval.protocol)
    history_path = run_folder.metrics_path(workdir)
    files = report_run(workdir, result, source, history_path, config=config, step=step)
    print(f"report in {files[-1]}")


def main(argv: Sequence[str] | None = None) -> int:
    cpu.keep_freed_memory()
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
