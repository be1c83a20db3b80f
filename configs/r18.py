"""The PyTorch reference's recipe with a ResNet-18 backbone: configs/r34.py plus overrides.

Reproduces  VOC2007 test mAP 52.4 by the reference's own evaluation (epoch 150; see configs/r34.py).
Command     python -m yolov1_jax.main --config=configs/r18.py \
                --config.model.pretrained=resnet18.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import shipped_config


def get_config() -> ConfigDict:
    config = shipped_config("r34")
    config.model.backbone = "resnet18"
    config.train.batch_size = 32  # images per step
    config.train.accumulation_steps = 2  # 64 images per update
    return config
