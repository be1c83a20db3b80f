import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from voc_tree import encode, exif, pixels

from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import ImageHeader, _read_header, decode_image, read_header, upright
from yolov1_jax.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
JPEG = encode(NOISE, "JPEG")
PNG = encode(NOISE, "PNG")


def header_of(tmp_path, content: bytes) -> ImageHeader:
    path = tmp_path / "image"
    path.write_bytes(content)
    return read_header(path)


class TestDecodeImage:
    @pytest.mark.parametrize("image_format", ["PNG", "BMP"])
    def test_lossless_formats_keep_every_pixel_in_rgb_order(self, image_format):
        decoded = decode_image(encode(NOISE, image_format), "x")
        np.testing.assert_array_equal(decoded, NOISE, strict=True)

    @pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
    def test_lossy_formats_are_in_rgb_order(self, image_format):
        image = np.zeros((32, 32, 3), np.uint8)
        image[:] = (200, 30, 60)
        decoded = decode_image(encode(image, image_format, quality=95), "x")
        assert decoded.dtype == np.uint8
        np.testing.assert_allclose(decoded.astype(int), image.astype(int), atol=3)

    def test_greyscale_is_repeated_over_three_channels(self):
        grey = NOISE[..., 0]
        np.testing.assert_array_equal(
            decode_image(encode(grey), "x"), np.repeat(grey[..., None], 3, axis=2)
        )
        assert decode_image(encode(grey, "JPEG"), "x").shape == (80, 120, 3)

    def test_palette_is_looked_up(self):
        image = Image.fromarray(pixels()).convert("P", palette=Image.Palette.ADAPTIVE)
        np.testing.assert_array_equal(decode_image(encode(image), "x"), image.convert("RGB"))

    def test_alpha_is_dropped_and_the_colour_under_it_kept(self):
        alpha = np.random.default_rng(1).integers(0, 256, (80, 120, 1), dtype=np.uint8)
        decoded = decode_image(encode(np.concatenate([NOISE, alpha], axis=2)), "x")
        np.testing.assert_array_equal(decoded, NOISE)

    def test_sixteen_bits_keep_the_high_eight(self):
        values = np.array([[0x0000, 0x00FF, 0x10FF, 0x8000, 0xFFFF]], np.uint16)
        encoded = cv2.imencode(".png", values)[1].tobytes()
        assert decode_image(encoded, "x")[0, :, 0].tolist() == [0x00, 0x00, 0x10, 0x80, 0xFF]

    def test_cmyk_jpeg_has_the_colours_of_its_rgb_original(self):
        image = np.zeros((32, 32, 3), np.uint8)
        image[:] = (200, 30, 60)
        encoded = encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=95)
        assert Image.open(io.BytesIO(encoded)).mode == "CMYK"
        decoded = decode_image(encoded, "x")
        np.testing.assert_allclose(decoded.astype(int), image.astype(int), atol=3)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_ignored(self, orientation):
        turned = encode(NOISE, "JPEG", exif=exif(orientation))
        np.testing.assert_array_equal(decode_image(turned, "x"), decode_image(JPEG, "x"))

    @pytest.mark.parametrize(
        "broken",
        [b"", b"hello", JPEG[:20], JPEG[: len(JPEG) // 2], PNG[: len(PNG) // 2], PNG[:-20]],
        ids=["empty", "text", "jpeg head", "half a jpeg", "half a png", "png without end"],
    )
    def test_broken_bytes_are_refused_in_one_line_with_the_name(self, broken):
        with pytest.raises(UserError, match="photos/7") as caught:
            decode_image(broken, "photos/7")
        assert "\n" not in str(caught.value)

    def test_needs_no_jax(self):
        # A loader worker that imports JAX may try to take the accelerator.
        code = "import sys, yolov1_jax.data.voc_folder; sys.exit('jax' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pillow_does(orientation):
    picture = Image.open(io.BytesIO(encode(NOISE, "PNG", exif=exif(orientation))))
    turned = upright(NOISE, orientation)
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(picture)))
    assert turned.flags.c_contiguous


class TestReadHeader:
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP"])
    def test_size(self, tmp_path, image_format):
        assert header_of(tmp_path, encode(NOISE, image_format)) == ImageHeader(80, 120)

    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_size_is_the_stored_one_beside_the_orientation(
        self, tmp_path, image_format, orientation
    ):
        encoded = encode(NOISE, image_format, exif=exif(orientation))
        assert header_of(tmp_path, encoded) == ImageHeader(80, 120, orientation)

    @pytest.mark.parametrize("value", [0, 9, 300])
    def test_impossible_orientation_counts_as_none(self, tmp_path, value):
        assert header_of(tmp_path, encode(NOISE, "JPEG", exif=exif(value))).orientation == 1

    def test_broken_exif_counts_as_none(self, tmp_path):
        encoded = encode(NOISE, "JPEG", exif=b"Exif\x00\x00garbage")
        assert header_of(tmp_path, encoded).orientation == 1

    def test_alpha_and_depth(self, tmp_path):
        assert header_of(tmp_path, encode(np.dstack([NOISE, NOISE[..., :1]]))).has_alpha
        deep = cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes()
        assert header_of(tmp_path, deep).is_16_bit

    @pytest.mark.parametrize("end", [b"\0" * 100, b"maker notes" * 50])
    def test_trailing_bytes_after_a_whole_image_do_no_harm(self, tmp_path, end):
        assert header_of(tmp_path, JPEG + end) == ImageHeader(80, 120)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "image is empty"),
            (b"hello", "image is not JPEG, PNG, BMP or WebP"),
            (encode(NOISE, "GIF"), "image is not JPEG, PNG, BMP or WebP"),
            (JPEG[: len(JPEG) // 2], "image is cut short or broken"),
            (JPEG[:-200], "image is cut short or broken"),
            (PNG[: len(PNG) // 2], "image is cut short or broken"),
            (PNG[:-4], "image is cut short or broken"),
            (PNG[:5000] + bytes(64) + PNG[5064:], "image is cut short or broken"),
            (PNG[:33] + PNG[-12:], "image is cut short or broken"),  # no IDAT
            (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "image is cut short or broken"),
            (encode(NOISE, "BMP")[:-200], "image is cut short or broken"),
        ],
    )
    def test_unusable(self, tmp_path, content, reason):
        with pytest.raises(UnusableFile, match=f"^{reason}$"):
            header_of(tmp_path, content)

    def test_missing_and_unreadable(self, tmp_path):
        with pytest.raises(UnusableFile, match=r"^image is missing$"):
            read_header(tmp_path / "none.jpg")
        with pytest.raises(UnusableFile, match=r"^image cannot be read$"):
            read_header(tmp_path)  # a folder

    def test_one_too_large_to_decode(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(UnusableFile, match=r"^image is too large$"):
            header_of(tmp_path, PNG)

    def test_agrees_with_decoding(self, tmp_path):
        # Whatever the header lets pass decodes: cut files at many places and try both.
        for encoded in (JPEG, PNG, encode(NOISE, "JPEG", progressive=True)):
            for cut in range(len(encoded) // 17, len(encoded), len(encoded) // 17):
                with pytest.raises(UnusableFile):
                    header_of(tmp_path, encoded[:cut])
                with pytest.raises(UserError):
                    decode_image(encoded[:cut], "x")

    @pytest.mark.parametrize(
        "encoded",
        [JPEG, PNG, encode(NOISE, "JPEG", progressive=True), encode(NOISE[:9, :9], "JPEG")],
        ids=["JPEG", "PNG", "progressive JPEG", "small JPEG"],
    )
    def test_agrees_with_decoding_after_damage_in_the_middle(self, encoded, capfd):
        # Many places in the header, which has the tables, and some in the pixels.
        refused = 0
        for i in [*range(0, 700, 3), *range(700, len(encoded), 500)]:
            for damage in (b"\0", b"\xff\xff", bytes([encoded[i % len(encoded)] ^ 8]), bytes(64)):
                broken = encoded[:i] + damage + encoded[i + len(damage) :]
                try:
                    _read_header(io.BytesIO(broken))
                except UnusableFile:
                    refused += 1
                else:
                    decode_image(broken, "x")
        capfd.readouterr()  # libjpeg's warnings
        assert refused > 100

    def test_a_good_baseline_jpeg_or_png_is_not_decoded(self, tmp_path, monkeypatch):
        decoded = []

        def decode(encoded, name):
            decoded.append(decode_image(encoded, name).shape)

        monkeypatch.setattr("yolov1_jax.data.images.decode_image", decode)
        restarts = encode(NOISE, "JPEG", restart_marker_blocks=2)
        with_notes = encode(NOISE, "JPEG", exif=exif(6), comment=b"x", subsampling="4:2:0")
        for good in (JPEG, PNG, restarts, with_notes, encode(NOISE[..., 0], "JPEG", optimize=True)):
            header_of(tmp_path, good)
        assert decoded == [(32, 32, 3)] * 4
