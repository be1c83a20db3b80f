"""The paper's Fast YOLO: 9 convolutions in place of 24, all else as in configs/yolov1.py.

Reproduces  Redmon et al. 2016, table 1: VOC2007 test mAP 52.7, trained on VOC2007 + VOC2012.
            fast_yolo:released (the default) is cfg/yolov1-tiny.cfg of Darknet (f6afaab): 8
            convolutions with BatchNorm and a linear layer; fast_yolo:paper has the 9 of the paper,
            without BatchNorm, and its hidden layer of 4096. (The cfg/yolo-tiny.cfg of the time has
            a linear layer of 256 before that: --config=yolov1:yolo-tiny.cfg.)
Command     python -m yolov1_jax.main --config=configs/fast_yolo.py \
                --config.model.pretrained=darknet.conv.weights \
                --config.model.pretrained_format=darknet_backbone
Expected    40,000 steps. Neither the time nor the result has been measured by this project.
Needs       as configs/yolov1.py.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import UserError, shipped_config


def get_config(name: str = "released") -> ConfigDict:
    if name not in ("released", "paper"):
        raise UserError(f"expected fast_yolo:released or fast_yolo:paper, found {name!r}")
    config = shipped_config("yolov1:paper" if name == "paper" else "yolov1")
    model = config.model
    model.backbone = "fast"
    if name == "paper":
        model.head_depth = 2
        return config.lock()
    model.head = "connected"
    model.head_neck_channels = None
    model.head_depth = 1
    model.head_channels = 256
    model.head_dropout = 0.0
    model.boxes_per_cell = 2  # num=2
    config.optimizer.decay_updates = (200, 400, 600, 800, 20_000, 30_000)
    config.optimizer.decay_scales = (2.5, 2.0, 2.0, 2.0, 0.1, 0.1)
    config.data.augmentation.saturation_scale = 0.75
    config.data.augmentation.value_scale = 0.75
    return config.lock()
