"""From predictions, or from detections, to the numbers of every protocol (docs/protocols.md)."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations
from yolov1_jax.evaluation.average_precision import Evaluation, evaluate_voc
from yolov1_jax.evaluation.coco import evaluate_coco
from yolov1_jax.evaluation.reference_protocol import evaluate_reference
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes

PROTOCOLS = ("voc07", "voc10", "coco", "reference")
QUICK_PROTOCOLS = ("voc07", "voc10", "reference")  # seconds for all of VOC2007 test


class Result(NamedTuple):
    """Evaluations and what they were computed from, in the order of the annotations."""

    protocol: str  # the one whose mAP comes first
    evaluations: dict[str, Evaluation]  # by protocol
    detections: list[Detections]  # of each image
    annotations: Annotations
    # From a network, not from a file of detections: the loss and its terms, means over the images,
    # and what it predicted for each image.
    losses: Mapping[str, float] = {}
    predictions: Mapping[int, Predictions[np.ndarray]] = {}

    @property
    def evaluation(self) -> Evaluation:
        return self.evaluations[self.protocol]

    @property
    def score(self) -> float:
        """By which the best checkpoint is chosen, "mAP" in `row`; NaN where it does not exist."""
        return self.evaluation.mean_ap

    @property
    def is_complete(self) -> bool:
        return len(self.evaluations) == len(PROTOCOLS)

    def row(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        numbers = _numbers(self.evaluation)
        ap_by_class = {f"ap/{name}": ap for name, ap in numbers["ap"].items()}
        return {"mAP": numbers["mAP"], "protocol": self.protocol, **self.losses, **ap_by_class}

    def summary(self, *, source: str, splits: Sequence[str], step: int | None) -> dict[str, Any]:
        """The content of <workdir>/eval/<step>.json; what does not exist (NaN) is null.

        Args:
          source, splits: where the annotations are from, as config.data has it.
          step: of the run; None for detections from a file.
        """
        annotations = self.annotations
        protocols = {name: _numbers(one) for name, one in self.evaluations.items()}
        num_difficult = int(np.sum(annotations.difficult))
        return {
            "step": step,
            "protocol": self.protocol,
            "mAP": protocols[self.protocol]["mAP"],
            "ap": protocols[self.protocol]["ap"],
            "num_images": len(annotations),
            "num_objects": sum(one.num_objects for one in self.evaluation.classes.values()),
            "num_difficult": num_difficult,
            "num_detections": sum(len(found.scores) for found in self.detections),
            "splits": list(splits),
            "protocols": protocols,
            "evaluation_set": {
                "source": source,
                "splits": list(splits),
                "num_images": len(annotations),
                "num_objects": len(annotations.labels) - num_difficult,
                "num_difficult": num_difficult,
                "fingerprint": annotations.fingerprint(),
            },
            "notes": list(annotations.report.notes()),
            "examples": self._examples(),
        }

    def _examples(self) -> dict[str, list[list[float]]]:
        """Label, score and box of what was detected in four images of the set, by image id."""
        examples = {}
        for i in np.unique(np.linspace(0, len(self.annotations) - 1, 4).round().astype(int)):
            boxes, scores, labels = self.detections[i]
            rows = np.column_stack([labels, scores, boxes])[scores >= 0.1].round(3)
            examples[self.annotations.image_ids[i]] = rows.tolist()
        return examples


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    ap = {name: one.ap for name, one in evaluation.classes.items()}
    by_class = {f"{part}_by_class": aps for part, aps in evaluation.parts_by_class.items()}
    return _null_if_nan({"mAP": evaluation.mean_ap, **evaluation.parts, "ap": ap, **by_class})


def _null_if_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null_if_nan(one) for name, one in value.items()}
    return None if math.isnan(value) else value


class Evaluator:
    """Collects the network's predictions, batch by batch in any order, and evaluates them."""

    def __init__(
        self,
        annotations: Annotations,
        *,
        protocol: str,
        protocols: Sequence[str] = PROTOCOLS,
        **select_options: Any,
    ) -> None:
        """
        Args:
          protocol: the one whose mAP comes first.
          protocols: further ones to evaluate by; "voc07" and "voc10" always are.
          select_options: of `detections_from_predictions`; "reference" has thresholds of its own.
        """
        self._annotations = annotations
        self._protocol = protocol
        self._protocols = {protocol, *protocols}
        self._select_options = select_options
        self._detections: dict[int, Detections] = {}  # by image
        self._predictions: dict[int, Predictions[np.ndarray]] = {}  # by image; for "reference"
        self._losses: dict[str, list[np.ndarray]] = collections.defaultdict(list)

    def update(
        self,
        predictions: Predictions[np.ndarray],
        index: np.ndarray,
        losses: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Takes a batch of B images.

        Args:
          index: int [B], their places in the annotations, -1 for none.
          losses: of each image, [B], by name.
        """
        for name, values in (losses or {}).items():
            self._losses[name].append(values[index >= 0])
        images = index.tolist()  # `compute` does not read what is stored for -1
        found = detections_from_predictions(
            predictions, self._annotations.sizes[index], **self._select_options
        )
        self._detections.update(zip(images, found, strict=True))
        if "reference" in self._protocols:
            self._predictions.update(zip(images, map(Predictions, *predictions), strict=True))

    def compute(self) -> Result:
        """Evaluates; every image of the annotations must have been in a batch."""
        annotations = self._annotations
        detections = [self._detections[image] for image in range(len(annotations))]
        evaluations = evaluate_voc(detections, annotations)
        if "coco" in self._protocols:
            evaluations["coco"] = evaluate_coco(detections, annotations)
        if "reference" in self._protocols:
            rows = [self._predictions[image] for image in range(len(annotations))]
            boxes, confidence, scores = map(np.stack, zip(*rows, strict=True))
            boxes = decode_boxes(boxes, xy_unit=self._select_options["xy_unit"])
            evaluations["reference"] = evaluate_reference(boxes, confidence, scores, annotations)
        losses = mean_losses(self._losses)
        return Result(
            self._protocol, evaluations, detections, annotations, losses, self._predictions
        )


def mean_losses(losses: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """Means of losses, batches of [B] each; without those that are not finite, as JSON has them."""
    means = {name: float(np.mean(np.concatenate(one))) for name, one in losses.items()}
    return {name: one for name, one in means.items() if math.isfinite(one)}


def evaluate_detections(
    detections: Sequence[Detections],
    annotations: Annotations,
    *,
    protocol: str,
    file_order: Sequence[np.ndarray] | None = None,
) -> Result:
    """Evaluates detections of any program, by all protocols but "reference".

    Arguments as of `evaluate_voc` and `Evaluator`.

    Raises:
      UserError: the protocol is "reference".
    """
    if protocol == "reference":
        raise UserError(
            "expected protocol voc07, voc10 or coco for detections, found reference, which needs "
            "the network's output: choose another --protocol"
        )
    evaluations = evaluate_voc(detections, annotations, file_order=file_order)
    evaluations["coco"] = evaluate_coco(detections, annotations)
    return Result(protocol, evaluations, list(detections), annotations)
