"""Classification, to pretrain the backbone of a detector: docs/pretraining.md.

Reproduces  nothing published. The schedule is that of torchvision's ResNets (references/
            classification), with a cosine and label smoothing; the augmentation is Inception's.
Command     python -m yolov1_jax.main --config=configs/pretrain.py:resnet34
            resnet18, resnet34, resnet50, darknet (the paper's 24 convolutions) or fast (9). Then
            python -m yolov1_jax.main --config=r34 --config.model.pretrained=runs/pretrain
Expected    90 epochs. Neither the time nor the result has been measured by this project.
Needs       ImageNet as tensorflow_datasets prepares it (array_record); or other images: data below.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import UserError, shipped_config

BACKBONES = ("resnet18", "resnet34", "resnet50", "darknet", "fast")


def get_config(name: str = "resnet18") -> ConfigDict:
    if name not in BACKBONES:
        raise UserError(
            f"expected one of {', '.join(BACKBONES)} after configs/pretrain.py:, found {name!r}"
        )
    config = shipped_config("r34")
    config.task = "classification"
    config.image_size = 224  # pixels, both sides; evaluation stretches an image to it

    # Images with a label: any classification data set of tfds, such as "imagenette/160px-v2:train";
    # or a folder for each class (data.source "folder", data.format "classes"). Or the objects of
    # any data of detection, such as "voc/2007:train+validation".
    config.data.train = ("imagenet2012:train",)
    config.data.eval = ("imagenet2012:validation",)
    config.data.augmentation.affine_probability = 0.0  # the part of the image moves and scales
    config.data.augmentation.hue = 0.05

    config.model.backbone = name
    if name in ("darknet", "fast"):
        config.model.norm = "darknet"

    config.loss.label_smoothing = 0.1
    config.loss.reduction = "mean"

    config.train.batch_size = 256
    config.train.accumulation_steps = 1
    config.train.num_epochs = 90.0
    config.train.eval_every_epochs = 5.0

    optimizer = config.optimizer
    optimizer.name = "sgd"
    optimizer.learning_rate = 0.1
    optimizer.momentum = 0.9
    optimizer.weight_decay = 1e-4
    optimizer.schedule = "cosine"
    optimizer.warmup_epochs = 5.0
    optimizer.ema_decay = 0.9999
    config.eval.batch_size = 256
    return config.lock()
