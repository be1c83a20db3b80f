"""PASCAL VOC's XML in any arrangement of folders.

VOC2007/ImageSets/Main/train.txt, ...     data sets of the devkit, or one of them: their lists
images/a.jpg, annotations/a.xml           or both in one folder: the same name
train/a.jpg, train/a.xml, valid/...       folders of splits, within the others or around them
"""

import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from yolov1_jax.data.annotated_images import Annotation, ListedImage
from yolov1_jax.data.dataset import Report
from yolov1_jax.data.own_folder import (
    Found,
    Split,
    has_extension,
    image_id,
    key_of,
    split_of,
    split_of_name,
)
from yolov1_jax.data.voc_folder import list_voc
from yolov1_jax.data.voc_xml import read_annotation

_LISTS = "ImageSets/Main/"


def find(
    root: str, files: Sequence[str], *, unannotated: str = "skip", images_required: bool = True
) -> Found | None:
    """The data set that these files are; None if there is no VOC annotation among them.

    Args:
      unannotated, images_required: see `list_voc`.
    """
    xmls = [file for file in files if has_extension(file, (".xml",))]
    one_of_folder = {os.path.dirname(file): file for file in xmls}
    if not any(_is_annotation(root, file) for file in one_of_folder.values()):
        return None
    lists = _lists(files)
    if lists:
        options = {"unannotated": unannotated, "images_required": images_required}
        datasets = sorted({dataset for part in lists.values() for dataset, _ in part})
        why = ", ".join(f"{dataset or '.'}/{_LISTS}" for dataset in datasets)
        splits = {
            split: functools.partial(_read_lists, root, part, len(datasets) > 1, options)
            for split, part in lists.items()
        }
        return Found("VOC XML", why, splits)

    images: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for file in files:
        if has_extension(file) and images.setdefault(key_of(file), file) != file:
            repeated[file] = images[key_of(file)]
    annotations = {key_of(file): file for file in xmls}
    # A name that differs in case alone goes with the image.
    alone = {key.lower(): key for key in images.keys() - annotations.keys()}
    for key in sorted(annotations.keys() - images.keys()):
        if partner := alone.get(key.lower()):
            annotations[partner] = annotations.pop(key)
    parts: dict[str, list[tuple[str | None, str | None]]] = {}
    for key in sorted(images.keys() | annotations.keys()):
        image, xml = images.get(key), annotations.get(key)
        parts.setdefault(split_of(image or xml or ""), []).append((image, xml))

    def read_split(split: str, report: Report) -> Split:
        for file in repeated:
            if split_of(file) == split:
                report.correct("several images of one name, one used", file)
        listed = []
        for image, xml in parts[split]:
            path = os.path.join(root, image or f"{xml}/missing")
            xml_path = os.path.join(root, xml or f"{image}/missing")
            is_background = xml is None and unannotated == "background"
            read = functools.partial(read_annotation, xml_path, image_path=image)
            listed.append(
                ListedImage(
                    image_id(image or xml or ""),
                    path,
                    xml_path,
                    _no_objects if is_background else read,
                )
            )
        return Split(listed)

    folder = os.path.dirname(xmls[0]) or "."
    splits = {split: functools.partial(read_split, split) for split in parts}
    return Found("VOC XML", f"{len(xmls):,} XML files, the first in {folder}/", splits)


def _is_annotation(root: str, file: str) -> bool:
    with pathlib.Path(root, file).open("rb") as content:
        return b"<annotation>" in content.read(1000)


def _lists(files: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """The data sets and lists of each split: {"train": [("VOC2007", "train"), ...], ...}."""
    lists: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        dataset, _, name = file.rpartition(_LISTS)
        stem, extension = os.path.splitext(name)
        if _LISTS in file and extension == ".txt" and "/" not in name:
            lists.setdefault(split_of_name(stem) or stem, []).append((dataset.rstrip("/"), stem))
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    return {split: lists[split] for split in ("train", "val", "test") if split in lists}


def _read_lists(
    root: str,
    lists: Sequence[tuple[str, str]],
    several: bool,
    options: Mapping[str, Any],
    report: Report,
) -> Split:
    """The images of lists of the devkit; their ids have the data set where there are several."""
    listed = []
    for dataset, name in lists:
        # A root that is a data set itself is seen from the folder around it.
        top, folder = (root, dataset) if dataset else os.path.split(os.path.abspath(root))
        for image in list_voc(top, [f"{folder}:{name}"], report, **options):
            short = image.image_id.removeprefix(f"{folder}/")
            if several:
                short = f"{folder.rsplit('/', 1)[-1]}/{short}"
            listed.append(image._replace(image_id=short))
    return Split(listed)


def _no_objects(size: tuple[int, int] | None) -> Annotation:
    return Annotation(size or (math.nan, math.nan), [], ("no annotation, taken as background",))
