"""Detections in the format of the PASCAL VOC development kit: a text file for each class.

    comp4_det_<set>_<class>.txt     comp3 if nothing but VOC's own data was trained on

    <image name> <confidence> <xmin> <ymin> <xmax> <ymax>

Boxes are in 1-based pixels, both ends included: the numbers of our boxes as they are. They are
written with all digits of the doubles, so that reading them back gives the same doubles; the order
of the lines decides between equal confidences. A class without a file has no detections.
"""

import contextlib
import pathlib
import re
import urllib.parse
from collections.abc import Sequence

import numpy as np

from yolov1_jax.evaluation.ground_truth import AnnotatedImages, short_names
from yolov1_jax.evaluation.results import Results, ResultsCollector, ResultsFileError
from yolov1_jax.yolo.detections import Detections


def write_devkit_results(
    folder: pathlib.Path,
    detections: Sequence[Detections],
    images: AnnotatedImages,
    *,
    set_name: str,
    competition: str = "comp4",
) -> list[pathlib.Path]:
    """Writes a file for every class, an empty one for a class that was not detected.

    Args:
      folder: made if it is not there; files of the same names are replaced.
      detections: of the images, in their order.
      set_name: such as "test".
      competition: "comp4", or "comp3" if nothing but VOC's own data was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = short_names(images.image_ids)
    lines: list[list[str]] = [[] for _ in images.class_names]
    for name, found in zip(names, detections, strict=True):
        for box, score, label in zip(*found, strict=True):
            numbers = np.array([score, *box], np.float64).tolist()
            lines[label].append(" ".join([name, *map(repr, numbers)]) + "\n")
    paths = []
    for class_name, of_class in zip(images.class_names, lines, strict=True):
        path = folder / f"{competition}_det_{set_name}_{_file_part(class_name)}.txt"
        path.write_text("".join(of_class), encoding="utf-8")
        paths.append(path)
    return paths


def read_devkit_results(path: pathlib.Path, images: AnnotatedImages, **policies: str) -> Results:
    """Reads the files of a folder.

    Args:
      path: the folder, or the common beginning of the files' paths ("results/comp4_det_test") if
        the folder holds those of several sets.
      policies: see `ResultsCollector`.

    Raises:
      ResultsFileError: there are no such files, those of several sets, or something in them cannot
        be scored.
    """
    collector = ResultsCollector(images, **policies)
    files = _files_by_class(path, images.class_names)
    missing = [name for name in images.class_names if name not in files]
    for class_name, file in files.items():
        try:
            text = file.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:  # a folder of that name, a link to nothing
            raise ResultsFileError(
                f"expected the detections of {class_name} in {file}, found: {error.strerror}; "
                "correct or remove it"
            ) from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            name, score, box = _parse_line(line, where)
            collector.add(name, class_name, score, box, where)
    if missing:
        collector.note(f"no file, so no detections, of: {', '.join(missing)}")
    return collector.results()


def _parse_line(line: str, where: str) -> tuple[str, float, list[float]]:
    # From the right, because names of images may contain spaces.
    name, *fields = line.strip().rsplit(maxsplit=5)
    # Python alone takes 1_0 for ten.
    if len(fields) == 5 and not any("_" in field for field in fields):
        with contextlib.suppress(ValueError):
            score, *box = map(float, fields)
            return name, score, box
    raise ResultsFileError(
        f"{where}: expected '<image> <confidence> <xmin> <ymin> <xmax> <ymax>', found "
        f"{line.strip()[:80]!r}; correct the program that wrote it"
    )


def _files_by_class(path: pathlib.Path, class_names: Sequence[str]) -> dict[str, pathlib.Path]:
    """The file of each class, those of classes that are not in `class_names` included."""
    folder, pattern = (
        (path, "comp*_det_*.txt") if path.is_dir() else (path.parent, f"{path.name}_*.txt")
    )
    files = {file.stem: file for file in sorted(folder.glob(pattern))}
    if not files:
        raise ResultsFileError(
            f"expected files comp4_det_<set>_<class>.txt in {path}, found none: give the folder "
            "that holds them"
        )
    # "comp4_det_test_blood_cell" may be of the set "test" or "test_blood": what all files begin
    # with decides, and if that leaves a choice, the longest name of a class.
    parts = {_file_part(name): name for name in class_names}
    beginnings = [
        {stem.removesuffix(f"_{part}") for part in parts if stem.endswith(f"_{part}")}
        for stem in files
    ]
    known = [possible for possible in beginnings if possible]
    if not known:
        raise ResultsFileError(
            f"expected the classes {', '.join(class_names)} in {path}, found files such as "
            f"{next(iter(files))}.txt: none is of these classes"
        )
    shared = set.intersection(*known)
    others = set.union(*known)
    if not shared or not all(stem.startswith(f"{min(shared, key=len)}_") for stem in files):
        sets = ", ".join(sorted({min(possible, key=len) for possible in known}))
        stranger = next(
            (stem for stem in files if not any(stem.startswith(f"{one}_") for one in others)), None
        )
        raise ResultsFileError(
            f"expected the files of one set in {path}, found {sets}"
            + (f" and {stranger}" if stranger else "")
            + f": give the beginning of the right ones, such as {folder / min(others)}"
        )
    beginning = min(shared, key=len)
    by_class = {}
    for stem, file in files.items():
        part = stem.removeprefix(f"{beginning}_")
        by_class[parts.get(part, urllib.parse.unquote(part))] = file
    return by_class


def _file_part(class_name: str) -> str:
    """A class name as part of a file's name: what no file may be called is written %2F."""
    return re.sub(r'[/\\:*?"<>|%\x00-\x1f]', lambda match: f"%{ord(match[0]):02X}", class_name)
