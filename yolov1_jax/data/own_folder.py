"""What all readers of folders share: names of files, their splits, and images with annotations.

A reader (`voc_folder`, `yolo_txt`, `coco_json`) has a function `find`, which returns the data set
of its format that a folder holds. Paths of files are relative to the root, with "/".
"""

import collections
import dataclasses
import functools
import itertools
import operator
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from yolov1_jax.data.annotated_images import Annotation, ListedImage
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.images import EXTENSIONS

# Takes an annotation file, None if there is none, and the size as `ListedImage.read`.
ReadFile = Callable[[str | None, tuple[int, int] | None], Annotation | None]

# Folders that say what is in them; they are no part of an image's id. All in lower case.
_OF_IMAGES = {"images", "image", "imgs", "img", "jpegimages"}
_OF_ANNOTATIONS = {"labels", "label", "annotations", "annotation", "xmls", "xml", "bboxes"}
_CONTENT = _OF_IMAGES | _OF_ANNOTATIONS | {"obj_train_data", "default"}  # the last two: CVAT
SPLITS = ("train", "val", "test")
_SPLITS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_SPLITS |= {split: split for split in SPLITS}
_MOST_BYTES = 2 * 2**20  # of an annotation file; an object has 20 bytes of text, 200 of XML


class Split(NamedTuple):
    """The images of a split, and what its files say of classes."""

    images: list[ListedImage]
    class_names: tuple[str, ...] | None = None
    category_ids: Mapping[str, int] | None = None  # of COCO's JSON


@dataclasses.dataclass
class Found:
    """A data set in one of the formats."""

    format: str  # "YOLO text"
    why: str  # "data.yaml"
    splits: Mapping[str, Callable[[], Split]]  # "train", "val", "test"; "" for no split
    files: Collection[str] = ()  # of no single image: lists, names of classes, JSON
    # The lists of the VOC devkit, by "DATASET:SET"
    lists: Mapping[str, Callable[[], Split]] = dataclasses.field(default_factory=dict)
    report: Report = dataclasses.field(default_factory=Report)  # what the reader does not use


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """Sorted paths of all files below a folder, relative to it, with "/" between their parts.

    Hidden files and folders are left out, and pipes and devices, which may have no end. Links are
    followed, each folder is listed once.
    """
    found, seen = list[str](), set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(one for one in folders if one[0] != "." and real not in seen)
        paths = [pathlib.Path(place, one) for one in names if one[0] != "." and real not in seen]
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
        seen.add(real)
    return sorted(found)


def report_unused(
    files: Iterable[str], own: Iterable[str], images: Iterable[ListedImage], report: Report
) -> None:
    """Reports files that are neither the data set's `own` nor of one of its images, by endings."""
    used = {*own, *(path for one in images for path in (one.path, one.annotation))}
    unused = {file: os.path.splitext(file)[1].lower() for file in files if file not in used}
    common = dict(collections.Counter(unused.values()).most_common(8))
    for file, ending in unused.items():
        kind = f"{ending or 'no ending'}, in no split" if ending in common else "in no split"
        report.passed_over[kind].append(file)


def read_annotation_file(path: str) -> bytes:
    """The content of an annotation file; UnusableFile if it is missing or too large."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError:
        raise UnusableFile("annotation is missing or cannot be read", path) from None
    if len(content) > _MOST_BYTES:
        raise UnusableFile(f"annotation is larger than {_MOST_BYTES // 2**20} MiB", path)
    return content


def read_lines(root: str, file: str) -> list[str]:
    # utf-8-sig: editors on Windows put a byte order mark in front
    return pathlib.Path(root, file).read_text("utf-8-sig", errors="replace").splitlines()


def has_extension(path: str, extensions: Sequence[str] = EXTENSIONS) -> bool:
    return os.path.splitext(path)[1].lower() in extensions


def class_name(name: Any) -> str:
    """The name of a class without the spaces around it; what no encoding can write becomes "?".

    TypeError for what is neither a text nor a number.
    """
    if not isinstance(name, str | int | float):
        raise TypeError(f"expected a name, got {type(name).__name__}")
    return " ".join(str(name).encode(errors="replace").decode().split())


def split_of_name(name: str) -> str:
    """ "Train", "train2017" -> "train"; "valid" -> "val"; "" for a name that is no split's."""
    return _SPLITS.get(re.sub(r"\d+$", "", name.lower()), "")


def split_of(path: str) -> str:
    """The split that a folder of the path is named after, or ""; the innermost decides."""
    return next(filter(None, map(split_of_name, path.split("/")[-2::-1])), "")


def key_of(path: str) -> str:
    """What an image and its annotation have in common: "train/images/cam1/a.jpg" -> "train/cam1/a".

    It is the path without its extension and the folders that only say what is in them.
    """
    *folders, name = path.split("/")
    kept = [one for one in folders if one.lower() not in _CONTENT]
    is_file = has_extension(name, (*EXTENSIONS, ".xml", ".txt"))
    return "/".join([*kept, os.path.splitext(name)[0] if is_file else name])


def image_id(path: str) -> str:
    """The key of an image without the folder of its split: "train/images/cam1/a.jpg" -> "cam1/a".

    So an image has the same id in every format and before and after it was put into a split.
    """
    *folders, name = key_of(path).split("/")
    return "/".join([*(one for one in folders if not split_of_name(one)), name])


def match(
    root: str, files: Iterable[str], extension: str, read: ReadFile, *, upright: bool = False
) -> dict[str, ListedImage]:
    """Images and annotations with the same `key_of`, by this key, sorted."""
    by_key: dict[str, tuple[list[str], list[str]]] = collections.defaultdict(lambda: ([], []))

    def rank(file: str) -> tuple[bool, str]:  # masks beside the annotations come last
        return _OF_IMAGES.isdisjoint(file.lower().split("/")), file

    for file in sorted(files, key=rank):
        if has_extension(file, (extension, *EXTENSIONS)):
            by_key[key_of(file)][has_extension(file, (extension,))].append(file)
    # An annotation whose name differs in case alone goes with the image.
    alone = {key.lower(): key for key, (_, annotations) in by_key.items() if not annotations}
    for key in sorted(key for key, (images, _) in by_key.items() if not images):
        if partner := alone.pop(key.lower(), None):
            by_key[partner][1].extend(by_key.pop(key)[1])
    found = {}
    for key, (images, annotations) in sorted(by_key.items()):
        notes = []
        if len(images) > 1 or len(annotations) > 1:
            notes.append("several files of one name, one used")
        if annotations and key_of(annotations[0]) != key:
            notes.append("names of image and annotation differ in case")
        image, annotation = (next(iter(one), None) for one in (images, annotations))
        read_own = functools.partial(read, annotation and os.path.join(root, annotation))
        found[key] = ListedImage(image_id(key), image, read_own, annotation, tuple(notes), upright)
    return found


class Lookup:
    """Finds files by paths that other programs wrote, on other machines or from other folders."""

    def __init__(self, files: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        for file in files:
            self._by_name[file.rsplit("/", 1)[-1]].append(file)

    def find(self, written: str, *, folder: str = "", split: str = "") -> str | None:
        """The file whose path has the longest end in common with the written one.

        Among equals it is one of the split, then the one closest to the folder.
        """
        parts = re.split(r"[/\\]", written)

        def likeness(file: str) -> tuple[int, bool, int]:
            own = file.split("/")
            end, start = _in_common(own[::-1], parts[::-1]), _in_common(own, folder.split("/"))
            return end, split_of(file) == split, start

        return max(self._by_name.get(parts[-1], []), key=likeness, default=None)


def _in_common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts are equal from the start on."""
    return sum(itertools.takewhile(bool, map(operator.eq, a, b)))
