"""Which boxes become detections under which rules, and why the others do not."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from yolov1_jax.comparison.rules import (
    INPUT_SIZE,
    IOU_THRESHOLD,
    SEED_SCORE_THRESHOLD,
    Found,
    Rules,
)
from yolov1_jax.detector import scored_boxes
from yolov1_jax.evaluation.reference_protocol import seed_boxes, seed_nms
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy
from yolov1_jax.yolo.detections import Detections, join_detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes
from yolov1_jax.yolo.nms import suppress


class Selection(Protocol):
    """Detections by rules."""

    has_network: bool

    def select(self, rules: Rules) -> Found: ...

    def why_not(self, rules: Rules, row: int, label: int) -> str:
        """In words, why a box (`Found.row`) is not detected as this class."""
        ...

    def describe(self, row: int, label: int) -> tuple[int, float, np.ndarray]:
        """Image, score and original_xyxy of a box as this class."""
        ...


class NetworkBoxes:
    """The boxes of a network: every rule can be replayed.

    M boxes of N images: of an image all cells of the first box, then all of the second.

    Args:
      predictions: of N images, NumPy.
      sizes: int [N, 2], height and width of the original images.
      select_options: keyword arguments of `detections_from_predictions`: the official selection.
    """

    has_network = True

    def __init__(
        self,
        predictions: Predictions[np.ndarray],
        sizes: np.ndarray,
        select_options: dict[str, Any],
    ) -> None:
        self._options = select_options
        self._lost_under: dict[Rules, set[int]] = {}
        xy_unit = select_options["xy_unit"]
        boxes, scores = scored_boxes(predictions, sizes, xy_unit=xy_unit)
        self._num_classes = scores.shape[-1]
        self._cut_xyxy = boxes.reshape(-1, 4)  # [M, 4], original frame
        self._scores = scores.reshape(-1, self._num_classes)  # [M, C]
        self._seed = seed_boxes(
            decode_boxes(predictions.boxes, xy_unit=xy_unit),
            predictions.confidence,
            predictions.class_scores,
            image_size=INPUT_SIZE,
        )
        self._image = self._seed.image
        to_original = sizes[:, [1, 0, 1, 0]][self._image] / INPUT_SIZE  # [M, 4]
        self._whole_input_xyxy = cxcywh_to_xyxy(self._seed.boxes_cxcywh)
        self._whole_xyxy = self._whole_input_xyxy * to_original
        self._cut_input_xyxy = self._cut_xyxy / to_original

    def select(self, rules: Rules) -> Found:
        if rules.whole_boxes:
            rows, _ = self._select_whole(rules)
            labels = self._seed.labels[rows]
            scores = self._seed.scores[rows]
            boxes = self._whole_xyxy[rows], self._whole_input_xyxy[rows]
        else:
            rows, labels = self._select_cut(rules)
            scores = self._scores[rows, labels]
            boxes = self._cut_xyxy[rows], self._cut_input_xyxy[rows]
        return Found(rows, self._image[rows], labels, scores.astype(np.float64), *boxes)

    def _threshold(self, rules: Rules) -> float:
        return SEED_SCORE_THRESHOLD if rules.threshold else self._options["score_threshold"]

    def _select_cut(self, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
        """As `select_detections`. Rows and labels, in the order of the rows."""
        candidate = self._scores >= self._threshold(rules)  # [M, C]
        if self._options["classes_per_box"] == "best":
            candidate &= self._best_class()[:, None] == np.arange(self._num_classes)
        if rules.drop_high:
            candidate &= (self._scores > 0) & (self._scores < 1)
        some = np.flatnonzero(candidate.any(axis=-1))
        kept = suppress(
            self._cut_xyxy[some],
            self._scores[some],
            candidate[some],
            self._image[some],
            self._options["nms_iou_threshold"],
        )
        row, label = np.nonzero(kept)
        return some[row], label

    def _select_whole(self, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
        """As `seed_detections`. Rows, and those that only their being last has lost."""
        boxes = self._seed
        takes_part = (boxes.scores >= self._threshold(rules)) & boxes.has_size
        if rules.drop_high:
            takes_part &= (boxes.scores > 0) & (boxes.scores < 1)
        rows = np.flatnonzero(takes_part)
        rows = rows[seed_nms(boxes, rows, self._num_classes, IOU_THRESHOLD)]
        lost = boxes.is_last[rows] & rules.drop_last
        return rows[~lost], rows[lost]

    def _best_class(self) -> np.ndarray:
        return np.argmax(self._scores, axis=-1)  # [M]

    def why_not(self, rules: Rules, row: int, label: int) -> str:
        threshold = self._threshold(rules)
        if not rules.whole_boxes:
            if np.isneginf(self._scores[row]).all():
                return "no area inside the image"
            if self._options["classes_per_box"] == "best" and np.argmax(self._scores[row]) != label:
                return "the box counts as another class"
            if self._scores[row, label] < threshold:
                return f"score below {threshold:g}"
            return "suppressed by a higher score"
        boxes = self._seed
        if boxes.labels[row] != label:
            return "the box counts as another class"
        if boxes.scores[row] < threshold:
            return f"score below {threshold:g}"
        if not boxes.has_size[row]:
            return "no width or no height"
        if rules.drop_high and boxes.scores[row] >= 1:
            return "score of 1 or more"
        if rules.drop_last and row in self._lost(rules):
            return "last candidate of its class in the image"
        return "suppressed by a higher score"

    def _lost(self, rules: Rules) -> set[int]:
        if rules not in self._lost_under:
            self._lost_under[rules] = set(self._select_whole(rules)[1].tolist())
        return self._lost_under[rules]

    def describe(self, row: int, label: int) -> tuple[int, float, np.ndarray]:
        score = self._scores[row, label]
        cut = not np.isneginf(score)
        box = self._cut_xyxy[row] if cut else self._whole_xyxy[row]
        return int(self._image[row]), float(score if cut else self._seed.scores[row]), box


class FileDetections:
    """Detections that were read from a file: selected already, so only the threshold is replayed.

    Args:
      detections: of N images, in pixels of the original images.
      sizes: int [N, 2], height and width of the images.
      file_order: int [D] an image, where each detection stands in its file; None: as given.
    """

    has_network = False

    def __init__(
        self,
        detections: Sequence[Detections],
        sizes: np.ndarray,
        file_order: Sequence[np.ndarray] | None = None,
    ) -> None:
        image, found = join_detections(detections)
        place = np.arange(len(image)) if file_order is None else np.concatenate([[], *file_order])
        order = np.argsort(place, kind="stable")
        scale = sizes[:, [1, 0, 1, 0]].astype(np.float64)
        boxes = found.boxes_xyxy[order]
        self._found = Found(
            np.arange(len(order)),
            image[order],
            found.labels[order],
            found.scores[order],
            boxes,
            boxes / scale[image[order]] * INPUT_SIZE,
        )

    def select(self, rules: Rules) -> Found:
        if not rules.threshold:
            return self._found
        keep = self._found.scores >= SEED_SCORE_THRESHOLD
        return Found(*(part[keep] for part in self._found))

    def why_not(self, rules: Rules, row: int, label: int) -> str:
        return f"score below {SEED_SCORE_THRESHOLD:g}"

    def describe(self, row: int, label: int) -> tuple[int, float, np.ndarray]:
        found = self._found
        return int(found.image[row]), float(found.scores[row]), found.original_xyxy[row]
