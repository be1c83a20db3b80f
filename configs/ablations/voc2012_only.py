"""configs/r34.py with one switch turned: trained on VOC2012 trainval alone, 11,540 images.

The article's text says so, but the code behind its numbers trained on VOC2007 trainval as well.

Reproduces  what the article says of its training data.
Command     python -m yolov1_jax.main --config=configs/ablations/voc2012_only.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.data.train = ("voc/2012:train+validation",)
    return config
