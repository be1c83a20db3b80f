"""Image files -> uint8 RGB pixels, and what must be known of a file before training.

JPEG, PNG, BMP, TIFF and WebP are read, whatever the file's name ends in. No JAX here: loader
workers import this module, and they must not start a device.
"""

import contextlib
import io
import math
import os
import pathlib
import threading
import warnings
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from yolov1_jax.data.dataset import UnusableFile

# Endings of names, in any case. JFIF and JPE are names of JPEG files.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff")
# 240 MB of uint8 RGB, of which `predict` needs several at a time.
MAX_PIXELS = 80_000_000
_LARGE = 16_000_000  # pixels; the check of a data set decodes larger images one at a time
_MOST_SCANNED = 20 * MAX_PIXELS  # pixels times scans of a JPEG, of which it has 1 to 20
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_TOO_LARGE = f"image has more than {MAX_PIXELS // 10**6} million pixels"
_one_at_a_time = threading.Lock()

# Pillow warns of images that are refused here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageInfo(NamedTuple):
    """What a file says of its image."""

    size: tuple[int, int]  # height and width of the stored pixels
    orientation: int = 1  # EXIF, 1 to 8; 1 for none
    is_16_bit: bool = False
    content: tuple[int, int] | None = None  # length and checksum: equal for equal files


def decode_image(encoded: bytes, name: str, flags: int = _AS_STORED) -> np.ndarray:
    """Decodes a JPEG, PNG, BMP, TIFF or WebP file. -> uint8 RGB [height, width, 3].

    CMYK is converted without a colour profile. Transparency is dropped: the colours under it are
    shown. The high 8 of 16 bits are kept. Animations and files of several pages give their first. A
    JPEG that is damaged in the middle decodes to an image that is wrong from there on. `flags` are
    OpenCV's; by default pixels stay as stored, whatever EXIF says (TIFF is always turned upright).

    Raises:
      UnusableFile: the bytes do not decode; the message has the `name` of the image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # such as no bytes at all
        image = None
    if image is None:
        raise UnusableFile("image is cut short or broken", name)
    return image


def read_image(
    path: str | os.PathLike[str], *, upright: bool = True, checked: bool = False
) -> np.ndarray:
    """Reads and decodes a file, by default as viewers show it. -> uint8 RGB [height, width, 3].

    `checked`: whether the file has passed `check_image`, so that its header is not read again.

    Raises:
      UnusableFile: the file cannot be read or does not decode, or its header tells that it has more
        than MAX_PIXELS.
    """
    encoded = _read(path)
    if not checked:
        read_header(encoded, path)
    return decode_image(encoded, str(path), cv2.IMREAD_COLOR_RGB if upright else _AS_STORED)


def check_image(path: str | os.PathLike[str]) -> ImageInfo:
    """Decodes a file once, so that a broken one is found before training.

    A JPEG is decoded at 1/8 of its size, which reads all of its data in a fraction of the time.

    Raises:
      UnusableFile: the file is missing, empty, cut short, broken, too large or not an image.
    """
    encoded = _read(path)
    header = read_header(encoded, path)
    is_jpeg = header.format in ("JPEG", "MPO")
    size = header.height, header.width
    with _one_at_a_time if math.prod(size) > _LARGE else contextlib.nullcontext():
        decode_image(encoded, str(path), cv2.IMREAD_REDUCED_COLOR_8 if is_jpeg else _AS_STORED)
    # Pillow converts to 8 bits without a word. Byte 24 of a PNG is the bit depth.
    bits = getattr(header, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, ())
    is_16_bit = 16 in bits or (header.format == "PNG" and encoded[24] == 16)
    return ImageInfo(size, _orientation(header), is_16_bit, (len(encoded), zlib.crc32(encoded)))


def read_header(encoded: bytes, name: str | os.PathLike[str]) -> Image.Image:
    """Opens an image without decoding it, and checks that decoding costs little."""
    try:
        header = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnusableFile(f"image is not {', '.join(_FORMATS)}", name) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableFile(_TOO_LARGE, name) from None
    except Exception:  # whatever a parser of Pillow raises over a broken header
        raise UnusableFile("image is cut short or broken", name) from None
    if header.height * header.width > MAX_PIXELS:
        raise UnusableFile(_TOO_LARGE, name)
    if header.format in ("JPEG", "MPO"):
        # The largest number of scans in one stream: metadata may hold a thumbnail.
        scans = max(stream.count(b"\xff\xda") for stream in encoded.split(b"\xff\xd9"))
        if scans * header.height * header.width > _MOST_SCANNED:
            raise UnusableFile(f"image of {scans} scans takes too long to decode", name)
    return header


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        if not os.path.isfile(path):  # a device or a pipe may have no end
            raise FileNotFoundError
        encoded = pathlib.Path(path).read_bytes()
    except (OSError, ValueError):  # the latter: a name that the system cannot have
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
