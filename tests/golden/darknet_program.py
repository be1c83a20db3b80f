"""Darknet's C program, compiled as a library and called through ctypes."""

import ctypes
import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np

_CALLS = pathlib.Path(__file__).with_name("darknet_calls.c")


def compile_darknet(source: pathlib.Path, library: pathlib.Path) -> ctypes.CDLL:
    """Compiles a checkout of pjreddie/darknet: src/, examples/yolo.c and darknet_calls.c.

    In yolo.c, `valid` reads its list of images from images.txt, and `test` writes detections.txt
    in place of a drawing. -O2 keeps the order of float operations, which the Makefile's -Ofast
    does not.
    """
    yolo = (source / "examples" / "yolo.c").read_text()
    drawing = "draw_detections(im, dets, l.side*l.side*l.n, thresh, voc_names, alphabet, 20);"
    for old, new in (
        ('"/home/pjreddie/data/voc/2007_test.txt"', '"images.txt"'),
        (drawing, "write_detections(dets, l.side*l.side*l.n, l.classes);"),
        ("load_alphabet()", "0"),  # the letters of the drawing
        ('save_image(im, "predictions");', ""),
    ):
        assert old in yolo, f"expected {old} in examples/yolo.c"
        yolo = yolo.replace(old, new)
    patched = library.with_name("yolo.c")
    patched.write_text(yolo)
    # compare.c does not compile: the Makefile leaves it out, too.
    files = [one for one in sorted((source / "src").glob("*.c")) if one.name != "compare.c"]
    files += [patched, _CALLS]
    include = [f"-I{source / folder}" for folder in ("include", "src")]
    command = ["gcc", "-O2", "-w", "-fPIC", "-shared", *include, *map(str, files)]
    subprocess.run([*command, "-o", str(library), "-lm", "-lpthread"], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.load_network.restype = ctypes.c_void_p
    return loaded


class Network:
    """A network of the C program."""

    def __init__(
        self, darknet: ctypes.CDLL, cfg: Any, weights: Any = None, *, clear: bool = False
    ) -> None:
        """`clear`: counts the images of training from 0."""
        self._darknet = darknet
        path = os.fsencode(weights) if weights else None
        self._net = ctypes.c_void_p(darknet.load_network(os.fsencode(cfg), path, clear))

    def output(self, pixels: np.ndarray, num_outputs: int) -> np.ndarray:
        """float32 [3, H, W] in [0, 1] -> the flat output."""
        output = np.empty(num_outputs, np.float32)
        self._darknet.output_of(self._net, _pointer(pixels), _pointer(output))
        return output

    def delta(self, inputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """`delta` of a cfg that has only a [detection], for a batch: [B, N] and [B, truths]."""
        delta = np.empty_like(inputs)
        self._darknet.delta_of(self._net, *map(_pointer, (inputs, truth, delta)))
        return delta

    def train(self, images: np.ndarray, truth: np.ndarray) -> None:
        """One batch: float32 [B, 3, H, W] and [B, S * S * (5 + C)]."""
        self._darknet.train_on(self._net, _pointer(images), _pointer(truth))

    def save(self, path: Any) -> None:
        self._darknet.save_weights(self._net, os.fsencode(path))


def read_resized(darknet: ctypes.CDLL, path: Any, width: int, height: int) -> np.ndarray:
    """float32 [3, height, width] in [0, 1]"""
    pixels = np.empty((3, height, width), np.float32)
    darknet.read_resized(os.fsencode(path), width, height, _pointer(pixels))
    return pixels


def detections(darknet: ctypes.CDLL, cfg: Any, weights: Any, image: Any) -> np.ndarray:
    """`yolo test`: class, score, and centre and size relative to the image. [D, 6]"""
    paths = map(os.fsencode, (cfg, weights, image))
    darknet.test_yolo(*paths, ctypes.c_float(0.2))
    return np.loadtxt("detections.txt", np.float32, ndmin=2)


def results(darknet: ctypes.CDLL, cfg: Any, weights: Any, images: Sequence[Any]) -> list[str]:
    """`yolo valid` of 8 or more images: "FILE.txt ID SCORE XMIN YMIN XMAX YMAX", sorted, as a set.

    Works in the current folder, and leaves results/ there.
    """
    pathlib.Path("images.txt").write_text("".join(f"{image}\n" for image in images))
    folder = pathlib.Path("results")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    darknet.validate_yolo(os.fsencode(cfg), os.fsencode(weights))
    darknet.fflush(None)  # it does not close the files
    files = sorted(folder.glob("*.txt"))
    return sorted({f"{one.name} {line}" for one in files for line in one.read_text().splitlines()})


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
