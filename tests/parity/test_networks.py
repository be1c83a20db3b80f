"""The reference's networks at full size against PyTorch: 448 pixels, all channels, 2 images.

float32, evaluation mode: outputs, and the gradient of the reference's loss of every parameter.
float64, training mode: outputs, loss, running statistics, every gradient, and five Adam updates
with L2 by the program that trains: `make_train_step` with the options and the optimizer of
configs/r34.py.

Measures, of each tensor by itself, then the worst tensor: "max" is max |ours - PyTorch's| / max
|PyTorch's|; "norm" is |ours - PyTorch's| / |PyTorch's|, Euclidean. Updates are measured by norm:
Adam divides each gradient by its own size, so that rounding decides about the few of ten million
that are almost 0.
"""

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
    ours = jax_training.evaluate(case, jnp.float32)
    model = torch_detector.detector(case, torch.float32).eval()
    with torch.no_grad():
        raw, _ = torch_training.forward(model, case, 0, torch.float32)
    stage, bound = "float32, evaluation", 1e-5
    difference = largest(ours.output, raw.permute(0, 2, 3, 1))
    compare(stage, case.backbone, "output, max", difference, bound)

    followed = choices.follow(model, ours.normalized)
    _, terms = torch_training.forward(model, case, 0, torch.float32)
    sum(terms.values()).backward()
    share = followed.num_different / followed.num_choices
    compare(stage, case.backbone, "ReLU and max-pool choices that differ", share, 1e-5)
    compare(stage, case.backbone, "margin of these choices, max", followed.margin, bound)
    difference = maximum(largest(ours.terms[name], term.item()) for name, term in terms.items())
    compare(stage, case.backbone, "loss terms", difference, bound)
    gradients = torch_detector.gradients(model)
    difference = worst(largest, ours.gradients, gradients)
    compare(stage, case.backbone, "gradient of every parameter, max", difference, bound)


def test_float64_training(compare, case):
    stage, bound = "float64, training", 1e-9
    theirs = torch_training.TorchTraining(case, torch.float64)
    before = torch_detector.parameters(theirs.model)
    with jax.enable_x64(True):
        ours = jax_training.JaxTraining(case, jnp.float64)
        worst_term = 0.0
        for update in range(NUM_UPDATES):
            our_terms, terms = ours.step(), theirs.step()
            assert our_terms.keys() == terms.keys()
            differences = [largest(our_terms[name], terms[name]) for name in terms]
            worst_term = maximum([worst_term, *differences])
            if update == 0:
                output = theirs.output.detach().permute(0, 2, 3, 1)
                compare(stage, case.backbone, "output, max", largest(ours.output(), output), bound)
                compare(stage, case.backbone, "loss terms", worst_term, bound)
                gradients = torch_detector.gradients(theirs.model)
                difference = worst(largest, ours.gradients(), gradients)
                compare(stage, case.backbone, "gradient of every parameter, max", difference, bound)
                running = torch_detector.running_statistics(theirs.model)
                difference = worst(largest, ours.running_statistics(), running)
                compare(stage, case.backbone, "running statistics, max", difference, bound)
        running = torch_detector.running_statistics(theirs.model)
        our_running = ours.running_statistics()
        after, our_after = torch_detector.parameters(theirs.model), ours.parameters()

    stage = f"float64, {NUM_UPDATES} Adam updates"
    compare(stage, case.backbone, "loss terms", worst_term, bound)
    difference = worst(largest, our_running, running)
    compare(stage, case.backbone, "running statistics, max", difference, bound)
    difference = worst(by_norm, our_after, after)
    compare(stage, case.backbone, "parameters, norm", difference, bound)
    # Of a change that is at most 5e-4, and a thousand times smaller than the parameters.
    changes = (
        {name: value - before[name] for name, value in one.items()} for one in (our_after, after)
    )
    difference = worst(by_norm, *changes)
    compare(stage, case.backbone, "change of the parameters, norm", difference, 1e-7)
