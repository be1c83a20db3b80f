"""From a source to batches, as chains of grain datasets.

Each dataset of a chain is random access: batch k is a function of (source, seed, k) alone. A run
therefore resumes by slicing, and neither the number of loader workers nor that of processes changes
what is in a batch. Axes: B images of this process, H = W = image_size (pixels), M = max_objects.
"""

import functools
import math
import traceback
from collections.abc import Callable
from typing import NamedTuple

import grain
import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.loader import Batch, Batches
from yolov1_jax.data.object_windows import WindowSource
from yolov1_jax.data.transforms import (
    Augmentation,
    Parameters,
    augment,
    augment_window,
    mosaic_rectangles,
    resize_image,
    resize_window,
    sample_parameters,
)

_NUM_CROPS = 10  # tries of `resized_crop`


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
    plain_from_step: int | None = None,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless shuffled, augmented batches for training.

    Each epoch is another permutation of the source. Batches run on over the ends of epochs.

    Args:
      batch_size: images of a step, over all processes; a multiple of process_count.
      max_objects: at least the most objects of an image. M is this, with mosaics 4 times this.
      seed: decides on the order and the augmentation, 0 to 2^32 - 1.
      train_difficult: False leaves out objects marked difficult, like the PyTorch reference.
      start_step: the first batch is that of this step, counted from 0.
      plain_from_step: from this batch on, counted from 0 whatever `start_step` is, there is no
        mosaic, expand, crop and erasing; None: they never end.
      num_workers: processes that decode and augment; 0: threads of this process.
      process_index, process_count: this process yields rows process_index * B to
        (process_index + 1) * B of each global batch, B = batch_size / process_count.

    Returns:
      An iterator, to be closed. A batch is a dict of image uint8 [B, H, W, 3]; boxes_xyxy float32
      [B, M, 4] in [0, 1] of the image, labels int32 [B, M] and valid bool [B, M], all of them zero
      after the last object; index int32 [B], the image's place in the source. A batch of a
      `WindowSource` has image, labels int32 [B] and index.

    Raises:
      UserError: from `next`, an image cannot be read.
      RuntimeError: from `next`, an image fails in another way.
    """
    row: Callable[..., Batch] = functools.partial(
        _train_row,
        source,
        image_size,
        max_objects * (4 if augmentation.mosaic_probability > 0 else 1),
        augmentation,
        train_difficult,
        math.inf if plain_from_step is None else plain_from_step * batch_size,
    )
    if isinstance(source, WindowSource):
        row = functools.partial(_window_row, source, image_size, augmentation)
    dataset = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat(None)
        # The random numbers are a function of the seed and of the image's place in the run, over
        # all processes, because the slices come after this line.
        .random_map(functools.partial(_sample, len(source), augmentation))
        .map_with_index(functools.partial(_explained, row))
        .batch(batch_size // process_count, drop_remainder=True)
    )
    # A global batch is process_count local batches in a row.
    return Batches(dataset[process_index::process_count][start_step:], num_workers)


def eval_batches(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    resize: str = "opencv",
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Each image once, resized, in the order of the source. Args and errors: as `train_batches`.

    `resize` is the rule of `resize_image`.

    All processes yield ceil(len(source) / batch_size) batches of the same shape. Ground truth is
    not in the batch: evaluation takes it, unpadded, from `source.annotations`.

    Returns:
      An iterator, to be closed. A batch is a dict of image [B, H, W, 3], uint8 or, resized as
      "darknet", float32 from 0 to 255; and index int32 [B], the image's place in the source, -1 for
      the rows of zeros that fill the last batch.
    """
    num_batches = math.ceil(len(source) / batch_size)
    row = functools.partial(_explained, functools.partial(_eval_row, source, image_size, resize))
    rows = grain.MapDataset.range(num_batches * batch_size).map(row)
    dataset = rows.batch(batch_size // process_count)[process_index::process_count].repeat(None)
    return Batches(dataset, num_workers, num_batches)


def _explained(make: Callable[..., Batch], place: int, *sample: "Sample") -> Batch:
    """Calls `make`. Unexpected exceptions become one that names the image and can be pickled.

    A worker hands its exception over by pickle. One that cannot be pickled, as of C extensions,
    would be lost, and the run would wait forever for its batch.
    """
    try:
        return make(place, *sample)
    except UserError:
        raise
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        images = [index for one in sample for index, _ in one.parts] or [place]
        name = " or ".join(map(str, images))
        raise RuntimeError(f"image {name} of the source failed\n{trace}") from None


class Sample(NamedTuple):
    """What one row of a batch is made of."""

    parts: tuple[tuple[int, Parameters], ...]  # one image of the source, or the four of a mosaic
    cut: tuple[float, float]  # where those four meet, relative x and y
    crops: np.ndarray  # [10, 4] in [0, 1], see `resized_crop`


def _sample(
    num_images: int, augmentation: Augmentation, index: int, rng: np.random.Generator
) -> Sample:
    parts = [(index, sample_parameters(rng, augmentation))]
    chance, (x, y) = rng.random(), rng.uniform(0.3, 0.7, 2)
    others = rng.integers(num_images, size=3)
    if augmentation.enabled and chance < augmentation.mosaic_probability:
        parts += [(int(other), sample_parameters(rng, augmentation)) for other in others]
    return Sample(tuple(parts), (x, y), rng.random((_NUM_CROPS, 4)))


def _train_row(
    source: Source,
    image_size: int,
    max_objects: int,
    augmentation: Augmentation,
    train_difficult: bool,
    plain_from: float,
    place: int,
    sample: Sample,
) -> Batch:
    """The row at this place in the run; those from `plain_from` on are plain."""
    parts = list(sample.parts)
    if place >= plain_from:
        parts = [(index, parameters.plain()) for index, parameters in parts[:1]]
    rectangles = np.array([[0, 0, image_size, image_size]])
    if len(parts) > 1:
        rectangles = mosaic_rectangles(sample.cut, image_size)
    image, boxes, labels = np.empty((image_size, image_size, 3), np.uint8), [], []
    for (index, parameters), rectangle in zip(parts, rectangles, strict=True):
        record = source[index]
        left, top, right, bottom = rectangle
        size = int(bottom - top), int(right - left)
        image[top:bottom, left:right], part_boxes, keep = augment(
            record.image, record.boxes_xyxy, parameters, size, augmentation
        )
        keep &= ~record.difficult | train_difficult
        corner, sides = rectangle[[0, 1, 0, 1]], rectangle[2:] - rectangle[:2]
        boxes.append(part_boxes[keep] * (np.tile(sides, 2) / image_size) + corner / image_size)
        labels.append(record.labels[keep])
    num_objects = sum(map(len, labels))
    padding = max_objects - num_objects
    return {
        "image": image,
        "boxes_xyxy": np.pad(np.concatenate(boxes), ((0, padding), (0, 0))).astype(np.float32),
        "labels": np.pad(np.concatenate(labels), (0, padding)).astype(np.int32),
        "valid": np.arange(max_objects) < num_objects,
        "index": np.array(parts[0][0], np.int32),
    }


def _window_row(
    source: WindowSource, image_size: int, augmentation: Augmentation, _: int, sample: Sample
) -> Batch:
    index, parameters = sample.parts[0]
    record = source[index]
    window = record.boxes_xyxy[0]
    return {
        "image": augment_window(
            record.image, window, parameters, sample.crops, image_size, augmentation
        ),
        "labels": record.labels[0],
        "index": np.array(index, np.int32),
    }


def _eval_row(source: Source, image_size: int, resize: str, index: int) -> Batch:
    if index >= len(source):
        dtype = np.float32 if resize == "darknet" else np.uint8
        image, index = np.zeros((image_size, image_size, 3), dtype), -1
    elif isinstance(source, WindowSource):
        record = source[index]
        image = resize_window(record.image, record.boxes_xyxy[0], image_size)
    else:
        image = resize_image(source[index].image, image_size, resize)
    return {"image": image, "index": np.array(index, np.int32)}
