"""From a config to the parts of a run: sources, model, optimizer, options of the pure functions."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from yolov1_jax import config as configs
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.source import open_source
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.models.head import head_strides
from yolov1_jax.models.resnet import STRIDE
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.training.optimizer import build_optimizer, build_schedule
from yolov1_jax.training.sharding import check_batch_size


def check(config: ConfigDict) -> None:
    """Raises UserError at what is wrong without any data being read; starts the devices."""
    configs.check(config)
    check_batch_size(config.train.batch_size, "config.train.batch_size")
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    augmentation(config)
    head_strides(config.image_size, config.model.grid_size, STRIDE)


def open_train_source(config: ConfigDict) -> Source:
    return _open(config, config.data.train)


def open_eval_source(config: ConfigDict) -> Source:
    """Call it with the class names of the training source, which its labels must share."""
    return _open(config, config.data.eval)


def _open(config: ConfigDict, splits: tuple[str, ...]) -> Source:
    return open_source(
        config.data.source,
        root=config.data.root,
        splits=configs.split_list(splits),
        class_names=config.model.class_names,
        unknown_classes=config.data.unknown_classes,
        image_size=config.image_size,
        seed=config.seed,
    )


def augmentation(config: ConfigDict) -> Augmentation:
    return Augmentation(**config.data.augmentation)


def build_model(config: ConfigDict, num_classes: int) -> YOLOv1:
    model = config.model
    return YOLOv1(
        num_classes=num_classes,
        backbone_name=model.backbone,
        grid_size=model.grid_size,
        boxes_per_cell=model.boxes_per_cell,
        width_multiplier=model.width_multiplier,
        head_channels=model.head_channels,
        head_neck_channels=model.head_neck_channels,
        head_negative_slope=model.head_negative_slope,
        pixel_mean=tuple(model.pixel_mean),
        pixel_std=tuple(model.pixel_std),
        dtype=jnp.dtype(config.compute_dtype),
    )


@dataclasses.dataclass(frozen=True)
class Duration:
    """Length of a run in train steps; an epoch is as many images as the training set has."""

    num_steps: int
    steps_per_epoch: float
    eval_every_steps: int
    checkpoint_every_steps: int


def duration(config: ConfigDict, num_images: int) -> Duration:
    train = config.train
    steps_per_epoch = (config.data.images_per_epoch or num_images) / train.batch_size

    def in_steps(steps: int | None, epochs: float | None, default: int) -> int:
        if steps is not None:
            return steps
        return default if epochs is None else max(1, round(epochs * steps_per_epoch))

    num_steps = in_steps(train.num_steps, train.num_epochs, 1)
    eval_every = in_steps(train.eval_every_steps, train.eval_every_epochs, num_steps)
    return Duration(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        eval_every_steps=eval_every,
        checkpoint_every_steps=train.checkpoint_every_steps or eval_every,
    )


def schedule(config: ConfigDict, length: Duration) -> optax.Schedule:
    """Learning rate by optimizer updates."""
    optimizer = config.optimizer
    updates_per_epoch = length.steps_per_epoch / config.train.accumulation_steps
    return build_schedule(
        optimizer.schedule,
        learning_rate=optimizer.learning_rate,
        num_updates=length.num_steps // config.train.accumulation_steps,
        warmup_updates=round(optimizer.warmup_epochs * updates_per_epoch),
        decay_updates=[round(epoch * updates_per_epoch) for epoch in optimizer.decay_epochs],
        decay_factor=optimizer.decay_factor,
        final_fraction=optimizer.final_fraction,
    )


def optimizer(config: ConfigDict, length: Duration) -> optax.GradientTransformation:
    options = config.optimizer
    return build_optimizer(
        options.name,
        schedule(config, length),
        weight_decay=options.weight_decay,
        beta1=options.beta1,
        beta2=options.beta2,
        epsilon=options.epsilon,
        momentum=options.momentum,
        clip_norm=options.clip_norm,
        accumulation_steps=config.train.accumulation_steps,
        ema_decay=options.ema_decay,
    )


def target_options(config: ConfigDict) -> dict[str, Any]:
    return {"collision": config.loss.collision, "class_target": config.loss.class_target}


def loss_options(config: ConfigDict) -> dict[str, Any]:
    targets = target_options(config)
    return {name: value for name, value in config.loss.items() if name not in targets}


def select_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `detections_from_predictions`."""
    return {
        "xy_unit": config.loss.xy_unit,
        "score_threshold": config.eval.score_threshold,
        "nms_iou_threshold": config.eval.nms_iou_threshold,
        "classes_per_box": config.eval.classes_per_box,
    }
