"""The loss and its gradient against slow loops over the formulas, on random and nasty cells."""

import functools

import jax
import numpy as np
import pytest
from loss_cases import (
    COMBINATIONS,
    SWITCHES,
    WEIGHTS,
    adversarial_cases,
    losses_and_gradients,
    rounded,
    without_close_calls,
)
from slow_loss import TERMS, SlowTargets, slow_encode, slow_loss

from yolov1_jax.yolo import grid
from yolov1_jax.yolo.grid import GridTargets
from yolov1_jax.yolo.loss import yolo_loss


def gradient_parts(result, slow, index):
    """(part, gradient, slow gradient, slow scale); x, y and w, h apart, as they differ in size."""
    _, gradient = result
    for name, expected in slow.gradients.items():
        actual, scale = getattr(gradient, name)[index], slow.scales[name]
        if name == "boxes":
            for part, axes in (("x, y", slice(0, 2)), ("w, h", slice(2, 4))):
                yield part, actual[..., axes], expected[..., axes], scale[..., axes]
        else:
            yield name, actual, expected, scale


def assert_equals_slow_loop(result, slow, index, tolerance, label):
    """Each term relative to itself, each gradient relative to its largest element."""
    terms, _ = result
    for name in TERMS:
        np.testing.assert_allclose(
            terms[name][index], slow.terms[name], rtol=tolerance, atol=0, err_msg=f"{label}: {name}"
        )
    for part, actual, expected, _ in gradient_parts(result, slow, index):
        error, largest = np.abs(actual - expected).max(), np.abs(expected).max()
        assert error <= tolerance * largest, (
            f"{label}: gradient of {part} is off by {error:.3g}, its largest is {largest:.3g}"
        )


def assert_gradient_follows_scale(result, slow, index, tolerance, label):
    """Each element relative to the operands of its own difference: exactly 0 where these are 0."""
    for part, actual, expected, scale in gradient_parts(result, slow, index):
        excess = np.abs(actual - expected) - tolerance * scale
        assert excess.max() <= 0, (  # NaN fails, too
            f"{label}: gradient of {part} at {np.unravel_index(excess.argmax(), excess.shape)}"
        )


def random_values(rng):
    """Values for everything that has a value; the switches with names are tried one by one."""
    values = {name: float(rng.uniform(0.2, 6.0)) for name in WEIGHTS}
    values["sqrt_epsilon"] = float(rng.choice([1e-5, 1e-3]))
    values["reduction"] = str(rng.choice(["sum", "mean"]))
    return values


def compare_with_slow_loop(shape, combinations, seed, dtype, tolerance):
    rng = np.random.default_rng(seed)
    for unit in SWITCHES["xy_unit"]:
        switched = [
            switches | random_values(rng)
            for switches in combinations
            if switches["xy_unit"] == unit
        ]
        if not switched:
            continue
        cases = rounded(adversarial_cases(seed, shape, unit), dtype)
        dropped = total = 0
        for name, (predictions, targets) in cases.items():
            clear = without_close_calls(predictions, targets, unit)
            dropped += (targets.object_mask & ~clear.object_mask).sum()
            total += targets.object_mask.sum()
            cases[name] = (predictions, GridTargets(*clear))
        assert dropped <= 0.02 * total
        batch = jax.tree.map(lambda *arrays: np.stack(arrays), *cases.values())
        results = losses_and_gradients(*batch, switched)
        for switches, result in zip(switched, results, strict=True):
            for index, (name, (predictions, targets)) in enumerate(cases.items()):
                slow = slow_loss(*predictions, SlowTargets(*targets), **switches)
                label = f"{name}, {switches}"
                assert_gradient_follows_scale(result, slow, index, tolerance, label)
                # Where prediction and target almost cancel, float32 has few digits left; there
                # only the scale of the operands says what is right, and double precision.
                if name != "almost at the target" or dtype == np.float64:
                    assert_equals_slow_loop(result, slow, index, tolerance, label)


SHAPES = [  # B, S, S, K, C and which of the combinations: all on the first, on the others some
    ((2, 4, 4, 2, 3), range(16)),
    ((2, 7, 7, 2, 20), (0, 15)),
    ((2, 1, 1, 1, 1), (5, 10)),
    ((3, 1, 1, 3, 3), (1, 14)),
    ((2, 4, 4, 3, 1), (12, 3)),
    ((1, 7, 7, 1, 3), (8, 7)),
    ((1, 14, 14, 2, 3), (4, 11)),
    ((1, 14, 14, 3, 20), (9, 6)),
]


@pytest.mark.parametrize(("shape", "which"), SHAPES)
def test_equals_the_slow_loop(shape, which):
    combinations = [COMBINATIONS[number] for number in which]
    compare_with_slow_loop(shape, combinations, seed=0, dtype=np.float32, tolerance=1e-5)


def test_equals_the_slow_loop_to_the_last_digits_in_float64():
    """The same in double precision, where a tolerance cannot hide a wrong formula."""
    with jax.enable_x64(True):
        compare_with_slow_loop(
            (2, 7, 7, 3, 3), COMBINATIONS, seed=1, dtype=np.float64, tolerance=1e-10
        )


@pytest.mark.parametrize("collision", ["last", "first"])
@pytest.mark.parametrize("class_target", ["all", "winner"])
def test_from_boxes_to_loss_equals_the_slow_loops(collision, class_target):
    """Encoding and loss in one compiled function, as a training step has them."""
    rng = np.random.default_rng(0)
    centres = rng.choice(rng.uniform(0.1, 0.9, (6, 2)), (4, 16)) + rng.normal(size=(4, 16, 2)) / 50
    half = rng.uniform(0.03, 0.1, centres.shape)
    boxes_xyxy = np.concatenate([centres - half, centres + half], axis=-1).astype(np.float32)
    labels = rng.integers(0, 3, (4, 16)).astype(np.int32)
    valid = rng.random((4, 16)) < np.array([0.0, 0.4, 0.8, 1.0])[:, None]
    encoding = {
        "grid_size": 7,
        "num_classes": 3,
        "collision": collision,
        "class_target": class_target,
    }
    raw = rng.normal(size=(4, 7, 7, 13)).astype(np.float32) / 3

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_terms(raw):
        predictions = grid.split_predictions(raw, boxes_per_cell=2, num_classes=3)
        terms = yolo_loss(predictions, grid.encode_targets(boxes_xyxy, labels, valid, **encoding))
        return sum(terms.values()), terms

    gradient, terms = gradient_and_terms(raw)
    targets = slow_encode(boxes_xyxy, labels, valid, **encoding)
    per_box = raw[..., :10].reshape(4, 7, 7, 2, 5)
    slow = slow_loss(per_box[..., 1:], per_box[..., 0], raw[..., 10:], targets)
    for name in TERMS:
        np.testing.assert_allclose(terms[name], slow.terms[name], rtol=1e-5, err_msg=name)
    expected = np.concatenate(
        [
            np.concatenate(
                [slow.gradients["confidence"][..., None], slow.gradients["boxes"]], axis=-1
            ).reshape(4, 7, 7, 10),
            slow.gradients["class_scores"],
        ],
        axis=-1,
    )
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("switches", COMBINATIONS[::3])
def test_gradient_of_the_slow_loop_is_its_difference_quotient(switches):
    """Of the test's own yardstick: central differences, responsible box and IoU held constant."""
    shape = (2, 2, 2, 2, 3)
    cases = adversarial_cases(3, shape, switches["xy_unit"])
    switches = switches | random_values(np.random.default_rng(0))
    step = 1e-6
    for name in ("random", "near the target", "width of all boxes negative"):
        predictions, targets = cases[name]
        slow = slow_loss(*predictions, targets, **switches)
        for field, expected in slow.gradients.items():
            array = getattr(predictions, field)
            quotient = np.zeros_like(array)
            for index in np.ndindex(array.shape):
                totals = []
                for sign in (1, -1):
                    moved = array.copy()
                    moved[index] += sign * step
                    at = predictions._replace(**{field: moved})
                    totals.append(
                        sum(slow_loss(*at, targets, frozen=slow, **switches).terms.values())
                    )
                quotient[index] = (totals[0] - totals[1]) / (2 * step)
            np.testing.assert_allclose(quotient, expected, rtol=1e-6, atol=1e-7, err_msg=name)
