"""Small evaluation sets and detections. Frame: 1-based inclusive pixels."""

import numpy as np

from yolov1_jax.evaluation.ground_truth import AnnotatedImages, number_images
from yolov1_jax.yolo.detections import Detections, GroundTruth


def images_of(*image_ids, truths=None, class_names=("cat", "dog")):
    """Images of 100 x 100 pixels, without objects unless `truths` has them."""
    return AnnotatedImages(
        image_ids=image_ids,
        sizes=np.full((len(image_ids), 2), 100),
        class_names=class_names,
        ground_truth=truths or [truth()] * len(image_ids),
        image_numbers=number_images(image_ids),
        category_ids=tuple(range(1, len(class_names) + 1)),
    )


def truth(*objects):
    """Of (box, label, difficult)."""
    boxes, labels, difficult = zip(*objects, strict=True) if objects else ([], [], [])
    return GroundTruth(
        np.reshape(boxes, (-1, 4)).astype(float), np.array(labels, int), np.array(difficult, bool)
    )


def found(*rows):
    """Of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return Detections(
        np.reshape(boxes, (-1, 4)).astype(float), np.array(scores, float), np.array(labels, int)
    )
