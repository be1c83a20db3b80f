"""YOLO text: a file for each image with a line "class x y width height" for each object.

    images/a.jpg, labels/a.txt                or both in one folder; see `own_folder.match`
    train/images, train/labels, valid/...     or images/train, labels/train, ...
    train.txt, val.txt                        the paths of a split's images, instead of folders
    data.yaml                                 names: of the classes; train:, val:, test: paths

x, y are the centre; all four are fractions of the image's size. A line of more numbers is a
polygon, "class x1 y1 x2 y2 ...". A class is its place among the names, from 0. This is what
Ultralytics, Roboflow, CVAT, Label Studio, LabelImg and Darknet write.
"""

import functools
import os
import pathlib
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.own_folder import (
    Found,
    Lookup,
    Split,
    class_name,
    ends_of,
    has_extension,
    image_id,
    listed,
    match,
    split_of,
    split_of_name,
)

_LARGEST_LABELS, _LARGEST_YAML = 2**21, 2**17  # bytes; far above what tools write


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if no image has a file of labels.

    Raises:
      UserError: data.yaml cannot be read, or has no list of names.
    """
    pairs = match(files, ".txt").values()
    labelled = [(pair.image, pair.annotation) for pair in pairs if pair.image and pair.annotation]
    if not labelled:
        return None
    # Files elsewhere, such as the images of a report, are not of the data set.
    image_folders = {os.path.dirname(image) for image, _ in labelled}
    label_folders = {os.path.dirname(text) for _, text in labelled}
    texts = {file for file in files if has_extension(file, (".txt",))}
    lists = {text: split for text in sorted(texts) if (split := split_of_name(_stem(text)))}
    of_image, report = {}, Report()
    for pair in pairs:
        folders = os.path.dirname(pair.image or pair.annotation or "")
        if pair.image and (folders in image_folders or "images" in folders.lower().split("/")):
            of_image[pair.image] = pair
        text = pair.annotation or ""
        if not pair.image and folders in label_folders and not _is_list(text):
            report.skipped["label file without an image"].append(text)

    config_path, config = _read_config(root, files)
    names, why = _class_names(root, files, config)
    entries = list(_entries(os.path.dirname(config_path), config))
    parts = _by_entries(root, of_image, texts, entries)
    if not parts:
        entries = [(lists[text], [text]) for text in lists]
        parts = _by_entries(root, of_image, texts, entries)
        why = f"{'lists' if parts else 'labels in ' + (min(label_folders) or '.') + '/'}, {why}"
    in_lists = {image for images in parts.values() for image in images}
    for image in of_image:
        if image not in in_lists:
            parts.setdefault("" if in_lists else split_of(image), {})[image] = None

    stated = None if names is None else tuple(names.values())
    read = functools.partial(_read, names=names, has_keypoints="kpt_shape" in config)
    splits = {}
    for split, images in parts.items():
        part = [
            # Boxes are fractions of the image as viewers show it, turned by EXIF.
            listed(root, of_image[one], image_id(one), read, upright=True)
            for one in images
        ]
        splits[split] = functools.partial(Split, part, stated)
    used_lists = texts.intersection(place for _, places in entries for place in places)
    orphans = report.skipped.get("label file without an image", ())
    own = {config_path, *filter(_is_list_of_names, files), *used_lists, *orphans}
    return Found("YOLO text", why, splits, report, own)


def _stem(path: str) -> str:
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def _read_config(root: str, files: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The path and the content of data.yaml, or of another file that has names; else empty."""
    paths = [file for file in files if has_extension(file, (".yaml", ".yml"))]
    for path in sorted(paths, key=lambda one: (one.count("/"), _stem(one) != "data")):
        file = pathlib.Path(root, path)
        try:
            if file.stat().st_size > _LARGEST_YAML:
                continue
            # BaseLoader leaves all values texts: "no" is a name of a class, not False.
            content = yaml.load(file.read_text("utf-8-sig"), yaml.BaseLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"expected YAML in {file}, found: {reason}; correct it") from None
        if isinstance(content, dict) and "names" in content:
            return path, content
    return "", {}


def _class_names(
    root: str, files: Sequence[str], config: Mapping[str, Any]
) -> tuple[dict[int, str] | None, str]:
    """The name of each number, and where they stand; None if nothing says them."""
    if "names" in config:
        given = config["names"]
        try:
            if isinstance(given, str):
                raise TypeError("a single text")
            pairs = given.items() if isinstance(given, dict) else enumerate(given)
            return {int(number): class_name(name) for number, name in pairs}, "data.yaml"
        except (ValueError, TypeError):
            raise UserError(
                f"expected names of classes, a list or number: name, in the data.yaml of {root}"
            ) from None
    for file in filter(_is_list_of_names, files):
        text = pathlib.Path(root, file).read_text("utf-8-sig", errors="replace")
        lines = [class_name(line) for line in text.splitlines() if line.strip()]
        return dict(enumerate(lines)), file
    return None, "no data.yaml or classes.txt: the classes are numbers"


def _is_list(file: str) -> bool:
    return _is_list_of_names(file) or bool(split_of_name(_stem(file)))


def _is_list_of_names(file: str) -> bool:
    name = file.rsplit("/", 1)[-1].lower()
    return name == "classes.txt" or name.endswith(".names")


def _entries(folder: str, config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Splits and the places that data.yaml, in this folder, may mean by a path of theirs."""
    start = config.get("path", "")
    for key, value in config.items():
        for entry in value if isinstance(value, list) else [value]:
            if split_of_name(key) and isinstance(entry, str) and entry:
                # Roboflow writes ../train/images for train/images; others give a start.
                paths = [posixpath.join(folder, entry), entry]
                if isinstance(start, str):
                    paths.insert(0, posixpath.join(folder, start, entry))
                yield split_of_name(key), [end for path in paths for end in ends_of(path)]


def _by_entries(
    root: str,
    images: Iterable[str],
    texts: Collection[str],
    entries: Iterable[tuple[str, list[str]]],
) -> dict[str, dict[str, None]]:
    """The images of each split: the first of its places that is a folder or a list has them."""
    below: dict[str, list[str]] = {}
    for image in images:
        for folder in pathlib.PurePosixPath(image).parents:
            below.setdefault(str(folder), []).append(image)
    lookup = Lookup(images)
    parts: dict[str, dict[str, None]] = {}
    for split, places in entries:
        place = next((one for one in places if one in below or one in texts), "")
        found: Iterable[str | None] = below.get(place, ())
        if place in texts:
            lines = pathlib.Path(root, place).read_text("utf-8-sig", errors="replace").splitlines()
            found = (lookup.find(line.strip()) for line in lines)
        if used := dict.fromkeys(filter(None, found)):
            parts.setdefault(split, {}).update(used)
    return parts


def _read(
    path: str | None,
    size: tuple[int, int] | None,
    *,
    names: Mapping[int, str] | None,
    has_keypoints: bool,
) -> Annotation:
    """Reads the labels of an image of this size; without a file it is background."""
    if size is None:
        raise UnusableFile("image is missing, and its labels are fractions of its size", path or "")
    if path is None:
        return Annotation(size, [], ("no label file, used as background",))
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_LABELS + 1)
    except OSError:
        raise UnusableFile("labels cannot be read", path) from None
    if len(content) > _LARGEST_LABELS:
        raise UnusableFile("label file has more than 2 MB", path)
    height, width = size
    scales = width, height, width, height
    objects, notes = [], dict[str, None]()  # a note once, in the order of the lines
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            label, *values = int(float(words[0])), *map(float, words[1:])
        except (ValueError, OverflowError):
            values = []
        if len(values) == 4 or (has_keypoints and len(values) > 4):
            x, y, half_width, half_height = values[0], values[1], values[2] / 2, values[3] / 2
            box = x - half_width, y - half_height, x + half_width, y + half_height
        elif len(values) >= 6 and len(values) % 2 == 0:
            notes["polygons, their bounding boxes used"] = None
            xs, ys = values[::2], values[1::2]
            box = min(xs), min(ys), max(xs), max(ys)
        else:
            notes["lines that are no class and box left out"] = None
            continue
        if names is not None and label not in names:
            notes["objects of a class outside of the names left out"] = None
            continue
        left, top, right, bottom = (side * scale for side, scale in zip(box, scales, strict=True))
        # Tools write six digits: rounded to 1/100 pixel, boxes in whole pixels are whole again.
        pixels = tuple(round(one, 2) for one in (left + 1, top + 1, right, bottom))
        name = str(label) if names is None else names[label]
        objects.append(AnnotatedObject(number, name, pixels, False))
    return Annotation(size, objects, tuple(notes))
