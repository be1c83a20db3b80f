"""A network small enough to follow, and to compile, in place of YOLOv1."""

from flax import linen as nn

STATISTICS_MOMENTUM = 0.9


class TinyNet(nn.Module):
    """One hidden layer with BatchNorm between the pixels and the grid."""

    num_classes: int = 3
    grid_size: int = 2
    boxes_per_cell: int = 2

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), -1) / 255  # [B, H*W*3]
        x = nn.Dense(64, use_bias=False)(x)  # [B, 64]
        norm = nn.BatchNorm(use_running_average=not train, momentum=STATISTICS_MOMENTUM)
        x = nn.relu(norm(x))
        x = nn.Dense(self.grid_size**2 * (self.boxes_per_cell * 5 + self.num_classes))(x)
        return x.reshape(len(images), self.grid_size, self.grid_size, -1)  # [B, S, S, K*5+C]
