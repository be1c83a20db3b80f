"""An exported file in its own runtime against the run that it was made of.

N images, H side in pixels.
"""

import functools
import pathlib
import timeit
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from yolov1_jax.config import RunError
from yolov1_jax.detector import Network, detections_from_outputs, load_exported
from yolov1_jax.exporting.network import reference_step
from yolov1_jax.training.build import RestoredRun, select_options
from yolov1_jax.yolo.grid import Predictions

# Largest differences that rounding explains, beside the largest value (at least 1).
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}
MATCH = 0.1  # largest difference of box, as fractions of the image, and score of the same object
MAX_UNMATCHED = 0.01  # share of boxes that rounding may move over a threshold


def check_file(
    path: pathlib.Path, run: RestoredRun, images: np.ndarray, weights: str, batch_size: int | None
) -> None:
    """Runs a file, compares it with its run, and prints the result, its size and its speed.

    `images`, uint8 [N, H, H, 3], are at least 2, and a multiple of `batch_size`, which is None
    where it is free. Raises RunError where the two differ by more than rounding of `weights`.
    """
    network, _ = load_exported(path)
    reference = functools.partial(jax.jit(reference_step(run)), run.variables)
    found = run_file(network, images, batch_size)
    difference = compare(found, jax.device_get(reference(images)), run)
    table = Table("", title=f"{', '.join(found)}; {len(images)} images")
    for heading in ("MB", "largest difference", "boxes without match", "ms/image"):
        table.add_column(heading, justify="right")
    batch = images[: batch_size or 1]
    table.add_row("run, float32", "", "", "", f"{milliseconds(reference, batch):.1f}")
    table.add_row(
        f"{path.suffix[1:]}, {weights}",
        f"{path.stat().st_size / 1e6:.1f}",
        f"{difference.largest:.1e}",
        f"{difference.num_unmatched:,} of {difference.num_boxes:,}",
        f"{milliseconds(network, batch):.1f}",
    )
    Console().print(table)
    if difference.num_boxes == 0:
        raise RunError("the run detects nothing in these images, give others: no file was written")
    if not difference.is_rounding(weights):
        raise RunError(
            f"the file differs from the run, expected {TOLERANCES[weights]} at most and "
            f"{MAX_UNMATCHED:.0%} of boxes without a match: it was not written"
        )


class Difference(NamedTuple):
    """The largest difference of the outputs for all images."""

    largest: float  # of any number, beside the largest value (at least 1)
    num_unmatched: int  # boxes that only one of the two has
    num_boxes: int  # of the run

    def is_rounding(self, weights: str) -> bool:
        """Whether the file is the run's network, with `weights` of this type."""
        few = self.num_boxes > 0 and self.num_unmatched <= MAX_UNMATCHED * self.num_boxes
        return few and self.largest <= TOLERANCES[weights]  # False for NaN


def run_file(network: Network, images: np.ndarray, batch_size: int | None) -> dict[str, np.ndarray]:
    """The outputs for images uint8 [N, H, H, 3], the first alone, then the others at once.

    A file with a fixed batch size takes so many at once; N is a multiple of it.
    """
    sizes = [batch_size] * (len(images) // batch_size) if batch_size else [1, len(images) - 1]
    ends = np.cumsum(sizes)[:-1]
    parts = [jax.device_get(network(part)) for part in np.split(images, ends)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compare(
    found: Mapping[str, np.ndarray], expected: Predictions[np.ndarray], run: RestoredRun
) -> Difference:
    """Compares the outputs of a file, see `load_exported`, with the predictions of the run.

    Where the file decodes, the detections by the thresholds of the run's evaluations.
    """
    pairs = [(found.get(name), part) for name, part in expected._asdict().items()]
    if "boxes" in found:
        scaled = [np.abs(one - part).max() / np.abs(part).max(initial=1) for one, part in pairs]
        return Difference(float(np.max(scaled)), 0, expected.confidence.size)
    options, sizes = select_options(run.setup.config), np.ones((len(expected.boxes), 2), np.float32)
    num_classes = expected.class_scores.shape[-1]
    # The reader's NMS must not make up for one that is missing in the file.
    as_found = options | ({"nms_iou_threshold": 1.0} if "labels" in found else {})
    largest, num_unmatched, num_boxes = 0.0, 0, 0
    for one, other in zip(
        detections_from_outputs(found, sizes, num_classes, as_found),
        detections_from_outputs(expected._asdict(), sizes, num_classes, options),
        strict=True,
    ):
        rows, expected_rows = np.column_stack(one), np.column_stack(other)  # boxes, scores, labels
        scale = np.maximum(1, np.abs(expected_rows)) ** [1, 1, 1, 1, 1, 0]
        distance = np.abs((rows[:, None] - expected_rows) / scale).max(axis=-1)  # other class: >= 1
        near = distance < MATCH
        largest = max(largest, distance.min(axis=1, initial=1)[near.any(axis=1)].max(initial=0))
        num_unmatched += int((~near.any(axis=0)).sum() + (~near.any(axis=1)).sum())
        num_boxes += len(expected_rows)
    return Difference(float(largest), num_unmatched, num_boxes)


def milliseconds(network: Callable[[np.ndarray], Any], images: np.ndarray) -> float:
    """The time for an image in a batch of N: the median of five, after one that does not count."""
    times = timeit.repeat(lambda: jax.device_get(network(images)), number=1, repeat=6)
    return 1000 * float(np.median(times[1:])) / len(images)
