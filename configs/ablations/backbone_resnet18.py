"""configs/r34.py with one switch turned: a smaller backbone.

The reference got 57.3 with ResNet-34 and 52.4 with ResNet-18. Unlike configs/r18.py, this leaves
the 16 images of a step, and so of BatchNorm, as they are.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/backbone_resnet18.py \
                --config.model.pretrained=resnet18.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.model.backbone = "resnet18"
    return config
