"""YOLO text: a file for each image with a line "class x y width height" for each object.

    images/a.jpg, labels/a.txt                or both in one folder; see `own_folder.match`
    train/images, train/labels, valid/...     or images/train, labels/train, ...
    train.txt, val.txt                        the paths of a split's images, instead of folders
    data.yaml                                 names: of the classes; train:, val:, test: paths

x, y are the centre; all four are fractions of the image's size. A line of more numbers is a
polygon, "class x1 y1 x2 y2 ...", or, where data.yaml has kpt_shape, a box and key points. A class
is its place among the names, from 0. This is what Ultralytics, Roboflow, CVAT, Label Studio,
LabelImg and Darknet write.
"""

import functools
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation
from yolov1_jax.data.own_folder import (
    Found,
    Lookup,
    Split,
    class_name,
    has_extension,
    match,
    read_annotation_file,
    read_lines,
    split_of,
    split_of_name,
)

_MOST_YAML = 2**17  # bytes; far above what tools write


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if no image has a file of labels."""
    config: Mapping[str, Any] = {}
    names: Mapping[int, str] | None = None

    def read(path: str | None, size: tuple[int, int] | None) -> Annotation:
        return _read(path, size, names, is_pose="kpt_shape" in config)

    # Boxes are fractions of the image as viewers show it, turned by EXIF.
    listed = match(root, files, ".txt", read, upright=True).values()
    labelled = [one.path for one in listed if one.path and one.annotation]
    if not labelled:
        return None
    config_path, config = _read_config(root, files)
    lists_of_names = [
        file for file in files if re.search(r"(^|/)classes\.txt$|\.names$", file.lower())
    ]
    why = "no data.yaml or classes.txt: the classes are numbers"
    if config:
        names, why = config["names"], "data.yaml"
    elif lists_of_names:
        why = lists_of_names[0]
        lines = read_lines(root, why)
        names = dict(enumerate(class_name(line) for line in lines if line.strip()))
    # Images elsewhere, such as those of a report, are not of the data set.
    folders = {os.path.dirname(path) for path in labelled}
    images = {
        one.path: one
        for one in listed
        if one.path
        and (os.path.dirname(one.path) in folders or "images" in one.path.lower().split("/")[:-1])
    }
    texts = {file for file in files if has_extension(file, (".txt",))}
    entries = list(_entries(os.path.dirname(config_path), config))
    parts = _by_entries(root, images, texts, entries)
    if not parts:
        entries = [(split, [text]) for text in texts if (split := split_of_name(_stem(text)))]
        parts = _by_entries(root, images, texts, entries)
        why = f"{'lists' if parts else f'images in {min(folders)}/'}, {why}"
    in_lists = set().union(*parts.values())
    for image in images:
        if image not in in_lists:
            parts.setdefault("" if in_lists else split_of(image), {})[image] = None
    stated = None if names is None else tuple(names.values())
    splits = {
        split: functools.partial(Split, [images[one] for one in part], stated)
        for split, part in parts.items()
    }
    lists = texts.intersection(place for _, places in entries for place in places)
    return Found("YOLO text", why, splits, {config_path, *lists_of_names, *lists})


def _stem(path: str) -> str:
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def _read_config(root: str, files: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The path and the content of data.yaml, or of another file that has names; else empty."""
    paths = [file for file in files if has_extension(file, (".yaml", ".yml"))]
    for path in sorted(paths, key=lambda one: (one.count("/"), _stem(one) != "data")):
        file = pathlib.Path(root, path)
        if file.stat().st_size > _MOST_YAML:
            continue
        try:
            # BaseLoader leaves all values texts: "no" is a name of a class, not False.
            content = yaml.load(file.read_text("utf-8-sig"), yaml.BaseLoader)
            if isinstance(content, dict) and "names" in content:
                given = content["names"]
                numbered = dict(enumerate(given)) if isinstance(given, list) else given
                names = {int(key): class_name(name) for key, name in numbered.items()}
                return path, content | {"names": names}
        except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:
            raise UserError(
                f"expected YAML with names of classes, a list or number: name, in {file}, found: "
                f"{' '.join(str(error).split())[:200]}; correct it"
            ) from None
    return "", {}


def _entries(folder: str, config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Splits and the places that data.yaml, in this folder, may mean by a path of theirs.

    Roboflow writes ../train/images for train/images; an absolute path may be of another machine.
    """
    for key, value in config.items():
        for entry in value if isinstance(value, list) else [value]:
            if split_of_name(key) and isinstance(entry, str):
                parts = _parts(f"{folder}/{config.get('path', '')}/{entry}")
                is_absolute = re.match(r"[/\\]|\w:", entry)
                starts = range(len(parts) - (0 if is_absolute else len(_parts(entry)) - 1))
                yield split_of_name(key), ["/".join(parts[start:]) for start in starts]


def _parts(path: str) -> list[str]:
    return [one for one in re.split(r"[/\\]", path) if one not in ("", ".", "..")]


def _by_entries(
    root: str,
    images: Collection[str],
    texts: Collection[str],
    entries: Iterable[tuple[str, list[str]]],
) -> dict[str, dict[str, None]]:
    """The images of each split, in the first of its places that is a folder or a list of them."""
    lookup = Lookup(images)
    parts: dict[str, dict[str, None]] = {}
    for split, places in entries:
        for place in places:
            found: list[str | None] = [one for one in images if one.startswith(f"{place}/")]
            if place in texts:
                found = [lookup.find(line.strip()) for line in read_lines(root, place)]
            if used := dict.fromkeys(filter(None, found)):
                parts.setdefault(split, {}).update(used)
                break
    return parts


def _read(
    path: str | None,
    size: tuple[int, int] | None,
    names: Mapping[int, str] | None,
    *,
    is_pose: bool,
) -> Annotation:
    """Reads the labels of an image of this size; without a file it is background."""
    height, width = size or (0, 0)
    if path is None:
        return Annotation((height, width), [], ("no label file, used as background",))
    lines = read_annotation_file(path).decode("utf-8-sig", "replace").splitlines()
    objects, notes = [], dict[str, None]()  # a note once, in the order of the lines
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, *values = (float(word) for word in line.split())
            name = str(int(label)) if names is None else names.get(int(label))
        except (ValueError, OverflowError):  # no number, NaN, infinity
            values = []
        if is_pose and len(values) > 4:
            notes["key points, their boxes used"] = None
            values = values[:4]
        if len(values) == 4:
            x, y, w, h = values
            xs, ys = [x - w / 2, x + w / 2], [y - h / 2, y + h / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            notes["polygons, their bounding boxes used"] = None
            xs, ys = values[::2], values[1::2]
        else:
            notes["lines that are no class and box left out"] = None
            continue
        if name is None:
            notes["objects of a class outside of the names left out"] = None
            continue
        box = min(xs) * width + 1, min(ys) * height + 1, max(xs) * width, max(ys) * height
        # Tools write six digits: rounded to 1/100 pixel, boxes in whole pixels are whole again.
        objects.append(AnnotatedObject(number, name, tuple(round(one, 2) for one in box), False))
    return Annotation((height, width), objects, tuple(notes))
