"""Target grid, loss, gradients and five Adam updates equal PyTorch's, in float64 (golden file).

The networks are narrow and the program is the real one: `make_train_step` with the options and the
optimizer of configs/r34.py. tests/golden/make_golden.py wrote the file.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import fixed_numbers
from golden.differences import largest
from golden.jax_training import CONFIG, TARGET_OPTIONS, TERMS, JaxTraining, batch_of
from golden.resnet_cases import TRAINING_CASES

from yolov1_jax.yolo.grid import encode_targets, split_predictions
from yolov1_jax.yolo.loss import match_boxes

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "training_golden.npz")


def golden_of(case):
    prefix = f"{case.name}/"
    return {name.removeprefix(prefix): GOLDEN[name] for name in GOLDEN if name.startswith(prefix)}


def assert_fingerprints(name, arrays, golden, tolerance):
    """Norm and sum along a direction of every array, relative to its norm."""
    expected = golden[f"{name} norms"]
    for got, key in zip(fixed_numbers.fingerprint(name, arrays), ("norms", "along"), strict=True):
        difference = np.abs(got - golden[f"{name} {key}"]) / expected
        worst = np.argmax(difference)
        assert difference[worst] < tolerance, f"{[*arrays][worst]}: {difference[worst]}"


@pytest.mark.parametrize("case", TRAINING_CASES, ids=lambda case: case.name)
def test_targets_and_responsible_boxes_equal_pytorch(case):
    golden = golden_of(case)

    @jax.jit
    def targets_and_match(batch, raw):
        targets = encode_targets(
            batch["boxes_xyxy"],
            batch["labels"],
            batch["valid"],
            grid_size=case.grid_size,
            num_classes=case.num_classes,
            **TARGET_OPTIONS,
        )
        predictions = split_predictions(raw, boxes_per_cell=2, num_classes=case.num_classes)
        return targets, match_boxes(predictions, targets, xy_unit="image")

    with jax.enable_x64(True):
        found = targets_and_match(batch_of(case, 0, jnp.float64), golden["output"])
    targets, match = jax.tree.map(np.asarray, found)
    has_object, box, classes = np.split(golden["target"], [1, 5], axis=-1)
    np.testing.assert_array_equal(targets.object_mask, has_object[..., 0] == 1)
    np.testing.assert_array_equal(targets.classes, classes)
    assert classes.sum(-1).max() > 1  # a cell with objects of several classes
    np.testing.assert_allclose(has_object * targets.boxes, box, rtol=0, atol=1e-15)
    np.testing.assert_allclose(has_object * match.iou, golden["iou"], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(match.responsible, golden["responsible"])


FIRST, *OTHERS = TRAINING_CASES  # each takes half a minute to compile


@pytest.mark.parametrize(
    "case",
    [FIRST, *(pytest.param(case, marks=pytest.mark.slow) for case in OTHERS)],
    ids=lambda case: case.name,
)
def test_five_updates_equal_pytorch_in_float64(case):
    golden = golden_of(case)
    with jax.enable_x64(True):
        training = JaxTraining(case, jnp.float64)
        before = training.parameters()
        for index in range(case.num_batches):
            terms = training.step()
            for name in TERMS:
                assert terms[name] == pytest.approx(golden[f"{name} term"][index], rel=1e-9), name
            if index == 0:
                assert training.output().dtype == np.float64
                assert largest(training.output(), golden["output"]) < 1e-9
                assert_fingerprints("gradient", training.gradients(), golden, 1e-9)
    # Also what is accumulated between updates: nothing is rounded to float32 on the way.
    types = {leaf.dtype for leaf in jax.tree.leaves(training.state)}
    assert types == {np.dtype("float64"), np.dtype("int32")}
    running = np.concatenate(list(training.running_statistics().values()))
    np.testing.assert_allclose(running, golden["running"], rtol=1e-9, atol=1e-9)
    after = training.parameters()
    assert_fingerprints("parameter", after, golden, 1e-9)
    # A weight changes by 5e-4 at most. Adam divides a gradient by its own size, which magnifies
    # the rounding of those near 0.
    changes = {name: after[name] - before[name] for name in after}
    assert_fingerprints("change", changes, golden, 1e-7)


def test_the_recipe_is_what_the_golden_file_was_trained_with():
    optimizer = CONFIG.optimizer
    assert (optimizer.name, optimizer.schedule) == ("adam", "constant")
    assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-4, 5e-4)
