"""Writes a run's weights as a safetensors file that PyTorch programs take.

    python -m yolov1_jax.export --workdir=runs/r34 --output=r34.safetensors \
        [--format=backbone|reference|torchlake] [--step=best|latest|N]

backbone    the ResNet in torchvision's naming, without its classifier
reference   the whole detector in the naming of the PyTorch reference, channels
            [conf, x, y, w, h] per box and then the classes
torchlake   likewise of its later library, channels [x, y, w, h, conf] per box; for runs with
            config.model.head_neck_channels, as "reference" is for those without

The weights are those that the run evaluates with: averaged, where it averages them. The file's
metadata says what they were trained with: class_names, channel_layout, pixel_mean, pixel_std, ...,
each as JSON. `--config.model.pretrained` of another run takes the file.

In PyTorch: model.load_state_dict(safetensors.torch.load_file("r34.safetensors")); of a torchvision
network with strict=False, because its classifier is missing.
"""

import importlib.metadata
import json
import pathlib

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from yolov1_jax import command_line
from yolov1_jax.config import flatten
from yolov1_jax.detector import restore_variables
from yolov1_jax.errors import UserError
from yolov1_jax.training import run_folder
from yolov1_jax.weights.formats import DETECTOR_FORMATS, describe, to_detector
from yolov1_jax.weights.safetensors_file import write_safetensors
from yolov1_jax.weights.torchvision import to_torchvision

FORMATS = ("backbone", *DETECTOR_FORMATS)


def export_weights(
    workdir: pathlib.Path,
    output: pathlib.Path,
    *,
    step: str | int = "best",
    format_name: str | None = None,
) -> list[str]:
    """Writes the weights of a run to a safetensors file.

    Args:
      workdir: the run folder.
      output: the file; its folder is made, a file that is there already is replaced.
      step: "best" (by mAP; the latest where none was evaluated), "latest", or a step number.
      format_name: one of `FORMATS`; None for the detector's that the run's network fits.

    Returns:
      What was done, and what the weights need of a program, as lines for a person.

    Raises:
      UserError: there is no such run or checkpoint; the format has no place for a layer of it; the
        file cannot be written, or its name says that it is of another kind.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"expected --output=FILE.safetensors, found {str(output)!r}")
    config = run_folder.read_config(workdir)
    if format_name is None:
        format_name = "reference" if config.model.head_neck_channels is None else "torchlake"
    if format_name not in FORMATS:
        raise UserError(f"format must be one of {FORMATS}, got {format_name!r}")
    _check_format(config, format_name)
    restored = restore_variables(workdir, step)
    model = config.model
    if format_name == "backbone":
        tensors = to_torchvision(restored.variables)
    else:
        tensors = to_detector(
            restored.variables,
            format_name,
            boxes_per_cell=model.boxes_per_cell,
            num_classes=len(model.class_names),
        )
    tensors = _with_counters(tensors, restored.step)
    write_safetensors(output, tensors, _metadata(config, format_name, restored.step))
    megabytes = output.stat().st_size / 1e6
    num_values = sum(array.size for array in tensors.values())
    return [
        f"{workdir}: step {restored.step:,}, {restored.reason}",
        f"{output}: {format_name}, {len(tensors)} arrays, {num_values:,} values, "
        f"{megabytes:.1f} MB",
        f"input: RGB in [0, 1], minus {tuple(model.pixel_mean)}, divided by "
        f"{tuple(model.pixel_std)}",
        *_differences(config, format_name),
    ]


def _check_format(config: ConfigDict, format_name: str) -> None:
    """Refuses a detector whose layers are not those of the format's program."""
    has_neck = config.model.head_neck_channels is not None
    if format_name != "backbone" and has_neck != ("neck" in DETECTOR_FORMATS[format_name].head):
        program = DETECTOR_FORMATS[format_name].program
        other = "torchlake" if has_neck else "reference"
        raise UserError(
            f"the network of {program} has {'no' if has_neck else 'a'} neck, this run's "
            f"config.model.head_neck_channels is {config.model.head_neck_channels}: "
            f"--format={other}"
        )


def _with_counters(tensors: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """Adds BatchNorm's number of batches seen, which PyTorch has beside its averages."""
    result = {}
    for name, array in tensors.items():
        result[name] = array
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            result[counter] = np.array(step, np.int64)
    return result


def _metadata(config: ConfigDict, format_name: str, step: int) -> dict[str, str]:
    """Strings by name, as safetensors has them; all but the first two are JSON."""
    layout = {}
    if format_name != "backbone":
        layout = {"channel_layout": json.dumps(DETECTOR_FORMATS[format_name].layout)}
    return {
        "format": "pt",  # what other programs look for: tensors in PyTorch's layout
        "program": f"yolov1_jax {importlib.metadata.version('yolov1_jax')}",
        "weights_format": json.dumps(format_name),
        "step": json.dumps(step),
        "averaged": json.dumps(config.optimizer.ema_decay is not None),
        **describe(flatten(config)),
        **layout,
    }


def _differences(config: ConfigDict, format_name: str) -> list[str]:
    """A line for each setting in which the run's network is not the one of the format's program."""
    program, expected = "torchvision", {"model.width_multiplier": 1.0}
    if format_name != "backbone":
        form = DETECTOR_FORMATS[format_name]
        program, expected = form.program, {**expected, **form.settings}
    settings = flatten(config)
    return [
        f"note: config.{key} is {settings[key]!r}, the network of {program} has {value!r}"
        for key, value in expected.items()
        if key in settings and settings[key] != value
    ]


def main(_: list[str]) -> None:
    if _WORKDIR.value is None or _OUTPUT.value is None:
        missing = "--workdir" if _WORKDIR.value is None else "--output"
        raise UserError(f"{missing} is missing: give --workdir=RUN --output=FILE.safetensors")
    lines = export_weights(
        pathlib.Path(_WORKDIR.value),
        pathlib.Path(_OUTPUT.value),
        step=_STEP.value,
        format_name=_FORMAT.value,
    )
    print("\n".join(lines))


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "run folder")
    _OUTPUT = flags.DEFINE_string("output", None, "the file to write, FILE.safetensors")
    _STEP = flags.DEFINE_string("step", "best", "checkpoint: best, latest or a step number")
    _FORMAT = flags.DEFINE_enum(
        "format", None, FORMATS, "whose naming; by default the reference's or torchlake's"
    )
    command_line.run(main, takes_arguments=False)
