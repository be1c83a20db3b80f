"""The `folder` source: own data, or PASCAL VOC, in the devkit's folders with VOC annotations.

Frame: boxes are in [0, 1], relative to the image that the record holds.

Everything is read and judged once, when the source is built; what cannot be used is left out then
and noted in `report`. From then on an index is a fixed image, whatever happens to the files.
"""

import concurrent.futures
import difflib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from yolov1_jax.data.dataset import Record, SourceReport, UnusableFile
from yolov1_jax.data.examination import ExaminedImage, FoundObject, examine, read_both
from yolov1_jax.data.image_sets import ListedImage, list_images
from yolov1_jax.data.images import decode_image, upright
from yolov1_jax.errors import UserError

UNKNOWN_CLASSES = ("refuse", "skip")

_READERS = 8  # threads; on a cold disk or a network they mostly wait


class FolderSource:
    """Images with VOC annotations under a root folder; see `image_sets.py` for the folders in it.

    Attributes:
      class_names: as given, or collected from the annotations and sorted.
      report: what was found, left out and corrected.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        splits: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        unknown_classes: str = "refuse",
    ) -> None:
        """Reads all annotations of the splits and the headers of all images.

        Args:
          root: the folder that holds the data sets.
          splits: such as ("VOC2012:train+val", "VOC2007:train"), or ("mine:all",).
          class_names: index = label; None collects them from the objects found.
          unknown_classes: what to do about an object whose class is not in `class_names`: "refuse"
            the data, or "skip" the object.

        Raises:
          UserError: a split is not there, no image is usable, a class is unknown, or an annotation
            declares XML entities.
        """
        if unknown_classes not in UNKNOWN_CLASSES:
            raise UserError(
                f'expected data.unknown_classes "refuse" or "skip", found "{unknown_classes}"'
            )
        self.report = SourceReport()
        self._root = os.path.abspath(os.path.expanduser(root))
        self._splits = tuple(splits)
        listed, examined = _examine_all(self._root, self._splits, self.report)
        objects = [found for image in examined for found in image.objects]
        self.class_names = _class_names(class_names, objects, self._splits)
        labels = _labels(objects, self.class_names, unknown_classes, self.report)  # [all objects]
        keep = labels >= 0

        # Flat arrays, not a list of records: quick to pickle for every loader worker.
        self._image_ids = [image.image_id for image in listed]
        self._paths = [str(image.image_path) for image in listed]
        self._frames = np.array([image[:3] for image in examined], np.int32)  # [images, 3]
        self._labels = labels[keep]  # [objects]
        self._difficult = np.array([found.difficult for found in objects], bool)[keep]  # [objects]
        boxes = np.array([found.box_xyxy for found in objects], np.float64)
        self._boxes = boxes.reshape(-1, 4)[keep]  # [objects, 4]
        ends = np.cumsum([0] + [len(image.objects) for image in examined])  # [images + 1], of all
        self._starts = np.concatenate([[0], np.cumsum(keep)])[ends]  # [images + 1], of the kept

        self.report.num_images = len(self)
        self.report.num_objects = len(self._labels)
        self.report.num_difficult = int(self._difficult.sum())
        self.report.num_without_objects = int((np.diff(self._starts) == 0).sum())

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        """The record with its encoded image, or with pixels where those had to be turned.

        Raises:
          UserError: the file has gone, or no longer decodes, since the source was built.
        """
        record = self.annotation(index)
        path = pathlib.Path(self._root, self._paths[index])
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: expected the image that was there when the run started, found:"
                f" {error.strerror or error}; put it back, or start a new run without it"
            ) from None
        orientation = int(self._frames[index, 2])
        if orientation == 1:
            record["image"] = encoded
        else:
            record["image"] = upright(decode_image(encoded, str(path)), orientation)
        return record

    def annotation(self, index: int) -> Record:
        """The record with `image=b""`; reads nothing."""
        if not 0 <= index < len(self):  # the slice below would not notice
            raise IndexError(f"{index} is not in a source of {len(self)} images")
        objects = slice(self._starts[index], self._starts[index + 1])
        return Record(
            image=b"",
            boxes_xyxy=self._boxes[objects].copy(),  # [N, 4]
            labels=self._labels[objects].copy(),
            difficult=self._difficult[objects].copy(),
            image_id=self._image_ids[index],
            height=int(self._frames[index, 0]),
            width=int(self._frames[index, 1]),
        )

    def __repr__(self) -> str:
        return f"FolderSource({self._root!r}, {list(self._splits)!r}, {len(self)} images)"


def _examine_all(
    root: str, splits: Sequence[str], report: SourceReport
) -> tuple[list[ListedImage], list[ExaminedImage]]:
    """The usable images of the splits, in order; the others are noted in `report`."""
    listed = list_images(root, splits, report)
    used: list[ListedImage] = []
    examined: list[ExaminedImage] = []
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(read_both, [root] * len(listed), listed)
        for image, found in zip(listed, read, strict=True):
            if isinstance(found, UnusableFile):
                report.skip(str(found), image.image_id)
            else:
                used.append(image)
                examined.append(examine(image, *found, report))
    if not used:
        causes = (f"{why} ({len(ids)}, first {ids[0]})" for why, ids in report.skipped.items())
        raise UserError(
            f"expected usable images in {', '.join(splits)} of {root}, found none: "
            + "; ".join(causes)
        )
    return used, examined


def _class_names(
    given: Sequence[str] | None, objects: Sequence[FoundObject], splits: Sequence[str]
) -> tuple[str, ...]:
    if given is None:
        if not objects:
            raise UserError(
                f"expected objects in {', '.join(splits)} to collect the class names from, found"
                " none; set model.class_names or check the annotations"
            )
        return tuple(sorted({found.class_name for found in objects}))
    names = tuple(given)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        raise UserError(
            "expected model.class_names to name each class once, found "
            + (f"{', '.join(repeated)} more than once" if repeated else "no name")
        )
    return names


def _labels(
    objects: Sequence[FoundObject],
    class_names: Sequence[str],
    unknown_classes: str,
    report: SourceReport,
) -> np.ndarray:
    """int32 [objects]: index into `class_names`; -1 for an object to leave out."""
    index = {name: label for label, name in enumerate(class_names)}
    unknown = [found for found in objects if found.class_name not in index]
    if unknown and unknown_classes == "refuse":
        raise UserError(_unknown_class(unknown, class_names))
    for found in unknown:
        report.skip_object("class is not in class_names", found.name)
    return np.array([index.get(found.class_name, -1) for found in objects], np.int32)


def _unknown_class(unknown: Sequence[FoundObject], class_names: Sequence[str]) -> str:
    first = unknown[0]
    by_lower = {name.lower(): name for name in class_names}  # the case is a likely mistake
    nearest = difflib.get_close_matches(first.class_name.lower(), by_lower, n=1, cutoff=0.0)[0]
    others = sorted({found.class_name for found in unknown} - {first.class_name})
    return (
        f"{first.annotation_path}: expected classes of model.class_names, found"
        f' "{first.class_name}" (nearest: "{by_lower[nearest]}")'
        + (f"; unknown elsewhere: {', '.join(others)}" if others else "")
        + '; correct either, or leave such objects out with data.unknown_classes="skip"'
    )
