"""Writes small data sets in the folders of the VOC devkit."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from yolov1_jax.config import UserError
from yolov1_jax.data.source import open_folder

Box = tuple[object, object, object, object]  # xmin, ymin, xmax, ymax: numbers, or what breaks them


def pixels(height: int = 40, width: int = 60) -> np.ndarray:
    """uint8 RGB [height, width, 3]; no turn or flip of it equals it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, :, 0] = 200
    image[:, : width // 3, 1] = 120
    image[: height // 4, : width // 4, 2] = 250
    return image


def encode(image: np.ndarray | Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def object_xml(name: str | None = "cat", box: Box = (10, 10, 30, 30), more: str = "") -> str:
    corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>".format(*box)
    named = "" if name is None else f"<name>{name}</name>"
    return f"<object>{named}{more}<bndbox>{corners}</bndbox></object>"


def annotation_xml(*objects: str, size: tuple[int, int] | None = (40, 60), more: str = "") -> str:
    """`size` is (height, width)."""
    stated = "" if size is None else f"<height>{size[0]}</height><width>{size[1]}</width>"
    return f"<annotation>{more}<size>{stated}</size>{''.join(objects)}</annotation>"


class VocTree:
    """A root folder with data sets; every method adds or replaces one file."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def add(self, name, *, image=None, xml=None, dataset="own", extension=".png"):
        """An image with its annotation; by default a good one with one cat."""
        image = encode(pixels()) if image is None else image
        self.write(f"{dataset}/JPEGImages/{name}{extension}", image)
        self.write(f"{dataset}/Annotations/{name}.xml", xml or annotation_xml(object_xml()))

    def list(self, set_name, lines, dataset="own"):
        self.write(f"{dataset}/ImageSets/Main/{set_name}.txt", "".join(f"{x}\n" for x in lines))

    def write(self, path, content):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, path):
        (self.root / path).unlink()


def refusal(*args) -> str:
    """The message that a folder source refuses with."""
    with pytest.raises(UserError) as caught:
        open_folder(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)
