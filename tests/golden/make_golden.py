"""Writes what PyTorch computes for narrow detectors, in float64.

    pip install -e '.[parity]'
    python tests/golden/make_golden.py

resnet_golden.npz holds, per case, the outputs in evaluation and in training mode, and after one
training-mode pass the running averages and the gradients of sum(output * direction).

training_golden.npz holds, per case, of the first batch the target grid, the output, the IoU and the
responsibility of every box and the gradients of the loss; the terms of the loss of every batch; and
after five Adam updates with L2 the running averages, the parameters and their change.

Gradients, parameters and changes stand there as two numbers each, see `fixed_numbers.fingerprint`.
"""

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden import fixed_numbers, torch_detector, torch_loss
from golden.resnet_cases import CASES, TRAINING_CASES, ResNetCase
from golden.scenes import scenes
from golden.torch_training import TorchTraining

FOLDER = pathlib.Path(__file__).parent


def network(case: ResNetCase) -> dict[str, np.ndarray]:
    model = torch_detector.detector(case, torch.float64)
    images = torch_detector.images(case, torch.float64)
    with torch.no_grad():
        evaluated = model.eval()(images).permute(0, 2, 3, 1)  # [B, S, S, 10 + C]
    trained = model.train()(images).permute(0, 2, 3, 1)
    direction = fixed_numbers.uniform("output direction", tuple(trained.shape))
    (trained * torch.from_numpy(direction)).sum().backward()
    norms, along = fixed_numbers.fingerprint("gradient ", torch_detector.gradients(model))
    return {
        "eval": evaluated.numpy(),
        "train": trained.detach().numpy(),
        "running": np.concatenate(list(torch_detector.running_statistics(model).values())),
        "gradient_norms": norms,
        "gradients_along": along,
    }


def training(case: ResNetCase) -> dict[str, np.ndarray]:
    theirs = TorchTraining(case, torch.float64)
    before = torch_detector.parameters(theirs.model)
    objects = scenes(case.batch_name(0), case.batch_size, case.num_classes)
    target = torch_loss.target_grid(objects, case.grid_size, case.num_classes)
    terms = [theirs.step()]
    output = theirs.output.detach()
    iou, responsible = torch_loss.choose_boxes(output, target)
    # What the numbers of this file must show: both boxes chosen, with and without overlap.
    assert all(responsible[:, box].any() for box in (0, 1)), "a box is never responsible"
    assert 0 < (iou > 0).sum() < iou.numel(), "no box meets an object"
    gradients = {
        name: case.accumulation_steps * gradient
        for name, gradient in torch_detector.gradients(theirs.model).items()
    }
    terms += [theirs.step() for _ in range(case.num_batches - 1)]
    after = torch_detector.parameters(theirs.model)
    changes = {name: after[name] - before[name] for name in after}
    running = torch_detector.running_statistics(theirs.model)
    found = {"target": target, "output": output, "iou": iou, "responsible": responsible}
    found = {name: array.movedim(1, -1).numpy() for name, array in found.items()}  # [B, S, S, ..]
    found |= {f"{name} term": np.array([batch[name] for batch in terms]) for name in terms[0]}
    found["running"] = np.concatenate(list(running.values()))
    for name, tensors in (("gradient", gradients), ("parameter", after), ("change", changes)):
        norms, along = fixed_numbers.fingerprint(name, tensors)
        found |= {f"{name} norms": norms, f"{name} along": along}
    return found


FILES = {"resnet_golden.npz": (network, CASES), "training_golden.npz": (training, TRAINING_CASES)}


def generate(name: str) -> dict[str, np.ndarray]:
    """All arrays of a file."""
    make, cases = FILES[name]
    return {f"{case.name}/{key}": value for case in cases for key, value in make(case).items()}


if __name__ == "__main__":
    for name in FILES:
        np.savez(FOLDER / name, **generate(name))
