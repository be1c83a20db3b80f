"""tensorflow_datasets' builder of Pascal VOC, reading straight from the archives.

The original reads the extracted archives through TensorFlow; this one needs none. What it yields
is the same, and so is what is written: name, version, features, examples and their order.
"""

import io
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

import tensorflow_datasets as tfds
from defusedxml import ElementTree
from tensorflow_datasets.object_detection import voc as tfds_voc

with tfds.core.registered.skip_registration():

    class ArchiveVoc(tfds_voc.Voc):
        """tensorflow_datasets' builder, reading from the archives."""

        name = "voc"
        __module__ = tfds_voc.__name__  # recorded in dataset_info.json

        archives: dict[str, pathlib.Path]  # "trainval" and, unless it is left out, "test"
        track: Callable[[list[str], str], Iterable[str]]  # (image names, split) -> image names

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            parts = {"train": "trainval", "validation": "trainval", "test": "test"}
            return {
                split: self._generate_examples(self.archives[part], split)
                for split, part in parts.items()
                if part in self.archives
            }

        def _generate_examples(
            self, data_path: pathlib.Path, set_name: str
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            year = self.builder_config.year
            annotated = set_name != "test" or self.builder_config.has_test_annotations
            with tarfile.open(data_path) as tar:
                members = {member.name: member for member in tar}

                def read(name: str) -> bytes:
                    file = tar.extractfile(members[f"VOCdevkit/VOC{year}/{name}"])
                    assert file is not None, f"{name} in {data_path} is not a file"
                    return file.read()

                image_set = "val" if set_name == "validation" else set_name
                ids = read(f"ImageSets/Main/{image_set}.txt").decode().split()
                for i in self.track(ids, set_name):
                    objects = []
                    if annotated:
                        objects = _objects(ElementTree.fromstring(read(f"Annotations/{i}.xml")))
                    easy = [o for o in objects if not o["is_difficult"]]
                    yield (
                        i,
                        {
                            "image": io.BytesIO(read(f"JPEGImages/{i}.jpg")),
                            "image/filename": f"{i}.jpg",
                            "objects": objects,
                            "labels": sorted({o["label"] for o in objects}),
                            "labels_no_difficult": sorted({o["label"] for o in easy}),
                        },
                    )


def _objects(annotation: Element) -> list[dict[str, Any]]:
    """The objects of a VOC XML as the features of the tfds builder; boxes divided as they stand."""

    def text(element: Element, path: str) -> str:
        return element.findtext(path) or ""

    width, height = (float(text(annotation, f"size/{side}")) for side in ("width", "height"))
    objects = []
    for element in annotation.findall("object"):
        left, top, right, bottom = (
            float(text(element, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        objects.append(
            {
                "label": text(element, "name").lower(),
                "pose": text(element, "pose").lower(),
                "bbox": tfds.features.BBox(
                    ymin=top / height, xmin=left / width, ymax=bottom / height, xmax=right / width
                ),
                "is_truncated": text(element, "truncated") == "1",
                "is_difficult": text(element, "difficult") == "1",
            }
        )
    return objects
