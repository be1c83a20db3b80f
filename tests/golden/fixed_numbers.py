"""Arrays that every machine and NumPy version makes alike, so that golden files need not hold them.

NumPy promises the raw stream of a bit generator for ever, not what its distributions make of it.
"""

import math
import zlib

import numpy as np


def uniform(name: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """float64 in [low, high), a stream of its own for every name."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    unit = (raw >> np.uint64(11)) * 2.0**-53
    return (low + (high - low) * unit).reshape(shape)


def torch_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A plausible value of a network's parameter or running average, by its PyTorch name."""
    if len(shape) == 4:  # a kernel, O x I x H x W, that keeps the variance of its input
        bound = math.sqrt(6 / math.prod(shape[1:]))
        return uniform(name, shape, -bound, bound)
    if name.endswith("running_var"):
        return uniform(name, shape, 0.5, 2.0)
    if name.endswith("weight"):
        return uniform(name, shape, 0.5, 1.5)
    return uniform(name, shape, -0.5, 0.5)


def images(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 images."""
    return uniform(name, shape, 0, 256).astype(np.uint8)
