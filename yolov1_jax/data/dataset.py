"""The record contract that every data source fulfils, and what a source found on the way.

Frame: boxes are relative to the stored image, x_left / width and so on. VOC annotations are
divided as they stand (1-based, no shift), like the PyTorch reference and tensorflow_datasets do,
so `box * size` gives the numbers of the annotation back.
"""

import dataclasses
from typing import Protocol, TypedDict

import numpy as np


class Record(TypedDict):
    """One image and its objects. N objects; N may be 0."""

    image: bytes | np.ndarray  # encoded JPEG or PNG, or uint8 RGB [height, width, 3]
    boxes_xyxy: np.ndarray  # float64 [N, 4] in [0, 1]
    labels: np.ndarray  # int32 [N], index into the source's class_names
    difficult: np.ndarray  # bool [N]
    image_id: str  # unique within the source, e.g. "VOC2012/2008_000008"
    height: int  # pixels of the stored image
    width: int


@dataclasses.dataclass
class SourceReport:
    """What a source holds, and what it had to leave out or correct: the table at a run's start.

    The three dictionaries map a reason ("image is empty", "box outside the image", ...) to what it
    befell, in the order of the source: `skipped` to the files that are not used, `skipped_objects`
    to the objects left out of images that are used, `corrected` to the files and objects that are
    used after a correction.
    """

    num_images: int = 0
    num_objects: int = 0
    num_difficult: int = 0
    num_without_objects: int = 0
    skipped: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    skipped_objects: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    corrected: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Notes a file that is not used."""
        self.skipped.setdefault(reason, []).append(name)

    def skip_object(self, reason: str, name: str) -> None:
        """Notes an object that is left out of an image that is used."""
        self.skipped_objects.setdefault(reason, []).append(name)

    def correct(self, reason: str, name: str) -> None:
        """Notes a file or an object that is used, but not as it was found."""
        self.corrected.setdefault(reason, []).append(name)


class UnusableFile(Exception):
    """An image or an annotation that a source leaves out. The message is the reason."""


class Source(Protocol):
    """Random access to records. Picklable, because loader workers receive a copy."""

    class_names: tuple[str, ...]
    report: SourceReport

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """The record with its image."""
        ...

    def annotation(self, index: int) -> Record:
        """The record with `image=b""`: all but the pixels, cheap enough to scan a data set."""
        ...
