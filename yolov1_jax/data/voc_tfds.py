"""Pascal VOC 2007 and 2012 from tensorflow_datasets, in array_record: no TensorFlow anywhere.

Frame: boxes are relative to the stored image. tensorflow_datasets divides the 1-based pixel
numbers of the devkit as they stand and keeps them as float32; here they are float64 again, such
that `box * size` is the number of the annotation (to the last bit of a float64).
"""

import bisect
import io
import itertools
import operator
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from yolov1_jax.data.dataset import Record, SourceReport
from yolov1_jax.data.voc_prepare import one_line, open_builder, prepare_voc
from yolov1_jax.errors import UserError

# fmt: off
VOC_CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# fmt: on

# The annotations of VOC2012 test were never published, so it can neither train nor evaluate.
_SPLITS = {"2007": ("train", "validation", "test"), "2012": ("train", "validation")}
_POSSIBLE = "; ".join(f"voc/{year}:{'+'.join(names)}" for year, names in _SPLITS.items())

# Beyond this distance in pixels a coordinate is not the rounding of a whole number: float32 is
# off by 3e-5 at 500 pixels, and the fractional coordinates of VOC2012 have one decimal or more.
_SNAP = 1e-3
_SCAN = 64  # examples read at once


class VocSource:
    """Records of one or more splits, joined in the order given.

    Within a split the order is that of tensorflow_datasets, which shuffles by a hash of the image
    name: always the same, unlike that of the devkit's lists.

    Labels, boxes and sizes are read once, when it is made (a pass over all examples: seconds);
    copies that loader workers receive carry them along.
    """

    class_names: tuple[str, ...] = VOC_CLASS_NAMES

    def __init__(self, splits: Sequence[str], data_dir: str | os.PathLike[str] | None = None):
        """Opens the splits, and prepares the data set first if that has not been done.

        Args:
          splits: such as ["voc/2007:train+validation", "voc/2012:train[:10%]"].
          data_dir: tensorflow_datasets' data folder, None for its default; see `prepare_voc`.

        Raises:
          UserError: an unknown split, splits that overlap, data that cannot be read, and what
            `prepare_voc` raises.
        """
        if isinstance(splits, str) or not splits:
            raise UserError(f"expected a list of splits of {_POSSIBLE}; found {splits!r}")
        wanted = [_parse_split(split) for split in splits]
        prepare_voc(sorted({year for year, _ in wanted}), data_dir)
        self._parts = [_open(year, split, data_dir) for year, split in wanted]
        self._starts = [0, *itertools.accumulate(len(part) for part in self._parts)]
        self.report = SourceReport()
        self._scan([year for year, _ in wanted])

    def _scan(self, years: list[str]) -> None:
        ids, sizes, boxes, labels, difficult = [], [], [], [], []
        for part, year in zip(self._parts, years, strict=True):
            for example in _examples(part, f"voc/{year}"):
                ids.append(f"VOC{year}/{os.path.splitext(example['image/filename'].decode())[0]}")
                # Reads the header only, and ignores EXIF: the size that is stored.
                size = Image.open(io.BytesIO(example["image"])).size  # (width, height)
                objects = example["objects"]
                sizes.append(size)
                boxes.append(_exact_boxes(objects["bbox"], size))
                labels.append(np.array(objects["label"], np.int32))
                difficult.append(np.array(objects["is_difficult"], bool))
        _refuse_duplicates(ids)
        # Flat arrays: a copy of them reaches every loader worker.
        self._ids = np.array(ids)
        self._sizes = np.array(sizes, np.int32).reshape(-1, 2)  # width, height
        self._offsets = np.cumsum([0, *map(len, labels)])  # objects of i: offsets[i]:offsets[i+1]
        self._boxes = np.concatenate([np.zeros((0, 4)), *boxes])
        self._labels = np.concatenate([np.zeros(0, np.int32), *labels])
        self._difficult = np.concatenate([np.zeros(0, bool), *difficult])
        self.report.num_images = len(ids)
        self.report.num_objects = len(self._labels)
        self.report.num_difficult = int(self._difficult.sum())
        self.report.num_without_objects = sum(len(of_image) == 0 for of_image in labels)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        """The record with its encoded JPEG."""
        record = self.annotation(index)
        part = bisect.bisect_right(self._starts, index) - 1
        record["image"] = self._parts[part][index - self._starts[part]]["image"]
        return record

    def annotation(self, index: int) -> Record:
        """The record with `image=b""`, from memory."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        objects = slice(self._offsets[index], self._offsets[index + 1])
        width, height = self._sizes[index].tolist()
        return Record(
            image=b"",
            boxes_xyxy=self._boxes[objects].copy(),  # [N, 4]
            labels=self._labels[objects].copy(),
            difficult=self._difficult[objects].copy(),
            image_id=str(self._ids[index]),
            height=height,
            width=width,
        )


def _parse_split(split: str) -> tuple[str, str]:
    """ "voc/2012:train[:10%]+validation" -> ("2012", "train[:10%]+validation")"""
    match = re.fullmatch(r"voc/(\w+):(.+)", split)
    year, parts = match.groups() if match else ("", "")
    parts = parts.replace(" ", "")
    names = [re.sub(r"\[[^\[\]]*\]$", "", name) for name in parts.split("+")]
    if year == "2012" and "test" in names:
        raise UserError(
            f"{split!r}: the annotations of VOC2012 test are not public; use splits of {_POSSIBLE}"
        )
    if not set(names) <= set(_SPLITS.get(year, ())):
        raise UserError(f"expected a split of {_POSSIBLE}, whole or sliced; found {split!r}")
    return year, parts


def _open(year: str, split: str, data_dir: str | os.PathLike[str] | None) -> Any:
    builder = open_builder(year, data_dir)
    try:
        return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:  # prepared by another program, as tfrecord
        raise UserError(
            f"{builder.data_dir}: expected files in array_record, found "
            f"{builder.info.file_format.value}; give another data folder, or move this one away"
        ) from error
    except Exception as error:  # a slice it cannot parse, an empty one, a file that is missing
        raise UserError(
            f"cannot open voc/{year}:{split} in {builder.data_dir}: {one_line(error)}"
        ) from error


def _examples(part: Any, name: str) -> Iterator[dict[str, Any]]:
    for start in range(0, len(part), _SCAN):
        try:
            examples = part.__getitems__(list(range(start, min(start + _SCAN, len(part)))))
        except Exception as error:  # array_record and the parser raise several kinds
            raise UserError(
                f"cannot read {name} in {part.dataset_info.data_dir}: {one_line(error)}; delete "
                "that folder to have it prepared again"
            ) from error
        yield from examples


def _exact_boxes(boxes_yxyx: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """float32 (ymin, xmin, ymax, xmax) -> float64 xyxy whose pixels are the annotation's. [N, 4]

    Args:
      boxes_yxyx: N arrays [4] in [0, 1].
      size: (width, height) of the image in pixels.
    """
    relative = np.array(boxes_yxyx, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    scale = np.array([[*size, *size]], np.float64)
    pixels = relative * scale
    whole = np.round(pixels)
    return np.where(np.abs(pixels - whole) < _SNAP, whole / scale, relative)


def _refuse_duplicates(ids: list[str]) -> None:
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            raise UserError(
                f"expected splits that do not overlap, found {image_id} twice: name each split once"
            )
        seen.add(image_id)
