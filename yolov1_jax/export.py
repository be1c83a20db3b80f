"""Writes a run as one file: its network for other runtimes, or its weights for other programs.

    yolov1 export --workdir=runs/r34 --format=onnx [--output=r34.onnx] [IMAGE...]
    yolov1 export --workdir=runs/r34 --output=r34.safetensors [--format=backbone]

stablehlo  FILE.stablehlo: for JAX, on CPU, CUDA and TPU
onnx       FILE.onnx: for ONNX Runtime, on servers, phones and in browsers
tflite     FILE.tflite: for LiteRT (TensorFlow Lite); of a fixed --batch_size, without NMS and with
           weights in float32

These hold the network with all that `yolov1 predict --model=FILE` needs. It takes "images", uint8
RGB [B, H, H, 3], and gives arrays by name, chosen by --outputs:

predictions  boxes [B, S, S, K, 4], confidence [B, S, S, K] and class_scores [B, S, S, C]
boxes        boxes_xyxy [B, D, 4] as fractions of the image, and scores [B, D, C]
detections   after NMS by the thresholds of the run's evaluations, by descending score: boxes_xyxy
             [B, D, 4], scores [B, D] and labels [B, D], -1 where there is no detection

The file is run at once on the IMAGEs, by default 8 of the run's evaluation set; if it differs from
the run by more than rounding, it is not written, and the exit code is 1.

The other formats hold the weights that the run evaluates with: averaged, where it averages them.
Those without a suffix here are FILE.safetensors, whose metadata say, as JSON, what they were
trained with. `--config.model.pretrained` takes these files.

backbone   the ResNet in torchvision's naming; of a run of classification with its classifier
reference  the detector in the naming of the PyTorch reference, channels [conf, x, y, w, h] per box
torchlake  the detector in the naming of its later library, channels [x, y, w, h, conf] per box; for
           runs with config.model.head_neck_channels, as "reference" is for those without
darknet    FILE.weights, of a run with Darknet's backbones and head, or of their classifier
darknet_backbone  FILE.weights of its first layers, without the head
"""

import functools
import math
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from yolov1_jax import command_line
from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.images import read_image
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.exporting import darknet_weights, torch_weights
from yolov1_jax.exporting.comparison import check_file
from yolov1_jax.exporting.network import OUTPUTS, WEIGHTS, build_network
from yolov1_jax.training import run_folder
from yolov1_jax.training.build import RestoredRun, open_split, restore_run
from yolov1_jax.weights import darknet
from yolov1_jax.weights.formats import FORMATS

NETWORKS = ("stablehlo", "onnx", "tflite")
FLAGS = flags.FlagValues()
_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_choice = functools.partial(flags.DEFINE_enum, flag_values=FLAGS)
_WORKDIR = _string("workdir", None, "run folder")
_OUTPUT = _string("output", None, "file to write; of a network <workdir>/detector.<format>")
_STEP = _string("step", "best", "best, latest or a step number")
_FORMATS = [*NETWORKS, *FORMATS, *darknet.FORMATS]
_FORMAT = _choice("format", None, _FORMATS, "else by the suffix of --output and by the network")
_OUTPUTS = _choice("outputs", "predictions", OUTPUTS, "of a network")
_WEIGHTS = _choice("weights", "float32", WEIGHTS, "their type in a network")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "of a network; else any", 1, flag_values=FLAGS
)


def run(images: list[str]) -> None:
    by_suffix = {".weights": "darknet", **{f".{name}": name for name in NETWORKS}}
    output = local_path(_OUTPUT.value or "")
    form = _FORMAT.value or by_suffix.get(output.suffix)
    suffixes = {**dict.fromkeys(darknet.FORMATS, ".weights"), **{x: f".{x}" for x in NETWORKS}}
    suffix = suffixes.get(form or "", ".safetensors")
    if _WORKDIR.value is None:
        raise UserError("expected --workdir=RUN, found none")
    workdir = local_path(_WORKDIR.value)
    if _OUTPUT.value is None and form in NETWORKS:
        output = workdir / f"detector.{form}"
    if output.suffix != suffix:
        raise UserError(
            f"expected --output=FILE{suffix}, found {_OUTPUT.value or 'none'}: only .safetensors, "
            f"{', '.join(by_suffix)} files are written, each in formats of its own"
        )
    of_tflite = _BATCH_SIZE.value, _WEIGHTS.value == "float32", _OUTPUTS.value != "detections"
    if form == "tflite" and not all(of_tflite):
        raise UserError(
            "expected --batch_size=N with --format=tflite, and neither --weights=float16 nor "
            "--outputs=detections, found otherwise: for example --format=tflite --batch_size=1"
        )
    names = "outputs", "weights", "batch_size"
    of_network = [f"--{name}" for name in names if FLAGS[name].present] + images
    if of_network and form not in NETWORKS:
        formats = "|".join(NETWORKS)
        raise UserError(f"expected {of_network[0]} only with --format={formats}, found {output}")
    restored = restore_run(workdir, _STEP.value)
    print(f"{workdir}: step {restored.step:,}, {restored.reason}")
    if form in NETWORKS:
        _write_network(output, restored, images)
    elif form in darknet.FORMATS:
        darknet_weights.write(output, restored, form)
    else:
        torch_weights.write(output, restored, form)


def _write_network(output: pathlib.Path, restored: RestoredRun, paths: list[str]) -> None:
    """Writes the file, runs it, and leaves it there if it does what the run does."""
    options = {"outputs": _OUTPUTS.value, "weights": _WEIGHTS.value}
    built = build_network(restored, **options, batch_size=_BATCH_SIZE.value)
    images = _images(restored, paths)
    with run_folder.replacing(output) as temporary:
        try:
            if output.suffix == ".onnx":
                from yolov1_jax.exporting.onnx_file import write
            elif output.suffix == ".tflite":
                from yolov1_jax.exporting.tflite_file import write
            else:
                from yolov1_jax.exporting.stablehlo_file import write
            write(temporary, built)
        except ImportError as error:
            extra = "tflite" if output.suffix == ".tflite" else "export"
            raise UserError(f"{error}: pip install 'yolov1_jax[{extra}]'") from error
        check_file(temporary, restored, images, _WEIGHTS.value, _BATCH_SIZE.value)
    print(f"{output}: written")


def _images(restored: RestoredRun, paths: list[str]) -> np.ndarray:
    """Images to compare with, uint8 [N, H, H, 3]; as many as make full batches."""
    config, batch_size = restored.setup.config, _BATCH_SIZE.value or 1
    images = example_images(config, paths)
    inputs = [resize_image(image, config.image_size, config.data.resize) for image in images]
    number = batch_size * math.ceil(max(2, len(images)) / batch_size)
    return np.resize(inputs, (number, *inputs[0].shape))


def example_images(config: ConfigDict, paths: Sequence[str]) -> list[np.ndarray]:
    """Those of the files, by default 8 of the run's evaluation set. uint8 RGB [H, W, 3] each"""
    if paths:
        return [read_image(local_path(path)) for path in paths]
    source = open_split(config, "eval")
    return [source[i].image for i in range(min(8, len(source)))]


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
