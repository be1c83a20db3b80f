"""A trained run as a function of images."""

import collections
import contextlib
import io
import itertools
import logging
import numbers
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps

from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import EXTENSIONS, read_image
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.training.build import RestoredRun, restore_run, select_options
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_objects
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions

log = logging.getLogger(__name__)

ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image


class Detected(Detections):
    """`Detections` (boxes_xyxy, scores, labels) that know their image and the class names.

    Attributes:
      image: as it was given.
      size: its width and height in pixels.
      class_names: the name of each label.
    """

    image: ImageLike
    size: tuple[int, int]
    class_names: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels]

    def plot(self) -> Image.Image:
        """The image with the detections drawn on it; a small image is enlarged."""
        return draw_objects(_pixels(self.image), self.class_names, detections=self)

    def _replace(self, /, **parts: Any) -> "Detected":
        replaced = super()._replace(**parts)
        vars(replaced).update(vars(self))
        return replaced

    def __repr__(self) -> str:
        boxes = self.boxes_xyxy.round().astype(int).tolist()
        rows = [
            f"{name} {score:.2f} {box}"
            for name, score, box in zip(self.names[:5], self.scores, boxes, strict=False)
        ]
        rest = ", ..." * (len(self.scores) > 5)
        image = "{} x {} pixels".format(*self.size)
        if isinstance(self.image, str | os.PathLike):
            image = repr(os.fspath(self.image))
        return f"<{len(self.scores)} detected in {image}: {', '.join(rows)}{rest}>"


def load(workdir: str | os.PathLike[str], step: str | int = "best") -> "Detector":
    """The detector that a run has trained.

    `step` is "best" (by mAP; the latest where none was evaluated), "latest", or a number. Raises
    UserError if there is no such run or checkpoint.
    """
    return Detector(restore_run(local_path(workdir), step))


class Detector:
    """A trained network: images -> detections. Threads may share it."""

    def __init__(self, run: RestoredRun) -> None:
        config = run.setup.config
        self.class_names: tuple[str, ...] = tuple(config.model.class_names)  # by label
        self.image_size: int = config.image_size  # side of the network's input in pixels
        self.batch_size: int = min(config.eval.batch_size, 8)  # images at once
        self.step: int = run.step  # of the checkpoint
        self._select_options = select_options(config)
        self._resize: str = config.data.resize
        self._predict = run.setup.predict_step
        # On one device: the others would only repeat its work.
        self._variables = jax.device_put(run.variables, jax.devices()[0])

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        score_threshold: float | None = DRAWN_SCORE,
    ) -> list[Detected]:
        """The detections of each image by descending score, boxes_xyxy in its own pixels.

        Args:
          images: one or several (a list, a generator) of: the path of an image file; a folder,
            which stands for all image files below it, by name; a PIL image of 8 or 16 bits; a uint8
            array, RGB or RGBA [H, W, 3 or 4] or grey [H, W]. An array [N, H, W, 3] is N images.
            Files and PIL images are turned upright as their EXIF orientation asks.
          score_threshold: the lowest score of a detection, in [0, 1]; None for the far lower one of
            the run's evaluations.

        Raises:
          UserError: something else was given.
        """
        return list(self.stream(images, score_threshold=score_threshold))

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        score_threshold: float | None = DRAWN_SCORE,
        on_unusable: Callable[[UnusableFile], None] | None = None,
    ) -> Iterator[Detected]:
        """As a call, but reads images as their detections are asked for, a batch ahead at most.

        Args:
          on_unusable: is called for a file that cannot be used, which is then left out; None raises
            its error.
        """
        options = dict(self._select_options)
        if score_threshold is not None:
            if not (isinstance(score_threshold, numbers.Real) and 0 <= score_threshold <= 1):
                raise UserError(f"expected a score_threshold in [0, 1], found {score_threshold!r}")
            options["score_threshold"] = score_threshold
        inputs, batch_size = self._inputs(_each(images), on_unusable), 0
        while rows := list(itertools.islice(inputs, self.batch_size)):
            # A power of two that the first batch fits in: few shapes have to be compiled.
            batch_size = batch_size or min(self.batch_size, 1 << (len(rows) - 1).bit_length())
            pixels = np.stack([one for _, _, one in rows])
            batch = np.zeros((batch_size, *pixels.shape[1:]), pixels.dtype)
            batch[: len(rows)] = pixels
            predicted = jax.device_get(self._predict(self._variables, batch))
            predictions = Predictions(*(part[: len(rows)] for part in predicted))
            sizes = np.array([size[::-1] for _, size, _ in rows])
            found = detections_from_predictions(predictions, sizes, **options)
            for (image, size, _), detections in zip(rows, found, strict=True):
                detected = Detected(*detections)
                detected.image, detected.size = image, size
                detected.class_names = self.class_names
                yield detected

    def _inputs(
        self, images: Iterable[ImageLike], on_unusable: Callable[[UnusableFile], None] | None
    ) -> Iterator[tuple[ImageLike, tuple[int, int], np.ndarray]]:
        """Images, their sizes, and their pixels for the network: of one alone in its full size."""
        for image in images:
            try:
                pixels = _pixels(image)
            except UnusableFile as error:
                if on_unusable is None:
                    raise
                on_unusable(error)
                continue
            yield image, pixels.shape[1::-1], resize_image(pixels, self.image_size, self._resize)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:5]) + ", ..." * (len(self.class_names) > 5)
        return f"<Detector of {len(self.class_names)} classes ({names}), step {self.step:,}>"


def image_files(
    folder: pathlib.Path, without: pathlib.Path | None = None
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The images below a folder and all other files there, by name.

    Hidden files are in neither, nor what lies in the folder `without` below it.

    Raises:
      UserError: there is no image.
    """
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if without is not None and folder.resolve() in without.resolve().parents:
        files = [file for file in files if without.resolve() not in file.resolve().parents]
    images = [file for file in files if file.suffix.lower() in EXTENSIONS]
    if not images:
        raise UserError(
            f"expected images in {folder}, found no file whose name ends in "
            f"{', '.join(EXTENSIONS)}: give another folder, or the files one by one"
        )
    return images, [file for file in files if file.suffix.lower() not in EXTENSIONS]


def notes_on(others: Iterable[pathlib.Path]) -> list[str]:
    """A line for every kind of file that `image_files` has not taken for an image."""
    names: dict[str, list[str]] = collections.defaultdict(list)
    for file in others:
        names[file.suffix.lower()].append(file.name)
    return [
        f"not read, {len(some):,} x {suffix or 'without suffix'}: {', '.join(some[:3])}"
        + ", ..." * (len(some) > 3)
        for suffix, some in names.items()
    ]


def _each(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Every image, in place of folders the files in them."""
    single = not isinstance(images, Iterable) or getattr(images, "ndim", 4) != 4
    if isinstance(images, str | bytes | Mapping | io.IOBase):  # of letters, numbers, keys or lines
        single = True
    for image in [images] if single else images:  # type: ignore[union-attr]
        if isinstance(image, str | os.PathLike) and os.path.isdir(local_path(image)):
            files, others = image_files(local_path(image))
            for note in notes_on(others):
                log.warning(note)
            yield from files
        else:
            yield image  # type: ignore[misc]


def _pixels(image: ImageLike) -> np.ndarray:
    """uint8 RGB [H, W, 3]"""
    if isinstance(image, str | os.PathLike):
        return read_image(local_path(image))
    found = type(image).__name__
    if isinstance(image, Image.Image):
        found = f"a PIL image of mode {image.mode}"
        with contextlib.suppress(Exception):  # broken EXIF does not make an image unusable
            image = ImageOps.exif_transpose(image)
        try:
            if image.mode.startswith("I;16"):  # the high 8 bits, as of a file
                image = (np.asarray(image) >> 8).astype(np.uint8)
            elif image.mode not in ("I", "F"):  # their range is not known
                image = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # closed, cut short or broken
            raise UserError(f"expected an image, found {found}: {error}") from error
    elif hasattr(image, "__array__"):  # of other libraries too
        image = np.asarray(image)
        found += f" ({image.dtype} {image.shape})"
    array = np.atleast_3d(image) if isinstance(image, np.ndarray) else np.empty(0)  # [H, W, 1 to 4]
    if (
        array.dtype != np.uint8
        or array.ndim != 3
        or array.shape[2] not in (1, 3, 4)
        or not array.size
    ):
        raise UserError(
            "expected a path, a PIL image of 8 or 16 bits or a uint8 array [height, width, 3], "
            f"found {found}"
        )
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]
