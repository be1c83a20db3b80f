"""The mean of the losses since the last row of metrics, and the checks that all is finite."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolov1_jax.errors import RunError

# The order in which they are shown; a jitted function returns a dict in alphabetical order.
_NAMES = (
    "loss",
    "loss/xy",
    "loss/wh",
    "loss/object",
    "loss/no_object",
    "loss/class",
    "gradient_norm",
)


class NonFiniteLoss(RunError):
    """The loss, its gradient or the weights are NaN or infinite: there is no way on from there."""


class LossWindow:
    """Sums of metrics, whose content is a JSON value so that a checkpoint can hold it."""

    def __init__(self, content: Mapping[str, Any] | None = None) -> None:
        """`content`: of an earlier window, to go on with."""
        content = content or {"count": 0, "sums": {}}
        self._count: int = content["count"]
        self._sums: dict[str, float] = dict(content["sums"])

    def add(self, step: int, metrics: Mapping[str, jax.Array], image_ids: np.ndarray) -> None:
        """Adds the metrics of one step; waits for the device to have computed them.

        Raises:
          NonFiniteLoss: with the terms, the step and the images of the batch.
        """
        on_host = jax.device_get(dict(metrics))
        values = {name: float(on_host[name]) for name in _NAMES}
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        if wrong:
            terms = ", ".join(f"{name}={value}" for name, value in wrong.items())
            raise NonFiniteLoss(
                f"the loss of step {step} is not finite ({terms}); {_advice(image_ids)}"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def content(self) -> dict[str, Any]:
        return {"count": self._count, "sums": dict(self._sums)}

    def flush(self) -> dict[str, float]:
        """The means since the last flush; starts anew."""
        means = {name: total / max(self._count, 1) for name, total in self._sums.items()}
        self._count, self._sums = 0, {}
        return means


def check_finite_state(step: int, state: Any, image_ids: np.ndarray) -> None:
    """Checks what a step has made of the weights, statistics and moments; waits for the device.

    A loss can be finite although they are not: BatchNorm divides what is too large by infinity,
    and the update itself may overflow.

    Raises:
      NonFiniteLoss: with the arrays, the step and the images of its batch.
    """
    finite = jax.device_get(_finite(state))
    wrong = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, good in jax.tree_util.tree_leaves_with_path(finite)
        if not good
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more arrays" if len(wrong) > 3 else ""
        raise NonFiniteLoss(
            f"the loss of step {step} is finite, but not what that step made of "
            f"{', '.join(wrong[:3])}{more}; {_advice(image_ids)}"
        )


@jax.jit
def _finite(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def _advice(image_ids: np.ndarray) -> str:
    return (
        "what was saved before is good and can be continued, best with a smaller "
        f"config.optimizer.learning_rate; images: {', '.join(image_ids)}"
    )
