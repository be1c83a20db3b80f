"""Decoding images, and finding the broken ones before training."""

import io
import pickle
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from voc_tree import encode, exif, pixels

from yolov1_jax.data import images
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import ImageInfo, check_image, decode_image, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
ORANGE = np.full((32, 32, 3), (200, 30, 60), np.uint8)
PALETTE = Image.fromarray(pixels()).convert("P", palette=Image.Palette.ADAPTIVE)
JPEG, PNG, BMP = (encode(NOISE, image_format) for image_format in ("JPEG", "PNG", "BMP"))
TIFF, WEBP = encode(NOISE, "TIFF"), encode(NOISE, "WEBP")
SIXTEEN_BITS = NOISE[..., ::-1].astype(np.uint16) * 256 + 255  # OpenCV writes BGR
PROGRESSIVE = encode(NOISE, "JPEG", progressive=True)
NO_PALETTE = encode(PALETTE)
START, END = (NO_PALETTE.index(kind) - 4 for kind in (b"PLTE", b"IDAT"))
NO_PALETTE = NO_PALETTE[:START] + NO_PALETTE[END:]
HUGE = b"IHDR" + struct.pack(">II", 13000, 13000) + PNG[24:29]  # at byte 12, before its checksum
HUGE = PNG[:12] + HUGE + struct.pack(">I", zlib.crc32(HUGE)) + PNG[33:]


def check(folder, content: bytes) -> ImageInfo:
    (folder / "image").write_bytes(content)
    return check_image(folder / "image")


@pytest.mark.parametrize(
    ("encoded", "expected", "atol"),
    [
        (PNG, NOISE, 0),
        (BMP, NOISE, 0),
        (encode(NOISE, "TIFF", compression="tiff_lzw"), NOISE, 0),
        (encode(NOISE[..., 0]), np.repeat(NOISE[..., :1], 3, axis=2), 0),
        (encode(PALETTE), np.asarray(PALETTE.convert("RGB")), 0),
        (encode(np.dstack([NOISE, NOISE[..., :1]])), NOISE, 0),  # transparent
        (cv2.imencode(".png", SIXTEEN_BITS)[1], NOISE, 0),
        (cv2.imencode(".tif", SIXTEEN_BITS)[1], NOISE, 1),  # rounded
        (encode(ORANGE, "JPEG", quality=95), ORANGE, 3),
        (encode(ORANGE, "WEBP", quality=95), ORANGE, 3),
        (encode(Image.fromarray(ORANGE).convert("CMYK"), "JPEG", quality=95), ORANGE, 3),
    ],
)
def test_pixels_are_rgb(encoded, expected, atol):
    decoded = decode_image(bytes(encoded), "x")
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), expected.astype(int), rtol=0, atol=atol)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_orientation(tmp_path, image_format, orientation):
    tags = exif(orientation)
    info = check(tmp_path, encode(NOISE, image_format, exif=tags))
    assert info._replace(content=None) == ImageInfo((80, 120), orientation)
    stored = read_image(tmp_path / "image", upright=False)
    np.testing.assert_array_equal(stored, decode_image(encode(NOISE, image_format), "x"))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encode(stored, exif=tags)))))
    np.testing.assert_array_equal(read_image(tmp_path / "image"), upright)


@pytest.mark.parametrize("tags", [exif(0), exif(9), exif(300), b"Exif\0\0garbage"])
def test_impossible_orientations_count_as_none(tmp_path, tags):
    followed = encode(NOISE, "JPEG", exif=tags) + b"maker notes" * 50
    assert check(tmp_path, followed)._replace(content=None) == ImageInfo((80, 120))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (encode(NOISE, "GIF"), "not JPEG"),
        (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "broken"),  # tables without pixels
        (PNG[:-4], "broken"),
        (PNG[:5000] + bytes(64) + PNG[5064:], "broken"),
        (PNG[:33] + PNG[-12:], "broken"),  # no pixels
        (NO_PALETTE, "broken"),
        (HUGE, "pixels"),
        (encode(Image.new("F", (8, 8)), "TIFF"), "broken"),  # 32 bits
    ],
)
def test_unusable(tmp_path, content, reason):
    with pytest.raises(UnusableFile, match=str(tmp_path / "image")) as caught:
        check(tmp_path, content)
    with pytest.raises(UnusableFile):
        read_image(tmp_path / "image")  # by predict, which does not check first
    assert reason in caught.value.reason
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a worker


def test_missing_unreadable_and_too_large(tmp_path, monkeypatch):
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(UnusableFile, match="missing"):
            read_image(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 80 * 120)
    check(tmp_path, PNG)
    monkeypatch.setattr(images, "MAX_PIXELS", 80 * 120 - 1)
    with pytest.raises(UnusableFile, match="pixels"):
        check(tmp_path, PNG)


@pytest.mark.parametrize("encoded", [JPEG, PROGRESSIVE, PNG, BMP, TIFF, WEBP])
def test_a_file_that_is_cut_is_found_wherever(tmp_path, encoded):
    for cut in [*range(len(encoded) // 17, len(encoded), len(encoded) // 17), -200]:
        with pytest.raises(UnusableFile):
            check(tmp_path, encoded[:cut])
        with pytest.raises(UnusableFile, match="photos/7"):
            decode_image(encoded[:cut], "photos/7")


@pytest.mark.parametrize("encoded", [JPEG, PROGRESSIVE, PNG])
def test_what_passes_decodes_in_training(tmp_path, encoded):
    refused = 0
    # Many places in the header, which has the tables, and some in the pixels.
    for i in [*range(2, 700, 12), *range(700, len(encoded), 900)]:
        for damage in (b"\0", b"\xff\xff", bytes(64)):
            broken = encoded[:i] + damage + encoded[i + len(damage) :]
            try:
                check(tmp_path, broken)
            except UnusableFile:
                refused += 1
            else:
                decode_image(broken, "x")
    assert refused > 10


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bits_are_noted(tmp_path, extension):
    for image in (SIXTEEN_BITS, SIXTEEN_BITS[..., 0]):
        high_bits = (image // 256).astype(np.uint8)
        assert check(tmp_path, bytes(cv2.imencode(extension, image)[1])).is_16_bit
        assert not check(tmp_path, bytes(cv2.imencode(extension, high_bits)[1])).is_16_bit


def test_content_is_that_of_the_file(tmp_path):
    files = (BMP, BMP, encode(NOISE[::-1], "BMP"), PNG, PNG + b"\0")
    found = [check(tmp_path, content).content for content in files]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_a_jpeg_of_too_many_scans_is_not_decoded(tmp_path, monkeypatch):
    scan = JPEG[JPEG.index(b"\xff\xda") : -2]
    many = JPEG[:-2] + scan * 200 + b"\xff\xd9"
    check(tmp_path, many)
    monkeypatch.setattr(images, "_MOST_SCANNED", 200 * 80 * 120)
    with pytest.raises(UnusableFile, match="201 scans"):
        check(tmp_path, many)
    check(tmp_path, JPEG + b"\xff\xda\xff\xd9" * 200)  # a video may follow, and hold any bytes


def test_reading_needs_no_jax():
    # A loader worker that imports JAX may try to take the accelerator.
    code = "import sys, yolov1_jax.data.voc_folder; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
