"""The detectors of resnet_golden.npz: every backbone and every stride of the head once."""

import dataclasses


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

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.image_size}"

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        return (self.batch_size, self.image_size, self.image_size, 3)


CASES = (
    ResNetCase("resnet18", batch_size=4, image_size=128, grid_size=2, strides=(2, 1)),
    ResNetCase("resnet34", batch_size=4, image_size=128, grid_size=1, strides=(2, 2)),
    ResNetCase(
        "resnet50",
        batch_size=2,
        image_size=96,
        grid_size=3,
        strides=(1, 1),
        neck_channels=8,
        negative_slope=0.1,
    ),
)
