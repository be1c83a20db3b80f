"""PASCAL VOC's XML, an annotation file for each image, in the devkit's folders or in any others.

VOC2007/JPEGImages/000005.jpg            a data set of the devkit; the root may be one, too
VOC2007/Annotations/000005.xml
VOC2007/ImageSets/Main/train.txt         a list: an id, or a path that ends in it, per line

images/a.jpg, annotations/a.xml          without lists: see `own_folder.match`
train/a.jpg, train/a.xml, valid/...      folders of splits, within the others or around them
"""

import collections
import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import Annotation, ListedImage
from yolov1_jax.data.dataset import Report, first_of
from yolov1_jax.data.own_folder import (
    IMAGES,
    SPLITS,
    Found,
    Pair,
    Split,
    ends_of,
    files_below,
    has_extension,
    image_id,
    key_of,
    listed,
    match,
    report_unused,
    split_of,
    split_of_name,
)
from yolov1_jax.data.voc_xml import read_annotation

_LISTS = "ImageSets/Main/"


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if there is no VOC annotation among them."""
    xmls = [file for file in files if has_extension(file, (".xml",))]
    one_of_folder = {os.path.dirname(file): file for file in xmls}
    if not any(_is_annotation(root, file) for file in one_of_folder.values()):
        return None
    parts: dict[str, list[ListedImage]] = collections.defaultdict(list)
    if lists := _lists(files):
        datasets = sorted({dataset or "." for _, dataset, _ in lists})
        why = ", ".join(f"{dataset}/{_LISTS}" for dataset in datasets)
        pairs = {dataset: _pairs(root, dataset) for _, dataset, _ in lists}
        for split, dataset, name in lists:
            parts[split] += _read_set(root, dataset, name, pairs[dataset])
    else:
        why = f"{len(xmls):,} XML files, the first in {os.path.dirname(xmls[0]) or '.'}/"
        for key, pair in match(files, ".xml").items():
            parts[split_of(key)].append(listed(root, pair, image_id(key), _read))
    splits = {split: functools.partial(Split, images) for split, images in parts.items()}
    own = [file for file in files if "ImageSets/" in file]
    return Found("VOC XML", why, splits, Report(), own)


def _is_annotation(root: str, file: str) -> bool:
    with pathlib.Path(root, file).open("rb") as content:
        return b"<annotation>" in content.read(1000)


def _lists(files: Sequence[str]) -> list[tuple[str, str, str]]:
    """Split, data set and name of each list of a split: ("train", "VOC2007", "train"), ..."""
    lists = []
    for file in files:
        dataset, is_list, name = file.rpartition(_LISTS)
        stem, extension = os.path.splitext(name)
        if is_list and extension == ".txt":
            lists.append((split_of_name(stem) or stem, dataset.rstrip("/"), stem))
    splits = {split for split, _, _ in lists}
    named = {one: one for one in SPLITS} | ({} if "train" in splits else {"trainval": "train"})
    return [(named[split], dataset, stem) for split, dataset, stem in lists if split in named]


def list_voc(root: str, split: str, report: Report) -> list[ListedImage]:
    """The images of DATASET:SET+SET, in the order of the lists; no image and no XML is read.

    "DATASET:all" takes every image of the data set and needs no list.

    Raises:
      UserError: there is no such split.
    """
    dataset, _, sets = split.partition(":")
    if not dataset or not all(sets.split("+")):
        raise UserError(
            "expected a split written DATASET:SET or DATASET:SET+SET, such as VOC2012:train,"
            f' found "{split}"'
        )
    pairs = _pairs(root, dataset)
    read = functools.partial(_read_set, root, dataset, pairs=pairs)
    images = [image for name in sets.split("+") for image in read(name)]
    files = [f"{dataset}/{file}" for file in files_below(pathlib.Path(root, dataset))]
    lists = [file for file in files if "/ImageSets/" in file]
    # Lists of a class ("dog_train") have no images that others have not.
    names = [one.stem for one in pathlib.Path(root, dataset, _LISTS).glob("*.txt")]
    others = (image for name in names if "_" not in name for image in read(name))
    report_unused(root, files, lists, [*images, *others], report)
    return images


def _pairs(root: str, dataset: str) -> dict[str, Pair]:
    """Images and annotations of a data set, by the names that its lists have for them."""
    folder = pathlib.Path(root, dataset)
    if not (folder / "Annotations").is_dir():
        place = folder if folder.is_dir() else pathlib.Path(root)
        folders = first_of(sorted(one.name for one in place.glob("*/"))) or "no folder"
        raise UserError(
            f"expected {dataset}/JPEGImages and {dataset}/Annotations in {root}, found {folders} "
            f"in {place}: set data.root to the folder that holds {dataset}"
        )
    files = [
        f"{kind}/{file}"
        for kind, extensions in (("JPEGImages", IMAGES), ("Annotations", (".xml",)))
        for file in files_below(folder / kind)
        if has_extension(file, extensions)
    ]
    return match(files, ".xml")


def _read_set(root: str, dataset: str, name: str, pairs: Mapping[str, Pair]) -> list[ListedImage]:
    folder = pathlib.Path(root, dataset)
    path = folder / _LISTS / f"{name}.txt"
    if path.is_file():
        # utf-8-sig: editors on Windows put a byte order mark in front
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        known = {key.lower(): key for key in pairs} | {key: key for key in pairs}
        keys = [_key_in(line.strip(), known) for line in lines if line.strip()]
    elif name == "all":
        keys = list(pairs)
    else:
        # Lists per class ("dog_train") come last: the devkit has dozens.
        sets = sorted((one.stem for one in path.parent.glob("*.txt")), key=lambda s: ("_" in s, s))
        raise UserError(
            f"expected the list {path}, found {first_of(sets) or 'none'} there;"
            f" {dataset}:all takes every image of {dataset}"
        )
    prefix = f"{dataset}/" if dataset else ""
    return [
        listed(folder, pairs.get(key, Pair(f"JPEGImages/{key}", None)), prefix + key, _read)
        for key in keys
    ]


def _read(path: str | None, size: tuple[int, int] | None) -> Annotation | None:
    return None if path is None else read_annotation(path, size)


def _key_in(line: str, known: dict[str, str]) -> str:
    """The key that a line means: it may be a path, or carry a flag of the devkit's class lists."""
    without_flag = re.sub(r"\s+(-1|0|1)$", "", line)
    for text in (line, without_flag):
        for end in ends_of(text.replace("\\", "/").rpartition("JPEGImages/")[2]):
            if found := known.get(key_of(end)) or known.get(key_of(end).lower()):
                return found
    return key_of(without_flag)
