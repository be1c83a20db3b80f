"""The `folder` source: own data, or PASCAL VOC, in the devkit's folders with VOC annotations.

    root/<dataset>/JPEGImages/<id>.jpg          or .jpeg, .png, .bmp, .webp
    root/<dataset>/Annotations/<id>.xml
    root/<dataset>/ImageSets/Main/<set>.txt     an id per line

A split is written "<dataset>:<set>+<set>"; "<dataset>:all" takes every image and needs no list.

All files are read and checked once, when the source is built. What cannot be used is left out then,
so that an index stays the same image whatever happens to the files.
"""

import concurrent.futures
import difflib
import os
import pathlib
import re
from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, GroundTruth, Record, Report, UnusableFile
from yolov1_jax.data.images import EXTENSIONS, ImageInfo, check_image, read_image
from yolov1_jax.data.voc_xml import VocAnnotation, VocObject, problem, read_annotation, turn


class FolderSource:
    """Images with VOC annotations under a root folder."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        splits: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        unknown_classes: str = "refuse",
        images_required: bool = True,
    ) -> None:
        """Reads all annotations of the splits and checks all images.

        Args:
          root: the folder that holds the data sets.
          splits: such as ("VOC2012:train+val", "VOC2007:train"), or ("mine:all",).
          class_names: index = label; None collects them from the objects and sorts them.
          unknown_classes: "refuse" objects of other classes, or "skip" them.
          images_required: False also takes annotations without an image, to evaluate detections.

        Raises:
          UserError: no such split, no usable image, an unknown class, or an XML entity.
        """
        self._root = os.path.abspath(os.path.expanduser(root))
        report = Report()
        images = _read_images(self._root, splits, report, images_required)
        self.class_names = _class_names(class_names, images, unknown_classes)
        self._files = [(image.path, image.upright) for image in images]
        self._annotations = Annotations.build(
            self.class_names,
            [image.image_id for image in images],
            [image.size for image in images],
            [_ground_truth(image, self.class_names, report) for image in images],
            report,
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        """The image, decoded, with its objects.

        Raises:
          UnusableFile: the file has gone, or no longer decodes, since the source was built.
        """
        path, upright = self._files[index]
        image = read_image(os.path.join(self._root, path), upright=upright)
        return Record(image, self._annotations.image_ids[index], *self._annotations[index])

    def annotations(self, limit: int | None = None) -> Annotations:
        """The objects of the first `limit` images, of all for None."""
        table = self._annotations
        objects = [table[index] for index in range(len(self))[:limit]]
        ids, sizes = table.image_ids[:limit], table.sizes[:limit]
        return Annotations.build(self.class_names, ids, sizes, objects, table.report)


class _Image(NamedTuple):
    """An id of a split with its files, which are relative to the root; then what they hold."""

    image_id: str  # "VOC2012/2008_000008"
    path: str
    annotation_path: str
    size: tuple[int, int] = (0, 0)  # height and width of the pixels that are used
    upright: bool = False  # whether it is turned as its EXIF orientation asks
    objects: Sequence[VocObject] = ()  # the usable ones


def _list_images(root: str, splits: Sequence[str], report: Report, required: bool) -> list[_Image]:
    """The images of several splits, in the order of the lists, each once; nothing is read."""
    listed: dict[str, _Image] = {}
    for split in splits:
        dataset, _, sets = split.partition(":")
        if not dataset or not all(sets.split("+")):
            raise UserError(
                "expected a split written DATASET:SET or DATASET:SET+SET, such as VOC2012:train,"
                f' found "{split}"'
            )
        images = _files_by_id(root, dataset, "JPEGImages", EXTENSIONS, required)
        annotations = _files_by_id(root, dataset, "Annotations", (".xml",))
        known = images.keys() | annotations.keys()
        names = [name for one in sets.split("+") for name in _read_set(root, dataset, one, known)]
        for name in names:
            image_id = f"{dataset}/{name}"
            # A file that is not there gets a path, too: reading it will say so.
            paths = images.get(name, [f"{dataset}/JPEGImages/{name}"])
            xml_paths = annotations.get(name, [f"{dataset}/Annotations/{name}.xml"])
            if image_id in listed:
                report.correct("listed more than once, used once", image_id)
            elif not image_id.isprintable():  # such as a name that is not UTF-8
                report.skip("file name cannot be printed", ascii(image_id))
            else:
                listed[image_id] = _Image(image_id, paths[0], xml_paths[0])
                if len(paths) > 1:
                    report.correct("several images of one name, one used", image_id)
    return list(listed.values())


def _files_by_id(
    root: str, dataset: str, folder: str, extensions: Sequence[str], required: bool = True
) -> dict[str, list[str]]:
    """Paths relative to the root by file name without extension; hidden files are left out."""
    path = pathlib.Path(root, dataset, folder)
    if required and not path.is_dir():
        place = path.parent if path.parent.is_dir() else pathlib.Path(root)
        raise UserError(
            f"expected {dataset}/JPEGImages and {dataset}/Annotations in {root}, found"
            f" {_shown(sorted(one.name for one in place.glob('*/')))} in {place}: set data.root to"
            f" the folder that holds {dataset}"
        )
    files: dict[str, list[str]] = {}
    for name in sorted(os.listdir(path) if path.is_dir() else ()):
        stem, extension = os.path.splitext(name)
        if extension.lower() in extensions and not name.startswith("."):
            files.setdefault(stem, []).append(f"{dataset}/{folder}/{name}")
    return files


def _read_set(root: str, dataset: str, set_name: str, known: Set[str]) -> list[str]:
    """The ids in a list."""
    path = pathlib.Path(root, dataset, "ImageSets", "Main", f"{set_name}.txt")
    if path.is_file():
        # utf-8-sig: editors on Windows put a byte order mark in front
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return [_id_of_line(line.strip(), known) for line in lines if line.strip()]
    if set_name == "all":
        return sorted(known)
    # Lists per class ("dog_train") come last: the devkit has dozens.
    sets = sorted((file.stem for file in path.parent.glob("*.txt")), key=lambda s: ("_" in s, s))
    raise UserError(
        f"expected the list {path}, found {_shown(sets)} there;"
        f" {dataset}:all takes every image of {dataset}"
    )


def _id_of_line(line: str, known: Set[str]) -> str:
    """The id in a line, which may carry a flag of the devkit's lists per class, or an extension."""
    if line not in known:
        line = re.sub(r"\s+(-1|0|1)$", "", line)
    stem, extension = os.path.splitext(line)
    is_file = line not in known and stem in known and extension.lower() in EXTENSIONS
    return stem if is_file else line


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"


def _read_images(root: str, splits: Sequence[str], report: Report, required: bool) -> list[_Image]:
    """The usable images of the splits, in order."""

    def read(image: _Image) -> tuple[ImageInfo, VocAnnotation] | UnusableFile:
        path, xml_path = (os.path.join(root, one) for one in (image.path, image.annotation_path))
        try:
            if required or os.path.exists(path):
                return check_image(path), read_annotation(xml_path)
            annotation = read_annotation(xml_path)
            height, width = annotation.size
            if height > 0 and width > 0:
                return ImageInfo((int(height), int(width))), annotation
            return UnusableFile("image is missing, and its size in the annotation", path)
        except UnusableFile as error:
            return error

    listed = _list_images(root, splits, report, required)
    images = []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # a slow disk is waited for
        for image, found in zip(listed, pool.map(read, listed), strict=True):
            if isinstance(found, UnusableFile):
                report.skip(found.reason, image.image_id)
            else:
                images.append(_settle(image, *found, report))
    if not images:
        raise UserError(
            f"expected usable images in {', '.join(splits)} of {root}, found none: "
            + ("; ".join(report.notes()) or "the lists are empty")
        )
    return images


def _settle(image: _Image, info: ImageInfo, annotation: VocAnnotation, report: Report) -> _Image:
    """Settles which pixels and which objects are used; `report` notes the rest."""
    if info.has_alpha:
        report.correct("transparency dropped", image.image_id)
    if info.is_16_bit:
        report.correct("16-bit image, high 8 bits used", image.image_id)
    upright, correction = turn(annotation, info)
    if correction:
        report.correct(correction, image.image_id)
    height, width = size = info.size[::-1] if upright else info.size
    objects = []
    for item in annotation.objects:
        if reason := problem(item, height, width):
            report.skip_object(reason, _name(image, item))
            continue
        left, top, right, bottom = item.box_xyxy
        inside = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        if inside != item.box_xyxy:
            report.correct("box clipped to the image", _name(image, item))
        if item.difficult is None:
            report.correct("difficult is neither 0 nor 1, taken as 0", _name(image, item))
        objects.append(item._replace(box_xyxy=inside))
    return image._replace(size=size, upright=upright, objects=objects)


def _name(image: _Image, item: VocObject) -> str:
    return f"{image.image_id} object {item.number} ({item.class_name or '?'})"


def _class_names(
    given: Sequence[str] | None, images: Sequence[_Image], unknown_classes: str
) -> tuple[str, ...]:
    """The given names, or the sorted names of all objects' classes."""
    files: dict[str, str] = {}  # the first annotation of each class
    for image in images:
        for item in image.objects:
            files.setdefault(item.class_name, image.annotation_path)
    names = tuple(sorted(files) if given is None else given)
    if not names or len(set(names)) < len(names):
        found = ", ".join(names) or "none, and no object to collect them from"
        raise UserError(f"expected each class once in model.class_names, found {found}")
    unknown = [name for name in files if name not in names]
    if unknown and unknown_classes == "refuse":
        by_lower = {name.lower(): name for name in names}  # the case is a likely mistake
        nearest = difflib.get_close_matches(unknown[0].lower(), by_lower, n=1, cutoff=0.0)[0]
        raise UserError(
            f"{files[unknown[0]]}: expected classes of model.class_names, found {unknown[0]!r}"
            f" (nearest: {by_lower[nearest]!r}; unknown in all: {', '.join(unknown)}); correct"
            ' either, or leave such objects out with data.unknown_classes="skip"'
        )
    return names


def _ground_truth(image: _Image, class_names: Sequence[str], report: Report) -> GroundTruth:
    known = []
    for item in image.objects:
        if item.class_name in class_names:
            known.append(item)
        else:
            report.skip_object("class is not in class_names", _name(image, item))
    return GroundTruth(
        np.array([item.box_xyxy for item in known], np.float64).reshape(-1, 4),
        np.array([class_names.index(item.class_name) for item in known], np.int32),
        np.array([item.difficult for item in known], bool),  # None is taken as False
    )
