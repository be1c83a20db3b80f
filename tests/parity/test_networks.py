"""The reference's networks at full size against PyTorch: 448 pixels, all channels, 2 images.

float32, evaluation mode: outputs, and the gradient of the reference's loss of every parameter.
float64, training mode: outputs, loss, running statistics, every gradient, and five Adam updates
with L2 by the program that trains: `make_train_step` with the options and the optimizer of
configs/r34.py.

Each tensor is measured by itself, and the worst counts: "max" is max |ours - PyTorch's| / max
|PyTorch's|; "norm" is |ours - PyTorch's| / |PyTorch's|, Euclidean. Updates are measured by norm:
Adam divides each gradient by its own size, and rounding decides about the few that are almost 0.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("torch", reason="PyTorch is absent: pip install -e '.[parity]'")

import choices
import torch
from golden import jax_training, torch_detector, torch_training
from golden.differences import by_norm, largest, maximum, worst
from golden.resnet_cases import FULL_CASES, NUM_UPDATES

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.parametrize("case", FULL_CASES, ids=lambda case: case.backbone),
]


def test_float32_evaluation(compare, case):
    row = functools.partial(compare, "float32, evaluation", case.backbone)
    output, our_terms, our_gradients, normalized = jax_training.evaluate(case, jnp.float32)
    model = torch_detector.detector(case, torch.float32).eval()
    with torch.no_grad():
        raw, _ = torch_training.forward(model, case, 0, torch.float32)
    row("output, max", largest(output, raw.permute(0, 2, 3, 1)), 1e-5)

    followed = choices.follow(model, normalized)
    _, terms = torch_training.forward(model, case, 0, torch.float32)
    sum(terms.values()).backward()
    share = followed.num_different / followed.num_choices
    row("ReLU and max-pool choices that differ", share, 1e-5)
    row("margin of these choices, max", followed.margin, 1e-5)
    terms = {name: term.item() for name, term in terms.items()}
    row("loss terms", worst(largest, our_terms, terms), 1e-5)
    gradients = torch_detector.gradients(model)
    row("gradient of every parameter, max", worst(largest, our_gradients, gradients), 1e-5)


def test_float64_training(compare, case):
    row = functools.partial(compare, "float64, training", case.backbone)
    theirs = torch_training.TorchTraining(case, torch.float64)
    before = torch_detector.parameters(theirs.model)
    with jax.enable_x64(True):
        ours = jax_training.JaxTraining(case, jnp.float64)
        terms = [worst(largest, ours.step(), theirs.step())]
        output = theirs.output.detach().permute(0, 2, 3, 1)
        row("output, max", largest(ours.output(), output), 1e-9)
        row("loss terms", terms[0], 1e-9)
        gradients = torch_detector.gradients(theirs.model)
        row("gradient of every parameter, max", worst(largest, ours.gradients(), gradients), 1e-9)
        running = torch_detector.running_statistics(theirs.model)
        row("running statistics, max", worst(largest, ours.running_statistics(), running), 1e-9)
        for _ in range(NUM_UPDATES - 1):
            terms.append(worst(largest, ours.step(), theirs.step()))

    row = functools.partial(compare, f"float64, {NUM_UPDATES} Adam updates", case.backbone)
    row("loss terms", maximum(terms), 1e-9)
    running = torch_detector.running_statistics(theirs.model)
    row("running statistics, max", worst(largest, ours.running_statistics(), running), 1e-9)
    after, our_after = torch_detector.parameters(theirs.model), ours.parameters()
    row("parameters, norm", worst(by_norm, our_after, after), 1e-9)
    # The change is at most 5e-4, and a thousand times smaller than the parameters.
    changes = (
        {name: value - before[name] for name, value in one.items()} for one in (our_after, after)
    )
    row("change of the parameters, norm", worst(by_norm, *changes), 1e-7)
