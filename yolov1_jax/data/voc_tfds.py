"""Pascal VOC 2007 and 2012 from tensorflow_datasets, without TensorFlow.

Preparation looks for the archives in tensorflow_datasets' folder for manual downloads, and fetches
missing ones into it. What is written equals what tensorflow_datasets' own builder writes as
array_record, without the test split of VOC 2012. It divides the pixel numbers of the devkit by the
image's size and keeps them as float32; what is read here are the numbers of the annotation again.
"""

import contextlib
import os
import pathlib
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import filelock
import numpy as np
import pooch
import tensorflow_datasets as tfds
from tensorflow_datasets.object_detection import voc as tfds_voc

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import GroundTruth
from yolov1_jax.data.tfds_source import TfdsSource, open_part

# The annotations of VOC2012 test were never published, so it can neither train nor evaluate.
_SPLITS = {"voc/2007": ("train", "validation", "test"), "voc/2012": ("train", "validation")}


class VocSource(TfdsSource):
    """One or more splits of VOC."""

    def __init__(self, splits: Sequence[str], data_dir: str | os.PathLike[str] | None = None):
        """Opens splits such as "voc/2012:train[:10%]"; prepares the data if that is not done yet.

        `data_dir` is that of tensorflow_datasets; None is `~/tensorflow_datasets` or TFDS_DATA_DIR.
        Raises a UserError for an unknown split and for data that cannot be prepared or read.
        """
        parts = []
        for split in splits:
            name, _, names = split.replace(" ", "").partition(":")
            if not set(re.sub(r"\[.*?\]", "", names).split("+")) <= {*_SPLITS.get(name, ())}:
                raise UserError(f"expected splits, whole or sliced, of {_SPLITS}; found {split!r}")
            builder = _prepared(name.removeprefix("voc/"), data_dir)
            try:
                parts.append(open_part(builder, names))
            except Exception as error:  # an empty slice, another file format, ...
                raise UserError(f"cannot open {split}: {' '.join(str(error).split())}") from error
        super().__init__(parts, builder.info.features["objects"]["label"].names)

    def _image_id(self, part: int, place: int, example: dict[str, Any]) -> str:
        stem = os.path.splitext(example["image/filename"].decode())[0]
        return f"VOC{self._parts[part].dataset_info.config_name}/{stem}"

    def _objects(self, example: dict[str, Any], size: tuple[int, int]) -> GroundTruth:
        """Boxes are the annotation's numbers."""
        objects = example["objects"]
        pixels = np.array(objects["bbox"], np.float64).reshape(-1, 4) * [[*size, *size]]  # y x y x
        # Float32 is off by 3e-5 at 500 pixels; VOC2012's fractional numbers have a decimal or more.
        pixels = np.where(np.abs(pixels - pixels.round()) < 1e-3, pixels.round(), pixels)
        labels = np.array(objects["label"], np.int32)
        return GroundTruth(pixels[:, [1, 0, 3, 2]], labels, np.array(objects["is_difficult"], bool))


def _prepared(year: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """tensorflow_datasets' builder of VOC 2007 or 2012; its data are prepared first if needed.

    After an interruption, the next call continues. Any number of processes may call it: one does
    the work. The archives may be deleted afterwards.
    """
    builder = tfds.builder(f"voc/{year}", data_dir=data_dir)
    root, target = builder.data_dir_root, builder.data_path
    if target.exists():  # complete, because it gets this name at the end
        return builder
    downloads = pathlib.Path(root, "downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(downloads / f"voc-{year}.lock"):  # freed if the process is killed
        for left in target.parent.glob("incomplete.*"):  # by a process that was killed
            left.rmtree()
        tfds.display_progress_bar(sys.stderr.isatty())
        writer = _ArchiveVoc(config=year, data_dir=root, file_format="array_record")
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        with contextlib.redirect_stdout(sys.stderr):
            writer.download_and_prepare(download_config=config)  # unless it was done meanwhile
    return tfds.builder(f"voc/{year}", data_dir=data_dir)


def _fetch(filename: str, folder: pathlib.Path) -> pathlib.Path:
    """The archive in `folder`, downloaded if it is missing, and checked in any case."""
    infos = tfds_voc.Voc.url_infos.items()
    url, info = next((url, info) for url, info in infos if info.filename == filename)

    def download(url: str, output: str, archives: pooch.Pooch) -> None:
        part = folder / f"{filename}.part"  # what an earlier call has received
        with part.open("ab") as file:
            if file.tell() < info.size:
                # A server that ignores this sends everything; pooch refuses the sum and retries.
                headers = {"Range": f"bytes={file.tell()}-"}
                get = pooch.HTTPDownloader(sys.stderr.isatty(), 1 << 16, headers=headers)
                get(url, file, archives)
        part.replace(output)

    # Four more tries; no file of the user is replaced.
    archives = pooch.Pooch(folder, "", {filename: info.checksum}, {filename: url}, 4, False)
    try:
        return pathlib.Path(archives.fetch(filename, downloader=download))
    except (OSError, ValueError) as error:  # no connection; a file with another SHA-256
        raise UserError(
            f"{folder / filename}: expected the official archive, sha256 {info.checksum}: {error}; "
            "put it there, or delete what is there and run again to download it"
        ) from error


with tfds.core.registered.skip_registration():

    class _ArchiveVoc(tfds_voc.Voc):
        """tensorflow_datasets' builder, but it reads from the archives, without TensorFlow."""

        name = "voc"
        __module__ = tfds_voc.__name__  # recorded in dataset_info.json

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            manual = pathlib.Path(self.data_dir_root, "downloads", "manual")
            splits: dict[str, Iterator[Any]] = {}
            for part, filename in self.builder_config.filenames.items():
                names = ("test",) if part == "test" else ("train", "validation")
                if filename != "VOC2012test.tar":  # which has no annotations
                    archive = _fetch(filename, manual)
                    splits |= {name: self._generate_examples(archive, name) for name in names}
            return splits

        def _generate_examples(self, data_path: pathlib.Path, set_name: str) -> Iterator[Any]:
            folder = f"VOCdevkit/VOC{self.builder_config.name}"
            with tarfile.open(data_path) as tar:
                members = {member.name: member for member in tar}

                def read(name: str) -> Any:
                    return tar.extractfile(members[f"{folder}/{name}"])

                image_set = read(f"ImageSets/Main/{set_name.replace('validation', 'val')}.txt")
                for name in image_set.read().decode().split():
                    objects = list(_features(read(f"Annotations/{name}.xml")))
                    easy = {o["label"] for o in objects if not o["is_difficult"]}
                    example = {
                        "image": read(f"JPEGImages/{name}.jpg"),
                        "image/filename": f"{name}.jpg",
                        "objects": objects,
                        "labels": sorted({o["label"] for o in objects}),
                        "labels_no_difficult": sorted(easy),
                    }
                    yield name, example


def _features(annotation: Any) -> Iterator[dict[str, Any]]:
    """The objects of a VOC XML as the features of the tfds builder; boxes divided as they stand."""
    root = ElementTree.parse(annotation).getroot()
    width, height = (float(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
    scale = {"ymin": height, "xmin": width, "ymax": height, "xmax": width}
    for item in root.iterfind("object"):
        corners = {k: float(item.findtext(f"bndbox/{k}", "")) / side for k, side in scale.items()}
        yield {
            "label": item.findtext("name", "").lower(),
            "pose": item.findtext("pose", "").lower(),
            "bbox": tfds.features.BBox(**corners),
            "is_truncated": item.findtext("truncated") == "1",
            "is_difficult": item.findtext("difficult") == "1",
        }
