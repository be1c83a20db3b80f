"""The detector as a PyTorch program: what parity is measured against.

Written from torchvision's published architecture and from the reference's head
(gitE0Z9/pytorch-implementations, notebook yolov1-v2 of 2021-09), with torchvision's parameter
names. Weights and images come from fixed_numbers.py. B batch, S grid side, C classes.
"""

import numpy as np
import torch
from golden import fixed_numbers
from golden.resnet_cases import ResNetCase
from torch import nn

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = channels * 4 if bottleneck else channels
        layers = [(channels, 3, stride), (outputs, 3, 1)]  # channels, kernel, stride
        if bottleneck:
            layers = [(channels, 1, 1), (channels, 3, stride), (outputs, 1, 1)]
        before = inputs
        for i, (after, kernel, step) in enumerate(layers, start=1):
            convolution = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i}", convolution)
            setattr(self, f"bn{i}", nn.BatchNorm2d(after))
            before = after
        self.relu1, self.relu2, self.relu = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.bottleneck = bottleneck
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu2(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    def __init__(self, name: str, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
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
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Head(nn.Module):
    def __init__(self, inputs: int, case: ResNetCase):
        super().__init__()
        for i, stride in enumerate((1, *case.strides, 1), start=1):
            conv = nn.Conv2d(inputs, case.head_channels, 3, stride, 1, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(case.head_channels))
            setattr(self, f"relu{i}", nn.LeakyReLU(case.negative_slope))
            inputs = case.head_channels
        self.neck = None
        if case.neck_channels is not None:
            self.neck = nn.Conv2d(inputs, case.neck_channels, 3, 1, 1)
            inputs = case.neck_channels
        self.predict = nn.Conv2d(inputs, 10 + case.num_classes, 1)
        self.slope = case.negative_slope

    def forward(self, x):
        for i in range(1, 5):
            for layer in ("conv", "bn", "relu"):
                x = getattr(self, f"{layer}{i}")(x)
        if self.neck is not None:
            x = nn.functional.leaky_relu(self.neck(x), self.slope)
        return self.predict(x)


class Detector(nn.Module):
    def __init__(self, case: ResNetCase):
        super().__init__()
        self.case = case
        self.backbone = Backbone(case.backbone, case.width)
        self.head = Head(self.backbone.channels, case)

    def forward(self, images):
        """[B, 3, H, W] in 0 to 255 -> [B, 10 + C, S, S]."""
        return self.head(self.backbone(normalize(images, self.case)))


def normalize(images: torch.Tensor, case: ResNetCase) -> torch.Tensor:
    mean = torch.tensor(case.pixel_mean, dtype=images.dtype).view(1, 3, 1, 1)
    std = torch.tensor(case.pixel_std, dtype=images.dtype).view(1, 3, 1, 1)
    return (images / 255 - mean) / std


def detector(case: ResNetCase, dtype: torch.dtype) -> Detector:
    model = Detector(case).to(dtype)
    state = {
        name: torch.from_numpy(fixed_numbers.torch_parameter(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return model


def images(case: ResNetCase, dtype: torch.dtype, name: str | None = None) -> torch.Tensor:
    """[B, 3, H, H] in 0 to 255; `name` picks others than those of the case itself."""
    pixels = fixed_numbers.images(name or case.name, case.image_shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(dtype)


def gradients(model: nn.Module) -> dict[str, np.ndarray]:
    """{name: gradient} of every parameter, sorted by name."""
    return {name: value.grad.numpy().copy() for name, value in sorted(model.named_parameters())}


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in sorted(model.named_parameters())}


def running_statistics(model: nn.Module) -> dict[str, np.ndarray]:
    """{name: running mean or variance}, sorted by name."""
    return {
        name: value.numpy().copy()
        for name, value in sorted(model.named_buffers())
        if "running" in name
    }
