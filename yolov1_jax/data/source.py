"""Opens a source of data by the name that `config.data.source` gives it.

A folder is opened in three steps: its format is found out, the reader of the format lists the
images of the splits, and `AnnotatedImages` reads and checks them.
"""

import collections
import contextlib
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from yolov1_jax.config import UserError, local_path
from yolov1_jax.data import coco_json, voc_folder, yolo_txt
from yolov1_jax.data.annotated_images import AnnotatedImages, ListedImage
from yolov1_jax.data.dataset import Report, Source, UnusableFile, shortened
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

FORMATS = ("auto", "voc", "yolo", "coco")


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
    """Opens the splits of a source.

    Args:
      name: "tfds", "folder" or "synthetic".
      root: tfds's data_dir (None for its default), or the folder of the data of "folder".
      splits: see `VocSource`, `open_folder`; of "synthetic" one, "eval", or "eval:100" for its
        first 100 images.
      class_names: index = label; None for the source's own.
      image_size, seed: of synthetic images.
      folder_options: see `open_folder`; other sources take none of them.

    Raises:
      UserError: whatever is wrong with the data.
    """
    if name == "folder":
        return open_folder(root or ".", splits, class_names, **folder_options)
    source: Source
    if name == "tfds":
        from yolov1_jax.data.voc_tfds import VocSource  # a second that other sources do not need

        source = VocSource(splits, root)
    else:
        match = re.fullmatch(r"(\w+)(?::(\d+))?", ",".join(splits))
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
    unknown_classes: str = "refuse",
    unannotated: str = "skip",
    images_required: bool = True,
) -> AnnotatedImages:
    """Opens splits of own data in a folder.

    Images are sorted by their ids and classes by their names: the same in every format.

    A data set without a "val" gets one from its training images: those whose id has a SHA-256 below
    `eval_fraction` of the largest, at least one. An image keeps its place when others are added.

    Args:
      root: the folder, or a data.yaml or an annotations JSON in it.
      splits: "train", "val" (or "valid", "validation"), "test" or "all". Or, of folders of the VOC
        devkit, DATASET:SET+SET, whose images stay in the order of the lists; see `list_voc`.
      class_names: index = label; None for those that the data set states, or has objects of.
      data_format: "voc", "yolo", "coco"; "auto" finds it out.
      eval_fraction: part of the images, for a data set without a "val".
      unknown_classes: whether objects of other classes are an error ("refuse"), or left out
        ("skip").
      unannotated: whether images without an annotation file are left out ("skip"), or "background".
        It is for VOC; YOLO text without a file of labels is background in any case.
      images_required: False also takes annotations without an image, to evaluate detections.

    Raises:
      UserError: whatever is wrong with the data.
    """
    chosen, report = _list_folder(root, splits, data_format, eval_fraction)
    return AnnotatedImages(
        chosen.images,
        report,
        chosen.class_names if class_names is None else class_names,
        category_ids=chosen.category_ids,
        unknown_classes=unknown_classes,
        unannotated=unannotated,
        images_required=images_required,
        where=f"{', '.join(splits)} of {root}",
    )


def splits_of_folder(root: str | os.PathLike[str], data_format: str = "auto") -> list[str]:
    """The names of the splits that `open_folder` has of a folder; UserError as there."""
    found = _with_val(_find_format(*_files(root), data_format))
    return [split for split in SPLITS if split in found.splits]


def class_names_of_folder(
    root: str | os.PathLike[str], splits: Sequence[str], data_format: str = "auto"
) -> tuple[str, ...] | None:
    """The classes of the whole data sets that the splits are of; no image is read.

    Raises:
      UserError: as `open_folder`.
    """
    whole = {f"{one.partition(':')[0]}:all" if ":" in one else "all" for one in splits}
    chosen, _ = _list_folder(root, sorted(whole), data_format)
    return chosen.class_names or _class_names_of(chosen.images)


def _list_folder(
    root: str | os.PathLike[str],
    wanted: Sequence[str],
    data_format: str,
    eval_fraction: float = 0.2,
) -> tuple[Split, Report]:
    """The images of the wanted splits, and a report that says where they come from."""
    if data_format in ("auto", "voc") and any(":" in split for split in wanted):
        folder = os.path.abspath(local_path(root))
        report = Report()
        parts = [voc_folder.list_voc(folder, split, report) for split in wanted]
        return Split([image for part in parts for image in part]), report
    folder, files = _files(root)
    whole = _find_format(folder, files, data_format)
    found = _with_val(whole, eval_fraction)
    report = found.report
    names = [split_of_name(name) or name for split in wanted for name in split.split("+")]
    ids = collections.Counter(image_id(file) for file in files if has_extension(file))
    known = [split for split in SPLITS if split in found.splits]
    chosen = Split([])
    for name in names:
        if name not in (*known, "all"):
            raise UserError(
                f"expected splits among {', '.join(known)} and all, found {name!r}: the "
                f"data in {folder} are {found.format} ({found.why})"
            )
        for part in found.splits if name == "all" else [name]:
            images, classes, category_ids = found.splits[part]()
            chosen = Split(
                [*chosen.images, *images],
                classes and tuple(sorted({*(chosen.class_names or ()), *classes})),
                category_ids and {**category_ids, **(chosen.category_ids or {})},
            )
    if "" in found.splits and "train" in names:
        for image in found.splits[""]().images:
            report.skipped["image is in no split"].append(image.image_id)
    if {"all", known[0]} & set(names):  # once for the splits of a run
        everything = [image for read in whole.splits.values() for image in read().images]
        report_unused(folder, files, found.files, everything, report)
    report.found = f"{found.format} ({found.why})"
    # Images of the same id, in whatever splits, have their paths instead.
    images = [
        one._replace(image_id=pathlib.PurePath(os.path.relpath(one.path, folder)).as_posix())
        if ids[one.image_id] > 1
        else one
        for one in chosen.images
    ]
    return chosen._replace(images=sorted(images, key=lambda image: image.image_id)), report


def _files(root: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """The folder of a data set and its files; a file stands for all of its kind."""
    path = os.path.abspath(local_path(root))
    folder, given = os.path.split(path) if os.path.isfile(path) else (path, "")
    if not os.path.isdir(folder):
        raise UserError(f"expected a folder of images and annotations at {path}, found none")
    kind = os.path.splitext(given)[1]
    files = files_below(folder)
    return folder, [one for one in files if one == given or not kind or not one.endswith(kind)]


def _find_format(root: str, files: Sequence[str], data_format: str = "auto") -> Found:
    """The data set in a folder."""
    finders: dict[str, Callable[[str, Sequence[str]], Found | None]] = {
        "voc": voc_folder.find,
        "yolo": yolo_txt.find,
        "coco": coco_json.find,
    }
    names = [data_format] if data_format in finders else list(finders)
    found = {name: one for name in names if (one := finders[name](root, files))}
    if len(found) > 1:
        described = " and ".join(f"{one.format} ({one.why})" for one in found.values())
        raise UserError(
            f"expected annotations of one format in {root}, found {shortened(described, 600)}: say "
            f"which with --config.data.format={' or '.join(found)} (inspect, evaluate: --format)"
        )
    for one in found.values():
        return one
    for file in filter(coco_json.is_named_as_coco, files):
        coco_json.read_coco(os.path.join(root, file))  # says what is wrong with it
    endings = sorted({os.path.splitext(file)[1].lower() for file in files} - {""})
    raise UserError(
        f"expected images with VOC XML, YOLO text or COCO JSON in {root}, found "
        f"{len(files):,} files ({', '.join(endings[:8]) or 'no endings'}), none of them "
        f"{'an annotation' if data_format == 'auto' else data_format}: give the folder that holds "
        "images and annotations"
    )


def _with_val(found: Found, eval_fraction: float = 0.2) -> Found:
    """The data set with a "val", if it has images to train on."""
    splits = dict(found.splits)
    if "train" not in splits and "" in splits:  # all images, or all but those of val and test
        splits["train"] = splits.pop("")
    if "val" in splits or "train" not in splits:
        return found._replace(splits=splits)
    read = functools.partial(_read_part, splits["train"], eval_fraction)
    splits |= {part: functools.partial(read, part == "val") for part in ("train", "val")}
    why = f"{found.why}; without a val split: {eval_fraction:.0%} of its images are val"
    return found._replace(splits=splits, why=why)


def _class_names_of(images: Iterable[ListedImage]) -> tuple[str, ...] | None:
    """The classes of all objects, usable or not, sorted; None without objects. No image is read."""
    names: set[str] = set()
    for image in images:
        with contextlib.suppress(UnusableFile):
            if annotation := image.read((1, 1)):
                names |= {item.class_name for item in annotation.objects}
    return tuple(sorted(names - {""})) or None


def _read_part(read: Callable[[], Split], eval_fraction: float, is_val: bool) -> Split:
    """The images of the training split that are in "val", or the others."""
    images, class_names, category_ids = read()
    ids = [image.image_id.encode(errors="backslashreplace") for image in images]
    hashes = [hashlib.sha256(one).digest()[:8] for one in ids]
    limit = max(int(eval_fraction * 2**64).to_bytes(8), min(hashes, default=b""))
    return Split(
        [one for one, own in zip(images, hashes, strict=True) if (own <= limit) == is_val],
        class_names or _class_names_of(images),  # a rare class may have no object in one of the two
        category_ids,
    )
