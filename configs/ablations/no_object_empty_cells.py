"""configs/r34.py with one switch turned: only the boxes of empty cells are pushed to objectness 0.

The recipe also pushes the boxes of object cells that are not responsible; the article went over
from this setting to that one.

Reproduces  a trick of "Object detection from scratch with Pytorch: YOLOv1" by leaving it out.
Command     python -m yolov1_jax.main --config=configs/ablations/no_object_empty_cells.py \
                --config.model.pretrained=resnet34.safetensors
Expected    150 epochs. Neither the time nor the result has been measured by this project.
"""

from ml_collections import ConfigDict

from configs import r34


def get_config() -> ConfigDict:
    config = r34.get_config()
    config.loss.no_object_boxes = "empty_cells"
    return config
