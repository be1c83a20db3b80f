"""A VOCdevkit-style tree on disk: which files a split such as "VOC2012:train+val" lists.

    root/<dataset>/JPEGImages/<id>.jpg          or .jpeg, .png, .bmp, .webp
    root/<dataset>/Annotations/<id>.xml
    root/<dataset>/ImageSets/Main/<set>.txt     an id per line

"<dataset>:all" needs no ImageSets: it is every image and annotation there is.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from yolov1_jax.data import images
from yolov1_jax.data.dataset import SourceReport
from yolov1_jax.errors import UserError

# The lists per class of the devkit ("dog_train.txt") say after each id whether the class is in it.
_WITH_FLAG = re.compile(r"(.*\S)\s+(-1|0|1)")
_MOST_SETS_NAMED = 8


class ListedImage(NamedTuple):
    """An id of a list with the files that belong to it, relative to the root."""

    image_id: str  # "VOC2012/2008_000008"
    image_path: str | None  # None: there is no such file
    annotation_path: str | None


def list_images(
    root: str | os.PathLike, splits: Sequence[str], report: SourceReport
) -> list[ListedImage]:
    """The images of several splits, in the order of the lists, each once.

    Args:
      root: the folder that holds the data sets.
      splits: such as ("VOC2012:train+val", "VOC2007:train").
      report: notes repeated ids, and images of which there are two, as corrected; and as skipped
        the files whose names are not UTF-8, which no list and no result could tell of.

    Raises:
      UserError: a split is not written DATASET:SET, or it is not there.
    """
    root = pathlib.Path(root)
    if not splits:
        raise UserError("expected at least one split such as VOC2012:train, found none")
    if not root.is_dir():
        raise UserError(f"expected the data's root folder at {root}, found none; set data.root")
    listed: dict[str, ListedImage] = {}
    for split in splits:
        dataset, set_names = _parse(split)
        folder = root / dataset
        _check_folder(root, dataset)
        photos = _files_by_id(folder / "JPEGImages", images.EXTENSIONS)
        notes = _files_by_id(folder / "Annotations", (".xml",))
        known = photos.keys() | notes.keys()
        for set_name in set_names:
            ids = _read_set(folder, set_name, known)
            if not ids:
                raise UserError(f"{split}: expected a list of images, found an empty one")
            for name in ids:
                image_id = f"{dataset}/{name}"
                shown = os.fsencode(image_id).decode(errors="replace")
                if shown != image_id:
                    report.skip("file name is not UTF-8", shown)
                    continue
                if image_id in listed:
                    report.correct("listed more than once, used once", image_id)
                    continue
                if len(photos.get(name, ())) > 1:
                    report.correct("several images of one name, one used", image_id)
                listed[image_id] = ListedImage(
                    image_id,
                    _first(f"{dataset}/JPEGImages", photos.get(name)),
                    _first(f"{dataset}/Annotations", notes.get(name)),
                )
    return list(listed.values())


def _parse(split: str) -> tuple[str, list[str]]:
    dataset, _, sets = split.partition(":")
    set_names = sets.split("+")
    if not dataset or not all(set_names):
        raise UserError(
            f"expected a split written DATASET:SET or DATASET:SET+SET, such as VOC2012:train,"
            f' found "{split}"'
        )
    return dataset, set_names


def _check_folder(root: pathlib.Path, dataset: str) -> None:
    wanted = ("JPEGImages", "Annotations")
    missing = [name for name in wanted if not (root / dataset / name).is_dir()]
    if not missing:
        return
    if all((root / name).is_dir() for name in wanted):
        hint = f"{root} is itself a data set: set data.root to {root.parent} and name it in splits"
    elif (root / dataset).is_dir():
        hint = f"{dataset} holds {_names(_subfolders(root / dataset)) or 'no folders'}"
    else:
        found = [name for name in _subfolders(root) if (root / name / wanted[1]).is_dir()]
        hint = f"found {_names(found) or 'no data set'} in {root}"
    raise UserError(f"expected the folders {' and '.join(missing)} in {root / dataset}; {hint}")


def _files_by_id(folder: pathlib.Path, extensions: Sequence[str]) -> dict[str, list[str]]:
    """File names by stem, sorted by extension as given; hidden files are no data."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in os.listdir(folder):
        stem, extension = os.path.splitext(name)
        if extension.lower() in extensions and not name.startswith("."):
            found.setdefault(stem, []).append((extensions.index(extension.lower()), name))
    return {stem: [name for _, name in sorted(files)] for stem, files in found.items()}


def _read_set(folder: pathlib.Path, set_name: str, known: set[str]) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{set_name}.txt"
    if not path.is_file():
        if set_name == "all":
            return sorted(known)
        sets = _available_sets(path.parent)
        raise UserError(
            f"expected the list {path}, found {_names(sets) or 'no lists'} there;"
            f" {folder.name}:all takes every image of {folder}"
        )
    # utf-8-sig: editors on Windows put a byte order mark in front
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [_id_of_line(line.strip(), known) for line in lines if line.strip()]


def _id_of_line(line: str, known: set[str]) -> str:
    """The id in a line, which may carry a flag of a per-class list or a file's extension."""
    flagged = _WITH_FLAG.fullmatch(line)
    for name in (line, flagged[1] if flagged else line):
        stem, extension = os.path.splitext(name)
        if name in known:
            return name
        if stem in known and extension.lower() in images.EXTENSIONS:
            return stem
    return flagged[1] if flagged else line


def _available_sets(folder: pathlib.Path) -> list[str]:
    if not folder.is_dir():
        return []
    # Lists per class ("dog_train") come last: there are dozens in the devkit.
    return sorted(
        (path.stem for path in folder.glob("*.txt")), key=lambda set_: ("_" in set_, set_)
    )


def _subfolders(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_SETS_NAMED
    return ", ".join(names[:_MOST_SETS_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _first(folder: str, names: list[str] | None) -> str | None:
    return f"{folder}/{names[0]}" if names else None
