"""The embedded data set: painted scenes with shapes to detect, made on the fly, without a file.

Record i is a function of (seed, split, i) alone, so that the number of loader workers, their order
and an interruption cannot change it. Frame: boxes in [0, 1] of the image.

A scene holds one to four shapes of six classes. Their size, position, rotation, stretch and
texture are independent of the class; their hue goes with it, as it often does in nature, which
lets a small network learn in minutes (a `HUE_SPREAD` of 1 makes the outline the only clue). A box
is tight around the part of the shape that lies inside the image, whether or not other shapes cover
some of it (VOC's boxes of occluded objects stop where the object can no longer be seen). A shape
of which less than 40 % is seen is `difficult`; one of which less than 10 % would be seen is not
painted at all.
"""

import math
import operator
from typing import SupportsIndex

import numpy as np

from yolov1_jax.data import synthetic_painting, synthetic_shapes
from yolov1_jax.data.dataset import Record, SourceReport
from yolov1_jax.errors import UserError

# The training set is large because it costs nothing: no scene is seen twice, and how many scenes
# make an epoch is a matter of the config. The evaluation set is small enough to run often; settings
# were chosen on it. Nothing was ever chosen on the test set.
NUM_IMAGES = {"train": 1_000_000, "eval": 500, "test": 2000}
_SPLIT_CODES = {"train": 1, "eval": 2, "test": 3}
# Standard deviation of a shape's hue around that of its class, in turns; classes are 1/6 apart.
HUE_SPREAD = 0.035
_SHAPES, _PIXELS = 0, 1  # what a stream of random numbers decides on
MIN_IMAGE_SIZE = 32


class SyntheticSource:
    """Random access to synthetic scenes.

    Args:
      split: "train", "eval" or "test". The scenes of the last two do not depend on `seed`, so that
        results of runs with different seeds can be compared.
      num_images: length of the split; None for the default in NUM_IMAGES. The first n scenes are
        the same whatever the length.
      image_size: side of the square image in pixels. Annotations do not depend on it.
      seed: of the training scenes, 0 or greater.

    Raises:
      UserError: an unknown split, or a number that is too small.
    """

    class_names: tuple[str, ...] = synthetic_shapes.CLASS_NAMES

    def __init__(
        self,
        split: str = "train",
        num_images: int | None = None,
        image_size: int = 192,
        seed: int = 0,
    ) -> None:
        if split not in _SPLIT_CODES:
            raise UserError(
                f"split of the synthetic data: expected one of {sorted(_SPLIT_CODES)}, found"
                f" {split!r}; correct config.data.train or config.data.eval"
            )
        self.num_images = NUM_IMAGES[split] if num_images is None else num_images
        for name, value, least in (
            ("number of images", self.num_images, 1),
            ("image size", image_size, MIN_IMAGE_SIZE),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(
                    f"{name} of the synthetic data: expected at least {least}, found {value};"
                    " correct the config"
                )
        self.split = split
        self.image_size = image_size
        self.seed = seed
        self.report = SourceReport(num_images=self.num_images)

    def __len__(self) -> int:
        return self.num_images

    def __repr__(self) -> str:
        return (
            f"SyntheticSource(split={self.split!r}, num_images={self.num_images},"
            f" image_size={self.image_size}, seed={self.seed})"
        )

    def __getitem__(self, index: SupportsIndex) -> Record:
        """The record with its image, uint8 RGB [image_size, image_size, 3]."""
        index = self._checked(index)
        shapes = synthetic_shapes.sample_shapes(self._rng(index, _SHAPES))
        rng = self._rng(index, _PIXELS)
        image = synthetic_painting.paint_background(rng, self.image_size)
        light = rng.uniform(0, 2 * math.pi)
        shadow = np.array([math.cos(light), math.sin(light)])
        for shape in shapes:
            hue = shape.label / len(self.class_names) + HUE_SPREAD * rng.standard_normal()
            synthetic_painting.paint_shape(rng, image, shape.contours, shadow, hue)
        image = synthetic_painting.take_picture(rng, image)
        return self._record(index, shapes, image)

    def annotation(self, index: SupportsIndex) -> Record:
        """The record with `image=b""`; nothing is painted."""
        index = self._checked(index)
        shapes = synthetic_shapes.sample_shapes(self._rng(index, _SHAPES))
        return self._record(index, shapes, b"")

    def _checked(self, index: SupportsIndex) -> int:
        index = operator.index(index)
        if not 0 <= index < self.num_images:
            raise IndexError(f"image {index} of a data set of {self.num_images}")
        return index

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        seed = self.seed if self.split == "train" else 0
        return np.random.default_rng([seed, _SPLIT_CODES[self.split], index, purpose])

    def _record(
        self, index: int, shapes: list[synthetic_shapes.Shape], image: np.ndarray | bytes
    ) -> Record:
        return Record(
            image=image,
            boxes_xyxy=np.array([s.box_xyxy for s in shapes], np.float64),
            labels=np.array([s.label for s in shapes], np.int32),
            difficult=np.array([s.difficult for s in shapes], bool),
            image_id=f"synthetic/{self.split}/{index:06d}",
            height=self.image_size,
            width=self.image_size,
        )
