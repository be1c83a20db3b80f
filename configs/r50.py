"""The PyTorch reference's recipe with a ResNet-50 backbone: configs/r34.py plus overrides.

Reproduces  the reference's settings for ResNet-50, for which it published no result.
Command     python -m yolov1_jax.main --config=configs/r50.py \
                --config.model.pretrained=resnet50.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import shipped_config


def get_config() -> ConfigDict:
    config = shipped_config("r34")
    config.model.backbone = "resnet50"
    config.train.batch_size = 8  # images per step
    config.train.accumulation_steps = 8  # 64 images per update
    return config
