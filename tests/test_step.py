"""One step of training, on a network small enough to follow.

Frames: boxes in [0, 1] of the image. B batch, S = 2 grid side, K = 2 boxes per cell, C = 3 classes.
"""

import jax
import numpy as np
import pytest
from tiny_net import STATISTICS_MOMENTUM, TinyNet

from yolov1_jax.training.optimizer import build_optimizer
from yolov1_jax.training.sharding import batch_sharding, data_mesh, replicated_sharding, shard_batch
from yolov1_jax.training.step import (
    create_train_state,
    inference_variables,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import yolo_loss

TARGETS = {"collision": "last", "class_target": "all"}
LOSS = {
    "coordinate_weight": 5.0,
    "object_weight": 1.0,
    "no_object_weight": 0.5,
    "class_weight": 1.0,
    "objectness_target": "iou",
    "no_object_boxes": "all",
    "xy_unit": "cell",
    "class_loss": "squared",
    "sqrt_epsilon": 1e-5,
    "reduction": "mean",
}
MODEL = TinyNet()


def batch_of(num_images=8, seed=0):
    """Random pixels; one or two objects an image, in cells of their own."""
    rng = np.random.default_rng(seed)
    cells = np.array([[0.0, 0.0], [0.5, 0.5]])
    centres = cells + rng.uniform(0.1, 0.4, (num_images, 2, 2))
    sides = rng.uniform(0.1, 0.2, (num_images, 2, 2))
    return {
        "image": rng.integers(0, 256, (num_images, 8, 8, 3), np.uint8),
        "boxes_xyxy": np.concatenate([centres - sides, centres + sides], -1).astype(np.float32),
        "labels": rng.integers(0, 3, (num_images, 2), np.int32),
        "valid": np.stack([np.ones(num_images, bool), np.arange(num_images) % 2 == 0], 1),
    }


def new_state(optimizer, seed=0):
    return create_train_state(jax.random.key(seed), model=MODEL, optimizer=optimizer, image_size=8)


def sgd(learning_rate=0.1, **options):
    options = {"momentum": 0.0, **options}
    return build_optimizer("sgd", lambda count: learning_rate, **options)


def step_of(optimizer, loss=LOSS):
    return jax.jit(make_train_step(MODEL, optimizer, target_options=TARGETS, loss_options=loss))


@pytest.fixture(scope="module")
def sgd_step():
    return step_of(sgd())


def assert_close(tree, expected, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), tree, expected)


def by_hand(params, batch_stats, batch):
    """The loss, its terms and the new statistics, composed of the parts."""
    targets = encode_targets(
        batch["boxes_xyxy"], batch["labels"], batch["valid"], grid_size=2, num_classes=3, **TARGETS
    )
    raw, updated = MODEL.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats"],
    )
    terms = yolo_loss(split_predictions(raw, boxes_per_cell=2, num_classes=3), targets, **LOSS)
    return sum(terms.values()), (terms, updated["batch_stats"])


def test_a_step_is_forward_loss_gradient_update(sgd_step):
    state, batch = new_state(sgd()), batch_of()
    (loss, (terms, statistics)), gradients = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(
        state.params, state.batch_stats, batch
    )
    expected = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, state.params, gradients)

    after, metrics = sgd_step(state, batch)
    assert int(after.step) == 1
    assert_close(after.params, expected, rtol=1e-5, atol=1e-7)
    assert_close(after.batch_stats, statistics, rtol=1e-5, atol=1e-7)
    norm = np.sqrt(sum(np.sum(np.square(slope)) for slope in jax.tree.leaves(gradients)))
    assert_close(
        metrics,
        {
            "loss": loss,
            **{
                f"loss/{name}": terms[name] for name in ("xy", "wh", "object", "no_object", "class")
            },
            "gradient_norm": norm,
        },
        rtol=1e-5,
    )
    assert all(value.shape == () for value in metrics.values())
    assert all(float(value) > 0 for value in metrics.values())


def test_statistics_are_those_of_the_batch(sgd_step):
    state, batch = new_state(sgd()), batch_of()
    after, _ = sgd_step(state, batch)
    hidden = batch["image"].reshape(8, -1) / 255 @ np.asarray(state.params["Dense_0"]["kernel"])
    found = after.batch_stats["BatchNorm_0"]
    fresh = 1 - STATISTICS_MOMENTUM
    np.testing.assert_allclose(found["mean"], fresh * hidden.mean(0), rtol=1e-4, atol=1e-6)
    expected = STATISTICS_MOMENTUM + fresh * hidden.var(0)
    np.testing.assert_allclose(found["var"], expected, rtol=1e-4)


def test_padding_teaches_nothing(sgd_step):
    state, batch = new_state(sgd()), batch_of()
    other = {name: array.copy() for name, array in batch.items()}
    padding = ~batch["valid"]
    other["boxes_xyxy"][padding] = [0.1, 0.1, 0.9, 0.9]
    other["labels"][padding] = 2
    for one, two in zip(sgd_step(state, batch), sgd_step(state, other), strict=True):
        assert_close(one, two, rtol=0, atol=0)


def test_one_batch_can_be_learned_by_heart():
    optimizer = build_optimizer("adam", lambda count: 3e-3)
    step, state, batch = step_of(optimizer), new_state(optimizer), batch_of()
    losses = []
    for _ in range(300):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[30] < losses[0] / 10
    assert losses[-1] < losses[0] / 1000
    assert int(state.step) == 300


def test_four_devices_make_the_same_step(sgd_step):
    mesh = data_mesh()
    over_batch, replicated = batch_sharding(mesh), replicated_sharding(mesh)
    step = jax.jit(
        make_train_step(MODEL, sgd(), target_options=TARGETS, loss_options=LOSS),
        in_shardings=(replicated, over_batch),
        out_shardings=(replicated, replicated),
    )
    state, batch = new_state(sgd()), batch_of()
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


def test_a_new_state_depends_on_the_key_alone():
    one, same, other = (new_state(sgd(), seed) for seed in (0, 0, 1))
    assert int(one.step) == 0
    assert_close(one, same, rtol=0, atol=0)
    kernels = [state.params["Dense_0"]["kernel"] for state in (one, other)]
    assert np.abs(kernels[0] - kernels[1]).min() > 0


def test_inference_uses_the_averaged_weights():
    # With accumulation, the average is found although it lies a level deeper.
    optimizer = sgd(ema_decay=0.15, accumulation_steps=2)
    step, state, batch = step_of(optimizer), new_state(optimizer), batch_of()
    expected = state.params
    for update in range(3):
        for _ in range(2):
            state, _ = step(state, batch)
        keep = min(0.15, (1 + update) / (10 + update))  # 1/10, 0.15, 0.15
        expected = jax.tree.map(
            lambda average, weight, keep=keep: keep * average + (1 - keep) * weight,
            expected,
            state.params,
        )
    variables = inference_variables(state)
    assert_close(variables["params"], expected, rtol=1e-5, atol=1e-7)
    assert_close(variables["batch_stats"], state.batch_stats, rtol=0, atol=0)
    kernel = variables["params"]["Dense_1"]["kernel"]
    assert np.abs(kernel - state.params["Dense_1"]["kernel"]).max() > 1e-4


def test_without_an_average_inference_uses_the_weights():
    state = new_state(sgd())
    assert inference_variables(state)["params"] is state.params


def test_prediction_normalises_with_the_running_statistics(sgd_step):
    state, batch = new_state(sgd()), batch_of()
    for _ in range(2):
        state, _ = sgd_step(state, batch)
    predict = jax.jit(make_predict_step(MODEL))
    variables = inference_variables(state)
    together = predict(variables, batch["image"])
    assert together.boxes.shape == (8, 2, 2, 2, 4)
    assert together.confidence.shape == (8, 2, 2, 2)
    assert together.class_scores.shape == (8, 2, 2, 3)
    # What an image gives does not depend on its company.
    alone = predict(variables, batch["image"][5:6])
    assert_close(alone, jax.tree.map(lambda part: part[5:6], together), rtol=1e-5, atol=1e-6)
    raw = MODEL.apply(variables, batch["image"], train=False)
    expected = split_predictions(raw, boxes_per_cell=2, num_classes=3)
    assert_close(together, expected, rtol=1e-5, atol=1e-6)


def test_softmax_scores_become_probabilities():
    variables = inference_variables(new_state(sgd()))
    images = batch_of()["image"]
    squared = make_predict_step(MODEL, class_loss="squared")(variables, images)
    softmax = make_predict_step(MODEL, class_loss="softmax")(variables, images)
    powers = np.exp(np.asarray(squared.class_scores, np.float64))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax.class_scores, expected, rtol=1e-5)
    assert_close(softmax[:2], squared[:2], rtol=0, atol=0)  # boxes and confidence stay
