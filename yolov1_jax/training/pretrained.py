"""Training that starts from pretrained weights: a backbone, or a whole detector."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from yolov1_jax.config import flatten
from yolov1_jax.errors import UserError
from yolov1_jax.training.step import TrainState
from yolov1_jax.weights.assign import LoadedWeights, Variables
from yolov1_jax.weights.formats import (
    CELL_SIZE,
    DETECTOR_FORMATS,
    expected_settings,
    load_detector,
    recognise,
)
from yolov1_jax.weights.safetensors_file import WeightsFile, check_origin, read_weights
from yolov1_jax.weights.torchvision import load_backbone


def check_pretrained(origin: str | None) -> None:
    """Tells of a mistyped path before the data is prepared, which takes long.

    Raises:
      UserError: there is no such file, or the client of the hub is missing.
    """
    if origin is not None:
        check_origin(origin)


def with_pretrained(
    state: TrainState,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    sharding: NamedSharding,
) -> TrainState:
    """The initial state with the weights of `config.model.pretrained`, if that names any.

    Args:
      config: with the class names of the run.

    Raises:
      UserError: there is no such file; its arrays are not those of the network; the config says
        something else than the checkpoint was trained with.
    """
    if config.model.pretrained is None:
        return state
    file = read_weights(config.model.pretrained)
    variables, loaded = load_pretrained(
        file, {"params": state.params, "batch_stats": state.batch_stats}, config
    )
    if jax.process_index() == 0:
        what = "detector" if config.model.pretrained_format in DETECTOR_FORMATS else "backbone"
        print(f"pretrained {what} from {loaded}")
    # Copied by jit into buffers of their own: the train step donates, and so destroys, its input.
    # The optimizer's state is made anew, because a weight average starts from the weights loaded.
    start = jax.jit(
        lambda variables: state._replace(
            params=jax.tree.map(jnp.copy, variables["params"]),
            batch_stats=jax.tree.map(jnp.copy, variables["batch_stats"]),
            opt_state=optimizer.init(variables["params"]),
        ),
        out_shardings=sharding,
    )
    return start(variables)


def load_pretrained(
    file: WeightsFile, variables: Variables, config: ConfigDict
) -> tuple[Variables, LoadedWeights]:
    """The variables of the config's model with the file's weights. Errors as `with_pretrained`."""
    asked, found = config.model.pretrained_format, recognise(file.tensors)
    if found is not None and found != asked:
        raise UserError(
            f"{file.origin} has the names of a {found!r} file, expected those of {asked!r}: set "
            f"config.model.pretrained_format to {found!r}, or give another file"
        )
    if asked == "backbone":
        return load_backbone(file, variables, config.model.backbone)
    _check_settings(file, config)
    return load_detector(
        file,
        variables,
        asked,
        boxes_per_cell=config.model.boxes_per_cell,
        num_classes=len(config.model.class_names),
        hint=f"is it a {config.model.backbone} (config.model.backbone), with "
        f"config.model.width_multiplier {config.model.width_multiplier} and "
        f"config.model.head_channels {config.model.head_channels}?",
    )


def _check_settings(file: WeightsFile, config: ConfigDict) -> None:
    """Refuses a config under which the checkpoint's numbers would mean something else."""
    program = DETECTOR_FORMATS[config.model.pretrained_format].program
    settings = flatten(config)
    expected = expected_settings(file, config.model.pretrained_format)
    trained_size = expected.pop("image_size", None)
    for key, value in expected.items():
        if not _same(settings[key], value):
            raise UserError(
                f"{file.origin}, a checkpoint of {program}, was trained with {key}={value!r}, this "
                f"run has {settings[key]!r}: set config.{key} to {value!r}"
            )
    cell_size = CELL_SIZE
    if trained_size is not None and "model.grid_size" in expected:
        if not isinstance(trained_size, int):
            raise UserError(
                f"{file.origin}: its metadata 'image_size' is {trained_size!r}, expected pixels"
            )
        cell_size = trained_size // expected["model.grid_size"]
    image_size, grid_size = config.image_size, config.model.grid_size
    if image_size != cell_size * grid_size:
        raise UserError(
            f"{file.origin}, a checkpoint of {program}, has cells of {cell_size} pixels, this run "
            f"has {image_size} pixels in {grid_size} cells: set config.image_size to "
            f"{cell_size * grid_size}, or config.model.grid_size to another"
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return tuple(one) == tuple(other)
    return bool(one == other)
