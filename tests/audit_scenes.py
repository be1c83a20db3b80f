"""Random predictions on which protocols disagree, with all that an evaluation needs."""

import numpy as np
from slow_seed_protocol import random_output

from yolov1_jax.yolo.grid import Predictions, encode_boxes

NUM_CLASSES = 4


def scene(seed, size, classes_per_box="best", dtype=np.float64):
    """Random predictions of 40 images of odd sizes: predictions, sizes, truths, options."""
    rng = np.random.default_rng(seed)
    boxes, confidence, class_scores, relative = random_output(rng, 40, size, NUM_CLASSES)
    sizes = rng.choice([64, 96, 128], (40, 2))
    truths = [
        one._replace(boxes_xyxy=one.boxes_xyxy * extent[[1, 0, 1, 0]])
        for one, extent in zip(relative, sizes, strict=True)
    ]
    options = {
        "xy_unit": "image",
        "score_threshold": 0.005,
        "nms_iou_threshold": 0.4,
        "classes_per_box": classes_per_box,
    }
    predictions = Predictions(encode_boxes(boxes, xy_unit="image"), confidence, class_scores)
    return Predictions(*(part.astype(dtype) for part in predictions)), sizes, truths, options
