"""Own data, or PASCAL VOC, in the devkit's folders with VOC annotations.

    root/<dataset>/JPEGImages/<id>.jpg          or another of `images.EXTENSIONS`
    root/<dataset>/Annotations/<id>.xml
    root/<dataset>/ImageSets/Main/<set>.txt     an id, or a path that ends in it, per line

A split is written "<dataset>:<set>+<set>"; "<dataset>:all" takes every image and needs no list. Ids
may have folders: "cam1/0007".
"""

import functools
import math
import os
import pathlib
import re
from collections.abc import Sequence

from yolov1_jax.config import UserError
from yolov1_jax.data.annotated_images import Annotation, ListedImage, files_below
from yolov1_jax.data.dataset import Report
from yolov1_jax.data.images import EXTENSIONS, OTHER_EXTENSIONS
from yolov1_jax.data.voc_xml import read_annotation


def list_voc(
    root: str | os.PathLike[str],
    splits: Sequence[str],
    report: Report,
    *,
    images_required: bool = True,
    unannotated: str = "skip",
) -> list[ListedImage]:
    """The images of several splits, in the order of the lists; no image and no XML is read.

    Args:
      root: the folder that holds the data sets.
      splits: such as ("VOC2012:train+val", "VOC2007:train"), or ("mine:all",).
      report: takes notes of files that are passed over.
      images_required: False also takes data sets without a folder of images.
      unannotated: whether to "skip" images without an XML, or to take them as "background".

    Raises:
      UserError: no such split.
    """
    root = os.path.abspath(os.path.expanduser(root))
    listed: dict[str, ListedImage] = {}
    for split in splits:
        dataset, _, sets = split.partition(":")
        if not dataset or not all(sets.split("+")):
            raise UserError(
                "expected a split written DATASET:SET or DATASET:SET+SET, such as VOC2012:train,"
                f' found "{split}"'
            )
        folder = pathlib.Path(root, dataset)
        for name in ("JPEGImages", "Annotations"):
            if not (folder / name).is_dir() and (images_required or name == "Annotations"):
                raise UserError(_no_such_folder(root, dataset))
        files = _Files(folder)
        for set_name in sets.split("+"):
            path = folder / "ImageSets" / "Main" / f"{set_name}.txt"
            lines = _read_list(path, set_name, dataset)
            if lines is None:
                for stray in files.strays:
                    report.pass_over("neither an image nor its annotation", f"{dataset}/{stray}")
            names = sorted(files.names) if lines is None else map(files.name_of, lines)
            for name in names:
                image_id = f"{dataset}/{name}"
                if image_id in listed:
                    report.correct("listed more than once, used once", image_id)
                else:
                    listed[image_id] = _listed(files, name, image_id, report, unannotated)
    return list(listed.values())


def _listed(
    files: "_Files", name: str, image_id: str, report: Report, unannotated: str
) -> ListedImage:
    # A file that is not there gets a path, too: reading it will say so.
    paths = files.images.get(name, [f"JPEGImages/{name}"])
    annotation = files.annotations.get(name, [f"Annotations/{name}.xml"])[0]
    if len(paths) > 1:
        report.correct("several images of one name, one used", image_id)
    if annotation.removeprefix("Annotations/")[:-4] != name:
        report.correct("names of image and annotation differ in case", image_id)
    path = str(files.folder / paths[0])
    is_background = unannotated == "background" and name not in files.annotations
    return ListedImage(
        image_id,
        path,
        annotation_path=str(files.folder / annotation),
        read=_without_objects
        if is_background
        else functools.partial(read_annotation, files.folder / annotation, image_path=path),
    )


def _without_objects(size: tuple[int, int] | None) -> Annotation:
    return Annotation(
        size or (math.nan, math.nan), [], ("without annotation, taken as background",)
    )


def _no_such_folder(root: str, dataset: str) -> str:
    place = pathlib.Path(root, dataset)
    place = place if place.is_dir() else pathlib.Path(root)
    return (
        f"expected {dataset}/JPEGImages and {dataset}/Annotations in {root}, found"
        f" {_shown(sorted(one.name for one in place.glob('*/')))} in {place}: set data.root to"
        f" the folder that holds {dataset}"
    )


def _read_list(path: pathlib.Path, set_name: str, dataset: str) -> list[str] | None:
    """The lines of a list; None for all images."""
    if path.is_file():
        # utf-8-sig: editors on Windows put a byte order mark in front
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]
    if set_name == "all":
        return None
    # Lists per class ("dog_train") come last: the devkit has dozens.
    sets = sorted((file.stem for file in path.parent.glob("*.txt")), key=lambda s: ("_" in s, s))
    raise UserError(
        f"expected the list {path}, found {_shown(sets)} there;"
        f" {dataset}:all takes every image of {dataset}"
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"


class _Files:
    """The files of a data set by name, which is their path without its extension: "cam1/0007".

    Paths are relative to `folder`.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        images = [f"JPEGImages/{one}" for one in files_below(folder / "JPEGImages")]
        annotations = [f"Annotations/{one}" for one in files_below(folder / "Annotations")]
        # Images that are not read come last: to say that they are not helps more than "missing".
        readable, unread, xml = (
            [one for one in files if os.path.splitext(one)[1].lower() in extensions]
            for files, extensions in (
                (images, EXTENSIONS),
                (images, OTHER_EXTENSIONS),
                (annotations, (".xml",)),
            )
        )
        self.images, self.annotations = _by_name([*readable, *unread]), _by_name(xml)
        self.strays = sorted({*images, *annotations} - {*readable, *unread, *xml})
        # An annotation whose name differs in case alone goes with the image.
        alone = {one.lower(): one for one in self.images.keys() - self.annotations.keys()}
        for one in sorted(self.annotations.keys() - self.images.keys()):
            if partner := alone.pop(one.lower(), None):
                self.annotations[partner] = self.annotations.pop(one)
        self.names = self.images.keys() | self.annotations.keys()
        self._in_lower_case = {one.lower(): one for one in self.names}

    def name_of(self, line: str) -> str:
        """The name in a line, which may be a path, or carry a flag of the devkit's class lists."""
        without_flag = re.sub(r"\s+(-1|0|1)$", "", line)
        for name in (line, without_flag):
            if name in self.names:
                return name
        path, extension = os.path.splitext(without_flag.replace("\\", "/"))
        if extension.lower() not in (*EXTENSIONS, *OTHER_EXTENSIONS, ".xml"):
            path += extension
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if "JPEGImages" in parts:
            parts = "/".join(parts).rpartition("JPEGImages/")[2].split("/")
        # A path of another machine is that of the image with the longest end in common.
        is_absolute = re.match(r"/|[A-Za-z]:", path) is not None
        starts = range(min(len(parts), 16)) if is_absolute else (0,)
        ends = ["/".join(parts[start:]) for start in starts]
        found = (self._in_lower_case.get(end.lower()) for end in ends)
        return next(filter(None, found), path)


def _by_name(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths by what follows their first folder, without the extension."""
    files: dict[str, list[str]] = {}
    for path in paths:
        files.setdefault(os.path.splitext(path.partition("/")[2])[0], []).append(path)
    return files
