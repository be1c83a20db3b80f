"""Top-1 and top-5 against hand-worked cases."""

import numpy as np
import pytest
from annotated_sets import images_of, truth

from yolov1_jax.evaluation.accuracy import ClassificationEvaluator

CLASSES = tuple("abcdefg")
BOX = (10, 20, 30, 40)


def evaluated(labels, probabilities):
    """In two batches, the second filled up, in another order than the images."""
    truths = [truth((BOX, label, False)) for label in labels]
    evaluator = ClassificationEvaluator(images_of(truths=truths, class_names=CLASSES))
    rows, places = np.array(probabilities, np.float32), np.arange(len(labels))
    losses = places.astype(np.float32)
    evaluator.update(rows[2:], places[2:], {"loss": losses[2:]})
    filled = np.concatenate([rows[:2], rows[:1]]), np.array([0, 1, -1])
    evaluator.update(*filled, {"loss": np.array([0.0, 1.0, 99.0])})
    return evaluator.compute()


def test_a_hand_worked_case():
    falling = [0.3, 0.2, 0.2, 0.1, 0.08, 0.07, 0.05]  # the two of 0.2 in the order of the classes
    result = evaluated([0, 1, 2, 5, 0], [falling] * 4 + [falling[::-1]])
    assert result.ranks.tolist() == [0, 1, 2, 5, 6]
    assert (result.score, result.top(1), result.top(3), result.top(5)) == (0.2, 0.2, 0.6, 0.6)
    assert result.top1_by_class() == {
        "a": 0.5,
        "b": 0,
        "c": 0,
        "d": None,
        "e": None,
        "f": 0,
        "g": None,
    }
    assert result.row() == {"top1": 0.2, "top5": 0.6, "loss": 2.0}
    assert [found.labels.tolist() for found in result.detections] == [[0]] * 4 + [[6]]
    assert result.detections[4].scores == pytest.approx([0.3])
    assert result.detections[4].boxes_xyxy.tolist() == [list(BOX)]

    summary = result.summary(source="folder", splits=["val"], step=7)
    assert (summary["step"], summary["top1"], summary["top5"]) == (7, 0.2, 0.6)
    assert summary["evaluation_set"]["num_images"] == 5
