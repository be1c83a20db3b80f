"""The promise of README that evaluating a whole test set takes seconds, all of it together."""

import time

import numpy as np

from yolov1_jax.detector import detections_from_predictions
from yolov1_jax.evaluation.average_precision import evaluate_detections
from yolov1_jax.yolo.detections import GroundTruth
from yolov1_jax.yolo.grid import Predictions

IMAGES, SIDE, BOXES, CLASSES = 4952, 7, 2, 20  # VOC2007 test has 4,952 images; 98 boxes of each


def test_decoding_suppressing_and_scoring_a_whole_test_set_takes_seconds():
    rng = np.random.default_rng(0)
    cells = (IMAGES, SIDE, SIDE)
    xy, wh = rng.random((*cells, BOXES, 2)), rng.uniform(0.05, 0.9, (*cells, BOXES, 2))
    # As a trained network has them: most cells are nearly certain to be empty, and most of a cell's
    # probability goes to one class.
    confidence = rng.random((*cells, BOXES)) ** 6
    classes = np.exp(3 * rng.normal(size=(*cells, CLASSES)))
    classes /= classes.sum(axis=-1, keepdims=True)
    predictions = Predictions(
        np.concatenate([xy, wh], axis=-1).astype(np.float32),
        confidence.astype(np.float32),
        classes.astype(np.float32),
    )
    sizes = np.full((IMAGES, 2), (375, 500))
    truths = []
    for _ in range(IMAGES):
        corner = rng.uniform(1, 200, (3, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 170, (3, 2))], axis=-1)
        truths.append(GroundTruth(boxes, rng.integers(0, CLASSES, 3), rng.random(3) < 0.2))

    start = time.process_time()
    detections = detections_from_predictions(
        predictions,
        sizes,
        xy_unit="cell",
        score_threshold=0.005,
        nms_iou_threshold=0.5,
        classes_per_box="all",
    )
    # One pass gives both rules, voc07 and voc10.
    evaluation = evaluate_detections(detections, truths, [str(label) for label in range(CLASSES)])
    seconds = time.process_time() - start
    count = sum(len(one.scores) for one in detections)
    print(f"{count:,} detections, {seconds:.1f} s of CPU time")
    assert count > 500_000
    assert 0 < evaluation.mean_ap < 0.2
    assert seconds < 8, f"{seconds:.1f} s of CPU time"
