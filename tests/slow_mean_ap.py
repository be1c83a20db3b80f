"""The VOC rule object by object, and images on which it matters. Frame: inclusive pixels."""

import math

import numpy as np

from yolov1_jax.yolo.detections import Detections, GroundTruth


def slow_evaluation(detections, ground_truth, label, protocol):
    """AP, recall and precision of a class, object by object."""
    queue = [
        (float(score), image, box)
        for image, one in enumerate(detections)
        for box, score, c in zip(*one, strict=True)
        if c == label
    ]
    return slow_class(queue, ground_truth, label, protocol)


def slow_class(queue, ground_truth, label, protocol):
    """Likewise; `queue` has (score, image, box) in the order that decides between equal scores."""
    objects = [
        [
            {"box": box, "difficult": difficult, "taken": False}
            for box, c, difficult in zip(*truth, strict=True)
            if c == label
        ]
        for truth in ground_truth
    ]
    num_objects = sum(not one["difficult"] for image in objects for one in image)
    queue = sorted(queue, key=lambda row: -row[0])  # stable
    true_positives = false_positives = 0
    recall, precision = [], []
    for _, image, (x1, y1, x2, y2) in queue:
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


def random_images(rng, num_images, num_classes, fraction):
    """Small boxes that often coincide, overlap by exactly 0.5, or tie in score."""
    detections, ground_truth = [], []
    for _ in range(num_images):
        num_objects, num_found = rng.integers(0, 6), rng.integers(0, 12)
        corner = rng.integers(1, 8 * fraction, (num_objects, 2)) / fraction
        size = rng.choice([1, 3, 5, 7], (num_objects, 2))  # 2, 4, 6, 8 pixels
        boxes = np.concatenate([corner, corner + size], axis=-1)
        labels = rng.integers(0, num_classes, num_objects)
        ground_truth.append(GroundTruth(boxes, labels, rng.random(num_objects) < 0.25))
        if num_objects == 0:
            source = np.tile([3.0, 3, 8, 8], (num_found, 1))
            found_labels = rng.integers(0, num_classes, num_found)
        else:
            pick = rng.integers(0, num_objects, num_found)
            source, found_labels = boxes[pick], labels[pick]
        shift = rng.integers(-fraction, fraction + 1, (num_found, 4)) / fraction
        halved = source.copy()
        halved[:, 3] = (source[:, 1] + source[:, 3] - 1) / 2  # the upper half of the pixels
        kind = rng.integers(0, 3, num_found)[:, None]
        boxes = np.select([kind == 0, kind == 1], [source, halved], source + shift)
        scores = rng.integers(1, 5, num_found) / 4
        detections.append(Detections(boxes, scores, found_labels))
    return detections, ground_truth
