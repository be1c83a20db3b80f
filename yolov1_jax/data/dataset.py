"""The contract between readers of data and all that uses them: images, objects, and a report.

Boxes here are in pixels of the original image, as float64. Readers of PASCAL VOC take the numbers
of an annotation as they stand: the first pixel is 1, and the last one belongs to the box. Only
`transforms` divides them by the image's size.

Axes: N images, A objects of all images, C classes.
"""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from yolov1_jax.config import UserError


class GroundTruth(NamedTuple):
    """The n objects of one image; n may be 0."""

    boxes_xyxy: np.ndarray  # float64 [n, 4], pixels of the original image
    labels: np.ndarray  # int32 [n], index into class_names
    difficult: np.ndarray  # bool [n], annotated as hard to recognise


class Record(NamedTuple):
    """One image with its n objects."""

    image: np.ndarray  # uint8 RGB [height, width, 3]
    image_id: str  # unique within the source, such as "VOC2012/2008_000008"
    boxes_xyxy: np.ndarray  # float64 [n, 4], pixels of `image`
    labels: np.ndarray  # int32 [n]
    difficult: np.ndarray  # bool [n]


def shortened(text: str, length: int = 200) -> str:
    """A text for a message, with its middle cut out if it has more than `length` characters."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def first_of(names: Sequence[str]) -> str:
    """The first three names, for a message."""
    return ", ".join(map(shortened, names[:3])) + ", ..." * (len(names) > 3)


def _lists() -> dict[str, list[str]]:
    return collections.defaultdict(list)


@dataclasses.dataclass
class Report:
    """What a reader left out or corrected: reasons ("image is empty"), each with the names."""

    # Images that are not used, and objects that are left out of images that are.
    skipped: dict[str, list[str]] = dataclasses.field(default_factory=_lists)
    skipped_objects: dict[str, list[str]] = dataclasses.field(default_factory=_lists)
    # Images and objects that are used, but not as they were found.
    corrected: dict[str, list[str]] = dataclasses.field(default_factory=_lists)
    # Files in the folders of the data set that are no image and no annotation of one.
    passed_over: dict[str, list[str]] = dataclasses.field(default_factory=_lists)
    found: str = ""  # what the data are, from a reader that found it out

    def notes(self) -> tuple[str, ...]:
        """A line for each reason: how many images or objects, and the first three of them."""
        groups = {
            "images left out": self.skipped,
            "objects left out": self.skipped_objects,
            "corrected in the data": self.corrected,
            "files passed over": self.passed_over,
        }
        lines = [f"data: {self.found}"] if self.found else []
        for what, reasons in groups.items():
            lines += [f"{len(of):,} {what}, {why}: {first_of(of)}" for why, of in reasons.items()]
        return tuple(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """All objects of N images in one flat table; `annotations[i]` are those of image i."""

    class_names: tuple[str, ...]  # C
    image_ids: tuple[str, ...]  # N
    sizes: np.ndarray  # int32 [N, 2], height and width in pixels
    starts: np.ndarray  # int64 [N + 1]; image i has the objects starts[i]:starts[i + 1]
    boxes_xyxy: np.ndarray  # float64 [A, 4], pixels of the original image
    labels: np.ndarray  # int32 [A], index into class_names
    difficult: np.ndarray  # bool [A]
    report: Report = dataclasses.field(default_factory=Report)
    # A COCO annotations JSON has numbers of its own for images (N) and classes (C), and areas of
    # masks in square pixels, float64 [A]. None: see `evaluation/ground_truth.py`.
    image_numbers: tuple[int, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    areas: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        class_names: Sequence[str],
        image_ids: Sequence[str],
        sizes: Sequence[tuple[int, int]] | np.ndarray,
        objects: Sequence[GroundTruth],
        report: Report | None = None,
    ) -> "Annotations":
        """Joins the objects of each image to one table."""
        # The last one has no objects: concatenate needs at least one array.
        rows = [*objects, GroundTruth(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, bool))]
        return cls(
            class_names=tuple(class_names),
            image_ids=tuple(image_ids),
            sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
            starts=np.cumsum([0, *(len(one.labels) for one in objects)], dtype=np.int64),
            boxes_xyxy=np.concatenate([one.boxes_xyxy for one in rows]).astype(np.float64),
            labels=np.concatenate([one.labels for one in rows]).astype(np.int32),
            difficult=np.concatenate([one.difficult for one in rows]).astype(bool),
            report=report or Report(),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> GroundTruth:
        """The objects of an image, as views of the table."""
        index = range(len(self))[index]
        objects = slice(self.starts[index], self.starts[index + 1])
        return GroundTruth(self.boxes_xyxy[objects], self.labels[objects], self.difficult[objects])

    def first(self, limit: int | None) -> "Annotations":
        """The first `limit` images with their objects; all for None."""
        if limit is None or limit >= len(self):
            return self
        images = {key: getattr(self, key)[:limit] for key in ("image_ids", "sizes")}
        objects = {
            key: getattr(self, key)[: self.starts[limit]]
            for key in ("boxes_xyxy", "labels", "difficult")
        }
        return dataclasses.replace(self, starts=self.starts[: limit + 1], **images, **objects)

    @property
    def image_index(self) -> np.ndarray:
        """int64 [A]: the place of each object's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def fingerprint(self) -> str:
        """SHA-256 of what there is to detect: equal for equal data, whatever the order.

        It covers image ids, and of each object the class name, the difficult flag, the box to 1/100
        pixel, and the area where it is not that of the box.
        """
        rows = zip(self.boxes_xyxy.tolist(), self.labels, self.difficult, strict=True)
        lines = [
            "\t".join([self.class_names[label], str(int(hard)), *(f"{v + 0.0:.2f}" for v in box)])
            for box, label, hard in rows
        ]
        if self.areas is not None:
            sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2] + 1  # [A, 2]
            # A box rounded to 1/100 pixel has an area that differs by up to this much.
            rounding = 0.01 * np.abs(sides).sum(axis=1)
            for i in np.flatnonzero(np.abs(self.areas - sides.prod(axis=1)) > rounding):
                lines[i] += f"\t{self.areas[i]:.2f}"
        images = [
            "\n".join([image_id, *sorted(lines[self.starts[i] : self.starts[i + 1]])])
            for i, image_id in enumerate(self.image_ids)
        ]
        # Names of files that are not UTF-8 have surrogates, which UTF-8 itself has no bytes for.
        text = "\n\n".join(sorted(images))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class UnusableFile(UserError):
    """An image or an annotation that cannot be used, and the reason."""

    def __init__(self, reason: str, path: str | os.PathLike[str]) -> None:
        super().__init__(reason, path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{os.fspath(self.args[1])}: {self.reason}; replace the file or leave it out"


class Source(Protocol):
    """Random access to the images of a data set. Picklable: loader workers receive a copy."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """The image, decoded, with its objects."""
        ...

    def annotations(self, limit: int | None = None) -> Annotations:
        """The objects of the first `limit` images, of all for None; no pixels are read."""
        ...
