"""The state of training, and one step of it: pure functions that mention no device.

Axes: B batch, M padded objects of an image.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yolov1_jax.training.optimizer import averaged_weights
from yolov1_jax.yolo.darknet_loss import darknet_loss
from yolov1_jax.yolo.grid import (
    Predictions,
    encode_targets,
    finish_predictions,
    split_predictions,
)
from yolov1_jax.yolo.loss import Loss, yolo_loss

Batch = Mapping[str, jax.Array]
Metrics = dict[str, Any]


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
    *,
    target_options: Mapping[str, Any],
    loss_options: Mapping[str, Any],
    dropout_seed: int | None = None,
    details: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Args:
      target_options: collision and class_target of `encode_targets`.
      loss_options: keyword arguments of `yolo_loss`, or "darknet" as its `prediction` and those of
        `darknet_loss`.
      dropout_seed: for a network with dropout, whose masks are a function of the seed and the step.
      details: for tests and reports, adds to the metrics "unweighted/<term>" for each term of the
        loss, "output", the network's [B, S, S, K*5+C], and "gradients", a tree like the parameters.

    The batch has image uint8 [B, H, W, 3], boxes_xyxy [B, M, 4] in [0, 1], labels and valid [B, M].
    The metrics are scalars: "loss", "loss/<term>" for each weighted term, and "gradient_norm".
    """

    options = dict(loss_options)
    loss_function: Callable[..., Loss] = yolo_loss
    if options.get("prediction") == "darknet":
        del options["prediction"]
        loss_function = darknet_loss

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        targets = encode_targets(
            batch["boxes_xyxy"],
            batch["labels"],
            batch["valid"],
            grid_size=model.grid_size,
            num_classes=model.num_classes,
            xy_unit=options["xy_unit"],
            **target_options,
        )

        rngs = {}
        if dropout_seed is not None:
            rngs["dropout"] = jax.random.fold_in(jax.random.key(dropout_seed), state.step)

        def loss_fn(params: Any) -> tuple[jax.Array, tuple[Loss, jax.Array, Any]]:
            raw, updated = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch["image"],
                train=True,
                mutable=["batch_stats"],
                rngs=rngs,
            )
            loss = loss_function(_split(model, raw), targets, **options)
            return loss.total, (loss, raw, updated.get("batch_stats", {}))

        gradients, (loss, raw, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        metrics: Metrics = {
            "loss": loss.total,
            **{f"loss/{name}": term for name, term in loss.terms.items()},
            "gradient_norm": optax.tree.norm(gradients),
        }
        if details:
            metrics |= {f"unweighted/{name}": term for name, term in loss.unweighted.items()}
            metrics |= {"output": raw, "gradients": gradients}
        return new_state, metrics

    return train_step


def make_predict_step(
    model: Any, *, prediction: str = "raw", xy_unit: str = "image", class_loss: str = "squared"
) -> Callable[[Any, jax.Array], Predictions[jax.Array]]:
    """Builds `predict_step(variables, images) -> Predictions`; images uint8 [B, H, W, 3].

    The options are those of training. Predictions are finished: class scores that were trained with
    "softmax" or "bernoulli" become probabilities.
    """
    probabilities = {"softmax": jax.nn.softmax, "bernoulli": jax.nn.sigmoid}

    def predict_step(variables: Any, images: jax.Array) -> Predictions[jax.Array]:
        outputs = _split(model, model.apply(variables, images, train=False))
        predictions = finish_predictions(outputs, prediction=prediction, xy_unit=xy_unit)
        if class_loss in probabilities:
            scores = probabilities[class_loss](predictions.class_scores)
            return predictions._replace(class_scores=scores)
        return predictions

    return predict_step


def inference_variables(state: TrainState) -> dict[str, Any]:
    """The variables that a trained network predicts with: the averaged weights if there are any.

    BatchNorm's running statistics are averages already.
    """
    return {
        "params": averaged_weights(state.opt_state, state.params),
        "batch_stats": state.batch_stats,
    }


def _split(model: Any, raw: jax.Array) -> Predictions[jax.Array]:
    k, c = model.boxes_per_cell, model.num_classes
    return split_predictions(raw, boxes_per_cell=k, num_classes=c)
