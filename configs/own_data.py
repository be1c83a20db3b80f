"""Your own data, a hundred to some ten thousand images, on one machine: ResNet-18 at 320 pixels.

Reproduces  nothing published.
Command     yolov1 inspect PATH          # first: what would be used
            yolov1 train --config=own_data --config.data.root=PATH --workdir=runs/mine
            PATH holds VOC XML, YOLO text or COCO JSON with its images: docs/data.md
Expected    30 epochs, at least 448 steps. Measured on 205 images of blood cells (docs/results.md):
            voc07 82.6, 82.8 and 80.5 (three seeds) on 87 others, in a minute on one H100 (about an
            hour on one CPU core). These started from Tiny-ImageNet weights, not from the hub's.
Needs       the network once, and pip install 'yolov1_jax[hub]', for the backbone's weights.
            Without: --config.model.pretrained=FILE with weights of a ResNet-18 in torchvision's
            naming (docs/weights.md), or --config.model.pretrained=none for random weights, which
            take several times as many steps to the same result.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import shipped_config


def get_config() -> ConfigDict:
    config = shipped_config("r34")
    config.image_size = 320  # pixels, both sides

    config.data.source = "folder"
    config.data.train = ("train",)
    config.data.eval = ("val",)  # a part of train if the data have none, see data.eval_fraction
    config.data.num_workers = 0
    config.data.augmentation.min_area = 64.0  # pixels^2: 8 x 8

    config.model.backbone = "resnet18"
    config.model.pretrained = "hf://timm/resnet18.tv_in1k"
    config.model.grid_size = 10
    config.model.head_channels = 512

    config.model.pixel_mean = (0.485, 0.456, 0.406)  # ImageNet's, which the backbone has learned
    config.model.pixel_std = (0.229, 0.224, 0.225)

    config.model.prediction = "sigmoid"  # this and the loss: docs/recipe.md
    config.loss.xy_unit = "cell"
    config.loss.box = "ciou"
    config.loss.coordinate_weight = 4.0
    config.loss.confidence = "cross_entropy"
    config.loss.ignore_iou = 0.5
    config.loss.class_loss = "softmax"
    config.loss.class_target = "winner"
    config.loss.reduction = "mean"

    config.data.augmentation.color_probability = 0.8
    config.data.augmentation.brightness = 0.3
    config.data.augmentation.contrast = 0.3
    config.data.augmentation.saturation = 0.4
    config.data.augmentation.hue = 0.03
    config.data.augmentation.expand_probability = 0.2
    config.data.augmentation.expand = 1.5
    config.data.augmentation.crop_probability = 0.5
    config.data.augmentation.crop = 0.5

    # The length follows from the data: 30 epochs, or 448 steps where there are fewer than 240
    # images, so that the few are seen more often.
    config.train.num_epochs = 30.0
    config.train.min_steps = 448
    config.train.eval_every_epochs = 6.0
    config.train.batch_size = 16
    config.train.accumulation_steps = 1
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 200

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.backbone_factor = 0.5
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_norms = False
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 4.0
    config.optimizer.final_fraction = 0.01
    config.optimizer.clip_norm = 30.0
    config.optimizer.ema_decay = 0.99

    config.eval.classes_per_box = "all"
    return config
