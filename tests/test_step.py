"""One step of training, on a network small enough to follow.

Frames: boxes in [0, 1] of the image. B batch, S = 2 grid side, K = 2 boxes per cell, C = 3 classes.
"""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from yolov1_jax.training.optimizer import build_optimizer
from yolov1_jax.training.sharding import shard_batch, shardings
from yolov1_jax.training.step import (
    create_train_state,
    detection_loss,
    finished_predictions,
    inference_variables,
    make_evaluation_step,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.yolo.darknet_loss import darknet_loss
from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import yolo_loss

TARGETS = {"collision": "last", "class_target": "all"}
LOSS = {"xy_unit": "cell", "reduction": "mean"}


def loss_of(loss=yolo_loss):
    loss = functools.partial(loss, **LOSS)
    return functools.partial(detection_loss, loss, boxes_per_cell=2, xy_unit="cell", **TARGETS)


def finish_of(**options):
    return functools.partial(finished_predictions, boxes_per_cell=2, **options)


class TinyNet(nn.Module):
    """One hidden layer with BatchNorm between the pixels and the grid."""

    num_classes: int = 3
    grid_size: int = 2
    boxes_per_cell: int = 2

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), -1) / 255  # [B, H*W*3]
        x = nn.Dense(64, use_bias=False)(x)  # [B, 64]
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dense(self.grid_size**2 * (self.boxes_per_cell * 5 + self.num_classes))(x)
        return x.reshape(len(images), self.grid_size, self.grid_size, -1)  # [B, S, S, K*5+C]


MODEL = TinyNet()


def batch_of(num_images=8):
    """Random pixels; one or two objects an image, in cells of their own."""
    rng = np.random.default_rng(0)
    cells = np.array([[0.0, 0.0], [0.5, 0.5]])
    centres = cells + rng.uniform(0.1, 0.4, (num_images, 2, 2))
    sides = rng.uniform(0.1, 0.2, (num_images, 2, 2))
    return {
        "image": rng.integers(0, 256, (num_images, 8, 8, 3), np.uint8),
        "boxes_xyxy": np.concatenate([centres - sides, centres + sides], -1).astype(np.float32),
        "labels": rng.integers(0, 3, (num_images, 2), np.int32),
        "valid": np.stack([np.ones(num_images, bool), np.arange(num_images) % 2 == 0], 1),
    }


def new_state(optimizer):
    return create_train_state(jax.random.key(0), model=MODEL, optimizer=optimizer, image_size=8)


def optimizer_of(name="sgd", learning_rate=0.1, **options):
    return build_optimizer(name, lambda count: learning_rate, **{"momentum": 0.0, **options})


def step_of(optimizer, **jit_options):
    return jax.jit(make_train_step(MODEL, optimizer, loss_of()), **jit_options)


@pytest.fixture(scope="module")
def sgd_step():
    return step_of(optimizer_of())


def assert_close(tree, expected, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), tree, expected)


def by_hand(params, batch_stats, batch):
    """The loss, its parts and the new statistics, composed of the parts."""
    objects = (batch[name] for name in ("boxes_xyxy", "labels", "valid"))
    targets = encode_targets(*objects, grid_size=2, num_classes=3, xy_unit="cell", **TARGETS)
    raw, updated = MODEL.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
    )
    loss = yolo_loss(split_predictions(raw, boxes_per_cell=2, num_classes=3), targets, **LOSS)
    return loss.total, (loss, updated["batch_stats"])


def test_a_step_is_forward_loss_gradient_update(sgd_step):
    state, batch = new_state(optimizer_of()), batch_of()
    (_, (loss, statistics)), gradients = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(
        state.params, state.batch_stats, batch
    )
    moved = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, state.params, gradients)
    norm = np.sqrt(sum(np.sum(np.square(slope)) for slope in jax.tree.leaves(gradients)))
    expected = {"loss": loss.total, "gradient_norm": norm}
    expected |= {f"loss/{name}": term for name, term in loss.terms.items()}
    assert all(float(value) > 0 for value in expected.values())
    after, metrics = sgd_step(state, batch)
    assert int(after.step) == 1
    assert_close(after.params, moved, rtol=1e-5, atol=1e-7)
    assert_close(after.batch_stats, statistics, rtol=1e-5, atol=1e-7)
    assert_close(metrics, expected, rtol=1e-5, atol=1e-6)


class DropNet(TinyNet):
    """A linear layer behind dropout; no BatchNorm."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dropout(0.5, deterministic=not train)(images.reshape(len(images), -1) / 255)
        x = nn.Dense(self.grid_size**2 * (self.boxes_per_cell * 5 + self.num_classes))(x)
        return x.reshape(len(images), self.grid_size, self.grid_size, -1)


def test_dropout_is_a_function_of_the_step_and_the_loss_may_be_darknets():
    model, optimizer, batch = DropNet(), optimizer_of(), batch_of()
    loss_function = loss_of(darknet_loss)

    def loss_and_output(raw, batch):
        loss = loss_function(raw, batch)
        return loss._replace(terms=loss.terms | {"output": raw})

    jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    step = jit(make_train_step(model, optimizer, loss_and_output))
    state = create_train_state(jax.random.key(0), model=model, optimizer=optimizer, image_size=8)
    after, metrics = step(state, batch)
    _, again = step(state, batch)
    np.testing.assert_array_equal(metrics["loss/output"], again["loss/output"])
    assert after.batch_stats == {}
    _, later = step(state._replace(step=state.step + 1), batch)
    assert np.mean(np.asarray(later["loss/output"]) != np.asarray(metrics["loss/output"])) > 0.9
    expected = jit(loss_function)(metrics["loss/output"], batch)
    np.testing.assert_allclose(metrics["loss"], expected.total, rtol=1e-5)


def test_one_batch_can_be_learned_by_heart():
    optimizer = optimizer_of("adam", 3e-3)
    step, state, batch = step_of(optimizer), new_state(optimizer), batch_of()
    losses = []
    for _ in range(300):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[30] < losses[0] / 10
    assert losses[-1] < losses[0] / 1000
    assert int(state.step) == 300


def test_four_devices_make_the_same_step(sgd_step):
    over_batch, replicated = shardings()
    step = step_of(
        optimizer_of(),
        in_shardings=(replicated, over_batch),
        out_shardings=(replicated, replicated),
    )
    state, batch = new_state(optimizer_of()), batch_of()
    expected, expected_metrics = sgd_step(state, batch)
    found, metrics = step(jax.device_put(state, replicated), shard_batch(batch, over_batch))
    assert_close(metrics, expected_metrics, rtol=1e-5)
    # What the step has changed, array by array, relative to the length of the change.
    for part in ("params", "batch_stats"):
        arrays = (jax.tree.leaves(getattr(one, part)) for one in (state, expected, found))
        for before, one, four in zip(*arrays, strict=True):
            change = np.linalg.norm(one - before)
            assert change > 0
            assert np.linalg.norm(four - one) < 1e-5 * change


def test_inference_uses_the_averaged_weights_if_there_are_any():
    optimizer = optimizer_of(ema_decay=0.9)
    before = new_state(optimizer)
    after, _ = step_of(optimizer)(before, batch_of())
    # The first update keeps 1/10 of the initial weights.
    average = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.params, after.params)
    variables = inference_variables(after)
    assert_close(variables, {"params": average, "batch_stats": after.batch_stats}, rtol=1e-5)
    plain = new_state(optimizer_of())
    assert inference_variables(plain)["params"] is plain.params


def test_prediction_normalises_with_the_running_statistics(sgd_step):
    state, batch = new_state(optimizer_of()), batch_of()
    for _ in range(2):
        state, _ = sgd_step(state, batch)
    predict = jax.jit(make_predict_step(MODEL, finish_of()))
    variables = inference_variables(state)
    together = predict(variables, batch["image"])
    # What an image gives does not depend on its company.
    alone = predict(variables, batch["image"][5:6])
    assert_close(alone, jax.tree.map(lambda part: part[5:6], together), rtol=1e-5, atol=1e-6)
    raw = MODEL.apply(variables, batch["image"], train=False)
    expected = split_predictions(raw, boxes_per_cell=2, num_classes=3)
    assert_close(together, expected, rtol=1e-5, atol=1e-6)


def test_an_evaluation_has_the_loss_of_each_image():
    variables, batch = inference_variables(new_state(optimizer_of())), batch_of(4)
    step = make_evaluation_step(MODEL, loss_of(), finish_of(), loss_scale=3.0)
    predictions, losses = jax.jit(step)(variables, batch)
    raw, loss_function = MODEL.apply(variables, batch["image"], train=False), jax.jit(loss_of())
    assert_close(predictions, finish_of()(raw), rtol=1e-5, atol=1e-6)
    for i in range(4):
        loss = loss_function(raw[i : i + 1], {name: part[[i]] for name, part in batch.items()})
        np.testing.assert_allclose(losses["loss"][i], 3 * loss.total, rtol=1e-4)
        np.testing.assert_allclose(losses["loss/xy"][i], 3 * loss.terms["xy"], rtol=1e-4)


def test_predictions_are_finished():
    variables = inference_variables(new_state(optimizer_of()))
    images = batch_of()["image"]
    raw = make_predict_step(MODEL, finish_of())(variables, images)
    softmax = make_predict_step(MODEL, finish_of(class_loss="softmax"))(variables, images)
    powers = np.exp(np.asarray(raw.class_scores, np.float64))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax.class_scores, expected, rtol=1e-5)
    assert_close(softmax[:2], raw[:2], rtol=0, atol=0)  # boxes and confidence stay
    finish = finish_of(prediction="sigmoid", xy_unit="cell", class_loss="bernoulli")
    sigmoid = make_predict_step(MODEL, finish)(variables, images)
    for found, logits in zip(sigmoid, raw, strict=True):
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
