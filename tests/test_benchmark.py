"""The benchmark: a row for each part, with operations that a person has counted."""

import re

import pytest

from yolov1_jax import benchmark

BACKBONES = ("resnet18", "resnet34")
FLAGS = (
    "--config=quickstart",
    "--config.image_size=64",
    "--config.model.grid_size=2",
    "--config.model.width_multiplier=0.25",
    "--config.model.head_channels=1024",
    "--config.train.batch_size=8",
    "--seconds=0",
)


def conv(side, kernel, stride, inputs, outputs):
    """(Products and sums without those of the padding, side of the output) of a convolution."""
    starts = range(-((kernel - 1) // 2), side + (kernel - 1) // 2 - kernel + 1, stride)
    inside = sum(0 <= start + tap < side for start in starts for tap in range(kernel))
    return 2 * inside**2 * inputs * outputs, len(starts)


def resnet18_detector(side, width, head, outputs):
    """Operations of ResNet-18 and a head of four convolutions and the last, by hand."""
    total, side = conv(side, 7, 2, 3, width)
    side, channels = (side + 1) // 2, width  # max pooling
    for stage in range(4):
        for block in range(2):
            stride, before = (2 if stage and not block else 1), channels
            channels = width * 2**stage
            if stride == 2:
                total += conv(side, 1, 2, before, channels)[0]  # the projected shortcut
            operations, side = conv(side, 3, stride, before, channels)
            total += operations + conv(side, 3, 1, channels, channels)[0]
    for layer in range(4):
        total += conv(side, 3, 1, head if layer else channels, head)[0]
    return total + conv(side, 1, 1, head, outputs)[0]


@pytest.mark.slow
def test_operations_are_those_counted_by_hand(capsys):
    assert benchmark.main([*FLAGS, f"--backbones={','.join(BACKBONES)}"]) == 0
    rows = {}
    for line in capsys.readouterr().out.replace(",", "").splitlines():
        name, *cells = line.strip("│").split("│")
        rows[name.strip()] = [float(one) for one in re.findall(r"[\d.]+", " ".join(cells))]
    parts = ("train", "predict", "decode")
    names = ["loader", *(f"{backbone} {part}" for backbone in BACKBONES for part in parts)]
    assert all(rows[name][0] > 0 for name in names)
    _, _, _, _, train = rows["resnet18 train"]
    rate, _, limit, percent, predict = rows["resnet18 predict"]
    assert 100 * rate / limit == pytest.approx(percent, rel=0.05, abs=0.6)
    by_hand = resnet18_detector(64, 16, 256, 2 * 5 + 6) / 1e9
    # BatchNorm and activations are the rest. A train step has two products more and the update.
    assert by_hand < predict < 1.03 * by_hand
    assert 2 * by_hand < train < 5 * by_hand
