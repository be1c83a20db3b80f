"""From a config to the parts of a run, each built in one place: `Setup`."""

import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, Source
from yolov1_jax.data.loader import Batches
from yolov1_jax.data.object_windows import ObjectWindows
from yolov1_jax.data.pipeline import eval_batches, train_batches
from yolov1_jax.data.source import open_source
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.models.classifier import Classifier, classification_loss
from yolov1_jax.models.darknet import parse_layer
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.training import cpu, run_folder
from yolov1_jax.training.checkpoint import Checkpoints, DamagedCheckpoint
from yolov1_jax.training.compilation_cache import use_compilation_cache
from yolov1_jax.training.metrics import SCORES
from yolov1_jax.training.optimizer import build_optimizer, build_schedule
from yolov1_jax.training.sharding import check_batch_size, shard_batch, shardings, start_devices
from yolov1_jax.training.step import (
    Finish,
    LossFunction,
    TrainState,
    create_train_state,
    detection_loss,
    finished_predictions,
    inference_variables,
    make_evaluation_step,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.yolo.darknet_loss import darknet_loss
from yolov1_jax.yolo.grid import Predictions
from yolov1_jax.yolo.loss import yolo_loss

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # items, description, how many


def check(config: ConfigDict) -> None:
    """Raises UserError for mistakes that show before any data is read; starts the devices."""
    configs.check(config)
    start_devices()
    check_batch_size(config.train.batch_size, "config.train.batch_size")
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    if config.task == "detection" and config.model.backbone != "layers":
        build_model(with_class_names(config)).head_strides(config.image_size)


def open_split(config: ConfigDict, split: str, *, images_required: bool = True) -> Source:
    """Opens config.data.train or config.data.eval, by "train" or "eval".

    The labels of "eval" are those of "train" if the config has the class names of that source.
    `images_required`: see `open_folder`. For classification, the source is a `WindowSource`.
    """
    splits, class_names = configs.split_list(config.data[split]), config.model.class_names
    is_classification = config.task == "classification"
    if is_classification and config.data.source == "tfds" and not splits[0].startswith("voc/"):
        from yolov1_jax.data.tfds_source import LabelledImages  # a second, as open_source says

        return LabelledImages(splits, config.data.root, class_names)
    source = open_source(
        config.data.source,
        root=config.data.root,
        splits=splits,
        class_names=class_names,
        data_format=config.data.format,
        eval_fraction=config.data.eval_fraction,
        unknown_classes=config.data.unknown_classes,
        unannotated=config.data.unannotated,
        image_size=config.image_size,
        seed=config.seed,
        images_required=images_required,
    )
    return ObjectWindows(source, config.data.window_margin) if is_classification else source


def summary_options(config: ConfigDict, split: str) -> dict[str, Any]:
    """Keyword arguments of `summarise` for "train" or "eval"."""
    is_detection, is_train = config.task == "detection", split == "train"
    options: dict[str, Any] = {}
    # A sample stands for scenes that never end, and for images that would have to be read.
    sampled = ("synthetic",) if is_detection else ("synthetic", "tfds")
    if is_train and config.data.source in sampled:
        options["limit"] = 2000
    if is_detection:
        options["grid_size"] = config.model.grid_size
    if is_detection and is_train:
        options["min_relative_area"] = config.data.augmentation.min_area / config.image_size**2
        options["train_difficult"] = config.data.train_difficult
    return options


class Length(NamedTuple):
    """Length of a run in train steps; an epoch is as many images as the training set has."""

    num_steps: int
    steps_per_epoch: float
    eval_every_steps: float
    checkpoint_every_steps: int
    plain_from_step: int  # see config.train.plain_fraction

    def evaluates_after(self, step: int) -> bool:
        """At the end, and at the steps nearest to the multiples of `eval_every_steps`."""
        nearest = round(round(step / self.eval_every_steps) * self.eval_every_steps)
        return step in (nearest, self.num_steps)


class Setup:
    """Model, optimizer and jitted steps of a config, sharded over all devices.

    Attributes:
      config: with the class names.
      model: the YOLOv1 module; a Classifier for config.task "classification".
      length: of the run.
      learning_rate: optax schedule, by optimizer updates.
      optimizer: optax transformation.
      over_batch, replicated: shardings of a batch and of everything else.
      create_state: jitted, PRNG key -> TrainState with random weights.
      train_step: jitted, (state, batch) -> (state, metrics); it donates the state.
      predict_step: jitted, (variables, images uint8 [B, H, W, 3]) -> Predictions; of
        classification, probabilities [B, C].
    """

    def __init__(self, config: ConfigDict, num_images: int = 1) -> None:
        """`num_images`: of the training set; only the length and the learning rate need it."""
        start_devices()
        use_compilation_cache()
        self.config = config
        self.model = build_model(config)
        self.length = run_length(config, num_images)
        self.learning_rate = _schedule(config, self.length)
        self.optimizer = _optimizer(config, self.learning_rate)
        self.over_batch, self.replicated = shardings()
        create = functools.partial(
            create_train_state,
            model=self.model,
            optimizer=self.optimizer,
            image_size=config.image_size,
        )
        jit = functools.partial(jax.jit, compiler_options=cpu.compiler_options())
        self.create_state = jit(create, out_shardings=self.replicated)
        loss, finish = loss_function(config), finish_function(config)
        self.train_step = jit(
            make_train_step(self.model, self.optimizer, loss, dropout_seed=config.seed),
            in_shardings=(self.replicated, self.over_batch),
            out_shardings=(self.replicated, self.replicated),
            donate_argnums=0,
        )
        self.predict_step = jit(make_predict_step(self.model, finish))
        # An image counts as if it were all of a batch: a sum is comparable with training's.
        is_sum = config.task == "detection" and config.loss.reduction == "sum"
        scale = config.train.batch_size if is_sum else 1.0
        self._evaluation_step = jit(
            make_evaluation_step(self.model, loss, finish, loss_scale=scale)
        )

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state, without computing it."""
        return self.create_state.eval_shape(jax.random.key(0))

    def train_batches(self, source: Source, max_objects: int, start_step: int = 0) -> Batches:
        """This process's share of the batches from a step on, see `pipeline.train_batches`."""
        config = self.config
        return train_batches(
            source,
            image_size=config.image_size,
            batch_size=config.train.batch_size,
            max_objects=max_objects,
            seed=config.seed,
            augmentation=Augmentation(**config.data.augmentation),
            train_difficult=config.data.train_difficult,
            start_step=start_step,
            plain_from_step=self.length.plain_from_step,
            num_workers=config.data.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def predictions(
        self,
        variables: Any,
        source: Source,
        annotations: Annotations,
        track: Track = lambda items, *_: items,
    ) -> Iterator[tuple[Predictions[np.ndarray], np.ndarray, dict[str, np.ndarray]]]:
        """Runs the network over a source with these annotations, each process over its share.

        Yields:
          On every process, for each global batch: Predictions (NumPy) of B images; their places in
          the source, int [B], -1 for rows that fill up the last batch; and their losses by name,
          [B], in the unit of training's: of config.loss.reduction "sum", times its batch size.
        """
        config, pending = self.config, None
        max_objects = int(np.diff(annotations.starts).max(initial=1))
        gather = jax.device_get
        if jax.process_count() > 1:
            gather = functools.partial(multihost_utils.process_allgather, tiled=True)
        check_batch_size(config.eval.batch_size, "config.eval.batch_size")
        with eval_batches(
            source,
            image_size=config.image_size,
            batch_size=config.eval.batch_size,
            resize=config.data.resize,
            num_workers=config.data.num_workers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            num_batches = math.ceil(len(source) / config.eval.batch_size)
            for batch in track(batches, "evaluating", num_batches):
                batch |= _objects(annotations, batch["index"], max_objects, self.config)
                on_device = shard_batch(batch, self.over_batch)
                predictions, losses = self._evaluation_step(variables, on_device)
                if pending is not None:  # read while the device works on the next batch
                    yield gather(pending)
                pending = predictions, on_device["index"], losses
        if pending is not None:
            yield gather(pending)


def _objects(
    annotations: Annotations, index: np.ndarray, max_objects: int, config: ConfigDict
) -> dict[str, np.ndarray]:
    """The ground truth of a batch as training has it, of whole images."""
    if config.task == "classification":
        return {"labels": annotations.labels[index]}
    shape = len(index), max_objects
    boxes, labels = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.int32)
    valid = np.zeros(shape, bool)
    for row, image in enumerate(index):
        truth, (height, width) = annotations[image], annotations.sizes[image]
        used = np.flatnonzero(~truth.difficult | config.data.train_difficult)
        boxes[row, : len(used)] = truth.boxes_xyxy[used] / [width, height, width, height]
        labels[row, : len(used)], valid[row, : len(used)] = truth.labels[used], True
    return {"boxes_xyxy": boxes, "labels": labels, "valid": valid}


class RestoredRun(NamedTuple):
    """A run, and the variables that it predicts with at one of its steps."""

    setup: Setup
    variables: dict[str, Any]
    step: int
    reason: str  # why this step: "the best by mAP", ...


def restore_run(workdir: str | pathlib.Path, step: str | int = "best") -> RestoredRun:
    """Reads a checkpoint of a run; UserError if there is no such run or checkpoint.

    `step`: "best" (by mAP or top-1; the latest if there is none), "latest", or a step number.
    """
    workdir = pathlib.Path(workdir)
    setup = Setup(run_folder.read_config(workdir))
    directory = run_folder.checkpoints_dir(workdir)
    with Checkpoints(directory) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(
                f"expected a checkpoint in {directory}, found none: train first, or wait for the "
                "run's first checkpoint"
            )
        latest, best = steps[-1], checkpoints.best_step()
        choices = {str(one): (one, "as asked for") for one in steps}
        choices["latest"] = latest, "the latest"
        choices["best"] = latest, "the latest, because none was evaluated"
        if best is not None:
            score = SCORES[setup.config.task]
            reason = f"the best by {score} of the run's own evaluations (latest: {latest:,})"
            choices["best"] = best, reason
        if str(step) not in choices:
            raise UserError(f"step must be 'best', 'latest' or one of {steps}, got {step!r}")
        chosen, reason = choices[str(step)]
        try:
            state, _ = checkpoints.restore(chosen, setup.abstract_state())
        except DamagedCheckpoint as error:
            others = [other for other in steps if other != chosen]
            raise UserError(
                f"checkpoint {chosen} in {directory} is damaged ({error}): take another --step, "
                f"one of {others}"
            ) from error
    return RestoredRun(setup, inference_variables(state), chosen, reason)


# --- The parts ----------------------------------------------------------------------------------


def build_model(config: ConfigDict) -> YOLOv1 | Classifier:
    """The network of `config.task`, which decides on the steps and their batches, too."""
    others = ("backbone", "class_names", "pretrained", "pretrained_format")
    fields = {name: value for name, value in config.model.items() if name not in others}
    fields |= {"backbone_name": config.model.backbone, "dtype": jnp.dtype(config.compute_dtype)}
    num_classes = len(config.model.class_names)
    if config.task == "classification":
        known = Classifier.__dataclass_fields__
        return Classifier(num_classes, **{name: fields[name] for name in fields if name in known})
    expected = _num_classes_of_layers(config)
    if expected not in (None, num_classes):
        raise UserError(
            f"expected {expected} classes, as config.model.layers ends, found {num_classes} in the "
            f"data: {', '.join(config.model.class_names)}"[:300]
        )
    return YOLOv1(num_classes, **fields)


def count_parameters(config: ConfigDict) -> int:
    """Parameters of the network; with VOC's 20 classes where they are not known yet."""
    variables = abstract_variables(with_class_names(config))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def detection_layer(config: ConfigDict) -> tuple[int, int, int] | None:
    """S, K and C; None for classification."""
    model = config.model
    if config.task == "classification":
        return None
    return model.grid_size, model.boxes_per_cell, len(model.class_names)


def with_class_names(config: ConfigDict) -> ConfigDict:
    """A copy with placeholders for unknown class names: as many as the layers predict, or 20."""
    if config.model.class_names is not None:
        return config
    names = ("?",) * (_num_classes_of_layers(config) or 20)
    return configs.replace(config, "model.class_names", names)


def _num_classes_of_layers(config: ConfigDict) -> int | None:
    """The number of classes that the last of `model.layers` predicts; None without layers."""
    model = config.model
    if model.backbone != "layers":
        return None
    return parse_layer(model.layers[-1]).output // model.grid_size**2 - 5 * model.boxes_per_cell


def abstract_variables(config: ConfigDict) -> dict[str, Any]:
    """Shapes and dtypes of the network's variables."""
    model = build_model(config)
    image = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)


def run_length(config: ConfigDict, num_images: int) -> Length:
    train = config.train
    steps_per_epoch = (config.data.images_per_epoch or num_images) / train.batch_size

    def in_steps(steps: int | None, epochs: float | None, default: float) -> float:
        if steps is not None:
            return steps
        return default if epochs is None else max(1.0, epochs * steps_per_epoch)

    num_steps = round(in_steps(train.num_steps, train.num_epochs, 1))
    if train.num_steps is None:
        num_steps = max(num_steps, train.min_steps or 0)
    eval_every = in_steps(train.eval_every_steps, train.eval_every_epochs, num_steps)
    return Length(
        num_steps,
        steps_per_epoch,
        eval_every,
        train.checkpoint_every_steps or num_steps,
        num_steps - round(train.plain_fraction * num_steps),
    )


def _schedule(config: ConfigDict, length: Length) -> optax.Schedule:
    options, accumulation_steps = config.optimizer, config.train.accumulation_steps
    updates_per_epoch = length.steps_per_epoch / accumulation_steps
    decays = [
        (round(epoch * updates_per_epoch), options.decay_factor) for epoch in options.decay_epochs
    ]
    # Darknet's update of that number, counted from 1, has the new rate.
    decays += zip((n - 1 for n in options.decay_updates), options.decay_scales, strict=True)
    return build_schedule(
        options.schedule,
        learning_rate=options.learning_rate,
        num_updates=length.num_steps // accumulation_steps,
        warmup_updates=round(options.warmup_epochs * updates_per_epoch),
        decays=decays,
        final_fraction=options.final_fraction,
    )


def _optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    of_schedule = {"name", "learning_rate", "schedule", "warmup_epochs", "decay_epochs"}
    of_schedule |= {"decay_factor", "decay_updates", "decay_scales", "final_fraction"}
    return build_optimizer(
        config.optimizer.name,
        schedule,
        accumulation_steps=config.train.accumulation_steps,
        **{name: value for name, value in config.optimizer.items() if name not in of_schedule},
    )


def target_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `encode_targets` that the losses do not take."""
    return {"collision": config.loss.collision, "class_target": config.loss.class_target}


def loss_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `yolo_loss`, or of `darknet_loss` for its prediction."""
    without = target_options(config)
    options = {name: value for name, value in config.loss.items() if name not in without}
    if config.model.prediction == "darknet":
        return {name: options[name] for name in options if name not in configs.NOT_OF_DARKNET}
    return {"prediction": config.model.prediction, **options}


def loss_function(config: ConfigDict) -> LossFunction:
    """The loss of `config.task` as a function of the network's output and the batch."""
    if config.task == "classification":
        smoothing = config.loss.label_smoothing
        return lambda raw, batch: classification_loss(
            raw, batch["labels"], label_smoothing=smoothing
        )
    loss = darknet_loss if config.model.prediction == "darknet" else yolo_loss
    return functools.partial(
        detection_loss,
        functools.partial(loss, **loss_options(config)),
        boxes_per_cell=config.model.boxes_per_cell,
        xy_unit=config.loss.xy_unit,
        **target_options(config),
    )


def finish_function(config: ConfigDict) -> Finish:
    """From the network's output to Predictions; of classification to probabilities [B, C]."""
    if config.task == "classification":
        return jax.nn.softmax
    return functools.partial(
        finished_predictions,
        boxes_per_cell=config.model.boxes_per_cell,
        prediction=config.model.prediction,
        xy_unit=config.loss.xy_unit,
        class_loss=config.loss.class_loss,
    )


def evaluator_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of the evaluator of `config.task`, besides the protocols."""
    return select_options(config) if config.task == "detection" else {}


def select_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `detections_from_predictions`; UserError for classification."""
    if config.task == "classification":
        raise UserError(
            "expected a run of detection, found one of classification: train a detector from it, "
            "with its folder as config.model.pretrained"
        )
    return {
        "xy_unit": config.loss.xy_unit,
        "score_threshold": config.eval.score_threshold,
        "nms_iou_threshold": config.eval.nms_iou_threshold,
        "classes_per_box": config.eval.classes_per_box,
        "clip": config.eval.clip,
    }
