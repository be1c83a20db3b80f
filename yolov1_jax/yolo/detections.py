"""What a detector found in one image, and what there is to find.

A data set is a sequence of each, one element an image, in the same order.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Detections(NamedTuple):
    """D detections of one image; D may be 0."""

    boxes_xyxy: np.ndarray  # float [D, 4], pixels of the original image
    scores: np.ndarray  # float [D], higher is surer
    labels: np.ndarray  # int [D], index of the class


class GroundTruth(NamedTuple):
    """N annotated objects of one image; N may be 0."""

    boxes_xyxy: np.ndarray  # float64 [N, 4], in the frame of the detections
    labels: np.ndarray  # int [N], index of the class
    difficult: np.ndarray  # bool [N], annotated as hard to recognise


def join_detections(images: Sequence[Detections]) -> tuple[np.ndarray, Detections]:
    """All images in one: the index of its image for each detection, int [A], and the detections.

    Boxes and scores become doubles.
    """
    return _image_index(images), Detections(
        _concatenate((one.boxes_xyxy for one in images), np.float64, (4,)),
        _concatenate((one.scores for one in images), np.float64),
        _concatenate((one.labels for one in images), np.int64),
    )


def join_ground_truth(images: Sequence[GroundTruth]) -> tuple[np.ndarray, GroundTruth]:
    """All images in one: the index of its image for each object, int [A], and the objects."""
    return _image_index(images), GroundTruth(
        _concatenate((one.boxes_xyxy for one in images), np.float64, (4,)),
        _concatenate((one.labels for one in images), np.int64),
        _concatenate((one.difficult for one in images), np.bool_),
    )


def _image_index(images: Sequence[Detections] | Sequence[GroundTruth]) -> np.ndarray:
    sizes = [len(one.labels) for one in images]
    for image, (one, size) in enumerate(zip(images, sizes, strict=True)):
        if any(len(field) != size for field in one):
            raise ValueError(
                f"image {image}: expected fields of one length, got {[len(field) for field in one]}"
            )
    return np.repeat(np.arange(len(sizes)), sizes)


def _concatenate(
    arrays: Iterable[npt.ArrayLike], dtype: type[np.generic], row_shape: tuple[int, ...] = ()
) -> np.ndarray:
    """Concatenates what may be no array at all, or arrays without a row. -> [A, *row_shape]."""
    rows = [np.asarray(array, dtype).reshape(-1, *row_shape) for array in arrays]
    return np.concatenate([np.empty((0, *row_shape), dtype), *rows])
