"""The VOC rule object by object, and images on which its details matter. Inclusive pixels."""

import math

import numpy as np

from yolov1_jax.data.dataset import GroundTruth
from yolov1_jax.yolo.detections import Detections

CLASSES = ("a", "b", "lost", "without objects", "difficult only", "never there")


def slow_class(queue, ground_truth, label, protocol):
    """AP, recall and precision of a class.

    `queue` has its detections as (score, image, box); its order decides between equal scores.
    """
    objects = [
        [
            {"box": box, "difficult": difficult, "taken": False}
            for box, c, difficult in zip(*truth, strict=True)
            if c == label
        ]
        for truth in ground_truth
    ]
    num_objects = sum(not one["difficult"] for image in objects for one in image)
    true_positives = false_positives = 0
    recall, precision = [], []
    for _, image, (x1, y1, x2, y2) in sorted(queue, key=lambda row: -row[0]):  # stable
        best, best_overlap = None, -math.inf
        for one in objects[image]:
            u1, v1, u2, v2 = one["box"]
            width = min(x2, u2) - max(x1, u1) + 1
            height = min(y2, v2) - max(y1, v1) + 1
            overlap = 0.0
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1)
                overlap = width * height / (union - width * height)
            if overlap > best_overlap:
                best, best_overlap = one, overlap
        if best_overlap < 0.5:
            false_positives += 1
        elif not best["difficult"]:
            if best["taken"]:
                false_positives += 1
            else:
                true_positives += 1
                best["taken"] = True
        counted = true_positives + false_positives
        recall.append(true_positives / num_objects if num_objects else math.nan)
        precision.append(true_positives / counted if counted else 0.0)

    if num_objects == 0:
        return math.nan, recall, precision
    ap = 0.0
    if protocol == "voc07":
        for k in range(11):
            ap += max([p for r, p in zip(recall, precision, strict=True) if r >= k * 0.1] + [0.0])
        return ap / 11, recall, precision
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in reversed(range(len(p) - 1)):
        p[i] = max(p[i], p[i + 1])
    for i in range(1, len(r)):
        ap += (r[i] - r[i - 1]) * p[i]
    return ap, recall, precision


def random_images(rng, num_images, fraction):
    """Small boxes that often coincide, overlap by exactly 0.5, or tie in score, of CLASSES.

    Corners are multiples of 1 / fraction pixels. Some detections are single pixels, inverted or
    outside the image.
    """
    detections, ground_truth = [], []
    for _ in range(num_images):
        num_objects, num_found = rng.integers(0, 6), rng.integers(0, 12)
        corner = rng.integers(1, 8 * fraction, (num_objects, 2)) / fraction
        size = rng.choice([1, 3, 5, 7], (num_objects, 2))  # 2, 4, 6, 8 pixels
        boxes = np.concatenate([corner, corner + size], axis=-1)
        labels = rng.choice(5, num_objects, p=[0.35, 0.35, 0.1, 0, 0.2])
        difficult = (rng.random(num_objects) < 0.25) | (labels == 4)
        ground_truth.append(GroundTruth(boxes, labels, difficult))
        pool = np.concatenate([boxes, [[3.0, 3, 8, 8]]])
        pick = rng.integers(0, len(pool), num_found)
        found_labels = np.append(labels, 3)[pick]
        found_labels[found_labels == 2] = 0
        near = pool[pick]
        halved = near.copy()
        halved[:, 3] = (near[:, 1] + near[:, 3] - 1) / 2  # the upper half of the pixels
        shifted = near + rng.integers(-fraction, fraction + 1, (num_found, 4)) / fraction
        kind = rng.choice(6, (num_found, 1), p=[0.3, 0.3, 0.3, 0.04, 0.03, 0.03])
        odd = near[:, [0, 1, 0, 1]], near[:, [2, 1, 0, 3]], near - 20
        boxes = np.choose(kind, [near, halved, shifted, *odd])
        detections.append(Detections(boxes, rng.integers(1, 5, num_found) / 4, found_labels))
    return detections, ground_truth
