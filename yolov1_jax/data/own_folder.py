"""What all readers of folders share: names of files, their splits, and images with annotations.

A reader (`voc_folder`, `yolo_txt`, `coco_json`) has a function `find`, which returns the data set
of its format that a folder holds. Paths of files are relative to the root, with "/".
"""

import collections
import functools
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from yolov1_jax.data.annotated_images import Annotation, ListedImage
from yolov1_jax.data.dataset import Report
from yolov1_jax.data.images import EXTENSIONS, OTHER_EXTENSIONS

IMAGES = (*EXTENSIONS, *OTHER_EXTENSIONS)
# Folders that say what is in them; they are no part of an image's id. All in lower case.
_OF_IMAGES = {"images", "image", "imgs", "img", "jpegimages"}
_CONTENT = {
    *_OF_IMAGES,
    *("labels", "label", "annotations", "annotation", "xmls", "xml", "bboxes"),
    *("obj_train_data", "default"),
}
SPLITS = ("train", "val", "test")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Split(NamedTuple):
    """The images of a split, and what its files say of classes."""

    images: list[ListedImage]
    class_names: tuple[str, ...] | None = None  # those that the files state, if they do
    category_ids: Mapping[str, int] | None = None  # of COCO's JSON


class Found(NamedTuple):
    """A data set in one of the formats."""

    format: str  # "YOLO text"
    why: str  # "data.yaml"
    splits: Mapping[str, Callable[[], Split]]  # "train", "val", "test"; "" for no split
    report: Report  # what the reader does not use
    files: Collection[str]  # of no single image: lists, names of classes, JSON


class Pair(NamedTuple):
    """The files of an image and of its annotation; one of the two may be missing."""

    image: str | None
    annotation: str | None
    notes: tuple[str, ...] = ()


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """Sorted paths of all files below a folder, relative to it, with "/" between their parts.

    Hidden files and folders are left out, and pipes and devices, which may have no end. Links are
    followed, each folder is listed once.
    """
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(one for one in folders if not one.startswith(".") and real not in seen)
        if real not in seen:
            seen.add(real)
            below = pathlib.Path(os.path.relpath(place, folder))
            for name in names:
                path = os.path.join(place, name)
                if name[0] != "." and (os.path.isfile(path) or not os.path.exists(path)):
                    found.append((below / name).as_posix())
    return sorted(found)


def report_unused(
    root: str,
    files: Iterable[str],
    own: Collection[str],
    images: Iterable[ListedImage],
    report: Report,
) -> None:
    """Reports files that are neither the data set's `own` nor of one of its images, by endings."""
    used = {os.path.normpath(path) for one in images for path in (one.path, one.annotation) if path}
    # Two splits of one data set have the same unused files.
    own = {*own, *itertools.chain(*report.passed_over.values())}
    used |= {os.path.normpath(os.path.join(root, file)) for file in own}
    unused = [one for one in files if os.path.normpath(os.path.join(root, one)) not in used]
    endings = [os.path.splitext(file)[1].lower() for file in unused]
    common = dict(collections.Counter(endings).most_common(8))
    for file, ending in zip(unused, endings, strict=True):
        kind = f"{ending or 'no ending'}, in no split" if ending in common else "in no split"
        report.passed_over[kind].append(file)


def has_extension(path: str, extensions: Sequence[str] = EXTENSIONS) -> bool:
    return os.path.splitext(path)[1].lower() in extensions


def class_name(name: Any) -> str:
    """The name of a class without the spaces around it; what no encoding can write becomes "?".

    Raises:
      TypeError: the name is neither a text nor a number.
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
    is_file = has_extension(name, (*IMAGES, ".xml", ".txt"))
    return "/".join([*kept, os.path.splitext(name)[0] if is_file else name])


def image_id(path: str) -> str:
    """The key of an image without the folder of its split: "train/images/cam1/a.jpg" -> "cam1/a".

    So an image has the same id in every format and before and after it was put into a split.
    """
    *folders, name = key_of(path).split("/")
    return "/".join([*(one for one in folders if not split_of_name(one)), name])


def ends_of(path: str) -> list[str]:
    """A path that another program wrote; the ends of an absolute one, longest first.

    An absolute path may be of another machine, or of a place where the data have been before.
    """
    path = path.replace("\\", "/")
    parts = [one for one in path.split("/") if one not in ("", ".", "..")]
    starts = range(min(len(parts), 16)) if re.match(r"/|[A-Za-z]:", path) else (0,)
    return ["/".join(parts[start:]) for start in starts]


def match(files: Iterable[str], extension: str) -> dict[str, Pair]:
    """Images and annotations with the same `key_of`, by this key, sorted."""
    by_key: dict[str, tuple[list[str], list[str]]] = collections.defaultdict(lambda: ([], []))

    def rank(file: str) -> tuple[bool, bool, str]:
        """Formats that are not read come last, and before them masks beside the annotations."""
        return not has_extension(file), _OF_IMAGES.isdisjoint(file.lower().split("/")), file

    for file in sorted(files, key=rank):
        if has_extension(file, IMAGES):
            by_key[key_of(file)][0].append(file)
        elif has_extension(file, (extension,)):
            by_key[key_of(file)][1].append(file)
    # An annotation whose name differs in case alone goes with the image.
    alone = {key.lower(): key for key, (_, annotations) in by_key.items() if not annotations}
    for key in sorted(key for key, (images, _) in by_key.items() if not images):
        if partner := alone.pop(key.lower(), None):
            by_key[partner][1].extend(by_key.pop(key)[1])
    pairs = {}
    for key, (images, annotations) in sorted(by_key.items()):
        notes = []
        if len(images) > 1 or len(annotations) > 1:
            notes.append("several files of one name, one used")
        if annotations and key_of(annotations[0]) != key:
            notes.append("names of image and annotation differ in case")
        pairs[key] = Pair(next(iter(images), None), next(iter(annotations), None), tuple(notes))
    return pairs


def listed(
    root: str | os.PathLike[str],
    pair: Pair,
    name: str,
    read: Callable[[str | None, tuple[int, int] | None], Annotation | None],
    *,
    upright: bool = False,
) -> ListedImage:
    """The image of a pair, with the id `name`. `read` gets the annotation's path, or None."""
    # A missing image gets a path that does not exist: reading it says so.
    image = os.path.join(root, pair.image or f"{pair.annotation}/image")
    annotation = pair.annotation and os.path.join(root, pair.annotation)
    read_own = functools.partial(read, annotation)
    return ListedImage(name, image, read_own, pair.notes, upright, annotation=annotation)


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
            ends, starts = _in_common(own[::-1], parts[::-1]), _in_common(own, folder.split("/"))
            return ends, split_of(file) == split, starts

        return max(self._by_name.get(parts[-1], []), key=likeness, default=None)


def _in_common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts are equal from the start on."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return len(list(pairs))
