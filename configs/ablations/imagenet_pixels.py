"""configs/r34.py with one switch turned: pixels normalised as the pretrained backbone saw them.

The recipe only divides by 255, although its backbone was trained with ImageNet's mean and
deviation.

Reproduces  nothing published: a choice of the reference, made the other way.
Command     python -m yolov1_jax.main --config=configs/ablations/imagenet_pixels.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.model.pixel_mean = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    config.model.pixel_std = (0.229, 0.224, 0.225)
    return config
