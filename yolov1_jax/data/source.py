"""Opens a source of data by the name that `config.data.source` gives it."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from yolov1_jax.config import UserError, local_path
from yolov1_jax.data import coco_json, voc_layouts, yolo_txt
from yolov1_jax.data.annotated_images import AnnotatedImages, files_below
from yolov1_jax.data.dataset import Report, Source, shortened
from yolov1_jax.data.images import OTHER_EXTENSIONS
from yolov1_jax.data.own_folder import (
    Found,
    Split,
    choose,
    class_names_of,
    has_extension,
    parts_of,
    split_of,
    split_of_name,
)
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.data.voc_folder import list_voc

FORMATS = ("auto", "voc", "yolo", "coco")


def open_source(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    splits: Sequence[str],
    class_names: Sequence[str] | None,
    data_format: str = "auto",
    eval_fraction: float = 0.2,
    unknown_classes: str = "refuse",
    unannotated: str = "skip",
    images_required: bool = True,
    image_size: int = 192,
    seed: int = 0,
) -> Source:
    """Opens the splits of a source.

    Args:
      name: "tfds", "folder" or "synthetic".
      root: tfds's data_dir (None for its default), or the folder of the data of "folder".
      splits: see `VocSource`, `open_folder`; of "synthetic" one, "eval", or "eval:100" for its
        first 100 images.
      class_names: index = label; None for the source's own.
      data_format, eval_fraction, unknown_classes, unannotated, images_required: see `open_folder`.
      image_size, seed: of synthetic images.

    Raises:
      UserError: whatever is wrong with the data.
    """
    if name == "folder":
        return open_folder(
            root or ".",
            splits,
            class_names,
            data_format=data_format,
            eval_fraction=eval_fraction,
            unknown_classes=unknown_classes,
            unannotated=unannotated,
            images_required=images_required,
        )
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

    Args:
      root: the folder, or a data.yaml or an annotations JSON in it.
      splits: "train", "val" (or "valid", "validation"), "test" or "all"; see `choose`. Or, of
        folders of the VOC devkit, DATASET:SET+SET; see `list_voc`.
      class_names: index = label; None for those that the data set states, or has objects of.
      data_format: "voc", "yolo", "coco"; "auto" finds it out.
      eval_fraction: of the images, for a data set without a "val".
      unknown_classes: whether objects of other classes are an error ("refuse"), or left out
        ("skip").
      unannotated: whether images without an annotation file are left out ("skip"), or "background".
        It is for VOC; YOLO text without a file of labels is background in any case.
      images_required: False also takes annotations without an image, to evaluate detections.

    Raises:
      UserError: whatever is wrong with the data.
    """
    report = Report()
    options = {"unannotated": unannotated, "images_required": images_required}
    chosen = _list_folder(root, splits, report, data_format, eval_fraction, options)
    return AnnotatedImages(
        chosen.images,
        report,
        class_names,
        file_classes=chosen.class_names,
        category_ids=chosen.category_ids,
        unknown_classes=unknown_classes,
        images_required=images_required,
        where=f"{', '.join(splits)} of {root}",
    )


def splits_of_folder(root: str | os.PathLike[str], data_format: str = "auto") -> list[str]:
    """The names of the splits that `open_folder` has of a folder; UserError as there."""
    files, folder = _files(os.path.abspath(local_path(root)))
    return parts_of(find_format(folder, files, data_format))[1]


def class_names_of_folder(
    root: str | os.PathLike[str], splits: Sequence[str], data_format: str = "auto"
) -> tuple[str, ...] | None:
    """The classes of the whole data sets that the splits are of; no image is read.

    Raises:
      UserError: as `open_folder`.
    """
    whole = dict.fromkeys(f"{one.partition(':')[0]}:all" if ":" in one else "all" for one in splits)
    options = {"images_required": False}
    chosen = _list_folder(root, list(whole), Report(), data_format, 0.5, options)
    return chosen.class_names or class_names_of(chosen.images)


def _list_folder(
    root: str | os.PathLike[str],
    splits: Sequence[str],
    report: Report,
    data_format: str,
    eval_fraction: float,
    options: dict[str, Any],
) -> Split:
    root = os.path.abspath(local_path(root))
    if any(":" in split for split in splits):
        if data_format not in ("auto", "voc"):
            raise UserError(
                f"expected splits such as train, val, test for the format {data_format}, found "
                f"{', '.join(splits)}: DATASET:SET is for folders of the VOC devkit"
            )
        return Split(list_voc(root, splits, report, **options))
    files, folder = _files(root)
    found = find_format(folder, files, data_format, **options)
    wanted = {split_of_name(one) for split in splits for one in split.split("+")}
    for file in files:
        if has_extension(file, OTHER_EXTENSIONS) and (split_of(file) or "train") in wanted:
            report.skip("image is of a format that is not read", file)
    return choose(found, folder, files, splits, eval_fraction, report)


def _files(root: str) -> tuple[list[str], str]:
    """The files of a data set and their folder; of a file, it stands for all of its kind."""
    folder, given = (os.path.split(root)) if os.path.isfile(root) else (root, None)
    if not os.path.isdir(folder):
        raise UserError(f"expected a folder of images and annotations at {root}, found none")
    files = files_below(folder)
    if given is not None:
        kind = os.path.splitext(given)[1]
        files = [one for one in files if one == given or not has_extension(one, (kind,))]
    return files, folder


def find_format(
    root: str, files: Sequence[str], data_format: str = "auto", **options: Any
) -> Found:
    """Finds out what a folder holds. `options` are those of `voc_layouts.find`.

    Raises:
      UserError: nothing, or several formats.
    """
    finders: dict[str, Callable[[str, Sequence[str]], Found | None]] = {
        "voc": functools.partial(voc_layouts.find, **options),
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
    endings = sorted({os.path.splitext(file)[1].lower() for file in files} - {""})
    raise UserError(
        f"expected images with VOC XML, YOLO text or COCO JSON in {root}, found "
        f"{len(files):,} files ({', '.join(endings[:8]) or 'no endings'}), none of them "
        f"{'an annotation' if data_format == 'auto' else data_format}: give the folder that holds "
        "images and annotations"
    )
