"""From the probabilities of a classifier to its accuracy."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from yolov1_jax.data.dataset import Annotations
from yolov1_jax.evaluation.evaluator import Evaluator, Result, mean_losses
from yolov1_jax.yolo.detections import Detections


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """What a classifier made of N images, each with one object."""

    # int [N]: how many classes were found more probable than the right one
    ranks: np.ndarray
    detections: list[Detections]  # of each image one: the window, the most probable class
    annotations: Annotations
    losses: Mapping[str, float]  # means over the images
    is_complete: ClassVar[bool] = True

    @property
    def score(self) -> float:
        """The top-1 accuracy, by which the best checkpoint is chosen."""
        return self.top(1)

    def top(self, k: int) -> float:
        """The share of the images whose class is among the k most probable."""
        return float(np.mean(self.ranks < k))

    def top1_by_class(self) -> dict[str, float | None]:
        """None for a class without images."""
        labels, right = self.annotations.labels, self.ranks == 0
        size = len(self.annotations.class_names)
        counts = np.bincount(labels, minlength=size)
        shares = np.bincount(labels, right, size) / np.maximum(counts, 1)
        rows = zip(self.annotations.class_names, shares.tolist(), counts, strict=True)
        return {name: share if count else None for name, share, count in rows}

    def row(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return {"top1": self.top(1), "top5": self.top(5), **self.losses}

    def summary(self, *, source: str, splits: Sequence[str], step: int | None) -> dict[str, Any]:
        """The content of <workdir>/eval/<step>.json; arguments as of `Result.summary`."""
        annotations = self.annotations
        return {
            "step": step,
            "top1": self.top(1),
            "top5": self.top(5),
            "top1_by_class": self.top1_by_class(),
            "evaluation_set": {
                "source": source,
                "splits": list(splits),
                "num_images": len(annotations),
                "fingerprint": annotations.fingerprint(),
            },
            "notes": list(annotations.report.notes()),
        }


class ClassificationEvaluator:
    """Collects the probabilities of images, batch by batch in any order, as `Evaluator` does."""

    def __init__(self, annotations: Annotations, **_: Any) -> None:
        """There are no protocols, nor other options."""
        self._annotations = annotations
        self._ranks = np.zeros(len(annotations), int)
        self._found: dict[int, Detections] = {}  # by image
        self._losses: dict[str, list[np.ndarray]] = collections.defaultdict(list)

    def update(
        self,
        probabilities: np.ndarray,
        index: np.ndarray,
        losses: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Takes a batch: float [B, C], and the rest as of `Evaluator`."""
        used = index >= 0
        probabilities, index = probabilities[used], index[used]
        labels = self._annotations.labels[index]
        # Equal probabilities are in the order of the classes.
        order = np.argsort(-probabilities, axis=1, kind="stable")  # [B, C]
        self._ranks[index] = np.argmax(order == labels[:, None], axis=1)
        for image, row, best in zip(index.tolist(), probabilities, order[:, :1], strict=True):
            window = self._annotations[image].boxes_xyxy
            self._found[image] = Detections(window, row[best], best.astype(np.int32))
        for name, values in (losses or {}).items():
            self._losses[name].append(values[used])

    def compute(self) -> Accuracy:
        """Evaluates; every image of the annotations must have been in a batch."""
        detections = [self._found[image] for image in range(len(self._annotations))]
        return Accuracy(self._ranks, detections, self._annotations, mean_losses(self._losses))


# By config.task.
EVALUATORS: dict[str, Callable[..., Any]] = {
    "detection": Evaluator,
    "classification": ClassificationEvaluator,
}
AnyResult = Result | Accuracy
