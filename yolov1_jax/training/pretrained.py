"""Starts training from pretrained weights: a backbone, or a whole detector."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.config import UserError, flatten
from yolov1_jax.data.dataset import shortened
from yolov1_jax.training import build
from yolov1_jax.training.step import TrainState
from yolov1_jax.weights import formats
from yolov1_jax.weights.assign import Variables
from yolov1_jax.weights.safetensors_file import WeightsFile, read_weights


def check_pretrained(config: ConfigDict) -> None:
    """Reads `config.model.pretrained`, and raises what `with_pretrained` would raise of it.

    The weights of a whole detector are only read while the class names are not known.
    """
    file = read_weights(config.model.pretrained)
    if config.model.class_names is None and config.model.pretrained_format == "backbone":
        config = configs.replace(config, "model.class_names", ("?",))  # of the head, not compared
    if config.model.class_names is not None:
        load_pretrained(file, build.abstract_variables(config), config)


def with_pretrained(
    state: TrainState,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    sharding: NamedSharding,
) -> TrainState:
    """The initial state with the weights of `config.model.pretrained`, if that names any.

    Raises:
      UserError: as `read_weights` and `load_pretrained`.
    """
    if config.model.pretrained is None:
        if jax.process_index() == 0:
            print("random initial weights")
        return state
    file = read_weights(config.model.pretrained)
    initial = {"params": state.params, "batch_stats": state.batch_stats}
    variables, report = load_pretrained(file, initial, config)
    if jax.process_index() == 0:
        print(f"pretrained weights ({config.model.pretrained_format}) from {report}")
    # Copied by jit into buffers of their own: the train step donates, and so destroys, its input.
    # The optimizer's state is made anew, because a weight average starts from the weights loaded.
    start = jax.jit(
        lambda variables: state._replace(
            **jax.tree.map(jnp.copy, variables), opt_state=optimizer.init(variables["params"])
        ),
        out_shardings=sharding,
    )
    return start(variables)


def load_pretrained(
    file: WeightsFile, variables: Variables, config: ConfigDict
) -> tuple[Variables, str]:
    """The variables of the config's model with the weights of a file, and a line on what was read.

    Raises:
      UserError: the file's arrays are not those of the network, or the numbers of the checkpoint
        would mean something else under this config.
    """
    model, found = config.model, formats.recognise(file.tensors)
    if found not in (None, model.pretrained_format):
        raise UserError(
            f"{file.origin} has the names of a {found!r} file, expected {model.pretrained_format!r}"
            f": set config.model.pretrained_format to {found!r}, or give another file"
        )
    if model.pretrained_format != "backbone":
        settings = flatten(config)
        expected = formats.expected_settings(file, model.pretrained_format)
        # The image may be larger than in training, with as many more cells; both programs halve
        # it six times.
        try:
            cell_size = expected.pop("image_size", 64) // expected.get("model.grid_size", 1)
            expected["image_size"] = cell_size * model.grid_size
        except (TypeError, ZeroDivisionError):
            raise UserError(f"{file.origin} has metadata that are no numbers") from None
        for key, value in expected.items():
            if settings[key] != value:
                wanted = shortened(repr(value), 1000)
                raise UserError(
                    f"{file.origin}, a checkpoint of {model.pretrained_format!r}, needs "
                    f"{key}={wanted}, not {settings[key]!r}: set config.{key} to {wanted}"
                )
    return formats.from_format(
        file,
        variables,
        model.pretrained_format,
        boxes_per_cell=model.boxes_per_cell,
        hint=f"is it a {model.backbone} (config.model.backbone), with width_multiplier "
        f"{model.width_multiplier}, head_channels {model.head_channels}, boxes_per_cell "
        f"{model.boxes_per_cell} and {len(model.class_names)} class_names?",
    )
