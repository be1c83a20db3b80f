"""Encoded images: what a file's header says, and its pixels as uint8 RGB.

JPEG, PNG, BMP and WebP are read, whatever the file's name ends in: the formats that OpenCV
and Pillow both decode in every build. Pixels are always taken as stored: an EXIF orientation
is a matter of the annotation (see `folder.py`), not of decoding. No JAX here: loader workers
decode, and they should not start a device.
"""

import os
import pathlib
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # in any case; the first one found is used

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_EXIF_ORIENTATION = 0x0112
_PNG_BIT_DEPTH = 24  # position of this byte in a PNG file: signature 8, chunk head 8, size 8
_PNG_CHUNKS = 8  # position of the first chunk

_JPEG_BASELINE = (b"\xff\xc0", b"\xff\xc1")  # markers of a frame whose pixels are in one scan
_JPEG_NOTES = (b"\xff\xfe", *(bytes([0xFF, 0xE0 + i]) for i in range(16)))  # comments, EXIF, ...
_JPEG_RESTARTS = b"\xff\xdd"
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"
_JPEG_LONGEST_SIDE = 65500  # pixels; libjpeg refuses more

# How to turn stored pixels into the upright view, by EXIF orientation (1 = already upright).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}
SWAPS_SIDES = (5, 6, 7, 8)  # orientations under which height and width change places


class ImageHeader(NamedTuple):
    """What a file says about its image before any pixel is decoded."""

    height: int  # of the stored image
    width: int
    orientation: int = 1  # EXIF, 1 to 8
    has_alpha: bool = False
    is_16_bit: bool = False


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """The pixels of an encoded image, as stored.

    Greyscale is repeated over the three channels, a palette looked up, CMYK converted without a
    colour profile. Transparency is dropped: the colours under it are shown. Of 16 bits the high 8
    are kept. A JPEG whose data are damaged in the middle decodes, with a warning by libjpeg, to an
    image that is wrong from there on; one that is cut short does not.

    Args:
      encoded: the bytes of a JPEG, PNG, BMP or WebP file.
      name: of the image, for the message.

    Returns:
      uint8 RGB [height, width, 3].

    Raises:
      UserError: the bytes are not an image that can be decoded.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # no bytes at all, or more pixels than OpenCV allows
        image = None
    if image is None:
        raise UserError(
            f"{name}: expected an intact JPEG, PNG, BMP or WebP image, found {len(encoded)} bytes"
            " that do not decode; replace the file or take it out of the data"
        )
    return image  # [height, width, 3]


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [height, width, ...] turned as the EXIF `orientation` (1 to 8) asks."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image))


def read_upright(path: pathlib.Path) -> np.ndarray:
    """An image as a viewer shows it, uint8 RGB [H, W, 3].

    Raises:
      UnusableFile: it cannot be read.
    """
    orientation = read_header(path).orientation
    try:
        return upright(decode_image(path.read_bytes(), str(path)), orientation)
    except UserError:
        raise UnusableFile("image does not decode") from None
    except OSError:
        raise UnusableFile("image cannot be read") from None


def read_header(path: str | os.PathLike) -> ImageHeader:
    """Reads the header of an image file and checks that the file will decode.

    Cheap for a baseline JPEG, of which the header and the last bytes are read, and for a PNG, whose
    checksums are. Any other file, and any in doubt, is decoded once here, so that a broken one is
    found before training, not in it. Only a PNG whose checksums are right over pixels that are not
    passes: its writer's fault, not damage.

    Raises:
      UnusableFile: the file is missing, empty, cut short, broken or not an image.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UnusableFile("image is empty")
            return _read_header(file)
    except FileNotFoundError:
        raise UnusableFile("image is missing") from None
    except OSError:
        raise UnusableFile("image cannot be read") from None


def _read_header(file: BinaryIO) -> ImageHeader:
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnusableFile("image is not JPEG, PNG, BMP or WebP") from None
    except Image.DecompressionBombError:
        raise UnusableFile("image is too large") from None
    except Exception:  # the parsers of a broken header raise what they please
        raise UnusableFile("image has a broken header") from None
    exif = image.info.get("exif")  # asked first: getexif() decodes the pixels of a PNG without
    width, height = image.size
    has_alpha = image.has_transparency_data
    if not _will_decode(file, image.format):
        file.seek(0)
        try:
            decode_image(file.read(), "")
        except UserError:
            raise UnusableFile("image is cut short or broken") from None
    file.seek(0)
    start = file.read(_PNG_BIT_DEPTH + 1)
    return ImageHeader(
        height=height,
        width=width,
        orientation=_orientation(exif) if exif else 1,
        has_alpha=has_alpha,
        is_16_bit=image.format == "PNG" and start[_PNG_BIT_DEPTH] == 16,
    )


def _will_decode(file: BinaryIO, image_format: str | None) -> bool:
    """Whether that is certain without decoding the pixels."""
    if image_format == "PNG":
        file.seek(_PNG_CHUNKS)
        return _png_is_whole(memoryview(file.read()))
    if image_format == "JPEG":
        file.seek(-len(_JPEG_END), os.SEEK_END)
        return file.read() == _JPEG_END and _jpeg_header_decodes(file)
    return False


def _png_is_whole(chunks: memoryview) -> bool:
    """Whether every chunk, up to the last, has its checksum, and one of them has pixels."""
    has_pixels = False
    while len(chunks) >= 12:  # length 4, kind 4, content, checksum 4
        end = 8 + int.from_bytes(chunks[:4])
        kind = chunks[4:8]
        if zlib.crc32(chunks[4:end]) != int.from_bytes(chunks[end : end + 4]):
            return False
        has_pixels |= kind == b"IDAT"
        if kind == b"IEND":
            return has_pixels
        chunks = chunks[end + 4 :]
    return False


def _jpeg_header_decodes(file: BinaryIO) -> bool:
    """Whether the header of a baseline JPEG is whole: a small picture decodes with its tables.

    Of the pixels nothing needs to be known: whatever they are, libjpeg makes an image of them.
    """
    file.seek(len(_JPEG_SCAN))  # behind the marker that all begin with
    header = b"\xff\xd8"
    marker = b""
    while marker != _JPEG_SCAN:
        head = file.read(4)
        marker, length = head[:2], int.from_bytes(head[2:])
        if marker[:1] != b"\xff" or length < 2:
            return False
        segment = head + file.read(length - 2)
        if marker in _JPEG_BASELINE:  # marker 2, length 2, precision 1, height 2, width 2, ...
            sides = int.from_bytes(segment[5:7]), int.from_bytes(segment[7:9])
            if not all(1 <= side <= _JPEG_LONGEST_SIDE for side in sides):
                return False
            segment = segment[:5] + bytes([0, 32, 0, 32]) + segment[9:]
        # The small picture has no restarts; all of this segment that can be wrong is its length.
        if marker not in _JPEG_NOTES and not (marker == _JPEG_RESTARTS and length == 4):
            header += segment
    try:
        decode_image(header + bytes(4096), "")  # zeros are codes of every Huffman table
    except UserError:  # no frame, as for a progressive one, or a table is missing or wrong
        return False
    return True


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
        orientation = tags.get(_EXIF_ORIENTATION, 1)
    except Exception:  # a camera's broken EXIF block does not make its picture unusable
        return 1
    return orientation if orientation in _UPRIGHT else 1
