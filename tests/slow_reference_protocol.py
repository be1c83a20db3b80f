"""The PyTorch reference's evaluation, box by box as it is described, and outputs to try it on.

Boxes are multiples of 1/64 of the image, which is scaled to 448 pixels: 448/64 is whole, so that
ties and an IoU of 0.5 are exact in every order of computation.
"""

import itertools

import numpy as np

from yolov1_jax.data.dataset import GroundTruth


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def slow_grid(objects, size):
    """{(row, column): (box, set of labels)}: what build_target leaves of an image's objects."""
    cells = {}
    for box, label, difficult in zip(*objects, strict=True):
        if not difficult:
            x1, y1, x2, y2 = box / 64
            column = min(int((x1 + x2) / 2 * size), size - 1)
            row = min(int((y1 + y2) / 2 * size), size - 1)
            _, labels = cells.get((row, column), (None, set()))
            cells[row, column] = ((x1 * 448, y1 * 448, x2 * 448, y2 * 448), labels | {label})
    return cells


def slow_nms(candidates):
    """Indices of the detections among a class's candidates [(box, score)]."""
    order = sorted(range(len(candidates)), key=lambda i: -candidates[i][1])
    chosen, gone = [], set()
    for position, i in enumerate(order):
        if position == len(order) - 1:
            break
        box, score = candidates[i]
        if position in gone or score < 0.3:
            continue
        if box[2] - box[0] > 0 and box[3] - box[1] > 0 and 0 < score < 1:
            chosen.append(i)
            for later in range(position + 1, len(order)):
                if slow_iou(box, candidates[order[later]][0]) > 0.5:
                    gone.add(later)
    return chosen


def slow_table(detections, objects):
    """[(IoU that counts, score)] of a class in an image, as it goes into the ranking."""
    if not objects:
        return [(0.0, score) for _, score in detections]
    rows = []
    for box, score in detections:
        ious = [slow_iou(box, one) for one in objects]
        rows.append((max(ious), score, ious.index(max(ious))))
    rows.sort(key=lambda row: -row[0])
    table, taken = [], set()
    for iou, score, which in rows:
        table.append((0.0 if which in taken else iou, score))
        taken.add(which)
    return table


def slow_average_precision(table, num_objects):
    table = sorted(table, key=lambda row: -row[1])
    recall, precision, hits = [], [], 0
    for rank, (iou, _) in enumerate(table, start=1):
        hits += iou > 0.5
        recall.append(hits / num_objects if num_objects else 0.0)
        precision.append(hits / rank)
    points = [(0.0, max(precision, default=0.0))]
    for r in recall:
        beyond = [p for q, p in zip(recall, precision, strict=True) if q > r]
        if beyond:
            points.append((r, max(beyond)))
    area = 0.0
    for (r0, p0), (r1, p1) in itertools.pairwise(points):
        area += (r1 - r0) * (p0 + p1) / 2
    return area, recall, precision


def slow_evaluation(boxes, confidence, class_scores, ground_truth, num_classes):
    """[(AP, recall, precision, number of objects)] of each class.

    Boxes as `evaluate_reference` takes them; the objects of images of 64 x 64 pixels.
    """
    num_images, size, _, per_cell, _ = boxes.shape
    tables, counts = [[] for _ in range(num_classes)], [0] * num_classes
    for n in range(num_images):
        cells = slow_grid(ground_truth[n], size)
        listed = []
        for k in range(per_cell):
            for row in range(size):
                for column in range(size):
                    cx, cy, w, h = (float(v) * 448 for v in boxes[n, row, column, k])
                    products = [
                        float(confidence[n, row, column, k] * p)
                        for p in class_scores[n, row, column]
                    ]
                    box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                    listed.append((box, max(products), products.index(max(products))))
        for c in range(num_classes):
            candidates = [(box, score) for box, score, label in listed if label == c]
            detections = [candidates[i] for i in slow_nms(candidates)]
            objects = [box for _, (box, labels) in sorted(cells.items()) if c in labels]
            tables[c] += slow_table(detections, objects)
            counts[c] += len(objects)
    return [
        (*slow_average_precision(table, count), count)
        for table, count in zip(tables, counts, strict=True)
    ]


def random_output(rng, num_images, size, num_classes):
    """Predictions near objects, with ties everywhere, and objects in 64 x 64 that share cells."""
    shape = (num_images, size, size, 2)
    ground_truth, boxes = [], np.empty((*shape, 4))
    class_scores = rng.choice([-1.0, 0.0, 0.25, 0.5], (*shape[:3], num_classes))
    for n in range(num_images):
        num_objects = rng.integers(0, 9)
        corner = rng.integers(0, 12, (num_objects, 2)) * 4
        extent = rng.choice([8, 16, 24], (num_objects, 2))
        xyxy = np.concatenate([corner, corner + extent], axis=-1)
        labels = rng.integers(0, num_classes - 1, num_objects)  # never the last class
        ground_truth.append(GroundTruth(xyxy, labels, rng.random(num_objects) < 0.2))
        # A cell predicts an object, or something that is none, two of them without size.
        pool = np.concatenate([xyxy, [[0, 0, 16, 16], [8, 8, 8, 24], [30, 30, 20, 40]]])
        pool_labels = np.concatenate([labels, [0, 1, 2]])
        pick = rng.integers(0, len(pool), (size, size))
        jitter = rng.choice([0, 0, 0, 2, 4], (*shape[1:], 4))
        near = pool[pick][:, :, None] + jitter  # [S, S, 2, 4]
        low, high = near[..., :2], near[..., 2:]
        boxes[n] = np.concatenate([(low + high) / 128, (high - low) / 64], axis=-1)
        row, column = np.nonzero(rng.random((size, size)) < 0.7)
        class_scores[n, row, column, pool_labels[pick[row, column]]] = 1.0
    confidence = rng.choice([-0.5, 0.0, 0.5, 0.75, 0.875, 1.0, 1.5], shape)
    return boxes, confidence, class_scores, ground_truth
