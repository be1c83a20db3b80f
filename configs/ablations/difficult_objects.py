"""configs/r34.py with one switch turned: objects marked `difficult` are trained on.

The article took them out of training and test. The test is the protocol's affair, not this
switch's: voc07 and voc10 count a difficult object neither for nor against, seed removes it.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/difficult_objects.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.data.train_difficult = True
    return config
