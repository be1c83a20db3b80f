"""PASCAL VOC's XML, an annotation file for each image, in the devkit's folders or in any others.

VOC2007/JPEGImages/000005.jpg            a data set of the devkit; the root may be one, too
VOC2007/Annotations/000005.xml
VOC2007/ImageSets/Main/train.txt         a list: an id or a path per line

images/a.jpg, annotations/a.xml          without lists: see `own_folder.match`
train/a.jpg, train/a.xml, valid/...      folders of splits, within the others or around them
"""

import collections
import functools
import math
import os
import pathlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PureWindowsPath
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree

from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation, ListedImage
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.own_folder import (
    SPLITS,
    Found,
    Split,
    has_extension,
    key_of,
    match,
    read_annotation_file,
    read_lines,
    split_of,
    split_of_name,
)


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if there is no VOC annotation among them.

    Its `lists` are those of the devkit, by DATASET:SET, and DATASET:all for every image of one.
    """
    xmls = [file for file in files if has_extension(file, (".xml",))]
    if not any("Annotations/" in file or _is_annotation(root, file) for file in xmls):
        return None
    datasets = {file.rpartition("Annotations/")[0].rstrip("/") for file in xmls}
    lists = {f"{dataset}:all": (dataset, "") for dataset in datasets}  # "": there is no file
    of_split: dict[str, list[str]] = collections.defaultdict(list)
    own = [file for file in files if "ImageSets/" in file]
    for file in own:
        dataset, is_list, name = file.rpartition("ImageSets/Main/")
        dataset, (stem, extension) = dataset.rstrip("/"), os.path.splitext(name)
        if is_list and extension == ".txt":
            lists[f"{dataset}:{stem}"] = dataset, file
            of_split[split_of_name(stem) or stem].append(f"{dataset}:{stem}")
    images_of = functools.cache(functools.partial(_images_of, root, tuple(files)))

    def read(*names: str) -> Split:
        """The images of lists, one after the other."""
        images: list[ListedImage] = []
        for dataset, file in map(lists.__getitem__, names):
            by_id = images_of(dataset)
            images += _in_list(read_lines(root, file), dataset, by_id) if file else by_id.values()
        return Split(images)

    if "train" not in of_split and "trainval" in of_split:
        of_split["train"] = of_split["trainval"]
    splits = {one: functools.partial(read, *of_split[one]) for one in SPLITS if one in of_split}
    why = "lists in ImageSets/Main/"
    if not splits:
        why = f"{len(xmls):,} XML files, the first in {os.path.dirname(xmls[0]) or '.'}/"
        parts: dict[str, list[ListedImage]] = collections.defaultdict(list)
        for key, image in match(root, files, ".xml", read_annotation).items():
            parts[split_of(key)].append(image)
        splits = {split: functools.partial(Split, images) for split, images in parts.items()}
    named = {name: functools.partial(read, name) for name in lists}
    return Found("VOC XML", why, splits, own, named)


def _is_annotation(root: str, file: str) -> bool:
    with pathlib.Path(root, file).open("rb") as content:
        return b"<annotation>" in content.read(1000)


def _images_of(root: str, files: Iterable[str], dataset: str) -> dict[str, ListedImage]:
    """Images and annotations of a data set of the devkit, by their ids."""
    images, annotations = (posixpath.join(dataset, one) for one in ("JPEGImages/", "Annotations/"))
    own = [
        file
        for file in files
        if file.startswith(annotations if has_extension(file, (".xml",)) else images)
    ]
    found = match(root, own, ".xml", read_annotation)
    return {key: image._replace(image_id=key) for key, image in found.items()}


def _in_list(
    lines: Iterable[str], dataset: str, by_id: Mapping[str, ListedImage]
) -> Iterator[ListedImage]:
    """The images of a list; a line may be a path, or carry a flag of a class list."""
    known = {key.lower(): key for key in by_id} | {key: key for key in by_id}
    for line in lines:
        path = line.strip().replace("\\", "/").rpartition("JPEGImages/")[2].removeprefix("./")
        texts = path, re.sub(r"\s+(-1|0|1)$", "", path)
        keys = [key_of(posixpath.join(dataset, text)) for text in texts]
        found = next((known[one] for key in keys for one in (key, key.lower()) if one in known), "")
        if path:
            yield by_id[found] if found else ListedImage(keys[-1], None, lambda _: None)


def read_annotation(path: str | None, size: tuple[int, int] | None) -> Annotation | None:
    """Reads an XML, of an image of this size; body parts inside a person are no objects.

    Boxes are its numbers as they stand. Coordinates that are all within [0, 1] are taken as
    fractions of the image's sides.

    Raises:
      UnusableFile: the file is missing, too large, not XML, or not an annotation; or it declares
        entities, which may expand without bound or read other files.
    """
    if path is None:
        return None
    content = read_annotation_file(path).lstrip()  # some programs write an empty line in front
    try:
        root = defusedxml.ElementTree.fromstring(content)
    except (ParseError, ValueError, LookupError):  # the latter two: entities, unknown encodings
        raise UnusableFile("annotation is not well-formed XML, or has entities", path) from None
    if root.tag != "annotation":
        raise UnusableFile("annotation is not in VOC format", path)
    stated = _number(root, "size/height"), _number(root, "size/width")
    items, corners, notes = root.findall("object"), ("xmin", "ymin", "xmax", "ymax"), []
    boxes = [[_number(item, f"bndbox/{corner}") for corner in corners] for item in items]
    named, own = (PureWindowsPath(one).stem.lower() for one in (_text(root, "filename"), path))
    if named not in ("", own):
        notes.append("another file name in the annotation, ignored")
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        height, width = stated if min(stated) > 0 else size or stated
        boxes = [[x * width + 1, y * height + 1, u * width, v * height] for x, y, u, v in boxes]
        notes.append("relative coordinates, multiplied by the size of the image")
    objects = []
    for number, (item, box) in enumerate(zip(items, boxes, strict=True), start=1):
        difficult = _text(item, "difficult").lower() in ("1", "true")
        objects.append(AnnotatedObject(number, _text(item, "name"), tuple(box), difficult))
    return Annotation(stated, objects, tuple(notes))


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _number(element: Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan
