"""A trained run as a function of images."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from PIL import Image

from yolov1_jax.config import UserError
from yolov1_jax.data.images import read_image
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.training.build import RestoredRun, restore_run, select_options
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions

ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image


def load(workdir: str | os.PathLike[str], step: str | int = "best") -> "Detector":
    """The detector that a run has trained.

    `step` is "best" (by mAP; the latest where none was evaluated), "latest", or a number. Raises
    UserError if there is no such run or checkpoint.
    """
    return Detector(restore_run(pathlib.Path(workdir), step))


class Detector:
    """A trained network: images -> detections."""

    def __init__(self, run: RestoredRun) -> None:
        config = run.setup.config
        self.class_names: tuple[str, ...] = tuple(config.model.class_names)  # by label
        self.image_size: int = config.image_size  # side of the network's input in pixels
        self.batch_size: int = min(config.eval.batch_size, 8)  # images at once
        self._select_options = select_options(config)
        self._predict = run.setup.predict_step
        # On one device: the others would only repeat its work.
        self._variables = jax.device_put(run.variables, jax.devices()[0])

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, score_threshold: float | None = None
    ) -> list[Detections]:
        """The detections of each image by descending score, boxes_xyxy in its own pixels.

        Args:
          images: one or several of: the path of a JPEG, PNG, BMP or WebP file, which is turned
            upright as its EXIF orientation asks; a uint8 RGB array [H, W, 3]; a PIL image.
          score_threshold: the lowest score of a detection; None for the far lower one of the run's
            evaluations.

        Raises:
          UserError: a file or an array is not such an image.
        """
        if isinstance(images, str | os.PathLike | np.ndarray | Image.Image):
            images = [images]
        options = self._select_options
        if score_threshold is not None:
            options = {**options, "score_threshold": score_threshold}
        detections: list[Detections] = []
        # Batches have one of two shapes, so that the network is compiled at most twice.
        batch_size = 1 if len(images) == 1 else self.batch_size
        for start in range(0, len(images), batch_size):
            pixels = [_pixels(image) for image in images[start : start + batch_size]]
            batch = np.zeros((batch_size, self.image_size, self.image_size, 3), np.uint8)
            for row, image in enumerate(pixels):
                batch[row] = resize_image(image, self.image_size)
            predicted = jax.device_get(self._predict(self._variables, batch))
            predictions = Predictions(*(part[: len(pixels)] for part in predicted))
            sizes = np.array([image.shape[:2] for image in pixels])
            detections += detections_from_predictions(predictions, sizes, **options)
        return detections


def _pixels(image: ImageLike) -> np.ndarray:
    """uint8 RGB [H, W, 3]"""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        return read_image(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise UserError(
            f"expected a uint8 RGB image [height, width, 3], found {image.dtype} {image.shape}"
        )
    return image
