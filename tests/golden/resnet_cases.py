"""The detectors that are compared with PyTorch.

The narrow ones of the golden files have every backbone and every stride of the head once; the full
ones are the reference's own networks.
"""

import dataclasses

NUM_UPDATES = 5  # of the weights, in every comparison of training


@dataclasses.dataclass(frozen=True)
class ResNetCase:
    """One network and its input."""

    backbone: str
    batch_size: int
    image_size: int
    grid_size: int
    strides: tuple[int, int]  # of the head's second and third convolution
    neck_channels: int | None = None
    negative_slope: float = 0.0
    width: int = 8  # channels of the stem; 64 in torchvision
    head_channels: int = 16
    num_classes: int = 3
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    accumulation_steps: int = 1  # batches for an update of the weights

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.image_size}"

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        return (self.batch_size, self.image_size, self.image_size, 3)

    @property
    def num_batches(self) -> int:
        return NUM_UPDATES * self.accumulation_steps

    def batch_name(self, index: int) -> str:
        """Names the fixed numbers of a batch: its images and its objects."""
        return f"{self.name} batch {index}"


PLAIN = {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}  # image / 255

CASES = (
    ResNetCase("resnet18", 4, 128, grid_size=2, strides=(2, 1)),
    ResNetCase("resnet34", 4, 128, grid_size=1, strides=(2, 2)),
    ResNetCase("resnet50", 2, 96, grid_size=3, strides=(1, 1), neck_channels=8, negative_slope=0.1),
)

# The reference's head, trained with its loss. The first accumulates two batches for an update.
TRAINING_CASES = (
    ResNetCase("resnet18", 4, 128, grid_size=2, strides=(2, 1), accumulation_steps=2, **PLAIN),
    ResNetCase("resnet34", 4, 192, grid_size=3, strides=(2, 1), **PLAIN),
    ResNetCase("resnet50", 4, 128, grid_size=2, strides=(2, 1), **PLAIN),
)

# The reference's own networks.
FULL = {"width": 64, "head_channels": 1024, "num_classes": 20, **PLAIN}
FULL_CASES = tuple(
    ResNetCase(backbone, 2, 448, grid_size=7, strides=(2, 1), **FULL)
    for backbone in ("resnet18", "resnet34", "resnet50")
)
