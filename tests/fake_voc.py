"""Tiny archives with the structure of the official VOC ones, for the tests of the tfds source.

`write_archives` draws them; `register` makes tensorflow_datasets expect them in place of the real
ones. Every case of an annotation that the reader must get right is in each image set: a box over
the whole image, fractional coordinates, difficult and truncated objects, upper case, an image with
no object.
"""

import dataclasses
import hashlib
import io
import pathlib
import tarfile

import cv2
import numpy as np
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.object_detection import voc as tfds_voc

SIZES = ((50, 37), (37, 50), (500, 333), (486, 500))  # width, height
POSES = ("Frontal", "Rear", "Left", "Right", "Unspecified")
LABELS = ("person", "aeroplane", "TVmonitor", "dog", "sofa", "dog")


@dataclasses.dataclass
class Image:
    """What was written for one image. `boxes` are the XML's numbers: xmin, ymin, xmax, ymax."""

    jpeg: bytes
    size: tuple[int, int]
    labels: list[str]
    boxes: list[tuple[float, ...]]
    difficult: list[bool]


ImageSets = dict[str, dict[str, Image]]  # {"train": {"000001": Image}}


def write_archives(folder: pathlib.Path, images_per_set: int = 6) -> dict[str, ImageSets]:
    """The archives of both years but for VOC2012test.tar. -> {"2007": {"train": {...}}}"""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    years = {}
    for year, name, archives in (
        (
            "2007",
            "{:06d}",
            {
                "VOCtrainval_06-Nov-2007.tar": ("train", "val"),
                "VOCtest_06-Nov-2007.tar": ("test",),
            },
        ),
        ("2012", "2008_{:06d}", {"VOCtrainval_11-May-2012.tar": ("train", "val")}),
    ):
        numbers = iter(range(1, 1000))
        years[year] = {}
        for filename, image_sets in archives.items():
            sets = {
                s: {name.format(next(numbers)): _image(rng, k) for k in range(images_per_set)}
                for s in image_sets
            }
            write_archive(folder / filename, year, sets)
            years[year] |= sets
    return years


def write_archive(
    path: pathlib.Path, year: str, sets: ImageSets, *, annotations: bool = True
) -> None:
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(f"VOCdevkit/VOC{year}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for image_set, images in sets.items():
            for i, image in images.items():
                if annotations:
                    add(f"Annotations/{i}.xml", annotation(i, year, image).encode())
                add(f"JPEGImages/{i}.jpg", image.jpeg)
            add(f"ImageSets/Main/{image_set}.txt", ("\n".join(images) + "\n").encode())


def annotation(name: str, year: str, image: Image) -> str:
    objects = ""
    for k, (label, box) in enumerate(zip(image.labels, image.boxes, strict=True)):
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        objects += (
            f"<object><name>{label}</name><pose>{POSES[k % 5]}</pose>"
            f"<truncated>{k % 2}</truncated><difficult>{int(image.difficult[k])}</difficult>"
            f"<bndbox>{''.join(f'<{side}>{value}</{side}>' for side, value in sides)}</bndbox>"
            # Boxes of body parts follow those of a person in VOC2012; they are not objects.
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
            "<ymax>2</ymax></bndbox></part></object>"
        )
    width, height = image.size
    return (
        f"<annotation><folder>VOC{year}</folder><filename>{name}.jpg</filename><size>"
        f"<width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}"
        "</annotation>"
    )


def _image(rng: np.random.Generator, k: int) -> Image:
    """The k-th image of a set: the second has no object, the third has fractional boxes."""
    width, height = size = SIZES[k % len(SIZES)]
    pixels = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), size)
    count = 0 if k == 1 else int(rng.integers(1, 5))
    boxes: list[tuple[float, ...]] = []
    for _ in range(count):
        (left, right), (top, bottom) = (
            sorted(rng.choice(np.arange(1, side + 1), 2, replace=False).tolist()) for side in size
        )
        boxes.append((left, top, right, bottom))
    if k == 0:
        boxes[0] = (1, 1, width, height)
    if k == 2:
        boxes[0] = (45.70000076293945, 3.5, 471.2, 99.9)
    return Image(
        jpeg=cv2.imencode(".jpg", pixels)[1].tobytes(),
        size=size,
        labels=[LABELS[int(rng.integers(len(LABELS)))] for _ in boxes],
        boxes=boxes,
        difficult=[bool(rng.random() < 0.4) for _ in boxes],
    )


def url_infos(folder: pathlib.Path, base: str = "http://127.0.0.1:9/") -> dict[str, object]:
    """What tensorflow_datasets would have registered for the archives, at addresses under `base`.

    The default is a port at which nothing answers. An archive that is not in `folder` gets the
    checksum of an empty file.
    """
    infos = {}
    for config in tfds_voc.Voc.BUILDER_CONFIGS:
        for filename in config.filenames.values():
            path = folder / filename
            data = path.read_bytes() if path.exists() else b""
            infos[base + filename] = checksums.UrlInfo(
                size=utils.Size(len(data)),
                checksum=hashlib.sha256(data).hexdigest(),
                filename=filename,
            )
    return infos


def register(folder: pathlib.Path, base: str = "http://127.0.0.1:9/") -> None:
    """For the rest of this process; tests in pytest's own process use monkeypatch instead."""
    tfds_voc.Voc.url_infos = url_infos(folder, base)
