"""The mean of the losses since the last row of metrics, and the check that they are finite."""

import math
from collections.abc import Mapping
from typing import Any

import jax
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
    """The loss or its gradient is NaN or infinite: training on would destroy the weights."""


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
                f"the loss of step {step} is not finite ({terms}); no checkpoint was saved since; "
                f"images: {', '.join(image_ids)}"
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
