"""Variables by their paths, and torch's axes. (For strictness see test_torchvision_weights.py.)"""

import numpy as np

from yolov1_jax.weights.assign import (
    LoadedWeights,
    leaves_of,
    to_flax_layout,
    to_torch_layout,
    with_leaves,
)

VARIABLES = {
    "params": {"head": {"bn1": {"scale": 1}, "conv1": {"kernel": 2}}},
    "batch_stats": {"head": {"bn1": {"mean": 3}}},
}


def test_leaves_have_paths_without_their_collection():
    assert leaves_of(VARIABLES) == {
        ("head", "bn1", "scale"): 1,
        ("head", "conv1", "kernel"): 2,
        ("head", "bn1", "mean"): 3,
    }


def test_some_leaves_are_replaced():
    leaves = {("head", "bn1", "mean"): 30, ("head", "conv1", "kernel"): 20}
    assert with_leaves({**VARIABLES, "more": 4}, leaves) == {
        "params": {"head": {"bn1": {"scale": 1}, "conv1": {"kernel": 20}}},
        "batch_stats": {"head": {"bn1": {"mean": 30}}},
        "more": 4,
    }
    assert leaves_of(VARIABLES)["head", "bn1", "mean"] == 3


def test_axes():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # H W I O
    tensor = to_torch_layout(kernel)
    assert tensor.shape == (5, 4, 2, 3)
    assert tensor[4, 3, 1, 2] == kernel[1, 2, 3, 4]
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(to_flax_layout(tensor), kernel)
    vector = np.arange(3)
    assert to_torch_layout(vector) is to_flax_layout(vector) is vector


def test_what_was_read_in_a_line():
    loaded = LoadedWeights("r18.pth", 2, 1234, ("bn1.num_batches_tracked", "fc.bias"))
    assert str(loaded) == "r18.pth: 2 arrays, 1,234 values, without fc.bias"
