"""The classifier's size, its loss, and what a step makes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from yolov1_jax.models.classifier import Classifier, LinearHead, classification_loss
from yolov1_jax.training.step import create_train_state, make_predict_step, make_train_step


@pytest.mark.parametrize(
    ("backbone", "num_parameters"),
    # torchvision's documentation of its models
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_a_thousand_classes_make_torchvisions_resnets(backbone, num_parameters):
    init = functools.partial(Classifier(1000, backbone).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.uint8))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == num_parameters


def test_the_head_is_linear_in_the_mean_over_the_places():
    features = jnp.array([[[[1.0, 0.0], [3.0, 4.0]]]])  # [1, 1, 2, 2]: mean 2 and 2
    weights = {
        "kernel": jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]),
        "bias": jnp.array([0, 1, 2]),
    }
    logits = LinearHead(3).apply({"params": {"predict": weights}}, features)
    assert logits.tolist() == [[2, 3, 8]]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_hand_worked_case(smoothing):
    """Probabilities 1/4 and 3/4, and 1/2 and 1/2."""
    logits = jnp.log(jnp.array([[1.0, 3.0], [5.0, 5.0]]))
    loss = classification_loss(logits, jnp.array([1, 0]), label_smoothing=smoothing)
    first = -(1 - smoothing / 2) * np.log(0.75) - smoothing / 2 * np.log(0.25)
    np.testing.assert_allclose(loss.total, (first + np.log(2)) / 2, rtol=1e-6)
    assert loss.terms == {}


class WithoutBackbone(Classifier):
    """Its features are the colours."""

    @nn.compact
    def __call__(self, images, train):
        return LinearHead(self.num_classes, name="head")(images / 255)


def test_a_few_steps_learn_two_colours():
    model, optimizer = WithoutBackbone(2), optax.sgd(2.0)
    state = create_train_state(jax.random.key(0), model=model, optimizer=optimizer, image_size=4)
    step = make_train_step(
        model, optimizer, lambda raw, batch: classification_loss(raw, batch["labels"])
    )
    step = jax.jit(step)
    images = np.zeros((4, 4, 4, 3), np.uint8)
    images[:2, ..., 0], images[2:, ..., 2] = 200, 200
    batch = {"image": images, "labels": np.array([0, 0, 1, 1], np.int32)}
    for _ in range(9):
        state, metrics = step(state, batch)
    assert metrics["loss"] < 0.2 < np.log(2)  # that of equal probabilities
    assert set(metrics) == {"loss", "gradient_norm"}

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    probabilities = make_predict_step(model, jax.nn.softmax)(variables, images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
