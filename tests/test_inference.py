"""The network over a whole source: every image once, in order, whatever the batches."""

import jax
import numpy as np
import pytest
from oracle import ODD_SIZES, Oracle, predict


def test_every_image_once_and_in_order():
    seen = []

    def track(batches, description, total):
        seen.append((description, total))
        return batches

    predictions, sizes = predict(ODD_SIZES, track=track)
    assert seen == [("evaluating", 2)]
    np.testing.assert_array_equal(sizes, [[30, 50], [50, 20], [333, 500], [40, 40], [10, 64]])
    expected = Oracle(ODD_SIZES)
    np.testing.assert_array_equal(predictions.confidence, expected.confidence[1:])
    np.testing.assert_array_equal(predictions.class_scores, expected.class_scores[1:])


@pytest.mark.parametrize("batch_size", [4, 8])
def test_the_batch_size_changes_nothing(batch_size):
    found, expected = predict(ODD_SIZES, batch_size), predict(ODD_SIZES, 20)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
