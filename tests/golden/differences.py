"""How far two arrays are apart, relative to the second."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def largest(got: Any, expected: Any) -> float:
    """max |got - expected| / max |expected|."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{got.shape} is not {expected.shape}"
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def by_norm(got: Any, expected: Any) -> float:
    """|got - expected| / |expected| of all elements together, Euclidean."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{got.shape} is not {expected.shape}"
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def worst(
    measure: Callable[[Any, Any], float], got: Mapping[str, Any], expected: Mapping[str, Any]
) -> float:
    """The largest difference of any array: each is measured by itself."""
    assert got.keys() == expected.keys()
    return maximum(measure(got[name], expected[name]) for name in expected)


def maximum(differences: Iterable[float]) -> float:
    """The largest; NaN if one is NaN, which Python's max would pass over."""
    return float(np.max(list(differences)))
