"""The loss and its gradient against slow loops over the formulas, on random and nasty cells."""

import functools

import jax
import numpy as np
import pytest
from loss_cases import (
    COMBINATIONS,
    SWITCHES,
    adversarial_cases,
    boxes_near,
    losses_and_gradients,
    random_targets,
    without_close_calls,
)
from slow_loss import slow_encode, slow_loss, slow_recipe

from yolov1_jax.yolo.grid import Predictions, encode_targets
from yolov1_jax.yolo.loss import yolo_loss

# x, y and w, h apart, as they differ in size.
PARTS = (
    ("boxes", slice(0, 2)),
    ("boxes", slice(2, 4)),
    ("confidence", slice(None)),
    ("class_scores", slice(None)),
)


def assert_equals_slow_loop(terms, gradient, slow, tolerance, cancels, label):
    """Terms and gradients of a case.

    Each element of a gradient is compared relative to the operands of its own difference: exactly 0
    where these are 0. Unless prediction and target almost cancel, where float32 has few digits
    left, also each term relative to itself and each gradient relative to its largest element.
    """
    for name, axes in PARTS:
        expected, scale = slow.gradients[name][..., axes], slow.scales[name][..., axes]
        error = np.abs(getattr(gradient, name)[..., axes] - expected)
        assert (error <= tolerance * scale).all(), f"{label}: gradient of {name}"  # NaN fails, too
        assert cancels or error.max() <= tolerance * np.abs(expected).max(), f"{label}: {name}"
    if not cancels:
        assert terms == pytest.approx(slow.terms, rel=tolerance, abs=0), label


def random_values(rng):
    """Values for everything that has a value; the switches with names are tried one by one."""
    weights = ("coordinate_weight", "object_weight", "no_object_weight", "class_weight")
    values = {name: float(rng.uniform(0.2, 6.0)) for name in weights}
    values["sqrt_epsilon"] = float(rng.choice([1e-5, 1e-3]))
    values["reduction"] = str(rng.choice(["sum", "mean"]))
    return values


FLOAT32, FLOAT64 = (np.float32, 1e-5), (np.float64, 1e-10)


@pytest.mark.parametrize(
    ("shape", "which", "precision"),
    [  # B, S, S, K, C and which of the combinations: all on the first, on the others some
        ((2, 4, 4, 2, 3), range(16), FLOAT32),
        ((2, 7, 7, 2, 20), (0, 15), FLOAT32),
        ((2, 1, 1, 1, 1), (5, 10), FLOAT32),
        ((2, 4, 4, 3, 1), (12, 3), FLOAT32),
        ((1, 7, 7, 1, 3), (8, 7), FLOAT32),
        ((1, 14, 14, 3, 20), (9, 6), FLOAT32),
        # In double precision a tolerance cannot hide a wrong formula.
        ((2, 5, 5, 3, 3), range(16), FLOAT64),
    ],
)
def test_equals_the_slow_loop(shape, which, precision):
    dtype, tolerance = precision
    rng = np.random.default_rng(0)
    for unit in SWITCHES["xy_unit"]:
        combinations = [COMBINATIONS[i] for i in which if COMBINATIONS[i]["xy_unit"] == unit]
        switched = [switches | random_values(rng) for switches in combinations]
        cases = adversarial_cases(0, shape, unit, dtype)
        before = sum(targets.object_mask.sum() for _, targets in cases.values())
        cases = {
            name: (predictions, without_close_calls(predictions, targets, unit))
            for name, (predictions, targets) in cases.items()
        }
        assert sum(targets.object_mask.sum() for _, targets in cases.values()) >= 0.98 * before
        with jax.enable_x64(dtype == np.float64):
            results = losses_and_gradients(cases.values(), switched)
        for switches, result in zip(switched, results, strict=True):
            for index, (name, (predictions, targets)) in enumerate(cases.items()):
                terms, gradient = jax.tree.map(lambda array, index=index: array[index], result)
                slow = slow_loss(*predictions, targets, **switches)
                cancels = name == "almost at the target" and dtype == np.float32
                label = f"{name}, {switches}"
                assert_equals_slow_loop(terms, gradient, slow, tolerance, cancels, label)


@pytest.mark.parametrize("rule", [("last", "all"), ("first", "all"), ("last", "winner")])
def test_from_boxes_to_loss_equals_the_slow_loops(rule):
    """Encoding and loss in one compiled function, as a training step has them; defaults."""
    rng = np.random.default_rng(0)
    centres = rng.choice(rng.uniform(0.1, 0.9, (6, 2)), (4, 16)) + rng.normal(size=(4, 16, 2)) / 50
    half = rng.uniform(0.03, 0.1, centres.shape)
    boxes_xyxy = np.concatenate([centres - half, centres + half], axis=-1)
    valid = rng.random((4, 16)) < np.array([0.0, 0.4, 0.8, 1.0])[:, None]
    objects = (boxes_xyxy.astype(np.float32), rng.integers(0, 3, (4, 16)), valid)
    encoding = {"grid_size": 7, "num_classes": 3, "collision": rule[0], "class_target": rule[1]}
    shapes = Predictions((4, 7, 7, 2, 4), (4, 7, 7, 2), (4, 7, 7, 3))
    predictions = Predictions(*(rng.normal(size=shape).astype(np.float32) / 3 for shape in shapes))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_terms(predictions):
        loss = yolo_loss(predictions, encode_targets(*objects, **encoding))
        return loss.total, loss.terms

    gradient, terms = gradient_and_terms(predictions)
    slow = slow_loss(*predictions, slow_encode(*objects, **encoding))
    assert jax.tree.map(float, terms) == pytest.approx(slow.terms, rel=1e-5)
    for name, expected in slow.gradients.items():
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=0, atol=tolerance)


def difference_quotients(total, predictions, step=1e-6):
    """The gradient of `total(predictions)` by central differences, for each field."""
    for field, array in predictions._asdict().items():
        quotient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            totals = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                totals.append(total(predictions._replace(**{field: moved})))
            quotient[index] = (totals[0] - totals[1]) / (2 * step)
        yield field, quotient


@pytest.mark.parametrize("switches", COMBINATIONS[::3])
def test_gradient_of_the_slow_loop_is_its_difference_quotient(switches):
    """The slow loop's own check: central differences, responsible box and IoU held constant."""
    cases = adversarial_cases(3, (2, 2, 2, 2, 3), switches["xy_unit"], np.float64)
    switches = switches | random_values(np.random.default_rng(0))
    for name in ("random", "near the target", "width of all boxes negative"):
        predictions, targets = cases[name]
        slow = slow_loss(*predictions, targets, **switches)

        def total(at, targets=targets, slow=slow):
            return sum(slow_loss(*at, targets, frozen=slow, **switches).terms.values())

        for field, quotient in difference_quotients(total, predictions):
            expected = slow.gradients[field]
            np.testing.assert_allclose(quotient, expected, rtol=1e-6, atol=1e-7, err_msg=name)


RECIPES = [
    {"box": "giou", "confidence": "cross_entropy", "class_loss": "bernoulli", "ignore_iou": 0.4},
    {"box": "ciou", "confidence": "squared", "class_loss": "softmax", "label_smoothing": 0.1},
    {"box": "ciou", "confidence": "cross_entropy", "class_loss": "softmax", "ignore_iou": 0.2},
    {"box": "squared_roots", "confidence": "squared", "class_loss": "bernoulli"},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipe_equals_the_slow_loop(recipe):
    """In float64: the terms, and their gradient against difference quotients of the slow loop."""
    shape = (2, 2, 2, 2, 3)
    rng = np.random.default_rng(1)
    targets = random_targets(rng, shape)
    finished = np.clip(boxes_near(rng, targets, shape, "cell", noise=0.5), 0.02, 0.98)
    outputs = Predictions(
        np.log(finished / (1 - finished)),
        2 * rng.normal(size=shape[:4]),
        2 * rng.normal(size=(*shape[:3], shape[4])),
    )
    switches = {"prediction": "sigmoid", "xy_unit": "cell", **recipe}
    with jax.enable_x64(True):
        ((terms, gradient),) = losses_and_gradients([(outputs, targets)], [switches])
    options = {key: value for key, value in recipe.items() if key != "confidence"}
    options["squared_confidence"] = recipe["confidence"] == "squared"

    def slow(outputs, constants=None):
        return slow_recipe(*outputs, targets, constants=constants, **options)

    weights = {"xy": 5, "wh": 5, "box": 5, "object": 1, "no_object": 0.5, "class": 1}
    expected = slow(outputs)
    ignored = [value for key, value in expected.constants.items() if key[-1] == "ignored"]
    assert any(ignored) == ("ignore_iou" in recipe)
    assert not all(ignored)
    for name, term in terms.items():
        assert term[0] == pytest.approx(weights[name] * expected.terms[name], rel=1e-12), name
    assert set(terms) == {name for name, term in expected.terms.items() if term > 0}

    def total(at):
        terms = slow(at, dict(expected.constants)).terms
        return sum(weights[name] * term for name, term in terms.items())

    for field, quotient in difference_quotients(total, outputs):
        np.testing.assert_allclose(getattr(gradient, field)[0], quotient, rtol=1e-5, atol=1e-7)
