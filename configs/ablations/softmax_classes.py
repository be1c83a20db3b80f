"""configs/r34.py with one switch turned: softmax and cross-entropy for the classes.

The paper and the recipe have squared errors; most stronger reimplementations have this.

Reproduces  nothing published: a choice of the reference, made the other way.
Command     python -m yolov1_jax.main --config=configs/ablations/softmax_classes.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.loss.class_loss = "softmax"
    return config
