"""configs/r34.py with one switch turned: the loss is the mean over a batch.

Adam divides the scale of the loss out again, but not that of its L2 term: this decays the weights
16 times as strongly.

Reproduces  nothing published: a choice of the reference, made the other way.
Command     python -m yolov1_jax.main --config=configs/ablations/batch_mean.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.loss.reduction = "mean"
    return config
