"""Writes the weights of a run as a safetensors file that PyTorch programs load.

    python -m yolov1_jax.export --workdir=runs/r34 --output=r34.safetensors [--format=backbone]

backbone   the ResNet in torchvision's naming, without its classifier
reference  the detector in the naming of the PyTorch reference, channels [conf, x, y, w, h] per box
torchlake  the detector in the naming of its later library, channels [x, y, w, h, conf] per box; for
           runs with config.model.head_neck_channels, as "reference" is for those without

The weights are those that the run evaluates with: averaged, where it averages them. The metadata
say, as JSON, what they were trained with. `--config.model.pretrained` takes the file, and PyTorch
by model.load_state_dict(safetensors.torch.load_file("r34.safetensors")), for a ResNet strict=False.
"""

import importlib.metadata
import json
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from yolov1_jax import command_line
from yolov1_jax.config import UserError, flatten, local_path
from yolov1_jax.training.build import restore_run
from yolov1_jax.weights.formats import FORMATS, describe, to_format
from yolov1_jax.weights.safetensors_file import write_safetensors

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run folder", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "FILE.safetensors to write", flag_values=FLAGS)
_STEP = flags.DEFINE_string("step", "best", "best, latest or a step number", flag_values=FLAGS)
_FORMAT = flags.DEFINE_enum(
    "format", None, list(FORMATS), "default: reference or torchlake", flag_values=FLAGS
)


def run(_: list[str]) -> None:
    workdir, output = local_path(_WORKDIR.value or ""), local_path(_OUTPUT.value or "")
    if _WORKDIR.value is None or output.suffix != ".safetensors":
        raise UserError("expected --workdir=RUN and --output=FILE.safetensors")
    setup, variables, step, reason = restore_run(workdir, _STEP.value)
    model, settings = setup.config.model, flatten(setup.config)
    fitting = "reference" if model.head_neck_channels is None else "torchlake"
    name = _FORMAT.value or fitting
    if name not in ("backbone", fitting):
        raise UserError(f"a {name!r} network has another neck than this run: --format={fitting}")
    tensors = to_format(variables, name, boxes_per_cell=model.boxes_per_cell)
    # PyTorch's BatchNorm counts its batches beside its running averages.
    norms = [key.removesuffix("running_var") for key in tensors if key.endswith(".running_var")]
    tensors |= {f"{norm}num_batches_tracked": np.array(step, np.int64) for norm in norms}
    metadata = {
        "format": "pt",  # what other programs look for: tensors in PyTorch's layout
        "program": f"yolov1_jax {importlib.metadata.version('yolov1_jax')}",
        "weights_format": json.dumps(name),
        "step": json.dumps(step),
        "averaged": json.dumps(setup.config.optimizer.ema_decay is not None),
        **describe(settings),
    }
    if name != "backbone":
        metadata["channel_layout"] = json.dumps(name)
    write_safetensors(output, tensors, metadata)
    print(f"{workdir}: step {step:,}, {reason}")
    print(f"{output}: {name}, {len(tensors)} arrays")
    for key, value in {"model.width_multiplier": 1.0, **FORMATS[name].settings}.items():
        if settings[key] != value:
            print(f"note: config.{key} is {settings[key]!r}, in {name!r} networks {value!r}")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
