"""The classifier's size, its loss, and what a step makes of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.models.classifier import LinearHead, classification_loss


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
