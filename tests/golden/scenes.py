"""Objects to train on, from fixed numbers: shared cells, padding and an image without objects.

Boxes are in [0, 1] of the image. B batch, M slots for the objects of an image, C classes.
"""

from typing import NamedTuple

import numpy as np
from golden import fixed_numbers


class Scenes(NamedTuple):
    """Padded objects of a batch of images, as the train step takes them."""

    boxes_xyxy: np.ndarray  # float64 [B, M, 4]
    labels: np.ndarray  # int32 [B, M]
    valid: np.ndarray  # bool [B, M], False for padding, which holds a box, too


def scenes(name: str, batch_size: int, num_classes: int, num_slots: int = 6) -> Scenes:
    """Another batch for every name.

    In every image the second object lies around the centre of the first. The last image of a batch
    of more than two is empty.
    """
    shape = (batch_size, num_slots)
    sizes = fixed_numbers.uniform(f"{name} sizes", (*shape, 2), 0.1, 0.6)
    places = fixed_numbers.uniform(f"{name} places", (*shape, 2), 0.0, 1.0)
    centres = sizes / 2 + (1 - sizes) * places  # whole boxes lie inside of the image
    centres[:, 1] = centres[:, 0] + 1e-4
    labels = fixed_numbers.uniform(f"{name} labels", shape, 0, num_classes).astype(np.int32)
    labels[:, 1] = (labels[:, 0] + 1) % num_classes
    valid = fixed_numbers.uniform(f"{name} valid", shape) > -0.4
    valid[:, :2] = True
    if batch_size > 2:
        valid[-1] = False
    boxes_xyxy = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    return Scenes(boxes_xyxy, labels, valid)
