"""configs/r34.py with one switch turned, named after the colon.

Reproduces  what each trick of "Object detection from scratch with Pytorch: YOLOv1" is worth, by
            leaving it out, and choices of the reference made the other way.
Command     python -m yolov1_jax.main --config=configs/ablations.py:flip_off \
                --workdir=runs/flip_off --config.model.pretrained=resnet34.safetensors
            (backbone_resnet18: resnet18.safetensors)
Expected    150 epochs each. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import UserError, shipped_config

ABLATIONS = {
    # Tricks of the article, left out.
    # It lowered its learning rate, from which value is not known; 1e-3 is Adam's customary one.
    "learning_rate": {"optimizer.learning_rate": 1e-3},
    # The IoU as the target of objectness is worth about 10 points of mAP by the article's account.
    "objectness_one": {"loss.objectness_target": "one"},
    # ResNet-18 reached 52.4, ResNet-34 57.3. Unlike r18.py, this keeps 16 images a step, and so for
    # BatchNorm.
    "backbone_resnet18": {"model.backbone": "resnet18"},
    # The recipe also pushes the boxes of object cells that are not responsible to objectness 0.
    "no_object_empty_cells": {"loss.no_object_boxes": "empty_cells"},
    # Augmentation is worth about 10 points by the article's account: flip, shift and scale matter,
    # colour little. Objects under 1,024 pixels stay out of training either way.
    "augmentation_off": {"data.augmentation.enabled": False},
    "flip_off": {"data.augmentation.flip_probability": 0.0},
    "affine_off": {"data.augmentation.affine_probability": 0.0},
    "color_off": {"data.augmentation.color_probability": 0.0},
    # The article took difficult objects out of training and test. The protocol decides about the
    # test: voc07 and voc10 ignore them, reference removes them.
    "difficult_objects": {"data.train_difficult": True},
    # The article's text says VOC2012 alone, 11,540 images; its code added VOC2007 trainval.
    "voc2012_only": {"data.train": ("voc/2012:train+validation",)},
    # Choices of the reference, made the other way.
    # x and y in units of the cell, as in the paper: their error weighs 49 times as much.
    "xy_cell_units": {"loss.xy_unit": "cell"},
    # Most stronger reimplementations have softmax and cross-entropy.
    "softmax_classes": {"loss.class_loss": "softmax"},
    # Adam divides the scale of the loss out again, but not that of its L2 term, which now decays
    # the weights 16 times as strongly.
    "batch_mean": {"loss.reduction": "mean"},
    # The mean and deviation that the pretrained backbone was trained with.
    "imagenet_pixels": {
        "model.pixel_mean": (0.485, 0.456, 0.406),
        "model.pixel_std": (0.229, 0.224, 0.225),
    },
}


def get_config(name: str = "") -> ConfigDict:
    if name not in ABLATIONS:
        raise UserError(
            f"expected one of {', '.join(ABLATIONS)} after configs/ablations.py:, found {name!r}"
        )
    config = shipped_config("r34")
    config.update_from_flattened_dict(ABLATIONS[name])
    return config
