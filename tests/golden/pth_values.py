"""What the .pth files beside this hold; see make_pth_golden.py."""

import ml_dtypes
import numpy as np


def expected() -> dict[str, np.ndarray]:
    """Name -> array; every number is exact in every one of the types."""
    counting = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    return {
        "conv1.weight": counting / 4,
        "transposed": counting[0, 0].T - 3,  # a view: the strides are not those of its shape
        "row": counting[1, 2, 3],  # the end of a storage that others share
        "parameter": np.array([0.5, -0.5], np.float32),
        "half": np.array([1.5, -65504.0], np.float16),
        "bfloat16": np.array([1.5, -3.0e38], ml_dtypes.bfloat16),
        "double": np.array([[1e-300, np.pi]]),
        "bn1.num_batches_tracked": np.array(7),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }
