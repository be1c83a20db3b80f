"""The recipe of the PyTorch reference, value for value, and the files of configs/ablations.

Source: gitE0Z9/pytorch-implementations, notebook yolov1-v2 of 2021-09, which trained the published
numbers; its augmentation is albumentations 1.0 with that version's defaults.
"""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from setuptools import find_packages

from configs import r34
from yolov1_jax import config as configs
from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.models.yolov1 import YOLOv1
from yolov1_jax.training import build as experiment
from yolov1_jax.yolo.grid import Predictions

ROOT = pathlib.Path(__file__).resolve().parents[1]
ABLATION_FILES = sorted(
    path.stem for path in (ROOT / "configs" / "ablations").glob("*.py") if path.stem != "__init__"
)

RECIPE = {
    # Data and augmentation: Resize, ColorJitter, HorizontalFlip, ShiftScaleRotate(rotate_limit=0),
    # boxes filtered by min_area and min_visibility, pixels divided by 255 and nothing else.
    "image_size": 448,
    "data.source": "tfds",
    "data.train": ("voc/2007:train+validation", "voc/2012:train+validation"),
    "data.eval": ("voc/2007:test",),
    "data.train_difficult": False,
    "data.augmentation.enabled": True,
    "data.augmentation.color_probability": 0.5,
    "data.augmentation.brightness": 0.2,
    "data.augmentation.contrast": 0.2,
    "data.augmentation.saturation": 0.2,
    "data.augmentation.hue": 0.2,
    "data.augmentation.flip_probability": 0.5,
    "data.augmentation.affine_probability": 0.5,
    "data.augmentation.shift": 0.0625,
    "data.augmentation.scale": 0.1,
    "data.augmentation.min_area": 1024.0,
    "data.augmentation.min_visibility": 0.3,
    "model.pixel_mean": (0.0, 0.0, 0.0),
    "model.pixel_std": (1.0, 1.0, 1.0),
    # Network: the whole ResNet, four convolutions of 1024 channels with ReLU, and one of 30.
    "model.backbone": "resnet34",
    "model.grid_size": 7,
    "model.boxes_per_cell": 2,
    "model.width_multiplier": 1.0,
    "model.head_channels": 1024,
    "model.head_neck_channels": None,
    "model.head_negative_slope": 0.0,
    "compute_dtype": "float32",
    # Target grid and loss.
    "loss.coordinate_weight": 5.0,
    "loss.object_weight": 1.0,
    "loss.no_object_weight": 0.5,
    "loss.class_weight": 1.0,
    "loss.objectness_target": "iou",
    "loss.no_object_boxes": "all",
    "loss.xy_unit": "image",
    "loss.class_loss": "squared",
    "loss.sqrt_epsilon": 1e-5,
    "loss.reduction": "sum",
    "loss.collision": "last",
    "loss.class_target": "all",
    # Optimisation: Adam with L2, 64 images an update, 150 epochs, an evaluation every ten.
    "train.batch_size": 16,
    "train.accumulation_steps": 4,
    "train.num_epochs": 150.0,
    "train.num_steps": None,
    "train.eval_every_epochs": 10.0,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 5e-4,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.epsilon": 1e-8,
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.clip_norm": None,
    "optimizer.ema_decay": None,
    "eval.nms_iou_threshold": 0.5,
}
# What does not change the result of training, or is not the reference's to say.
FREE = {
    "seed",
    "data.root",
    "data.num_workers",
    "data.images_per_epoch",
    "data.unknown_classes",
    "model.class_names",
    "model.pretrained",
    "model.pretrained_format",
    "train.log_every_steps",
    "train.eval_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "optimizer.momentum",  # of sgd
    "optimizer.decay_epochs",  # of the schedule "step"
    "optimizer.decay_factor",
    "optimizer.final_fraction",  # of the schedule "cosine"
    "eval.protocol",
    "eval.score_threshold",  # 0.3 is part of the protocol "seed"
    "eval.classes_per_box",
    "eval.batch_size",
}
BATCHES = {"r18": ("resnet18", 32, 2), "r34": ("resnet34", 16, 4), "r50": ("resnet50", 8, 8)}

ABLATIONS = {
    "affine_off": {"data.augmentation.affine_probability": 0.0},
    "augmentation_off": {"data.augmentation.enabled": False},
    "backbone_resnet18": {"model.backbone": "resnet18"},
    "batch_mean": {"loss.reduction": "mean"},
    "color_off": {"data.augmentation.color_probability": 0.0},
    "difficult_objects": {"data.train_difficult": True},
    "flip_off": {"data.augmentation.flip_probability": 0.0},
    # One switch that is two values.
    "imagenet_pixels": {
        "model.pixel_mean": (0.485, 0.456, 0.406),
        "model.pixel_std": (0.229, 0.224, 0.225),
    },
    "learning_rate": {"optimizer.learning_rate": 1e-3},
    "no_object_empty_cells": {"loss.no_object_boxes": "empty_cells"},
    "objectness_one": {"loss.objectness_target": "one"},
    "softmax_classes": {"loss.class_loss": "softmax"},
    "voc2012_only": {"data.train": ("voc/2012:train+validation",)},
    "xy_cell_units": {"loss.xy_unit": "cell"},
}


def values_of(name):
    return configs.flatten(importlib.import_module(f"configs.{name}").get_config())


@pytest.mark.parametrize("name", BATCHES)
def test_the_recipe_is_the_references(name):
    backbone, batch_size, accumulation_steps = BATCHES[name]
    expected = {
        **RECIPE,
        "model.backbone": backbone,
        "train.batch_size": batch_size,
        "train.accumulation_steps": accumulation_steps,
    }
    found = values_of(name)
    assert {key: found[key] for key in expected} == expected


def test_every_key_of_the_recipe_is_spoken_of():
    """A new key with a say in the result belongs into RECIPE, with the reference's value."""
    assert not RECIPE.keys() & FREE
    assert RECIPE.keys() | FREE == values_of("r34").keys()


def test_the_network_is_the_references():
    model = experiment.build_model(r34.get_config(), 20)
    assert isinstance(model, YOLOv1)
    images = jnp.zeros((1, 448, 448, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))
    head = variables["params"]["head"]
    shapes = {name: head[name]["kernel"].shape for name in head if name[:2] != "bn"}
    assert shapes == {
        "conv1": (3, 3, 512, 1024),
        **{f"conv{i}": (3, 3, 1024, 1024) for i in (2, 3, 4)},
        "predict": (1, 1, 1024, 30),
    }
    assert [name for name in shapes if "bias" in head[name]] == ["predict"]
    output = jax.eval_shape(lambda v: model.apply(v, images, False), variables)
    assert output.shape == (1, 7, 7, 30)


def test_the_ablations_are_all_here():
    assert sorted(ABLATIONS) == ABLATION_FILES


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_recipe_with_one_switch_turned(name):
    base, ablation = values_of("r34"), values_of(f"ablations.{name}")
    assert ablation.keys() == base.keys()
    differences = {key: ablation[key] for key in base if ablation[key] != base[key]}
    assert differences == ABLATIONS[name]
    assert len(differences) == 1 or name == "imagenet_pixels"


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_says_what_it_is(name):
    module = importlib.import_module(f"configs.ablations.{name}")
    config = module.get_config()
    assert config.is_locked
    configs.check(config)
    lines = (module.__doc__ or "").splitlines()
    assert lines[0].startswith("configs/r34.py with one switch turned: ")
    for word in ("Reproduces  ", "Command     ", "Expected    "):
        assert sum(line.startswith(word) for line in lines) == 1, word
    (path,) = re.findall(r"--config=(\S+)", module.__doc__)
    assert (ROOT / path).samefile(module.__file__)
    assert f"pretrained={config.model.backbone}." in module.__doc__


def test_the_ablations_are_installed():
    assert "configs.ablations" in find_packages(str(ROOT), include=["configs*"])


# ---- What was an accident in the reference stays out of training; `seed` alone has it


def test_every_update_is_of_all_its_batches():
    """The reference's updates came one batch early, the first of an epoch of a single batch, and
    what had been accumulated at the end of an epoch was thrown away."""
    config = r34.get_config()
    length = experiment.duration(config, num_images=40)  # two and a half batches an epoch
    optimizer = experiment.optimizer(config, length)
    params = {"weight": jnp.ones(3)}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    moved = []
    for _ in range(12):
        updates, state = update({"weight": jnp.ones(3)}, state, params)
        moved.append(bool(jnp.any(updates["weight"] != 0)))
    assert [step for step, has_moved in enumerate(moved, start=1) if has_moved] == [4, 8, 12]


def test_detection_keeps_the_last_candidate_and_scores_of_one_and_more():
    """What `seed` loses, by its tests in test_reference_protocol.py."""
    boxes = np.zeros((1, 1, 1, 2, 4))
    boxes[0, 0, 0] = [[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]]
    predictions = Predictions(boxes, np.array([[[[1.0, 1.5]]]]), np.ones((1, 1, 1, 1)))
    options = experiment.select_options(r34.get_config()) | {"xy_unit": "image"}
    (found,) = detections_from_predictions(predictions, np.array([[100, 100]]), **options)
    np.testing.assert_array_equal(np.sort(found.scores), [1.0, 1.5])
