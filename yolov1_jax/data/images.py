"""Image files -> uint8 RGB pixels, and what must be known of a file before training.

JPEG, PNG, BMP and WebP are read, whatever the file's name ends in. No JAX here: loader workers
import this module, and they must not start a device.
"""

import io
import os
import pathlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from yolov1_jax.data.dataset import UnusableFile

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # in any case
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class ImageInfo(NamedTuple):
    """What a file says of its image."""

    size: tuple[int, int]  # height and width of the stored pixels
    orientation: int = 1  # EXIF, 1 to 8; 1 for none
    has_alpha: bool = False
    is_16_bit: bool = False


def decode_image(encoded: bytes, name: str, flags: int = _AS_STORED) -> np.ndarray:
    """Decodes a JPEG, PNG, BMP or WebP file. -> uint8 RGB [height, width, 3].

    Greyscale is repeated over the three channels, a palette looked up, CMYK converted without a
    colour profile. Transparency is dropped: the colours under it are shown. The high 8 of 16 bits
    are kept. A JPEG that is damaged in the middle decodes to an image that is wrong from there on,
    with a warning by libjpeg. `flags` are OpenCV's; by default pixels stay as stored, whatever EXIF
    says.

    Raises:
      UnusableFile: the bytes do not decode; the message has the `name` of the image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # no bytes at all, or more pixels than OpenCV allows
        image = None
    if image is None:
        raise UnusableFile("image is cut short or broken", name)
    return image


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> np.ndarray:
    """Reads and decodes a file, by default as viewers show it. -> uint8 RGB [height, width, 3].

    Raises:
      UnusableFile: the file cannot be read or does not decode.
    """
    flags = cv2.IMREAD_COLOR_RGB if upright else _AS_STORED
    return decode_image(_read(path), str(path), flags)


def check_image(path: str | os.PathLike[str]) -> ImageInfo:
    """Decodes a file once, so that a broken one is found before training.

    A JPEG is decoded at 1/8 of its size, which reads all of its data in a fraction of the time.

    Raises:
      UnusableFile: the file is missing, empty, cut short, broken or not an image.
    """
    encoded = _read(path)
    try:
        header = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "BMP", "WEBP"))
    except UnidentifiedImageError:
        raise UnusableFile("image is not JPEG, PNG, BMP or WebP", path) from None
    except Image.DecompressionBombError:
        raise UnusableFile("image is too large", path) from None
    except Exception:  # whatever a parser of Pillow raises over a broken header
        raise UnusableFile("image is cut short or broken", path) from None
    is_jpeg = header.format in ("JPEG", "MPO")
    flags = cv2.IMREAD_REDUCED_COLOR_8 if is_jpeg else cv2.IMREAD_UNCHANGED
    pixels = decode_image(encoded, str(path), flags)
    is_16_bit = pixels.dtype == np.uint16
    size = header.height, header.width
    return ImageInfo(size, _orientation(header), header.has_transparency_data, is_16_bit)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        encoded = pathlib.Path(path).read_bytes()
    except OSError:
        raise UnusableFile("image is missing or cannot be read", path) from None
    if not encoded:
        raise UnusableFile("image is empty", path)
    return encoded


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # getexif() would decode all pixels of a PNG to look for it
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block does not make an image unusable
        return 1
    return orientation if orientation in range(1, 9) else 1
