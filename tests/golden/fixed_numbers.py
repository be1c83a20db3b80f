"""Arrays that every machine and NumPy version makes alike, so that golden files need not hold them.

NumPy promises the raw stream of a bit generator for ever, not what its distributions make of it.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np


def uniform(name: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """float64 in [low, high), a stream of its own for every name."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    unit = (raw >> np.uint64(11)) * 2.0**-53
    return (low + (high - low) * unit).reshape(shape)


def torch_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible value of a network's parameter or running average, by its PyTorch name.

    The last layer predicts boxes that meet objects, none of a width near 0: there the root in the
    loss is steep and would magnify rounding.
    """
    if name == "head.predict.weight":
        bound = 0.1 * math.sqrt(6 / shape[1])
        return uniform(name, shape, -bound, bound)
    if name == "head.predict.bias":
        return uniform(name, shape, 0.2, 0.6)
    if len(shape) == 4:  # a kernel, O x I x H x W, that keeps the variance of its input
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return uniform(name, shape, -bound, bound)
    if name.endswith("running_var"):
        return uniform(name, shape, 0.5, 2.0)
    if name.endswith("weight"):
        return uniform(name, shape, 0.5, 1.5)
    return uniform(name, shape, -0.5, 0.5)


def images(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 images: patches of 32 x 32 pixels, each of a colour and with noise of its own.

    Of noise alone, the averages hardly differ from place to place. Batch normalisation divides by
    that and magnifies rounding: the gradients of a ResNet-50 become 25 times less exact.
    """
    batch_size, height, width, channels = shape
    patches = (batch_size, -(-height // 32), -(-width // 32), channels)
    colours = uniform(f"{name} colours", patches, 0, 192).repeat(32, axis=1).repeat(32, axis=2)
    return (colours[:, :height, :width] + uniform(name, shape, 0, 64)).astype(np.uint8)


def fingerprint(prefix: str, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers that stand for an array: its norm, and its sum along a fixed direction.

    The directions are random; prefix and name of the array choose them.
    """
    norms = [np.linalg.norm(array) for array in arrays.values()]
    along = [(array * uniform(prefix + name, array.shape)).sum() for name, array in arrays.items()]
    return np.array(norms), np.array(along)
