"""Detections that were read from a file, and how they are judged on the way.

Of an image that a file does not mention there are no detections. What cannot be scored ends the
reading with a `ResultsFileError`: a line that does not parse, a number that is not finite, a class
or an image that is not in the evaluation set (or else is skipped and counted, if that was asked
for). What can be scored and is still odd is scored and noted.
"""

import collections
import difflib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolov1_jax.evaluation.ground_truth import AnnotatedImages, ImageFinder
from yolov1_jax.yolo.detections import Detections


class ResultsFileError(Exception):
    """A file that cannot be scored. The message is one line: expected, found, what to do."""


class Results(NamedTuple):
    """Detections of N images, and what there was to say about them."""

    detections: list[Detections]
    # int [D] of each image: where a detection stands in its file, which decides between equals.
    file_order: list[np.ndarray]
    notes: list[str]  # one line each


class ResultsCollector:
    """Takes the detections of a file one by one, and judges them.

    Args:
      images: what the detections are of.
      unknown_classes, unknown_images: "refuse" the file, or "skip" the detection.
    """

    def __init__(
        self,
        images: AnnotatedImages,
        *,
        unknown_classes: str = "refuse",
        unknown_images: str = "refuse",
    ) -> None:
        for policy in (unknown_classes, unknown_images):
            if policy not in ("refuse", "skip"):
                raise ValueError(f"expected 'refuse' or 'skip', got {policy!r}")
        self._images = images
        self._labels = {name: label for label, name in enumerate(images.class_names)}
        self._finder = ImageFinder(images)
        self._skip_classes = unknown_classes == "skip"
        self._skip_images = unknown_images == "skip"
        self._skipped: dict[str, list[str]] = collections.defaultdict(list)
        self._notes: list[str] = []
        self._rows: list[tuple[int, int]] = []  # image, label
        self._numbers: list[tuple[float, float, float, float, float]] = []  # score, box

    def note(self, line: str) -> None:
        """Adds a line to what there is to say."""
        self._notes.append(line)

    def label(self, class_name: str, where: str) -> int | None:
        """The label of a class; None if it is unknown, and to be skipped."""
        if class_name in self._labels:
            return self._labels[class_name]
        if not self._skip_classes:
            near = difflib.get_close_matches(class_name, self._labels, 1, cutoff=0.0)
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise ResultsFileError(
                f"{where}: expected a class of the annotations, found {class_name!r}{hint}; correct"
                " either, or leave such detections out with --unknown_classes=skip"
            )
        return None

    def image(self, name: str | int, where: str) -> int | None:
        """The position of an image; None if it is unknown, and to be skipped."""
        try:
            position = self._finder.find(name)
        except LookupError as error:
            raise ResultsFileError(f"{where}: {error.args[0]}") from None
        if position is None and not self._skip_images:
            example = (
                self._images.image_numbers if isinstance(name, int) else self._images.image_ids
            )
            raise ResultsFileError(
                f"{where}: expected an image of the annotations such as {example[0]!r}, found "
                f"{name!r}; correct either, or leave such detections out with "
                "--unknown_images=skip"
            )
        return position

    def add(
        self,
        image_name: str | int,
        class_name: str,
        score: float,
        box_xyxy: Sequence[float],
        where: str,
    ) -> None:
        """Takes the next detection of the file.

        Args:
          image_name: see `ImageFinder`.
          score, box_xyxy: the box in the numbers of a VOC annotation.
          where: the file and the place in it, for messages.
        """
        x1, y1, x2, y2 = box_xyxy
        row = (score, x1, y1, x2, y2)
        if not all(map(math.isfinite, row)):
            raise ResultsFileError(
                f"{where}: expected finite numbers, found score {score} and box {list(box_xyxy)}; "
                "correct the program that wrote them"
            )
        label = self.label(class_name, where)
        if label is None:
            self._skipped["class is not in the annotations"].append(class_name)
            return
        position = self.image(image_name, where)
        if position is None:
            self._skipped["image is not in the annotations"].append(str(image_name))
            return
        self._rows.append((position, label))
        self._numbers.append(row)

    def results(self) -> Results:
        """All that was taken, by image."""
        image, labels = np.array(self._rows, np.int64).reshape(-1, 2).T
        numbers = np.array(self._numbers, np.float64).reshape(-1, 5)
        scores, boxes = numbers[:, 0], numbers[:, 1:]
        by_image = np.argsort(image, kind="stable")
        num_images = len(self._images.image_ids)
        starts = np.searchsorted(image[by_image], np.arange(1, num_images))
        groups = np.split(by_image, starts) if num_images else []
        detections = [Detections(boxes[rows], scores[rows], labels[rows]) for rows in groups]
        notes = list(self._notes)
        for reason, names in self._skipped.items():
            notes.append(f"{len(names):,} detections left out, {reason}: {names[0]}, ...")
        num_inverted = int(np.sum((boxes[:, 2:] < boxes[:, :2]).any(axis=-1)))
        if num_inverted:
            notes.append(
                f"{num_inverted:,} boxes end before they begin and find nothing: are these widths "
                "and heights?"
            )
        num_empty = sum(len(rows) == 0 for rows in groups)
        if num_empty:
            notes.append(f"{num_empty:,} of {num_images:,} images have no detections")
        return Results(detections, groups, notes)
