"""Opens a source of data by the name that `config.data.source` gives it.

A folder is opened in three steps: its format is found out, the reader of the format lists the
images of the splits, and `AnnotatedImages` reads and checks them.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from yolov1_jax.config import UserError, local_path
from yolov1_jax.data import coco_json, image_folder, voc_folder, yolo_txt
from yolov1_jax.data.annotated_images import AnnotatedImages, ListedImage
from yolov1_jax.data.dataset import Report, Source, UnusableFile, first_of, shortened
from yolov1_jax.data.own_folder import (
    SPLITS,
    Found,
    Split,
    files_below,
    has_extension,
    image_id,
    report_unused,
    split_of_name,
)
from yolov1_jax.data.synthetic import SyntheticSource

FORMATS = ("auto", "voc", "yolo", "coco", "classes")


def open_source(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    splits: Sequence[str],
    class_names: Sequence[str] | None,
    image_size: int = 192,
    seed: int = 0,
    **folder_options: Any,
) -> Source:
    """Opens the splits of a source; UserError for whatever is wrong with the data.

    Args:
      name: "tfds", "folder" or "synthetic".
      root: tfds's data_dir (None for its default), or the folder of the data of "folder".
      splits: see `VocSource`, `open_folder`; of "synthetic" one, "eval", or "eval:100" for its
        first 100 images.
      class_names: index = label; None for the source's own.
      image_size, seed: of synthetic images.
      folder_options: see `open_folder`; other sources take none of them.
    """
    if name == "folder":
        return open_folder(root or ".", splits, class_names, **folder_options)
    source: Source
    if name == "tfds":
        from yolov1_jax.data.voc_tfds import VocSource  # a second that other sources do not need

        source = VocSource(splits, root)
    else:
        match = re.fullmatch(r"(\w+)(?::([1-9]\d*))?", ",".join(splits))
        if match is None:
            raise UserError(f"expected a split such as eval or eval:100, found {','.join(splits)}")
        split, count = match.groups()
        source = SyntheticSource(split, int(count) if count else None, image_size, seed)
    if class_names is not None and tuple(class_names) != tuple(source.class_names):
        raise UserError(
            f"expected the classes {', '.join(source.class_names)} of this source, found"
            f" {', '.join(class_names)}: leave config.model.class_names unset"
        )
    return source


def open_folder(
    root: str | os.PathLike[str],
    splits: Sequence[str],
    class_names: Sequence[str] | None = None,
    *,
    data_format: str = "auto",
    eval_fraction: float = 0.2,
    **options: Any,
) -> AnnotatedImages:
    """Opens splits of own data in a folder, images sorted by their ids, classes by their names.

    A data set without a "val" gets one from its training images: those whose id has a SHA-256 below
    `eval_fraction` of the largest, at least one. An image keeps its place when others are added.
    UserError for whatever is wrong with the data.

    Args:
      splits: "train", "val" (or "valid", "validation"), "test" or "all". Or, of folders of the VOC
        devkit, DATASET:SET+SET, whose images stay in the order of the lists.
      class_names: index = label; None for those that the data set states, or has objects of.
      data_format: "voc", "yolo", "coco"; "auto" finds it out. Or "classes", of `image_folder`.
      eval_fraction: part of the images, for a data set without a "val".
      options: `unknown_classes`, `unannotated` and `images_required` of `AnnotatedImages`.
    """
    folder = _folder(root)
    chosen, report = _list_folder(folder, splits, data_format, eval_fraction)
    return AnnotatedImages(
        folder,
        chosen.images,
        report,
        chosen.class_names if class_names is None else class_names,
        category_ids=chosen.category_ids,
        splits=", ".join(splits),
        **options,
    )


def splits_of_folder(root: str | os.PathLike[str], data_format: str = "auto") -> list[str]:
    """The names of the splits that `open_folder` has of a folder."""
    folder = _folder(root)
    found = _with_val(_find_format(folder, files_below(folder), data_format))
    return [split for split in SPLITS if split in found.splits]


def class_names_of_folder(
    root: str | os.PathLike[str], splits: Sequence[str], data_format: str = "auto"
) -> tuple[str, ...] | None:
    """The classes of the whole data sets that the splits are of; no image is read."""
    whole = {f"{one.partition(':')[0]}:all" if ":" in one else "all" for one in splits}
    chosen, _ = _list_folder(_folder(root), sorted(whole), data_format)
    return chosen.class_names or _class_names_of(chosen.images)


def _folder(root: str | os.PathLike[str]) -> str:
    folder = os.path.abspath(local_path(root))
    if not os.path.isdir(folder):
        raise UserError(f"expected a folder of images and annotations at {folder}, found none")
    return folder


def _list_folder(
    folder: str, wanted: Sequence[str], data_format: str, eval_fraction: float = 0.2
) -> tuple[Split, Report]:
    """The images of the wanted splits, and a report that says where they come from."""
    files, of_lists = files_below(folder), any(":" in split for split in wanted)
    data_format = "voc" if of_lists and data_format == "auto" else data_format
    whole = _find_format(folder, files, data_format)
    found = _with_val(whole, eval_fraction)
    report = found.report
    report.found = f"{found.format} ({found.why})"
    names = [name for split in wanted for name in _names_in(split)]
    choices = found.lists if of_lists else found.splits
    if unknown := [name for name in names if name not in (*choices, "all")]:
        # Lists of a class ("dog_train") come last: the devkit has dozens.
        known = sorted((key.lstrip(":") for key in choices), key=lambda one: ("_" in one, one))
        raise UserError(
            f"expected splits in {folder} among {first_of(known)}, found {unknown[0]!r}: the data "
            f"are {report.found}"
        )
    keys = [key for name in names for key in (found.splits if name == "all" else [name])]
    parts = [choices[key]() for key in keys]
    if "" in found.splits and "train" in names:
        for image in found.splits[""]().images:
            report.skipped["image is in no split"].append(image.image_id)

    # Files of no split are named once, with the first split of a run.
    first = next(one for one in SPLITS if one in found.splits)
    reads = [*whole.splits.values()] if {"all", first} & {*names} else []
    if of_lists:  # and lists of a class have no images that others have not
        datasets = tuple(f"{name.partition(':')[0]}/" for name in names)
        files = [file for file in files if file.startswith(datasets)]
        sets = {key: key.rpartition(":")[2] for key in found.lists}
        used = [key for key in sets if key in names or not ("_" in sets[key] or sets[key] == "all")]
        reads = [found.lists[key] for key in used]
    if reads:
        report_unused(files, found.files, [one for read in reads for one in read().images], report)

    images = [image for part in parts for image in part.images]
    if not of_lists:
        # Images of the same id, in whatever splits, have their paths instead.
        ids = collections.Counter(image_id(file) for file in files if has_extension(file))
        again = {one for one, count in ids.items() if count > 1}
        images = [
            one._replace(image_id=one.path or "") if one.image_id in again else one
            for one in images
        ]
        images.sort(key=lambda image: image.image_id)
    classes = {name for part in parts for name in part.class_names or ()}
    numbers = {k: v for part in reversed(parts) for k, v in (part.category_ids or {}).items()}
    return Split(images, tuple(sorted(classes)) or None, numbers or None), report


def _names_in(split: str) -> list[str]:
    """The names in "train+valid" or "DATASET:SET+SET"."""
    dataset, colon, sets = split.rpartition(":")
    names = sets.split("+")
    return [f"{dataset}:{one}" if colon else split_of_name(one) or one for one in names]


def _find_format(root: str, files: Sequence[str], data_format: str = "auto") -> Found:
    """The data set in a folder."""
    finders: dict[str, Callable[[str, Sequence[str]], Found | None]] = {
        "voc": voc_folder.find,
        "yolo": yolo_txt.find,
        "coco": coco_json.find,
        "classes": image_folder.find,
    }
    names = [data_format] if data_format in finders else ["voc", "yolo", "coco"]
    found = {name: one for name in names if (one := finders[name](root, files))}
    if len(found) > 1:
        described = " and ".join(f"{one.format} ({one.why})" for one in found.values())
        raise UserError(
            f"expected annotations of one format in {root}, found {shortened(described, 600)}: say "
            f"which with --config.data.format={' or '.join(found)} (inspect, evaluate: --format)"
        )
    for one in found.values():
        return one
    endings = sorted({os.path.splitext(file)[1].lower() for file in files} - {""})
    raise UserError(
        f"expected images with VOC XML, YOLO text or COCO JSON in {root}, found "
        f"{len(files):,} files ({', '.join(endings[:8]) or 'no endings'}), none of them "
        f"{'an annotation' if data_format == 'auto' else data_format}: give the folder that holds "
        "images and annotations (or, to classify images in a folder for each class, format classes)"
    )


def _with_val(found: Found, eval_fraction: float = 0.2) -> Found:
    """The data set with a "val", if it has images to train on."""
    splits = dict(found.splits)
    if "train" not in splits and "" in splits:  # all images, or all but those of val and test
        splits["train"] = splits.pop("")
    if "val" in splits or "train" not in splits:
        return dataclasses.replace(found, splits=splits)
    read_all = splits["train"]

    def read_part(is_val: bool) -> Split:
        images, class_names, category_ids = read_all()
        ids = [image.image_id.encode(errors="backslashreplace") for image in images]
        hashes = [hashlib.sha256(one).digest()[:8] for one in ids]
        limit = max(int(eval_fraction * 2**64).to_bytes(8), min(hashes, default=b""))
        part = [one for one, own in zip(images, hashes, strict=True) if (own <= limit) == is_val]
        # A rare class may have no object in one of the two.
        return Split(part, class_names or _class_names_of(images), category_ids)

    splits |= {"train": lambda: read_part(False), "val": lambda: read_part(True)}
    why = f"{found.why}; no val split: about {eval_fraction:.0%} of the images are val"
    return dataclasses.replace(found, splits=splits, why=why)


def _class_names_of(images: Iterable[ListedImage]) -> tuple[str, ...] | None:
    """The classes of all objects, usable or not, sorted; None without objects. No image is read."""
    names: set[str] = set()
    for image in images:
        with contextlib.suppress(UnusableFile):
            if annotation := image.read((1, 1)):
                names |= {item.class_name for item in annotation.objects}
    return tuple(sorted(names - {""})) or None
