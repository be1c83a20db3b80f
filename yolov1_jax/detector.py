"""From the network's output to detections, and a trained run as a function of images.

Frames: the network predicts boxes relative to its input, [0, 1]; detections are in pixels of the
original image. Images are stretched to the network's square input, so x and y scale separately.

Axes: N images, S grid side, K boxes per cell, C classes.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import read_upright
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.errors import UserError
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.training.checkpoint import Checkpoints, DamagedCheckpoint, abstract_tree
from yolov1_jax.training.step import create_train_state, inference_variables, make_predict_step
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes
from yolov1_jax.yolo.nms import select_detections

ImageLike = str | pathlib.Path | np.ndarray


def detections_from_predictions(
    predictions: Predictions[np.ndarray],
    sizes: np.ndarray,
    *,
    xy_unit: str,
    score_threshold: float,
    nms_iou_threshold: float,
    classes_per_box: str,
) -> list[Detections]:
    """Decodes, maps to the original images and suppresses duplicates.

    Args:
      predictions: of N images, NumPy.
      sizes: int [N, 2], height and width of the original images in pixels.
      xy_unit: as in the loss that the network was trained with.
      score_threshold, nms_iou_threshold, classes_per_box: see `select_detections`. The score is
        confidence * class score (Redmon et al. 2016, equation 1).
    """
    boxes, scores = scored_boxes(predictions, sizes, xy_unit=xy_unit)
    return select_detections(
        boxes,
        scores,
        score_threshold=score_threshold,
        iou_threshold=nms_iou_threshold,
        classes_per_box=classes_per_box,
    )


def scored_boxes(
    predictions: Predictions[np.ndarray], sizes: np.ndarray, *, xy_unit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Every box of the network, cut at the borders of the image, and its score for every class.

    Arguments as in `detections_from_predictions`.

    Returns:
      boxes_xyxy [N, K*S*S, 4] in pixels of the original images, all cells of the first box, then
      all of the second; scores [N, K*S*S, C], -inf of a box that has no area in the image.
    """
    boxes = cxcywh_to_xyxy(decode_boxes(predictions.boxes, xy_unit=xy_unit))
    boxes = np.clip(boxes, 0, 1)  # [N, S, S, K, 4]
    scores = predictions.confidence[..., None] * predictions.class_scores[..., None, :]
    num_images, num_classes = scores.shape[0], scores.shape[-1]
    # All cells of the first box, then all of the second: the order in which equal scores rank.
    boxes = np.moveaxis(boxes, 3, 1).reshape(num_images, -1, 4)  # [N, K*S*S, 4]
    scores = np.moveaxis(scores, 3, 1).reshape(num_images, -1, num_classes)  # [N, K*S*S, C]
    # A width that the network made negative, or a box outside the image, is nothing to be found.
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)  # [N, K*S*S]
    scores = np.where(has_area[..., None], scores, -np.inf)
    scale = sizes[:, None, [1, 0, 1, 0]]  # [N, 1, 4]: width, height, width, height
    return boxes * scale, scores


class Detector:
    """A trained network: images -> detections."""

    def __init__(
        self,
        predict: Callable[[np.ndarray], Predictions[jax.Array]],
        *,
        class_names: Sequence[str],
        image_size: int,
        batch_size: int,
        select_options: dict[str, Any],
    ):
        """
        Args:
          predict: uint8 images [B, image_size, image_size, 3] -> Predictions.
          class_names: the labels' names.
          image_size: pixels of the network's input.
          batch_size: how many images go through the network at once.
          select_options: keyword arguments of `detections_from_predictions`.
        """
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.batch_size = batch_size
        self._predict = predict
        self._select_options = select_options

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, score_threshold: float | None = None
    ) -> list[Detections]:
        """Detections of each image, boxes_xyxy in its own pixels.

        Args:
          images: paths, or uint8 RGB arrays [height, width, 3] of any size; or a single one.
          score_threshold: instead of the one that the run evaluates with.

        Raises:
          UserError: a file is missing or is no image.
        """
        if isinstance(images, (str, pathlib.Path, np.ndarray)):
            images = [images]
        options = dict(self._select_options)
        if score_threshold is not None:
            options["score_threshold"] = score_threshold
        detections: list[Detections] = []
        # Two shapes of batch at most, so that at most two are compiled.
        batch_size = 1 if len(images) == 1 else self.batch_size
        for start in range(0, len(images), batch_size):
            pixels = [read_image(image) for image in images[start : start + batch_size]]
            sizes = np.array([image.shape[:2] for image in pixels])
            batch = np.zeros((batch_size, self.image_size, self.image_size, 3), np.uint8)
            for row, image in enumerate(pixels):
                batch[row] = resize_image(image, self.image_size)
            predicted = self._predict(batch)
            predictions = Predictions(*(np.asarray(part)[: len(sizes)] for part in predicted))
            detections += detections_from_predictions(predictions, sizes, **options)
        return detections


def read_image(image: ImageLike) -> np.ndarray:
    """A path or an array -> uint8 RGB [height, width, 3]; files are turned as their EXIF says."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
            raise UserError(
                f"expected a uint8 RGB image [height, width, 3], found {image.dtype} {image.shape}"
            )
        return image
    path = pathlib.Path(image)
    if not path.is_file():
        raise UserError(f"expected an image at {path}, found no such file: check the path")
    try:
        return read_upright(path)
    except UnusableFile as error:
        raise UserError(
            f"expected an image at {path}, found that {error}: check the file"
        ) from None


def load(workdir: str | pathlib.Path, step: str | int = "best") -> Detector:
    """The detector that a run has trained.

    Args:
      workdir: the run folder.
      step: "best" (by mAP; the latest where none was evaluated), "latest", or a step number.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    workdir = pathlib.Path(workdir)
    config = run_folder.read_config(workdir)
    variables = restore_variables(workdir, step).variables
    model = experiment.build_model(config, len(config.model.class_names))
    predict = jax.jit(make_predict_step(model, class_loss=config.loss.class_loss))
    return Detector(
        lambda images: predict(variables, images),
        class_names=config.model.class_names,
        image_size=config.image_size,
        batch_size=min(config.eval.batch_size, 8),
        select_options=experiment.select_options(config),
    )


class Restored(NamedTuple):
    """What a run predicts with at one of its steps."""

    variables: dict[str, Any]
    step: int
    reason: str  # why this step: "the best by mAP", ...


def restore_variables(
    workdir: pathlib.Path,
    step: str | int,
    sharding: jax.sharding.Sharding | None = None,
) -> Restored:
    """Reads a checkpoint. Arguments and errors as in `load`."""
    config = run_folder.read_config(workdir)
    directory = run_folder.checkpoints_dir(workdir)
    with Checkpoints(directory, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(
                f"expected a checkpoint in {directory}, found none: train first, or wait for the "
                "run's first checkpoint"
            )
        chosen, reason = _choose_step(step, steps, checkpoints.best_step())
        abstract = abstract_tree(
            lambda key: create_train_state(
                key,
                model=experiment.build_model(config, len(config.model.class_names)),
                # The length of the run changes rates, not the shape of the state.
                optimizer=experiment.optimizer(config, experiment.Duration(1, 1.0, 1, 1)),
                image_size=config.image_size,
            ),
            jax.random.key(0),
            sharding=sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        )
        try:
            state, _ = checkpoints.restore(chosen, abstract)
        except DamagedCheckpoint as error:
            raise UserError(
                f"checkpoint {chosen} in {directory} is damaged ({error}): take another --step, "
                f"one of {steps}"
            ) from error
    return Restored(inference_variables(state), chosen, reason)


def _choose_step(step: str | int, steps: list[int], best: int | None) -> tuple[int, str]:
    if step == "best" and best is not None:
        return best, f"the best by mAP of the run's own evaluations (latest: {steps[-1]:,})"
    if step == "best":
        return steps[-1], "the latest: none has been evaluated, so that none is the best"
    if step == "latest":
        return steps[-1], "the latest"
    if str(step).isdecimal() and int(step) in steps:
        return int(step), "as asked for"
    raise UserError(f"step must be 'best', 'latest' or one of {steps}, got {step!r}")
