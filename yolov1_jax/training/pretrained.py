"""Starts training from pretrained weights: a backbone, of a file or a run, or a whole detector."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from yolov1_jax.config import UserError, flatten
from yolov1_jax.data.dataset import shortened
from yolov1_jax.models import darknet as darknet_models
from yolov1_jax.training import build
from yolov1_jax.training.step import TrainState
from yolov1_jax.weights import darknet, formats
from yolov1_jax.weights.assign import Variables
from yolov1_jax.weights.safetensors_file import WeightsFile, read_weights


def check_pretrained(config: ConfigDict) -> None:
    """Reads `config.model.pretrained`, and raises what `with_pretrained` would raise of it.

    While the class names are not known, of the weights of a whole detector only the header is read;
    of Darknet's all but the last layer.
    """
    form, with_names = config.model.pretrained_format, build.with_class_names(config)
    # The head of "backbone" is not compared; Darknet's files have no names, and VOC has 20.
    is_sized = config.model.backbone == "layers" or config.data.source == "tfds"
    of_run = os.path.isdir(config.model.pretrained)
    if of_run or "backbone" in form or (form == "darknet" and is_sized):
        config = with_names
    is_whole = config.model.class_names is not None or form == "darknet"
    _read(config, build.abstract_variables(with_names) if is_whole else {})


def with_pretrained(state: TrainState, setup: build.Setup) -> TrainState:
    """The initial state with the weights of `config.model.pretrained`, if that names any.

    Raises UserError as `read_weights` and `load_pretrained`.
    """
    report, optimizer = "random initial weights", setup.optimizer
    if setup.config.model.pretrained is not None:
        initial = {"params": state.params, "batch_stats": state.batch_stats}
        variables, report = _read(setup.config, initial)
        # Copied by jit into buffers of their own: the train step donates, and so destroys, its
        # input. The optimizer's state is made anew: a weight average starts from these weights.
        start = jax.jit(
            lambda variables: state._replace(
                **jax.tree.map(jnp.copy, variables), opt_state=optimizer.init(variables["params"])
            ),
            out_shardings=setup.replicated,
        )
        state, report = start(variables), f"pretrained weights from {report}"
    if jax.process_index() == 0:
        print(report)
    return state


def _read(config: ConfigDict, variables: Variables) -> tuple[Variables, str]:
    """The variables with those of the config's run or file, and a line on it; {} only opens it."""
    origin, form = config.model.pretrained, config.model.pretrained_format
    if os.path.isdir(origin):
        return backbone_of_run(build.restore_run(origin), variables, config)
    if form not in darknet.FORMATS or origin.endswith((".safetensors", ".pth", ".pt")):
        if origin.endswith(".weights"):
            raise UserError(
                f"{origin} is by its name a file of Darknet, not {form!r}: set "
                f"config.model.pretrained_format to {' or '.join(darknet.FORMATS)}"
            )
        file = read_weights(origin)
        return load_pretrained(file, variables, config) if variables else ({}, "")
    darknet.read_header(origin)
    if form == "darknet" and config.task == "detection":
        expected = darknet.expected_settings(config.model.backbone)
        _check_settings(origin, config, expected)
    partial = form == "darknet_backbone" or config.model.class_names is None
    detection = None if partial else build.detection_layer(config)
    return darknet.read_darknet(origin, variables, detection=detection, partial=partial)


def backbone_of_run(
    run: build.RestoredRun, variables: Variables, config: ConfigDict
) -> tuple[Variables, str]:
    """The variables with the backbone that a run of any task evaluates with, and a line on it.

    Raises UserError if the config's backbone is another, or sees other numbers of a pixel.
    """
    names = ["backbone", "width_multiplier", "layers", "pixel_mean", "pixel_std"]
    if config.model.backbone in darknet_models.BACKBONES:
        names.append("norm")  # of the backbone, too
    origin, settings = config.model.pretrained, run.setup.config.model
    _check_settings(origin, config, {f"model.{name}": settings[name] for name in names})
    loaded = {
        name: {**part, "backbone": run.variables[name]["backbone"]}
        for name, part in variables.items()
        if "backbone" in part
    }
    size = sum(leaf.size for leaf in jax.tree.leaves(loaded["params"]["backbone"]))
    report = f"{origin}, step {run.step:,}, {run.reason}: {size:,} parameters of the backbone"
    return variables | loaded, report


def load_pretrained(
    file: WeightsFile, variables: Variables, config: ConfigDict
) -> tuple[Variables, str]:
    """The variables of the config's model with the weights of a file, and a line on what was read.

    Raises UserError if the file's arrays are not those of the network, or the numbers of the
    checkpoint would mean something else under this config.
    """
    model, found = config.model, formats.recognise(file.tensors)
    if found not in (None, model.pretrained_format):
        raise UserError(
            f"{file.origin} has the names of a {found!r} file, expected {model.pretrained_format!r}"
            f": set config.model.pretrained_format to {found!r}, or give another file"
        )
    if model.pretrained_format != "backbone":
        expected = formats.expected_settings(file, model.pretrained_format)
        # The image may be larger than in training, with as many more cells; both programs halve
        # it six times.
        try:
            cell_size = expected.pop("image_size", 64) // expected.get("model.grid_size", 1)
            expected["image_size"] = cell_size * model.grid_size
        except (TypeError, ZeroDivisionError):
            raise UserError(f"{file.origin} has metadata that are no numbers") from None
        _check_settings(file.origin, config, expected)
    return formats.from_format(
        file,
        variables,
        model.pretrained_format,
        boxes_per_cell=model.boxes_per_cell,
        grid_size=model.grid_size,
        hint=f"is it a {model.backbone} (config.model.backbone), with width_multiplier "
        f"{model.width_multiplier}, head_channels {model.head_channels}, boxes_per_cell "
        f"{model.boxes_per_cell} and {len(model.class_names)} class_names?",
    )


def _check_settings(origin: str, config: ConfigDict, expected: Mapping[str, Any]) -> None:
    settings = flatten(config)
    kind = "run" if os.path.isdir(origin) else f"checkpoint of {config.model.pretrained_format!r}"
    wrong = {key: value for key, value in expected.items() if settings[key] != value}
    if wrong:
        needed = (f"config.{key}={shortened(repr(one), 1000)}" for key, one in wrong.items())
        found = (f"{settings[key]!r}" for key in wrong)
        raise UserError(
            f"{origin}, a {kind}, needs {', '.join(needed)}, found {', '.join(found)}: set them"
        )
