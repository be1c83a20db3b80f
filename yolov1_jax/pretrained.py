"""Training that starts from a pretrained backbone."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from yolov1_jax.train_step import TrainState
from yolov1_jax.weights.torchvision import load_backbone


def with_pretrained_backbone(
    state: TrainState,
    model_config: ConfigDict,
    optimizer: optax.GradientTransformation,
    sharding: NamedSharding,
) -> TrainState:
    """The initial state with the weights of `model_config.pretrained` in its backbone.

    Raises:
      UserError: there is no such file, or its arrays are not those of the backbone.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables, loaded = load_backbone(model_config.pretrained, variables, model_config.backbone)
    if jax.process_index() == 0:
        print(f"pretrained backbone from {loaded}")
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
