"""From a source to batches: the chains of grain datasets.

A chain of grain datasets is random access to the end: batch k is a function of (source, seed, k)
alone. Hence training resumes by slicing, and neither the number of loader workers nor that of
processes changes what is in a batch. Frame: boxes in [0, 1] of the network input. Axes: B images
of a batch (of this process), H = W = image_size, M = max_objects.
"""

import dataclasses
import functools
import traceback
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from yolov1_jax.data.dataset import Record, Source
from yolov1_jax.data.images import decode_image
from yolov1_jax.data.loader import Batch, Batches
from yolov1_jax.data.transforms import Augmentation, augment, draw, filter_boxes, resize_image
from yolov1_jax.errors import UserError


def train_batches(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    max_objects: int,
    seed: int,
    augmentation: Augmentation,
    train_difficult: bool = False,
    start_step: int = 0,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless shuffled, augmented batches for training.

    Each epoch is another permutation of the source; batches run on over the ends of epochs, so a
    source may be smaller than a batch. Image and augmentation are functions of the seed and of the
    image's place in the run.

    Args:
      source: the records.
      image_size: side of the network input in pixels.
      batch_size: images of a step, over all processes.
      max_objects: M, at least the most objects of an image.
      seed: 0 to 2^32 - 1.
      augmentation: what happens to the images, and which objects are too small to learn.
      train_difficult: False leaves objects marked difficult out, like the PyTorch reference.
      start_step: the first batch is that of this step, counted from 0.
      num_workers: processes that decode and augment; 0: threads of this process.
      process_index, process_count: this process yields rows process_index * B to
        (process_index + 1) * B of each global batch, B = batch_size / process_count.

    Returns:
      An iterator, to be closed. A batch is a dict of image uint8 [B, H, W, 3], boxes_xyxy float32
      [B, M, 4], labels int32 [B, M], valid and difficult bool [B, M] (False behind the last
      object), image_id str [B], size int32 [B, 2] (height, width of the stored image), mask bool
      [B] (all True).

    Raises:
      UserError: an argument out of range; from `next`, an image that does not decode or has more
        than max_objects objects.
    """
    rows = _rows_per_process(source, batch_size, process_count)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: expected an integer from 0 to 2^32 - 1, found {seed}")
    example = _TrainExample(source, image_size, max_objects, augmentation, train_difficult)
    dataset = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat(None)
        # Random numbers are a function of (seed, index). The index counts the images of the whole
        # run, over all processes, because the slices come behind this line.
        .random_map(example)
        .batch(rows, drop_remainder=True)
    )
    # A global batch is process_count local batches in a row.
    return Batches(dataset[process_index::process_count][start_step:], num_workers)


def eval_batches(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Each image once, resized, in the order of the source.

    All processes yield ceil(len(source) / batch_size) batches of the same shape. The last one is
    filled up with rows of zeros that have mask False. Ground truth is not in the batch: evaluation
    takes it, unpadded, from `source.annotation`.

    Args: as for `train_batches`.

    Returns:
      An iterator, to be closed. A batch is a dict of image uint8 [B, H, W, 3], image_id str [B],
      size int32 [B, 2] (height, width of the stored image), mask bool [B], and index int32 [B],
      the image's place in the source, -1 where mask is False.

    Raises:
      UserError: an argument out of range; from `next`, an image that does not decode.
    """
    rows = _rows_per_process(source, batch_size, process_count)
    num_batches = -(-len(source) // batch_size)
    example = _EvalExample(source, image_size)
    dataset = grain.MapDataset.range(num_batches * batch_size).map(example).batch(rows)
    dataset = dataset[process_index::process_count].repeat(None)
    return Batches(dataset, num_workers, num_batches)


def _rows_per_process(source: Source, batch_size: int, process_count: int) -> int:
    if len(source) == 0:
        raise UserError("the data set has no images: correct config.data, or see what was skipped")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size: expected a positive multiple of the {process_count} processes, found"
            f" {batch_size}"
        )
    return batch_size // process_count


def _explained(make: Callable[..., Batch]) -> Callable[..., Batch]:
    """Turns unexpected exceptions into one that survives the way out of a worker.

    Workers hand exceptions over by pickle. One that does not pickle, as those of C extensions may
    not, would be lost, and the run would wait for its batch for ever.
    """

    @functools.wraps(make)
    def wrapped(self: Any, index: int, *args: Any) -> Batch:
        try:
            return make(self, index, *args)
        except UserError:
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            raise RuntimeError(f"image {index} of the source failed\n{trace}") from None

    return wrapped


@dataclasses.dataclass(frozen=True)
class _TrainExample(grain.transforms.RandomMap):
    """Index of a record, random numbers -> one row of a training batch."""

    source: Source
    image_size: int
    max_objects: int
    augmentation: Augmentation
    train_difficult: bool

    @_explained
    def random_map(self, index: int, rng: np.random.Generator) -> Batch:
        record = self.source[index]
        limits = self.augmentation
        boxes_xyxy, keep = filter_boxes(
            record["boxes_xyxy"],
            self.image_size,
            min_area=limits.min_area,
            min_visibility=limits.min_visibility,
        )
        if not self.train_difficult:
            keep = keep & ~record["difficult"]
        # Counted before the augmentation, so that it is not chance which images are refused.
        if keep.sum() > self.max_objects:
            raise UserError(
                f"{record['image_id']}: expected at most {self.max_objects} objects (max_objects),"
                f" found {keep.sum()}: the annotations have changed, start again"
            )
        labels, difficult = record["labels"][keep], record["difficult"][keep]
        image, boxes_xyxy, keep = augment(
            _pixels(record), boxes_xyxy[keep], draw(rng, limits), self.image_size, limits
        )
        return {
            "image": image,
            "boxes_xyxy": self._pad(boxes_xyxy[keep], np.float32),
            "labels": self._pad(labels[keep], np.int32),
            "valid": self._pad(np.ones(keep.sum()), np.bool_),
            "difficult": self._pad(difficult[keep], np.bool_),
            "image_id": np.array(record["image_id"]),
            "size": np.array([record["height"], record["width"]], np.int32),
            "mask": np.array(True),
        }

    def _pad(self, objects: np.ndarray, dtype: type) -> np.ndarray:
        padded = np.zeros((self.max_objects, *objects.shape[1:]), dtype)  # [M, ...]
        padded[: len(objects)] = objects
        return padded


@dataclasses.dataclass(frozen=True)
class _EvalExample(grain.transforms.Map):
    """Index of a record -> one row of an evaluation batch; padding behind the last record."""

    source: Source
    image_size: int

    @_explained
    def map(self, index: int) -> Batch:
        if index >= len(self.source):
            return {
                "image": np.zeros((self.image_size, self.image_size, 3), np.uint8),
                "image_id": np.array(""),
                "size": np.zeros(2, np.int32),
                "mask": np.array(False),
                "index": np.array(-1, np.int32),
            }
        record = self.source[index]
        return {
            "image": resize_image(_pixels(record), self.image_size),
            "image_id": np.array(record["image_id"]),
            "size": np.array([record["height"], record["width"]], np.int32),
            "mask": np.array(True),
            "index": np.array(index, np.int32),
        }


def _pixels(record: Record) -> np.ndarray:
    """uint8 RGB [height, width, 3]."""
    image = record["image"]
    if isinstance(image, bytes):
        return decode_image(image, record["image_id"])
    return np.ascontiguousarray(image)
