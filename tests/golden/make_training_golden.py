"""Writes training_golden.npz: five updates of narrow detectors by the PyTorch reference, float64.

    pip install -e '.[parity]'
    python tests/golden/make_training_golden.py

The file holds, per case, of the first batch the target grid, the output, the IoU and the
responsibility of every box and the gradient of the loss; the terms of the loss of every batch; and
after five Adam updates with L2 the running averages, the parameters and their change. Gradients,
parameters and changes stand there as two numbers each, see `fixed_numbers.fingerprint`.
"""

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden import fixed_numbers, torch_detector, torch_loss
from golden.resnet_cases import TRAINING_CASES, ResNetCase
from golden.scenes import scenes
from golden.torch_training import TorchTraining

FILE = pathlib.Path(__file__).with_name("training_golden.npz")


def golden(case: ResNetCase) -> dict[str, np.ndarray]:
    training = TorchTraining(case, torch.float64)
    before = torch_detector.parameters(training.model)
    objects = scenes(case.batch_name(0), case.batch_size, case.num_classes)
    target = torch_loss.target_grid(objects, case.grid_size, case.num_classes)
    terms = [training.step()]
    output = training.output.detach()
    iou, responsible = torch_loss.choose_boxes(output, target)
    # What the numbers of this file must show: both boxes chosen, with and without overlap.
    assert all(responsible[:, box].any() for box in (0, 1)), "a box is never responsible"
    assert 0 < (iou > 0).sum() < iou.numel(), "no box meets an object"
    gradients = {
        name: case.accumulation_steps * gradient
        for name, gradient in torch_detector.gradients(training.model).items()
    }
    for _ in range(case.num_batches - 1):
        terms.append(training.step())
    after = torch_detector.parameters(training.model)
    arrays = {
        "target": target,
        "output": output,
        "iou": iou,
        "responsible": responsible,
    }
    prints = {
        "gradient": gradients,
        "parameter": after,
        "change": {name: after[name] - before[name] for name in after},
    }
    running = torch_detector.running_statistics(training.model)
    return {
        **{name: array.movedim(1, -1).numpy() for name, array in arrays.items()},  # [B, S, S, ..]
        **{f"{name} term": np.array([batch[name] for batch in terms]) for name in terms[0]},
        "running": np.concatenate(list(running.values())),
        **{
            f"{name} {what}": values
            for name, tensors in prints.items()
            for what, values in zip(
                ("norms", "along"), fixed_numbers.fingerprint(name, tensors), strict=True
            )
        },
    }


def generate() -> dict[str, np.ndarray]:
    """All arrays of the file."""
    return {
        f"{case.name}/{key}": value
        for case in TRAINING_CASES
        for key, value in golden(case).items()
    }


if __name__ == "__main__":
    np.savez(FILE, **generate())
