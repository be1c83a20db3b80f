"""Two small networks of Darknet's layers, their weights, images and objects.

"released" has the layer kinds of cfg/yolov1.cfg, "paper" those of cfg/yolo.cfg of 2015: [crop],
no BatchNorm, a hidden connected layer.
"""

import struct

import numpy as np
from golden.fixed_numbers import uniform

_DETECTION = """
[detection]
classes={classes}
coords=4
rescore={rescore}
side={side}
num={num}
softmax={softmax}
sqrt=1
object_scale=1.5
noobject_scale=.5
class_scale=.7
coord_scale=5
"""
RELEASED = """
[net]
batch=1
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=8
size=2
stride=2
activation=relu
[local]
size=3
stride=1
pad=1
filters=4
activation=leaky
[dropout]
probability=.5
[connected]
output=24
batch_normalize=1
activation=leaky
[connected]
output=171
activation=linear
""" + _DETECTION.format(classes=4, side=3, num=3, rescore=1, softmax=0)
PAPER = """
[net]
batch=4
subdivisions=2
width=16
height=16
channels=3
learning_rate=0.002
momentum=0.9
decay=0.05
policy=steps
steps=2,4
scales=5,.1
max_batches=5
[crop]
crop_width=16
crop_height=16
[convolutional]
filters=4
size=3
stride=1
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=4
size=3
stride=2
pad=1
activation=leaky
[local]
size=3
stride=1
pad=1
filters=3
activation=leaky
[connected]
output=12
activation=leaky
[connected]
output=52
activation=linear
""" + _DETECTION.format(classes=3, side=2, num=2, rescore=1, softmax=0)
CFGS = {"released": RELEASED, "paper": PAPER}
NUM_OUTPUTS = {"released": 171, "paper": 52}
# What a file holds. The BatchNorm of a connected layer follows its weights.
_WEIGHTS = {
    "released": (
        *(("bias", 6), ("scale", 6), ("mean", 6), ("var", 6), ("weights", 6, 27)),
        *(("bias", 8), ("scale", 8), ("mean", 8), ("var", 8), ("weights", 8, 24)),
        *(("bias", 64), ("weights", 64, 72), ("bias", 24), ("weights", 24, 64)),
        *(("scale", 24), ("mean", 24), ("var", 24), ("outputs", 171), ("weights", 171, 24)),
    ),
    "paper": (
        *(("bias", 4), ("weights", 4, 27), ("bias", 4), ("weights", 4, 36)),
        *(("bias", 48), ("weights", 48, 36), ("bias", 12), ("weights", 12, 48)),
        *(("outputs", 52), ("weights", 52, 12)),
    ),
}
_RANGES = {"bias": (-0.3, 0.3), "scale": (0.7, 1.4), "mean": (-0.3, 0.3), "var": (0.3, 1.2)}
# Objects of four images, three of them in one cell: label, and centre and size in images.
OBJECTS = (
    ((0, 0.31, 0.33, 0.4, 0.5), (2, 0.2, 0.4, 0.9, 0.2), (1, 0.45, 0.05, 0.3, 0.1)),
    ((1, 0.8, 0.1, 0.35, 0.15),),
    (),
    ((2, 0.6, 0.7, 0.75, 0.55), (0, 0.1, 0.9, 0.12, 0.18)),
)
HEADER = (0, 2, 0, 7)
IMAGE_SIZE = (64, 40)  # of this height, the last of 16 rows is almost black
NUM_UPDATES = 5


def weights_file(name: str) -> bytes:
    """A .weights file."""
    parts = []
    for place, (role, *shape) in enumerate(_WEIGHTS[name]):
        low, high = _RANGES.get(role, (-1.0, 1.0))
        values = uniform(f"{name} {place}", tuple(shape), low, high)
        if role == "weights":
            values *= np.sqrt(3 / shape[1])
        if role == "outputs":  # scores of the classes and confidences; boxes that overlap
            values = 0.3 + 0.7 * values
            boxes = values[{"released": 63, "paper": 20}[name] :].reshape(-1, 4)
            boxes[:, 2:] = np.sign(boxes[:, 2:]) * (1.0 + 0.3 * boxes[:, 2:])
        parts.append(values.astype("<f4").tobytes())
    return struct.pack("<iiiQ", *HEADER) + b"".join(parts)


def image(height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]"""
    return uniform(f"image {height} {width}", (height, width, 3), 0, 256).astype(np.uint8)


def train_images() -> np.ndarray:
    """uint8 [4, 16, 16, 3]"""
    return image(64, 16).reshape(4, 16, 16, 3)


def truth(side: int, classes: int) -> np.ndarray:
    """What Darknet's fill_truth_region makes of OBJECTS: float32 [4, side * side * (5 + classes)].

    Cell by cell whether there is an object, its class, x and y in the cell, width and height; the
    first object of a cell wins.
    """
    filled = np.zeros((len(OBJECTS), side, side, 5 + classes), np.float32)
    for grid, objects in zip(filled, OBJECTS, strict=True):
        for label, x, y, width, height in objects:
            column, row = int(x * side), int(y * side)
            cell = grid[row, column]
            if cell[0] == 0:
                cell[[0, 1 + label]] = 1
                cell[1 + classes :] = x * side - column, y * side - row, width, height
    return filled.reshape(len(OBJECTS), -1)


# [detection] alone: name, rescore, softmax.
LOSSES = {"rescore": (1, 0), "one": (0, 0), "softmax": (1, 1)}


def loss_cfg(name: str) -> str:
    rescore, softmax = LOSSES[name]
    detection = _DETECTION.format(classes=3, side=2, num=2, rescore=rescore, softmax=softmax)
    return f"[net]\ninputs=52\nbatch=4\n{detection}"


def loss_inputs() -> np.ndarray:
    """float32 [4, 52]: boxes of either sign, near and far, and two boxes alike."""
    inputs = uniform("outputs", (4, 52), -1, 1).astype(np.float32)
    boxes = inputs[:, 20:].reshape(4, 4, 2, 4)
    boxes[..., :2] += 0.5
    boxes[0, 0, 1] = boxes[0, 0, 0]  # a tie
    boxes[3, :, :, :2] += 9  # no IoU: the nearest
    return inputs
