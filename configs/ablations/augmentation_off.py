"""configs/r34.py with one switch turned: no augmentation.

By the article's account augmentation is worth about 10 points of mAP. Objects under 1,024 pixels
stay out of training, as in the recipe.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/augmentation_off.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.data.augmentation.enabled = False
    return config
