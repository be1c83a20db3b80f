"""A detector in minutes on a CPU, without a download: painted scenes and a narrow ResNet-18.

Reproduces  nothing published: it shows the whole program, and that it learns.
Command     python -m yolov1_jax.main
Expected    to be measured
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.image_size = 160  # pixels, both sides
    config.data.source = "synthetic"
    config.data.train = ("train",)
    config.data.eval = ("eval",)
    config.data.num_workers = 0
    config.data.augmentation.enabled = False  # every scene is new as it is
    config.data.augmentation.min_area = 0.0

    config.model.backbone = "resnet18"
    config.model.width_multiplier = 0.25
    config.model.grid_size = 5

    config.loss.xy_unit = "cell"
    config.loss.reduction = "mean"

    config.train.batch_size = 32
    config.train.accumulation_steps = 1
    config.train.num_steps = 1000
    config.train.log_every_steps = 20
    config.train.eval_every_steps = 250
    config.train.checkpoint_every_steps = 250

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.ema_decay = 0.99
    return config
