"""The state of training, and one step of it: pure functions that mention no device.

Axes: B batch, M padded objects of an image.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yolov1_jax.training.optimizer import averaged_weights
from yolov1_jax.yolo.grid import Predictions, encode_targets, split_predictions
from yolov1_jax.yolo.loss import yolo_loss

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that changes from step to step; what a checkpoint holds."""

    step: jax.Array  # int32 []
    params: Any
    batch_stats: Any  # running mean and variance of BatchNorm
    opt_state: Any


def create_train_state(
    key: jax.Array,
    *,
    model: Any,
    optimizer: optax.GradientTransformation,
    image_size: int,
) -> TrainState:
    """Initial state with random weights."""
    variables = model.init(key, jnp.zeros((1, image_size, image_size, 3), jnp.uint8), train=False)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    target_options: Mapping[str, Any],
    loss_options: Mapping[str, Any],
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Args:
      model: a YOLOv1 module.
      target_options: collision and class_target of `encode_targets`.
      loss_options: keyword arguments of `yolo_loss`.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        targets = encode_targets(
            batch["boxes_xyxy"],  # [B, M, 4]
            batch["labels"],  # [B, M]
            batch["valid"],  # [B, M]
            grid_size=model.grid_size,
            num_classes=model.num_classes,
            **target_options,
        )

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
            raw, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
            )
            terms = yolo_loss(_split(model, raw), targets, **loss_options)
            loss = terms["xy"] + terms["wh"] + terms["object"] + terms["no_object"] + terms["class"]
            return loss, (terms, updated["batch_stats"])

        (loss, (terms, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        metrics = {
            "loss": loss,
            **{f"loss/{name}": term for name, term in terms.items()},
            "gradient_norm": optax.tree.norm(gradients),
        }
        return new_state, metrics

    return train_step


def make_predict_step(
    model: Any, *, class_loss: str = "squared"
) -> Callable[[Any, jax.Array], Predictions[jax.Array]]:
    """Builds `predict_step(variables, images) -> Predictions`; images uint8 [B, H, W, 3].

    `class_loss` is that of training: scores trained with "softmax" become probabilities here.
    """

    def predict_step(variables: Any, images: jax.Array) -> Predictions[jax.Array]:
        predictions = _split(model, model.apply(variables, images, train=False))
        if class_loss == "softmax":
            probabilities = jax.nn.softmax(predictions.class_scores, axis=-1)
            return predictions._replace(class_scores=probabilities)
        return predictions

    return predict_step


def inference_variables(state: TrainState) -> dict[str, Any]:
    """What a trained network predicts with: the averaged weights where there are any.

    BatchNorm's running statistics are averages already and are taken as they are.
    """
    return {
        "params": averaged_weights(state.opt_state, state.params),
        "batch_stats": state.batch_stats,
    }


def _split(model: Any, raw: jax.Array) -> Predictions[jax.Array]:
    return split_predictions(
        raw, boxes_per_cell=model.boxes_per_cell, num_classes=model.num_classes
    )
