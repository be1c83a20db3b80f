"""configs/r34.py with one switch turned: no mirror images; colour, shift and scale stay.

By the article's account flips matter.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/flip_off.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.data.augmentation.flip_probability = 0.0
    return config
