"""Synthetic data: images of shapes to detect, made when they are read, without any file.

Image i is a function of (seed, split, i) alone: loader workers and interruptions cannot change it.
It holds one to four shapes of six classes. Size, position, rotation, stretch and texture do not
depend on the class. The hue does, as it often does in nature, so that a small network learns in
minutes (with a HUE_SPREAD of 1 only the outline would tell the classes apart). A box is tight
around the part of the shape inside the image, also where other shapes cover some of it. A shape is
`difficult` if less than 40 % of it is visible, and left out of the image if less than 10 % is.
"""

import dataclasses

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, GroundTruth, Record
from yolov1_jax.data.synthetic_painting import paint
from yolov1_jax.data.synthetic_shapes import CLASS_NAMES, DIFFICULT_BELOW, Shape, sample_shapes

# The training set is large because it costs nothing: no image needs to be seen twice. The
# evaluation set is small enough to run often; settings were chosen on it, and none on the test set.
NUM_IMAGES = {"train": 1_000_000, "eval": 500, "test": 2000}
_SPLIT_CODES = {"train": 1, "eval": 2, "test": 3}
_SHAPES, _PIXELS = 0, 1  # a stream of random numbers for each


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """A split of the synthetic data: "train", "eval" or "test"."""

    class_names = CLASS_NAMES
    split: str = "train"
    num_images: int | None = None  # length of the split; None: that in NUM_IMAGES
    image_size: int = 192  # pixels, both sides; relative boxes do not depend on it
    seed: int = 0  # of "train" alone, so that results of runs with different seeds compare

    def __post_init__(self) -> None:
        if self.split not in NUM_IMAGES:
            raise UserError(f"expected a split of {[*NUM_IMAGES]}, found {self.split!r}")

    def __len__(self) -> int:
        return NUM_IMAGES[self.split] if self.num_images is None else self.num_images

    def __getitem__(self, index: int) -> Record:
        """The image, uint8 RGB [image_size, image_size, 3], with its objects."""
        index = range(len(self))[index]
        shapes = sample_shapes(self._rng(index, _SHAPES))
        image = paint(self._rng(index, _PIXELS), shapes, self.image_size)
        return Record(image, self._image_id(index), *self._objects(shapes))

    def annotations(self, limit: int | None = None) -> Annotations:
        """The objects of the first `limit` images, of all for None; nothing is drawn."""
        indices = range(len(self))[:limit]
        return Annotations.build(
            CLASS_NAMES,
            [self._image_id(i) for i in indices],
            [(self.image_size, self.image_size)] * len(indices),
            [self._objects(sample_shapes(self._rng(i, _SHAPES))) for i in indices],
        )

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        seed = self.seed if self.split == "train" else 0
        return np.random.default_rng([seed, _SPLIT_CODES[self.split], index, stream])

    def _image_id(self, index: int) -> str:
        return f"synthetic/{self.split}/{index:06d}"

    def _objects(self, shapes: list[Shape]) -> GroundTruth:
        return GroundTruth(
            np.array([shape.box_xyxy for shape in shapes]) * self.image_size,  # [n, 4]
            np.array([shape.label for shape in shapes], np.int32),
            np.array([shape.visible < DIFFICULT_BELOW for shape in shapes], bool),
        )
