"""Writes resnet_golden.npz: what PyTorch computes for narrow ResNet detectors, in float64.

    pip install torch==2.13.0 numpy
    python tests/golden/make_resnet_golden.py

The networks are written here from the papers' and torchvision's published architecture, with
torchvision's parameter names. Weights and images come from fixed_numbers.py; the file holds, per
case, the outputs in evaluation and in training mode, and after one training-mode pass the running
averages and, of every parameter, the gradient of sum(output * direction): its norm, and its sum
with another fixed direction.
"""

import pathlib
import sys

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden import fixed_numbers
from golden.resnet_cases import CASES, ResNetCase

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = channels * 4 if bottleneck else channels
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
        self.bottleneck = bottleneck
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    def __init__(self, name: str, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        bottleneck = name == "resnet50"
        channels = width
        for stage, num_blocks in enumerate(STAGES[name]):
            blocks = []
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(channels, width * 2**stage, stride, bottleneck))
                channels = width * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = channels

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Head(nn.Module):
    def __init__(self, inputs: int, case: ResNetCase):
        super().__init__()
        for i, stride in enumerate((1, *case.strides, 1), start=1):
            conv = nn.Conv2d(inputs, case.head_channels, 3, stride, 1, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(case.head_channels))
            inputs = case.head_channels
        self.neck = None
        if case.neck_channels is not None:
            self.neck = nn.Conv2d(inputs, case.neck_channels, 3, 1, 1)
            inputs = case.neck_channels
        self.predict = nn.Conv2d(inputs, 10 + case.num_classes, 1)
        self.slope = case.negative_slope

    def forward(self, x):
        for i in range(1, 5):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = nn.functional.leaky_relu(x, self.slope)
        if self.neck is not None:
            x = nn.functional.leaky_relu(self.neck(x), self.slope)
        return self.predict(x)


class Detector(nn.Module):
    def __init__(self, case: ResNetCase):
        super().__init__()
        self.backbone = Backbone(case.backbone, case.width)
        self.head = Head(self.backbone.channels, case)

    def forward(self, images):
        """[B, 3, H, W] in 0 to 255 -> [B, S, S, 10 + C]."""
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=images.dtype).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225], dtype=images.dtype).view(1, 3, 1, 1)
        return self.head(self.backbone((images / 255 - mean) / std)).permute(0, 2, 3, 1)


def detector(case: ResNetCase, dtype: torch.dtype) -> Detector:
    model = Detector(case).to(dtype)
    state = {
        name: torch.from_numpy(fixed_numbers.torch_parameter(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return model


def inputs(case: ResNetCase, dtype: torch.dtype) -> torch.Tensor:
    images = fixed_numbers.images(case.name, case.image_shape)
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)


def golden(case: ResNetCase) -> dict[str, np.ndarray]:
    model = detector(case, torch.float64)
    images = inputs(case, torch.float64)
    with torch.no_grad():
        evaluated = model.eval()(images)
    trained = model.train()(images)
    direction = fixed_numbers.uniform("output direction", tuple(trained.shape))
    (trained * torch.from_numpy(direction)).sum().backward()
    gradients = {name: value.grad.numpy() for name, value in sorted(model.named_parameters())}
    running = {
        name: value.numpy()
        for name, value in sorted(model.state_dict().items())
        if "running" in name
    }
    along = [
        (gradient * fixed_numbers.uniform("gradient " + name, gradient.shape)).sum()
        for name, gradient in gradients.items()
    ]
    return {
        "eval": evaluated.numpy(),
        "train": trained.detach().numpy(),
        "running": np.concatenate(list(running.values())),
        "gradient_norms": np.array([np.linalg.norm(gradient) for gradient in gradients.values()]),
        "gradients_along": np.array(along),
    }


if __name__ == "__main__":
    arrays = {f"{case.name}/{key}": value for case in CASES for key, value in golden(case).items()}
    np.savez(pathlib.Path(__file__).with_name("resnet_golden.npz"), **arrays)
