"""Writes the weights of a run as a file that PyTorch programs or Darknet load.

    python -m yolov1_jax.export --workdir=runs/r34 --output=r34.safetensors [--format=backbone]

backbone   the ResNet in torchvision's naming, without its classifier
reference  the detector in the naming of the PyTorch reference, channels [conf, x, y, w, h] per box
torchlake  the detector in the naming of its later library, channels [x, y, w, h, conf] per box; for
           runs with config.model.head_neck_channels, as "reference" is for those without
darknet    a FILE.weights of Darknet, of a run with its backbones and head; darknet_backbone: of its
           first layers, without the head

The weights are those that the run evaluates with: averaged, where it averages them. The metadata
of safetensors say, as JSON, what they were trained with. `--config.model.pretrained` takes the
file, and PyTorch by model.load_state_dict(safetensors.torch.load_file("r34.safetensors")), for a
ResNet strict=False.
"""

import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from yolov1_jax import command_line
from yolov1_jax.config import UserError, flatten, local_path
from yolov1_jax.training.build import RestoredRun, detection_layer, restore_run
from yolov1_jax.weights import darknet
from yolov1_jax.weights.formats import FORMATS, describe, to_format
from yolov1_jax.weights.safetensors_file import write_safetensors

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run folder", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", None, "FILE.safetensors or FILE.weights to write", flag_values=FLAGS
)
_STEP = flags.DEFINE_string("step", "best", "best, latest or a step number", flag_values=FLAGS)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    [*FORMATS, *darknet.FORMATS],
    "default: reference or torchlake, for a .weights file darknet",
    flag_values=FLAGS,
)


def run(_: list[str]) -> None:
    workdir, output = local_path(_WORKDIR.value or ""), local_path(_OUTPUT.value or "")
    form = _FORMAT.value or ("darknet" if output.suffix == ".weights" else None)
    suffix = ".weights" if form in darknet.FORMATS else ".safetensors"
    if _WORKDIR.value is None:
        raise UserError("expected --workdir=RUN, found none")
    if output.suffix != suffix:
        raise UserError(
            f"expected --output=FILE{suffix}, found {_OUTPUT.value or 'none'}: only .safetensors "
            "files are written, and .weights files with --format=darknet"
        )
    setup, variables, step, reason = restored = restore_run(workdir, _STEP.value)
    print(f"{workdir}: step {step:,}, {reason}")
    if form in darknet.FORMATS:
        return _write_darknet(output, restored, form)
    model, settings = setup.config.model, flatten(setup.config)
    is_torchlake = model.head_neck_channels is not None and model.head != "local"
    fitting = "torchlake" if is_torchlake and model.head_hidden is None else "reference"
    name = form or fitting
    if name not in ("backbone", fitting):
        raise UserError(f"a {name!r} network has another neck than this run: --format={fitting}")
    tensors = to_format(
        variables, name, boxes_per_cell=model.boxes_per_cell, grid_size=model.grid_size
    )
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
    print(f"{output}: {name}, {len(tensors)} arrays")
    for setting, value in {"model.width_multiplier": 1.0, **FORMATS[name].settings}.items():
        if settings[setting] != value:
            print(
                f"note: config.{setting} is {settings[setting]!r}, in {name!r} networks {value!r}"
            )


def _write_darknet(output: pathlib.Path, restored: RestoredRun, form: str) -> None:
    """Writes the header of the file that the run began with, if that is still there, and counts on.

    So a file that was only read comes back as it was.
    """
    config, header = restored.setup.config, darknet.Header()
    origin = config.model.pretrained
    if config.model.pretrained_format == form and origin and pathlib.Path(origin).is_file():
        header = darknet.read_header(origin)
    if restored.step > 0:
        header = darknet.Header(seen=header.seen + restored.step * config.train.batch_size)
    num_bytes = darknet.write_darknet(
        output,
        restored.variables,
        header,
        detection=detection_layer(config),
        backbone_only=form == "darknet_backbone",
    )
    print(f"{output}: {form}, {header}, {num_bytes:,} bytes")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__)


if __name__ == "__main__":
    sys.exit(main())
