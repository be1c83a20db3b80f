"""configs/r34.py with one switch turned: objectness aims at 1, not at the IoU.

By the article's account IoU as the target is worth about 10 points of mAP.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/objectness_one.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.loss.objectness_target = "one"
    return config
