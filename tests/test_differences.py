"""The measures by which golden files and PyTorch are compared would see a NaN."""

import math

import numpy as np
from golden.differences import by_norm, largest, maximum, worst


def test_by_hand():
    assert largest([1.0, 2.5], [1.0, 2.0]) == 0.25
    assert by_norm([3.0, 4.0], [0.0, 5.0]) == math.sqrt(10) / 5
    assert worst(largest, {"a": [1.0], "b": [3.0]}, {"a": [1.0], "b": [2.0]}) == 0.5


def test_nan_anywhere_is_the_worst():
    fine, broken = np.ones(2), np.array([1.0, np.nan])
    for got in ({"a": fine, "b": broken}, {"a": broken, "b": fine}):
        assert math.isnan(worst(largest, got, {"a": fine, "b": fine}))
    assert math.isnan(maximum([0.0, math.nan, 1.0]))
    assert not maximum([0.0, math.nan]) <= 1e-9  # the form in which bounds are asked
