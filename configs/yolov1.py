"""The paper's YOLO: the network of 24 convolutions, its schedule, and Darknet's loss.

Reproduces  Redmon et al. 2016, table 1: VOC2007 test mAP 63.4, trained on VOC2007 + VOC2012.
            yolov1:released (the default) is cfg/yolov1.cfg of Darknet (f6afaab), with BatchNorm, a
            locally connected layer and 3 boxes per cell; yolov1:paper is the network of the paper
            (cfg/yolo.cfg of 2015-11-09): no BatchNorm, a hidden layer of 4096, 2 boxes;
            yolov1:convolutional has the head of configs/r34.py in its place;
            yolov1:FILE.cfg is the network of a file of Darknet, with the values that stand there
Command     python -m yolov1_jax.main --config=configs/yolov1.py \
                --config.model.pretrained=extraction.conv.weights \
                --config.model.pretrained_format=darknet_backbone
            A file of a whole detector, evaluated as it is:
            python -m yolov1_jax.main --config=configs/yolov1.py \
                --config.model.pretrained=yolov1.weights --config.train.num_steps=0
Expected    40,000 steps. Neither the time nor the result has been measured by this project.
Needs       as configs/r34.py; a pretrained backbone. Random weights do not reach these numbers.
"""

from ml_collections import ConfigDict

from yolov1_jax.config import UserError, shipped_config

VARIANTS = ("released", "paper", "convolutional")


def get_config(name: str = "released") -> ConfigDict:
    config = shipped_config("r34")
    config.image_size = 448
    model, loss, optimizer = config.model, config.loss, config.optimizer

    model.backbone = "darknet"
    model.norm = "darknet"
    model.head = "local"
    model.head_neck_channels = 256  # locally connected, 3 x 3
    model.head_dropout = 0.5
    model.head_negative_slope = 0.1
    model.boxes_per_cell = 3  # num=3
    model.prediction = "darknet"  # sqrt=1
    model.pretrained_format = "darknet"

    loss.xy_unit = "cell"
    loss.coordinate_weight = 5.0  # coord_scale
    loss.object_weight = 1.0  # object_scale
    loss.no_object_weight = 0.5  # noobject_scale
    loss.class_weight = 1.0  # class_scale
    loss.objectness_target = "iou"  # rescore=1
    loss.reduction = "mean"  # Darknet divides the rate by the 64 images
    loss.collision = "first"
    loss.class_target = "winner"

    # Darknet's augmentation: data.c of f6afaab, load_data_detection. Difficult objects are left out
    # by scripts/voc_label.py.
    config.data.resize = "darknet"
    augmentation = config.data.augmentation
    augmentation.flip_probability = 0.5
    augmentation.jitter = 0.2
    augmentation.hue = 0.1
    augmentation.saturation_scale = 1.5
    augmentation.value_scale = 1.5  # exposure
    augmentation.min_side = 0.005
    augmentation.color_probability = 0.0  # all below are the reference's
    augmentation.affine_probability = 0.0
    augmentation.min_area = 0.0
    augmentation.min_visibility = 0.0

    config.train.batch_size = 64  # BatchNorm sees all; in Darknet the 8 of a subdivision
    config.train.accumulation_steps = 1
    config.train.num_steps = 40_000  # max_batches

    optimizer.name = "sgd"
    optimizer.learning_rate = 5e-4
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4
    optimizer.decay_norms = False  # nor biases
    optimizer.schedule = "step"
    optimizer.decay_updates = (200, 400, 600, 20_000, 30_000)  # steps
    optimizer.decay_scales = (2.5, 2.0, 2.0, 0.1, 0.1)  # scales

    config.eval.score_threshold = 0.001  # `yolo valid`
    config.eval.nms_iou_threshold = 0.5
    config.eval.classes_per_box = "all"
    config.eval.clip = "after_nms"

    if name.endswith(".cfg"):
        from yolov1_jax.weights.darknet_cfg import detector_settings

        config.update_from_flattened_dict(detector_settings(name))
    elif name == "paper":
        model.norm = "none"
        model.head = "connected"
        model.head_neck_channels = None
        model.head_hidden = 4096
        model.boxes_per_cell = 2
        model.pixel_mean = model.pixel_std = (0.5, 0.5, 0.5)  # images in [-1, 1]
        optimizer.learning_rate = 1e-3
        augmentation.hue = 0.0
    elif name == "convolutional":
        model.head = "convolutional"
        model.head_neck_channels = None
        model.head_dropout = 0.0
        model.boxes_per_cell = 2
    elif name != "released":
        raise UserError(
            f"expected one of {', '.join(VARIANTS)}, or a FILE.cfg of Darknet, after "
            f"configs/yolov1.py:, found {name!r}"
        )
    return config.lock()
