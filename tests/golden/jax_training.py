"""Our training, by the parts that a run of configs/r34.py is made of, on the batches of a case."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from golden import fixed_numbers
from golden.jax_detector import fixed_variables, model_of, torch_names
from golden.resnet_cases import ResNetCase
from golden.scenes import scenes
from jax.typing import DTypeLike

from configs import r34
from yolov1_jax import config as configs
from yolov1_jax.models.batch_norm import BatchNorm
from yolov1_jax.models.resnet import BasicBlock, Bottleneck
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.training import build as experiment
from yolov1_jax.training.step import TrainState, make_train_step
from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import yolo_loss

CONFIG = r34.get_config()
TARGET_OPTIONS = experiment.target_options(CONFIG)
LOSS_OPTIONS = experiment.loss_options(CONFIG)


class JaxTraining:
    """Steps through the batches of a case; the counterpart of `TorchTraining`."""

    def __init__(self, case: ResNetCase, dtype: DTypeLike):
        self.case, self.dtype = case, dtype
        model = model_of(case, dtype)
        config = configs.replace(CONFIG, "train.accumulation_steps", case.accumulation_steps)
        optimizer = optax.chain(
            kept_gradients(), experiment.optimizer(config, experiment.duration(config, 16551))
        )
        variables = fixed_variables(model, batch_of(case, 0, dtype)["image"])
        grid = (case.batch_size, case.grid_size, case.grid_size, 10 + case.num_classes)
        self.state = TrainState(
            step=jnp.zeros([], jnp.int32),
            params=variables["params"],
            batch_stats={"network": variables["batch_stats"], "output": jnp.zeros(grid, dtype)},
            opt_state=optimizer.init(variables["params"]),
        )
        step = make_train_step(
            KeptOutput(model), optimizer, target_options=TARGET_OPTIONS, loss_options=LOSS_OPTIONS
        )
        self._step = jax.jit(step, donate_argnums=0)

    def step(self) -> dict[str, float]:
        """One batch; the terms of its loss."""
        batch = batch_of(self.case, int(self.state.step), self.dtype)
        self.state, metrics = self._step(self.state, batch)
        terms = {name.removeprefix("loss/"): float(value) for name, value in metrics.items()}
        return {name: terms[name] for name in ("xy", "wh", "object", "no_object", "class")}

    def output(self) -> np.ndarray:
        """[B, S, S, 10 + C] of the last batch."""
        return np.asarray(self.state.batch_stats["output"])

    def gradients(self) -> dict[str, np.ndarray]:
        """Of the loss of the last batch alone."""
        return torch_names(self.state.opt_state[0])

    def parameters(self) -> dict[str, np.ndarray]:
        return torch_names(self.state.params)

    def running_statistics(self) -> dict[str, np.ndarray]:
        return torch_names(self.state.batch_stats["network"])


def batch_of(case: ResNetCase, index: int, dtype: DTypeLike) -> dict[str, np.ndarray]:
    """A batch as the pipeline yields it, but for the type of its boxes."""
    name = case.batch_name(index)
    objects = scenes(name, case.batch_size, case.num_classes)
    return {
        "image": fixed_numbers.images(name, case.image_shape),
        **objects._replace(boxes_xyxy=objects.boxes_xyxy.astype(dtype))._asdict(),
    }


class Evaluated(NamedTuple):
    """A pass in evaluation mode, and back."""

    output: np.ndarray  # [B, S, S, 10 + C]
    terms: dict[str, float]  # of the loss
    gradients: dict[str, np.ndarray]  # by torch's names
    normalized: Any  # output of every BatchNorm and every block, as flax names them


def evaluate(case: ResNetCase, dtype: DTypeLike) -> Evaluated:
    model, batch = model_of(case, dtype), batch_of(case, 0, dtype)
    variables = fixed_variables(model, batch["image"])

    @jax.jit
    def run(params, batch_stats, batch):
        def loss(params):
            raw, seen = model.apply(
                {"params": params, "batch_stats": batch_stats},
                batch["image"],
                train=False,
                capture_intermediates=lambda module, _: isinstance(
                    module, BatchNorm | BasicBlock | Bottleneck
                ),
                mutable=["intermediates"],
            )
            targets = encode_targets(
                batch["boxes_xyxy"],
                batch["labels"],
                batch["valid"],
                grid_size=case.grid_size,
                num_classes=case.num_classes,
                **TARGET_OPTIONS,
            )
            predictions = split_predictions(raw, boxes_per_cell=2, num_classes=case.num_classes)
            terms = yolo_loss(predictions, targets, **LOSS_OPTIONS)
            return sum(terms.values()), (raw, terms, seen["intermediates"])

        return jax.grad(loss, has_aux=True)(params)

    gradients, (raw, terms, normalized) = run(**variables, batch=batch)
    return Evaluated(
        np.asarray(raw), jax.tree.map(float, terms), torch_names(gradients), normalized
    )


class KeptOutput:
    """The network, with its last output kept beside the running averages, for the test to see."""

    def __init__(self, model: YOLOv1):
        self.model = model
        self.grid_size, self.num_classes = model.grid_size, model.num_classes
        self.boxes_per_cell = model.boxes_per_cell

    def apply(self, variables, images, **options):
        batch_stats = variables["batch_stats"]["network"]
        raw, updated = self.model.apply(
            {"params": variables["params"], "batch_stats": batch_stats}, images, **options
        )
        return raw, {"batch_stats": {"network": updated["batch_stats"], "output": raw}}


def kept_gradients() -> optax.GradientTransformation:
    """Passes the gradients on and keeps them in its state, for the test to look at."""
    return optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda gradients, state, params=None: (gradients, gradients),
    )
