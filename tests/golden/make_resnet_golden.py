"""Writes resnet_golden.npz: what PyTorch computes for narrow ResNet detectors, in float64.

    pip install -e '.[parity]'
    python tests/golden/make_resnet_golden.py

The file holds, per case, the outputs in evaluation and in training mode, and after one
training-mode pass the running averages and, of every parameter, the gradient of
sum(output * direction): its norm, and its sum with another fixed direction.
"""

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden import fixed_numbers, torch_detector
from golden.resnet_cases import CASES, ResNetCase

FILE = pathlib.Path(__file__).with_name("resnet_golden.npz")


def golden(case: ResNetCase) -> dict[str, np.ndarray]:
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


def generate() -> dict[str, np.ndarray]:
    """All arrays of the file."""
    return {f"{case.name}/{key}": value for case in CASES for key, value in golden(case).items()}


if __name__ == "__main__":
    np.savez(FILE, **generate())
