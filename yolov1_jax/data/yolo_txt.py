"""YOLO text: a file for each image with a line "class x y width height" for each object.

    images/a.jpg, labels/a.txt                or both in one folder
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
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation, ListedImage, files_below
from yolov1_jax.data.dataset import Report, UnusableFile
from yolov1_jax.data.own_folder import (
    Found,
    Lookup,
    Split,
    class_name,
    has_extension,
    image_id,
    split_of,
    split_of_name,
)

_LARGEST_LABELS, _LARGEST_YAML = 2**21, 2**17  # bytes; far above what tools write
_IMAGE_FOLDERS = ("images", "jpegimages")


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if no image has a file of labels.

    Raises:
      UserError: data.yaml cannot be read, or has no list of names.
    """
    images = [file for file in files if has_extension(file)]
    texts = [file for file in files if file.endswith(".txt")]
    labels = {_labels_of(image) for image in images}
    labelled = {os.path.dirname(text) for text in texts if text in labels}
    if not labelled:
        return None
    config_path, config = _read_config(root, files)
    names, why = _class_names(root, texts, files, config)
    parts = _by_config(root, images, config_path, config)
    if parts:
        why = config_path
    else:
        parts, how = _by_lists(root, images, texts), "lists"
        if not parts:
            how = "labels beside the images"
            for image in images:
                in_folder = _labels_of(image) != _beside(image)
                if in_folder:
                    how = "images/ and labels/"
                if in_folder or os.path.dirname(image) in labelled:
                    parts.setdefault(split_of(image), []).append(image)
        why = f"{how}, {why}"
    spare = [one for one in texts if one not in labels and os.path.dirname(one) in labelled]
    spare = [one for one in spare if not _is_list_of_names(one) and not split_of_name(_stem(one))]
    read = functools.partial(_read, names=names, has_keypoints="kpt_shape" in config)

    def read_split(split: str, report: Report) -> Split:
        for text in spare:
            if (split_of(text) or "train") == (split or "train"):
                report.skip("label file without an image", text)
        listed = []
        for image in parts[split]:
            path = os.path.join(root, _labels_of(image))
            image_path = os.path.join(root, image)
            # Boxes are fractions of the image as viewers show it, turned by EXIF.
            one = ListedImage(
                image_id(image), image_path, path, functools.partial(read, path), True
            )
            listed.append(one)
        return Split(listed, None if names is None else tuple(names.values()))

    splits = {split: functools.partial(read_split, split) for split in parts}
    return Found("YOLO text", why, splits)


def _stem(path: str) -> str:
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def _beside(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"


def _labels_of(image: str) -> str:
    """images/train/a.jpg -> labels/train/a.txt: the last folder of that name; else beside it."""
    parts = _beside(image).split("/")
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() in _IMAGE_FOLDERS:
            return "/".join([*parts[:i], "labels", *parts[i + 1 :]])
    return "/".join(parts)


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
    root: str, texts: Sequence[str], files: Sequence[str], config: Mapping[str, Any]
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
    for file in files:
        if _is_list_of_names(file):
            text = pathlib.Path(root, file).read_text("utf-8-sig", errors="replace")
            lines = [class_name(line) for line in text.splitlines() if line.strip()]
            return dict(enumerate(lines)), file
    return None, "no data.yaml or classes.txt: the classes are numbers"


def _is_list_of_names(file: str) -> bool:
    name = file.rsplit("/", 1)[-1].lower()
    return name == "classes.txt" or name.endswith(".names")


def _by_config(
    root: str, images: Sequence[str], config_path: str, config: Mapping[str, Any]
) -> dict[str, list[str]]:
    """The images of each split by data.yaml; empty if none of its paths leads to images."""
    parts: dict[str, list[str]] = {}
    folder = os.path.dirname(config_path)
    for key, value in config.items():
        split = split_of_name(key)
        for entry in value if isinstance(value, list) else [value]:
            if not split or not isinstance(entry, str) or not entry:
                continue
            # Roboflow writes ../train/images for train/images; others give a path to start from.
            path = config.get("path", "")
            for start in (path if isinstance(path, str) else "", "", None):
                bare = entry.lstrip("./") if start is None else os.path.join(start, entry)
                place = os.path.normpath(os.path.join(root, folder, bare))
                if found := _images_at(root, place, images):
                    parts.setdefault(split, []).extend(found)
                    break
    return parts


def _images_at(root: str, place: str, images: Sequence[str]) -> list[str]:
    """The images in a folder, or in a list of paths. They may lie outside of the root."""
    if os.path.isdir(place):
        prefix = pathlib.PurePath(os.path.relpath(place, root)).as_posix() + "/"
        if os.path.commonpath([root, place]) == place != root:
            return []  # a folder around the data set holds other things
        if prefix.startswith("../"):
            return [prefix + one for one in files_below(place) if has_extension(one)]
        return [one for one in images if one.startswith(prefix.removeprefix("./"))]
    if os.path.isfile(place) and place.endswith(".txt"):
        return _images_of_list(place, images)
    return []


def _images_of_list(path: str, images: Sequence[str]) -> list[str]:
    lookup = Lookup(images)
    lines = pathlib.Path(path).read_text("utf-8-sig", errors="replace").splitlines()
    found = [lookup.find(line.strip()) for line in lines]
    return [one for one in found if one is not None]


def _by_lists(root: str, images: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """The images of each split by lists of their paths, such as train.txt."""
    parts: dict[str, list[str]] = {}
    for text in texts:
        split = split_of_name(_stem(text))
        if split and (found := _images_of_list(os.path.join(root, text), images)):
            parts.setdefault(split, []).extend(found)
    return parts


def _read(
    path: str,
    size: tuple[int, int] | None,
    *,
    names: Mapping[int, str] | None,
    has_keypoints: bool,
) -> Annotation:
    """Reads the labels of an image of this size."""
    if size is None:
        raise UnusableFile("image is missing, and its labels are fractions of its size", path)
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_LABELS + 1)
    except FileNotFoundError:
        return Annotation(size, [], ("no label file, used as background",))
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
            name = str(label) if names is None else names[label]
        except KeyError:
            notes["objects of a class outside of the names left out"] = None
            continue
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
        left, top, right, bottom = (side * scale for side, scale in zip(box, scales, strict=True))
        # Tools write six digits: rounded to 1/100 pixel, boxes in whole pixels are whole again.
        pixels = tuple(round(one, 2) for one in (left + 1, top + 1, right, bottom))
        objects.append(AnnotatedObject(number, name, pixels, False))
    return Annotation(size, objects, tuple(notes))
