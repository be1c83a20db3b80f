"""Small annotations and detections, in pixels."""

import numpy as np

from yolov1_jax.data.dataset import Annotations, GroundTruth
from yolov1_jax.yolo.detections import Detections


def images_of(*image_ids, truths=None, class_names=("cat", "dog"), sizes=(100, 100)):
    """Images, with no objects unless `truths` has them, and numbers as ids unless these are given.

    `sizes`: height and width of all images, or of each.
    """
    truths = truths or [truth()] * len(image_ids)
    image_ids = image_ids or tuple(map(str, range(len(truths))))
    sizes = np.broadcast_to(sizes, (len(truths), 2))
    return Annotations.build(class_names, image_ids, sizes, truths)


def truth(*objects):
    """The objects of an image from (box, label, difficult)."""
    boxes, labels, difficult = zip(*objects, strict=True) if objects else ([], [], [])
    return GroundTruth(
        np.reshape(boxes, (-1, 4)).astype(float),
        np.array(labels, np.int32),
        np.array(difficult, bool),
    )


def found(*rows):
    """The detections of an image from (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return Detections(
        np.reshape(boxes, (-1, 4)).astype(float), np.array(scores, float), np.array(labels, int)
    )
