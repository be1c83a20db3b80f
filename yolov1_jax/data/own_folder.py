"""A folder of data as people have it: its files, their splits, and the ids of its images.

Paths of files are relative to the root and written with "/".
"""

import collections
import contextlib
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import ListedImage
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.images import EXTENSIONS

# Folders that say what is in them; they are no part of an image's id. All in lower case.
_CONTENT = {
    *("images", "image", "imgs", "img", "jpegimages", "labels", "label", "annotations"),
    *("annotation", "xmls", "xml", "bboxes", "obj_train_data", "default"),
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


# What the files of a split have and it does not use goes into the report.
ReadSplit = Callable[[Report], Split]


class Found(NamedTuple):
    """A data set in one of the formats."""

    format: str  # "YOLO text"
    why: str  # "data.yaml"
    splits: Mapping[str, ReadSplit]  # "train", "val", "test"; "" for images of no split


def has_extension(path: str, extensions: Sequence[str] = EXTENSIONS) -> bool:
    return os.path.splitext(path)[1].lower() in extensions


def class_name(name: Any) -> str:
    """A name of a class as all readers give it, without the spaces and line ends around it.

    Numbers are names, too; what cannot be written becomes "?". Raises TypeError for anything else.
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
    kept = [one for one in folders if one != ".." and one.lower() not in _CONTENT]
    return "/".join([*kept, os.path.splitext(name)[0]])


def image_id(path: str) -> str:
    """The key of an image without the folder of its split: "train/images/cam1/a.jpg" -> "cam1/a".

    So an image has the same id in every format and before and after it was put into a split.
    """
    *folders, name = key_of(path).split("/")
    return "/".join([*(one for one in folders if not split_of_name(one)), name])


class Lookup:
    """Finds files by paths that other programs wrote, on other machines or from other folders."""

    def __init__(self, files: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        for file in files:
            self._by_name[file.rsplit("/", 1)[-1]].append(file)

    def find(self, written: str, beside: str = "") -> str | None:
        """The file whose path ends most like the one written.

        Among equals one of the split of `beside`, the file in which the path is written, is taken,
        then one close to it.
        """
        parts = re.split(r"[/\\]", written)
        candidates = self._by_name.get(parts[-1], [])

        def likeness(file: str) -> tuple[int, bool, int]:
            own = file.split("/")
            ends, starts = _in_common(own[::-1], parts[::-1]), _in_common(own, beside.split("/"))
            return ends, split_of(file) == split_of(beside), starts

        return max(candidates, key=likeness, default=None)


def _in_common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts are equal from the start on."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return sum(1 for _ in pairs)


def with_ids(
    images: Iterable[ListedImage], root: str, files: Iterable[str], report: Report
) -> list[ListedImage]:
    """The images, each once, with unique ids.

    Where several images of the folder, of whatever split, have one id, they have their paths
    instead.
    """
    listed: dict[str, ListedImage] = {}
    for image in images:
        if listed.setdefault(image.path, image) is not image:
            report.correct("listed more than once, used once", image.image_id)
    of_files = collections.Counter(image_id(file) for file in files if has_extension(file))
    of_listed = collections.Counter(image.image_id for image in listed.values())
    return [
        image
        if max(of_files[image.image_id], of_listed[image.image_id]) == 1
        else image._replace(image_id=pathlib.PurePath(os.path.relpath(path, root)).as_posix())
        for path, image in listed.items()
    ]


def class_names_of(images: Iterable[ListedImage]) -> tuple[str, ...] | None:
    """The classes of all objects, usable or not, sorted; None without objects. No image is read."""
    names: set[str] = set()
    for image in images:
        with contextlib.suppress(UnusableFile):
            names |= {item.class_name for item in image.read((1, 1)).objects}
    return tuple(sorted(names - {""})) or None


def parts_of(found: Found) -> tuple[dict[str, ReadSplit], list[str]]:
    """The splits that the data have, and the names of those that may be asked for."""
    splits = dict(found.splits)
    if "" in splits and "train" not in splits:  # all images, or all but those of val and test
        splits["train"] = splits.pop("")
    has_val = {"train", "val"} & splits.keys()
    return splits, [one for one in SPLITS if one in splits or (one == "val" and has_val)]


def choose(
    found: Found,
    root: str,
    files: Sequence[str],
    wanted: Sequence[str],
    eval_fraction: float,
    report: Report,
) -> Split:
    """The images of the wanted splits; `report.found` says where they come from.

    Images are sorted by their ids and classes by their names: the same in every format.

    A data set without a "val" gets one from its training images: those whose id has a SHA-256 below
    `eval_fraction` of the largest, at least one. An image keeps its place when others are added.

    Raises:
      UserError: there is no such split.
    """
    names = [name for one in wanted for name in one.split("+")]
    splits, known = parts_of(found)
    own_val = "val" in known and "val" not in splits
    chosen = Split([])
    for name in names:
        split = split_of_name(name)
        if name != "all" and split not in known:
            raise UserError(
                f"expected splits among {', '.join(known)} and all, found {name!r}: the "
                f"data in {root} are {found.format} ({found.why})"
            )
        divided = own_val and split in ("train", "val")
        for part in splits if name == "all" else ["train" if divided else split]:
            images, classes, category_ids = splits[part](report)
            images = with_ids(images, root, files, report)
            if divided:  # a rare class may have no object in one of the two
                classes = classes or class_names_of(images)
                in_val = _in_val([image.image_id for image in images], eval_fraction)
                rows = zip(images, in_val, strict=True)
                images = [image for image, inside in rows if inside == (split == "val")]
            chosen = Split(
                [*chosen.images, *images],
                classes and tuple(sorted({*(chosen.class_names or ()), *classes})),
                category_ids and {**category_ids, **(chosen.category_ids or {})},
            )
    if "" in splits and "train" in map(split_of_name, names):
        for image in splits[""](Report()).images:
            report.skip("image is in no split", image.image_id)
    report.found = f"{found.format} ({found.why})"
    if own_val:
        report.found += f", without a val split: {eval_fraction:.0%} of its images are val"
    images = with_ids(chosen.images, root, files, report)
    return chosen._replace(images=sorted(images, key=lambda image: image.image_id))


def _in_val(image_ids: Sequence[str], fraction: float) -> list[bool]:
    hashes = [hashlib.sha256(one.encode(errors="backslashreplace")).digest() for one in image_ids]
    limit = max(int(fraction * 2**64).to_bytes(8), min(hashes, default=b"")[:8])
    return [one[:8] <= limit for one in hashes]
