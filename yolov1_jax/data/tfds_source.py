"""Splits of tensorflow_datasets as one source: VOC's in `voc_tfds`, images with a label here."""

import abc
import bisect
import io
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, GroundTruth, Record
from yolov1_jax.data.images import decode_image
from yolov1_jax.data.object_windows import WindowSource


class TfdsSource(abc.ABC):
    """Splits, joined in the order given; within each, tensorflow_datasets' order.

    What an example of the data holds, a subclass says.
    """

    def __init__(self, parts: Sequence[Any], class_names: Sequence[str]) -> None:
        """`parts`: data sources of tensorflow_datasets, see `open_part`."""
        self._parts, self.class_names = parts, tuple(class_names)
        self._starts = [0, *itertools.accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        """The decoded image with its objects."""
        image_id, example = self._example(index)
        image = decode_image(example["image"], image_id)
        return Record(image, image_id, *self._objects(example, image.shape[:2]))

    def annotations(self, limit: int | None = None) -> Annotations:
        """The objects of the first `limit` images, of all for None; reads all of their bytes."""
        ids, sizes, objects = [], [], []
        for index in range(len(self))[:limit]:
            image_id, example = self._example(index)
            size = Image.open(io.BytesIO(example["image"])).size[::-1]  # reads the header only
            ids.append(image_id)
            sizes.append(size)
            objects.append(self._objects(example, size))
        if len(set(ids)) < len(ids):
            raise UserError("expected splits that do not overlap, found an image twice")
        return Annotations.build(self.class_names, ids, sizes, objects)

    def _example(self, index: int) -> tuple[str, dict[str, Any]]:
        index = range(len(self))[index]
        part = bisect.bisect_right(self._starts, index) - 1
        place = index - self._starts[part]
        try:
            example = self._parts[part][place]
        except RuntimeError as error:  # of array_record
            folder = self._parts[part].dataset_info.data_dir
            raise UserError(f"{folder}: {error}; delete it to prepare it again") from error
        return self._image_id(part, place, example), example

    @abc.abstractmethod
    def _image_id(self, part: int, place: int, example: dict[str, Any]) -> str: ...

    @abc.abstractmethod
    def _objects(self, example: dict[str, Any], size: tuple[int, int]) -> GroundTruth:
        """`size`: height and width."""


def open_part(builder: Any, split: str) -> Any:
    """A split or a slice of one, of a builder whose data are prepared; images stay encoded."""
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


class LabelledImages(TfdsSource, WindowSource):
    """Images with a label, such as imagenet2012 and imagenette: the window is all of the image."""

    def __init__(
        self,
        splits: Sequence[str],
        data_dir: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Opens splits such as "imagenette/160px-v2:train[:10%]"; prepares the data if need be.

        `data_dir` is that of tensorflow_datasets, `class_names` those that the data must have.
        Raises a UserError for what cannot be opened.
        """
        self._splits, parts = splits, []
        names = set() if class_names is None else {tuple(class_names)}
        for split in splits:
            name, _, part = split.partition(":")
            try:
                builder = tfds.builder(name, data_dir=data_dir)
                builder.download_and_prepare(file_format="array_record")  # unless that is done
                names.add(tuple(builder.info.features["label"].names))
                parts.append(open_part(builder, part))
            except Exception as error:  # unknown, no label, no archive, no TensorFlow, ...
                found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise UserError(
                    f"cannot open {split}: {found}; expected images with labels, which `tfds build "
                    f"{name} --file_format=array_record` prepares"
                ) from error
        if len(names) > 1:
            raise UserError(f"{', '.join(splits)}: expected the classes of the training data")
        super().__init__(parts, names.pop())

    def _image_id(self, part: int, place: int, example: dict[str, Any]) -> str:
        return f"{self._splits[part]}/{place:08d}"

    def _objects(self, example: dict[str, Any], size: tuple[int, int]) -> GroundTruth:
        box = np.array([[0, 0, size[1], size[0]]], np.float64)
        return GroundTruth(box, np.array([example["label"]], np.int32), np.zeros(1, bool))
