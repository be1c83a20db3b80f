"""configs/r34.py with one switch turned: x and y in units of the cell, as in the paper.

The recipe's are in units of the image, which weighs their error by 1/49 of the paper's.

Reproduces  nothing published: a choice of the reference, made the other way.
Command     python -m yolov1_jax.main --config=configs/ablations/xy_cell_units.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.loss.xy_unit = "cell"
    return config
