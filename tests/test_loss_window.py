"""Means between two rows of metrics, also across an interruption; what is not finite stops."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.training.loss_window import LossWindow, NonFiniteLoss, check_finite_state

NAMES = [
    "loss",
    "loss/xy",
    "loss/wh",
    "loss/object",
    "loss/no_object",
    "loss/class",
    "gradient_norm",
]
IDS = np.array(["VOC2007/000012", "VOC2007/000017"])


def metrics(first, **changes):
    """Numbers that float32 holds exactly, in another order than they are shown in."""
    values = {name: first + i / 8 for i, name in enumerate(NAMES)} | changes
    return {name: jnp.float32(values[name]) for name in sorted(values)}


def test_means_since_the_last_flush():
    window = LossWindow()
    for step, first in enumerate((1.0, 2.0, 6.0), start=1):
        window.add(step, metrics(first), IDS)
    assert window.flush() == {name: 3.0 + i / 8 for i, name in enumerate(NAMES)}
    window.add(4, metrics(10.0), IDS)
    means = window.flush()
    assert list(means) == NAMES  # the order in which they are shown
    assert means["loss"] == 10.0
    assert window.flush() == {}


def test_an_interrupted_window_goes_on():
    whole, first_part = LossWindow(), LossWindow()
    numbers = np.random.default_rng(0).random(5)
    for step, number in enumerate(numbers):
        whole.add(step, metrics(number), IDS)
    for step, number in enumerate(numbers[:3]):
        first_part.add(step, metrics(number), IDS)
    saved = json.dumps(first_part.content())  # as in a checkpoint
    content = json.loads(saved)
    second_part = LossWindow(content)
    for step, number in enumerate(numbers[3:]):
        second_part.add(step, metrics(number), IDS)
    assert second_part.flush() == whole.flush()  # to the last bit
    assert json.dumps(content) == saved  # the window has made a copy


def test_an_empty_content_is_a_new_window():
    assert LossWindow(None).content() == LossWindow({"count": 0, "sums": {}}).content()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["loss", "loss/wh", "gradient_norm"])
def test_what_is_not_finite_stops(name, value):
    window = LossWindow()
    window.add(41, metrics(1.0), IDS)
    with pytest.raises(NonFiniteLoss) as caught:
        window.add(42, metrics(1.0, **{name: value}), IDS)
    message = str(caught.value)
    assert "step 42 " in message
    assert f"({name}={value})" in message  # and no other term
    assert "VOC2007/000012, VOC2007/000017" in message
    assert window.content()["count"] == 1


def test_the_state_must_be_finite():
    good = {"a": {"kernel": jnp.ones((2, 3))}, "count": jnp.int32(3)}
    check_finite_state(7, good, IDS)
    bad = {**good, "b": {"kernel": jnp.ones((2, 3)).at[1, 2].set(jnp.inf)}}
    with pytest.raises(NonFiniteLoss, match=r"step 7 .* made of b/kernel; .*VOC2007/000012"):
        check_finite_state(7, bad, IDS)
