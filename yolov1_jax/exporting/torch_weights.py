"""FILE.safetensors: weights in the naming of PyTorch programs."""

import importlib.metadata
import json
import pathlib

import numpy as np

from yolov1_jax.config import UserError, flatten
from yolov1_jax.training.build import RestoredRun
from yolov1_jax.training.run_folder import replacing
from yolov1_jax.weights.assign import to_torch_layout
from yolov1_jax.weights.formats import FORMATS, describe, to_format
from yolov1_jax.weights.safetensors_file import write_safetensors


def write(output: pathlib.Path, run: RestoredRun, form: str | None) -> None:
    """Writes the weights in one of `FORMATS`; None takes the one that fits.

    Raises:
      UserError: the network of the run is another.
    """
    setup, variables, step, _ = run
    model, settings = setup.config.model, flatten(setup.config)
    is_torchlake = model.head_neck_channels is not None and model.head != "local"
    fitting = "torchlake" if is_torchlake and model.head_hidden is None else "reference"
    is_classifier = setup.config.task == "classification"
    if is_classifier:
        fitting = "backbone"
    name = form or fitting
    if name not in ("backbone", fitting):
        raise UserError(f"a {name!r} network has another head than this run: --format={fitting}")
    tensors = to_format(
        variables, name, boxes_per_cell=model.boxes_per_cell, grid_size=model.grid_size
    )
    if is_classifier:
        last = variables["params"]["head"]["predict"]
        tensors |= {
            "fc.weight": to_torch_layout(np.asarray(last["kernel"])),
            "fc.bias": np.asarray(last["bias"]),
        }
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
    with replacing(output) as temporary:
        write_safetensors(temporary, tensors, metadata)
    print(f"{output}: {name}, {len(tensors)} arrays")
    for setting, value in {"model.width_multiplier": 1.0, **FORMATS[name].settings}.items():
        if settings[setting] != value:
            print(
                f"note: config.{setting} is {settings[setting]!r}, in {name!r} networks {value!r}"
            )
