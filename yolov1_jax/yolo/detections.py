"""What a detector found in one image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Detections(NamedTuple):
    """D detections of one image; D may be 0."""

    boxes_xyxy: np.ndarray  # float [D, 4], pixels of the original image
    scores: np.ndarray  # float [D], higher is surer
    labels: np.ndarray  # int [D], index of the class


def join_detections(images: Sequence[Detections]) -> tuple[np.ndarray, Detections]:
    """All images in one: the image of each detection, int [A], and all A detections in doubles."""
    image = np.repeat(np.arange(len(images)), [len(one.labels) for one in images])
    return image, Detections(
        np.concatenate([np.empty((0, 4)), *(one.boxes_xyxy for one in images)]),
        np.concatenate([np.empty(0), *(one.scores for one in images)]),
        np.concatenate([np.empty(0, np.int64), *(one.labels for one in images)]),
    )
