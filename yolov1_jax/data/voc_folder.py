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
from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree

from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation, ListedImage
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.own_folder import (
    SPLITS,
    Found,
    Split,
    has_extension,
    key_of,
    match,
    split_of,
    split_of_name,
)

_ImagesOf = Callable[[str], Mapping[str, ListedImage]]  # of a data set, by their ids
_LISTS = "ImageSets/Main/"
_MOST_BYTES = 2 * 2**20  # of an XML; an object has 200 bytes and more


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if there is no VOC annotation among them.

    Its `lists` are those of the devkit, by DATASET:SET, and DATASET:all for every image of one.
    """
    xmls = [file for file in files if has_extension(file, (".xml",))]
    if not any("Annotations/" in file or _is_annotation(root, file) for file in xmls):
        return None
    images_of = functools.cache(functools.partial(_images_of, tuple(files)))
    lists: dict[str, Callable[[], Split]] = {}
    for dataset in {file.rpartition("Annotations/")[0].rstrip("/") for file in xmls}:
        lists[f"{dataset}:all"] = functools.partial(_read_all, dataset, images_of)
    of_split: dict[str, list[Callable[[], Split]]] = collections.defaultdict(list)
    for file in files:
        dataset, is_list, name = file.rpartition(_LISTS)
        dataset, (stem, extension) = dataset.rstrip("/"), os.path.splitext(name)
        if is_list and extension == ".txt":
            read = functools.partial(_read_list, root, file, dataset, images_of)
            lists[f"{dataset}:{stem}"] = read
            of_split[split_of_name(stem) or stem].append(read)
    if "train" not in of_split and "trainval" in of_split:
        of_split["train"] = of_split["trainval"]
    splits = {one: functools.partial(_join, of_split[one]) for one in SPLITS if one in of_split}
    why = "lists in " + _LISTS
    if not splits:
        why = f"{len(xmls):,} XML files, the first in {os.path.dirname(xmls[0]) or '.'}/"
        parts: dict[str, list[ListedImage]] = collections.defaultdict(list)
        for key, image in match(files, ".xml", read_annotation).items():
            parts[split_of(key)].append(image)
        splits = {split: functools.partial(Split, images) for split, images in parts.items()}
    own = [file for file in files if "ImageSets/" in file]
    return Found("VOC XML", why, splits, Report(), own, lists)


def _is_annotation(root: str, file: str) -> bool:
    with pathlib.Path(root, file).open("rb") as content:
        return b"<annotation>" in content.read(1000)


def _images_of(files: Iterable[str], dataset: str) -> dict[str, ListedImage]:
    """Images and annotations of a data set of the devkit, by their ids."""
    images, annotations = (posixpath.join(dataset, one) for one in ("JPEGImages/", "Annotations/"))
    own = [
        file
        for file in files
        if file.startswith(annotations if has_extension(file, (".xml",)) else images)
    ]
    found = match(own, ".xml", read_annotation)
    return {key: image._replace(image_id=key) for key, image in found.items()}


def _read_all(dataset: str, images_of: _ImagesOf) -> Split:
    return Split(list(images_of(dataset).values()))


def _join(reads: Iterable[Callable[[], Split]]) -> Split:
    return Split([image for read in reads for image in read().images])


def _read_list(root: str, file: str, dataset: str, images_of: _ImagesOf) -> Split:
    """The images that a list names; a line may be a path, or carry a flag of a class list."""
    by_id = images_of(dataset)
    known = {key.lower(): key for key in by_id} | {key: key for key in by_id}
    images = []
    # utf-8-sig: editors on Windows put a byte order mark in front
    for line in pathlib.Path(root, file).read_text("utf-8-sig", "replace").splitlines():
        path = line.strip().replace("\\", "/").rpartition("JPEGImages/")[2].removeprefix("./")
        texts = path, re.sub(r"\s+(-1|0|1)$", "", path)
        keys = [key_of(posixpath.join(dataset, text)) for text in texts]
        found = next((known[one] for key in keys for one in (key, key.lower()) if one in known), "")
        if path:
            missing = ListedImage(keys[-1], None, None, read_annotation)
            images.append(by_id[found] if found else missing)
    return Split(images)


def read_annotation(path: str | None, size: tuple[int, int] | None) -> Annotation | None:
    """Reads an XML, None for no path; body parts that VOC nests inside a person are no objects.

    Boxes are its numbers as they stand. Coordinates that are all within [0, 1] are taken as
    fractions of the image's sides.

    Args:
      path: of the XML.
      size: height and width of the image.

    Raises:
      UnusableFile: the file is missing, too large, not XML, or not an annotation; or it declares
        entities, which may expand without bound or read other files.
    """
    if path is None:
        return None
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise UnusableFile(f"annotation is larger than {_MOST_BYTES // 2**20} MiB", path)
        # Some programs write an empty line in front, which XML does not allow.
        root = defusedxml.ElementTree.fromstring(pathlib.Path(path).read_bytes().lstrip())
    except OSError:
        raise UnusableFile("annotation is missing or cannot be read", path) from None
    except (ParseError, ValueError, LookupError):  # the latter two: entities, unknown encodings
        raise UnusableFile("annotation is not well-formed XML, or has entities", path) from None
    if root.tag != "annotation":
        raise UnusableFile("annotation is not in VOC format", path)
    stated = _number(root, "size/height"), _number(root, "size/width")
    boxes = [
        [_number(item, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        for item in root.findall("object")
    ]
    notes = []
    named = _text(root, "filename")
    if named and _stem(named) != _stem(path):
        notes.append("another file name in the annotation, ignored")
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        height, width = stated if min(stated) > 0 else size or stated
        boxes = [[x * width + 1, y * height + 1, u * width, v * height] for x, y, u, v in boxes]
        notes.append("relative coordinates, multiplied by the size of the image")
    objects = [
        AnnotatedObject(
            number=number,
            class_name=_text(item, "name"),
            box_xyxy=tuple(box),
            difficult=_text(item, "difficult").lower() in ("1", "true"),
        )
        for number, (item, box) in enumerate(zip(root.findall("object"), boxes, strict=True), 1)
    ]
    return Annotation(stated, objects, tuple(notes))


def _stem(path: str) -> str:
    """The name of a file, on any system, in lower case and without the extension."""
    return posixpath.splitext(posixpath.basename(path.replace("\\", "/")))[0].lower()


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _number(element: Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan
