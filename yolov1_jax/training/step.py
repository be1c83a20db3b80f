"""The state of training, and one step of it: pure functions that mention no device.

Axes: B batch, M padded objects of an image.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yolov1_jax.training.optimizer import averaged_weights
from yolov1_jax.yolo.grid import (
    GridTargets,
    Predictions,
    encode_targets,
    finish_predictions,
    split_predictions,
)
from yolov1_jax.yolo.loss import Loss

Batch = Mapping[str, jax.Array]
Metrics = dict[str, Any]
LossFunction = Callable[[jax.Array, Batch], Loss]  # (output of the network, batch) -> Loss
Finish = Callable[[jax.Array], Any]  # output of the network -> what it predicts


class TrainState(NamedTuple):
    """All that changes from step to step; the content of a checkpoint."""

    step: jax.Array  # int32 []
    params: Any
    batch_stats: Any  # running mean and variance of BatchNorm; {} for a network without
    opt_state: Any


def create_train_state(
    key: jax.Array, *, model: Any, optimizer: optax.GradientTransformation, image_size: int
) -> TrainState:
    """Initial state with random weights."""
    variables = model.init(key, jnp.zeros((1, image_size, image_size, 3), jnp.uint8), train=False)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
    )


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    loss_function: LossFunction,
    *,
    dropout_seed: int = 0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Args:
      loss_function: such as `detection_loss` with its options given.
      dropout_seed: for a network with dropout, whose masks are a function of the seed and the step.

    The batch has image uint8 [B, H, W, 3], and what `loss_function` takes. The metrics are scalars:
    "loss", "loss/<term>" for each weighted term, and "gradient_norm".
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout = jax.random.fold_in(jax.random.key(dropout_seed), state.step)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Loss, Any]]:
            raw, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout},
            )
            loss = loss_function(raw, batch)
            return loss.total, (loss, updated.get("batch_stats", {}))

        gradients, (loss, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        metrics = loss_metrics(loss) | {"gradient_norm": optax.tree.norm(gradients)}
        return new_state, metrics

    return train_step


def loss_metrics(loss: Loss) -> Metrics:
    return {"loss": loss.total, **{f"loss/{name}": term for name, term in loss.terms.items()}}


def make_predict_step(model: Any, finish: Finish) -> Callable[[Any, jax.Array], Any]:
    """Builds `predict_step(variables, images)`; images uint8 [B, H, W, 3].

    It returns what `finish` makes of the output: Predictions, or probabilities [B, C].
    """

    def predict_step(variables: Any, images: jax.Array) -> Any:
        return finish(model.apply(variables, images, train=False))

    return predict_step


def make_evaluation_step(
    model: Any, loss_function: LossFunction, finish: Finish, *, loss_scale: float = 1.0
) -> Callable[[Any, Batch], tuple[Any, dict[str, jax.Array]]]:
    """Builds `evaluation_step(variables, batch) -> (predictions, losses)`, batches as in training.

    Predictions are those of `make_predict_step`. The losses are "loss" and "loss/<term>" as in
    training, but of each image by itself, [B], times `loss_scale`; BatchNorm and dropout are as for
    prediction.
    """

    def loss_of_image(raw: jax.Array, batch: Batch) -> Metrics:
        loss = loss_function(*jax.tree.map(lambda leaf: leaf[None], (raw, batch)))
        return {name: loss_scale * one for name, one in loss_metrics(loss).items()}

    def evaluation_step(variables: Any, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        raw = model.apply(variables, batch["image"], train=False)
        truth = {name: part for name, part in batch.items() if name != "image"}
        return finish(raw), jax.vmap(loss_of_image)(raw, truth)

    return evaluation_step


def detection_loss(
    loss: Callable[[Predictions[jax.Array], GridTargets], Loss],
    raw: jax.Array,
    batch: Batch,
    *,
    boxes_per_cell: int,
    **target_options: Any,
) -> Loss:
    """The loss of the network's output [B, S, S, K*5+C].

    Args:
      loss: `yolo_loss` or `darknet_loss`, with its options given.
      batch: boxes_xyxy [B, M, 4] in [0, 1], labels and valid [B, M].
      target_options: xy_unit, collision and class_target of `encode_targets`.
    """
    outputs = _split(raw, boxes_per_cell)
    targets = encode_targets(
        batch["boxes_xyxy"],
        batch["labels"],
        batch["valid"],
        grid_size=raw.shape[1],
        num_classes=outputs.class_scores.shape[-1],
        **target_options,
    )
    return loss(outputs, targets)


def finished_predictions(
    raw: jax.Array,
    *,
    boxes_per_cell: int,
    prediction: str = "raw",
    xy_unit: str = "image",
    class_loss: str = "squared",
) -> Predictions[jax.Array]:
    """The network's output [B, S, S, K*5+C] as the numbers that it stands for.

    The options are those of training. Class scores that were trained with "softmax" or "bernoulli"
    become probabilities.
    """
    outputs = _split(raw, boxes_per_cell)
    predictions = finish_predictions(outputs, prediction=prediction, xy_unit=xy_unit)
    probabilities = {"softmax": jax.nn.softmax, "bernoulli": jax.nn.sigmoid}
    if class_loss in probabilities:
        scores = probabilities[class_loss](predictions.class_scores)
        return predictions._replace(class_scores=scores)
    return predictions


def _split(raw: jax.Array, boxes_per_cell: int) -> Predictions[jax.Array]:
    num_classes = raw.shape[-1] - 5 * boxes_per_cell
    return split_predictions(raw, boxes_per_cell=boxes_per_cell, num_classes=num_classes)


def inference_variables(state: TrainState) -> dict[str, Any]:
    """The variables that a trained network predicts with: the averaged weights if there are any.

    BatchNorm's running statistics are averages already.
    """
    return {
        "params": averaged_weights(state.opt_state, state.params),
        "batch_stats": state.batch_stats,
    }
