"""Our training, by the parts that a run of configs/r34.py is made of, on the batches of a case."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from golden import fixed_numbers
from golden.jax_detector import fixed_variables, model_of, torch_names
from golden.resnet_cases import ResNetCase
from golden.scenes import scenes
from jax.typing import DTypeLike

from yolov1_jax import config as configs
from yolov1_jax.models.batch_norm import BatchNorm
from yolov1_jax.models.resnet import BasicBlock, Bottleneck
from yolov1_jax.training import build, cpu
from yolov1_jax.training.step import TrainState, make_train_step
from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import Loss, yolo_loss

CONFIG = configs.shipped_config("r34")
TARGET_OPTIONS = build.target_options(CONFIG)
LOSS_OPTIONS = build.loss_options(CONFIG)
TERMS = ("xy", "wh", "object", "no_object", "class")


class JaxTraining:
    """Steps through the batches of a case; the counterpart of `TorchTraining`."""

    def __init__(self, case: ResNetCase, dtype: DTypeLike):
        self.case, self.dtype = case, dtype
        model = model_of(case, dtype)
        config = configs.replace(CONFIG, "train.accumulation_steps", case.accumulation_steps)
        config = configs.replace(config, "model.class_names", ("any",))
        # The state of the first part of this chain are the gradients of the last batch.
        keep = optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params),
            lambda gradients, *_: (gradients, gradients),
        )
        optimizer = optax.chain(keep, build.Setup(config).optimizer)
        variables = fixed_variables(model, batch_of(case, 0, dtype)["image"])
        opt_state = optimizer.init(variables["params"])
        self.state = TrainState(step=jnp.zeros([], jnp.int32), opt_state=opt_state, **variables)
        loss_function = build.loss_function(CONFIG)

        def loss_and_output(raw: jax.Array, batch: dict[str, Any]) -> Loss:
            loss = loss_function(raw, batch)
            return loss._replace(terms=loss.terms | {"output": raw})

        step = make_train_step(model, optimizer, loss_and_output)
        self._step = jax.jit(step, donate_argnums=0)

    def step(self) -> dict[str, float]:
        """One batch; the terms of its loss."""
        batch = batch_of(self.case, int(self.state.step), self.dtype)
        self.state, self.metrics = self._step(self.state, batch)
        return {name: float(self.metrics[f"loss/{name}"]) for name in TERMS}

    def output(self) -> np.ndarray:
        """[B, S, S, 10 + C] of the last batch."""
        return np.asarray(self.metrics["loss/output"])

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients of the last batch's loss."""
        return torch_names(self.state.opt_state[0])

    def parameters(self) -> dict[str, np.ndarray]:
        return torch_names(self.state.params)

    def running_statistics(self) -> dict[str, np.ndarray]:
        return torch_names(self.state.batch_stats)


def batch_of(case: ResNetCase, index: int, dtype: DTypeLike) -> dict[str, np.ndarray]:
    """A batch as the pipeline yields it, but for the type of its boxes."""
    name = case.batch_name(index)
    objects = scenes(name, case.batch_size, case.num_classes)
    return {
        "image": fixed_numbers.images(name, case.image_shape),
        **objects._replace(boxes_xyxy=objects.boxes_xyxy.astype(dtype))._asdict(),
    }


def evaluate(case: ResNetCase, dtype: DTypeLike) -> tuple[np.ndarray, dict, dict, Any]:
    """A pass in evaluation mode, and back.

    Returns the output, [B, S, S, 10 + C], the terms of the loss, the gradients by torch's names,
    and the outputs of every BatchNorm and every block, as flax names them.
    """
    model, batch = model_of(case, dtype), batch_of(case, 0, dtype)
    variables = fixed_variables(model, batch["image"])
    objects = (batch[name] for name in ("boxes_xyxy", "labels", "valid"))
    targets = encode_targets(
        *map(jnp.asarray, objects),
        grid_size=case.grid_size,
        num_classes=case.num_classes,
        **TARGET_OPTIONS,
    )

    def total(variables, images):
        raw, seen = model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda module, _: isinstance(
                module, BatchNorm | BasicBlock | Bottleneck
            ),
            mutable=["intermediates"],
        )
        predictions = split_predictions(raw, boxes_per_cell=2, num_classes=case.num_classes)
        loss = yolo_loss(predictions, targets, **LOSS_OPTIONS)
        return loss.total, (raw, loss.terms, seen["intermediates"])

    # With the options of every jitted step of the program.
    gradient = jax.jit(jax.grad(total, has_aux=True), compiler_options=cpu.compiler_options())
    gradients, (raw, terms, normalized) = gradient(variables, batch["image"])
    return np.asarray(raw), jax.tree.map(float, terms), torch_names(gradients["params"]), normalized
