"""The benchmark: its numbers fit together, and its count of operations is that of a person."""

import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console
from tiny_net import TinyNet
from tiny_run import tiny_config

from yolov1_jax import benchmark, timing
from yolov1_jax.errors import UserError
from yolov1_jax.training import build as experiment
from yolov1_jax.training.step import make_predict_step

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def numbers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MATMUL_SIZES", (64, 128))
        patch.setattr(experiment, "build_model", lambda config, num_classes: TinyNet(num_classes))
        return benchmark.benchmark(tiny_config(train__batch_size=8), seconds=0.1)


def test_numbers_are_positive_and_complete(numbers):
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert list(numbers["rows"]) == ["loader", "train step", "predict step", "decode + NMS"]
    conditions = {name: value for name, value in numbers.items() if name not in ("rows", "matmul")}
    assert conditions == {
        "device": jax.devices()[0].device_kind,
        "num_devices": 4,
        "num_cpus": os.cpu_count(),
        "jax": jax.__version__,
        "compute_dtype": "float32",
        "image_size": 64,
        "train_batch_size": 8,
        "eval_batch_size": 4,
        "num_workers": 0,
    }
    matmul = numbers["matmul"]
    assert matmul.keys() == {"size", "flops_per_second", "spread", "repeats"}
    assert matmul["size"] in (64, 128)
    assert matmul["flops_per_second"] > 0
    for row in numbers["rows"].values():
        assert row.keys() == {
            "images_per_second",
            "spread",
            "repeats",
            "flops_per_image",
            "limited_by",
            "limit_images_per_second",
            "fraction_of_limit",
        }
        assert row["images_per_second"] > 0
        assert row["spread"] >= 0
        assert row["repeats"] >= 3


def test_limits_fit_together(numbers):
    rows, peak = numbers["rows"], numbers["matmul"]["flops_per_second"]
    for row in rows.values():
        speed = row["fraction_of_limit"] * row["limit_images_per_second"]
        assert speed == pytest.approx(row["images_per_second"])
    for name in ("train step", "predict step"):
        row = rows[name]
        assert row["limited_by"] == "matmul"
        assert row["limit_images_per_second"] * row["flops_per_image"] == pytest.approx(peak)
    for name in ("loader", "decode + NMS"):
        row = rows[name]
        assert row["flops_per_image"] is None
        by = rows[row["limited_by"]]
        assert row["limit_images_per_second"] == by["images_per_second"]
    # Almost all is in the first layer: forward once, and backward once, because nobody asks for
    # the gradient of the pixels. The update of its weights is shared by two images a device.
    per_image = 2 * 64 * (64 * 64 * 3)
    assert rows["predict step"]["flops_per_image"] == pytest.approx(per_image, rel=0.03)
    assert 2 < rows["train step"]["flops_per_image"] / per_image < 12


@pytest.mark.parametrize("rate", [0.0123, 63.2, 123_456.0])
def test_the_table_fits_a_terminal(numbers, rate):
    """80 columns, for slow machines and for fast ones."""
    scaled = json.loads(json.dumps(numbers))
    for row in scaled["rows"].values():
        row.update(images_per_second=rate, limit_images_per_second=3 * rate, spread=0.283)
        row.update(fraction_of_limit=12.3)
    console = Console(file=io.StringIO(), width=80)
    console.print(benchmark.table(scaled))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 + len(scaled["rows"])  # nothing wrapped
    assert "…" not in "".join(lines)
    assert all(len(line.rstrip()) <= 79 for line in lines)
    assert all(len(line) <= 80 for line in benchmark.header(scaled).splitlines())


def test_the_verdict_names_who_waits(numbers):
    changed = json.loads(json.dumps(numbers))
    changed["rows"]["loader"]["fraction_of_limit"] = 2.25
    assert "ahead: it makes 2.2 times" in benchmark.verdict(changed)
    changed["rows"]["loader"]["fraction_of_limit"] = 0.5
    assert "behind: it makes 50%" in benchmark.verdict(changed)


# ---------------------------------------------------------------------- counting operations


def pairs(side, kernel, stride, padding, padding_counts=False):
    """Along one axis: pairs of an output and a tap of its kernel that is not padding; outputs."""
    outputs = range(-padding, side + padding - kernel + 1, stride)
    inside = sum(
        padding_counts or 0 <= start + tap < side for start in outputs for tap in range(kernel)
    )
    return inside, len(outputs)


class HandCount:
    """Follows an image through convolutions; an operation is a product or a sum."""

    def __init__(self, side, channels, padding_counts):
        self.side, self.channels, self.flops = side, channels, 0
        self.padding_counts = padding_counts

    def conv(self, kernel, channels, stride=1):
        inside, outputs = pairs(self.side, kernel, stride, (kernel - 1) // 2, self.padding_counts)
        self.flops += 2 * inside**2 * self.channels * channels
        self.side, self.channels = outputs, channels

    def block(self, channels, stride):
        """Of ResNet-18: two convolutions, and a projection where the shortcut needs one."""
        side, before = self.side, self.channels
        self.conv(3, channels, stride)
        self.conv(3, channels)
        if stride != 1 or before != channels:
            inside, _ = pairs(side, 1, stride, 0)
            self.flops += 2 * inside**2 * before * channels


def hand_count_resnet18(side, width, head_channels, out_channels, padding_counts=False):
    """A grid as wide as the last feature map."""
    count = HandCount(side, 3, padding_counts)
    count.conv(7, width, 2)
    count.side = (count.side + 2 - 3) // 2 + 1  # max pooling, 3 x 3 with a stride of 2
    for stage in range(4):
        for block in range(2):
            count.block(width * 2**stage, 2 if stage > 0 and block == 0 else 1)
    for _ in range(4):
        count.conv(3, head_channels)
    count.conv(1, out_channels)
    return count.flops


def test_the_hand_count_knows_the_published_number():
    """1.814 billion multiplications for an image of 224 pixels, the classifier's 0.0005 included;
    torchvision's table of weights rounds it to 1.81. They count padding."""
    without_head = hand_count_resnet18(224, 64, 0, 0, padding_counts=True)
    assert without_head / 2 == pytest.approx(1.8135e9, rel=5e-4)


def test_one_convolution():
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = jnp.ones((5, 12, 12, 3)), jnp.ones((3, 3, 3, 7))
    compiled = jax.jit(conv).lower(x, kernel).compile()
    # Outputs 0 to 5 of an axis see 2, 3, 3, 3, 3 and 3 pixels.
    by_hand = 5 * 7 * (2 * 3) * 17**2
    # Compiled for one device, but the count is for all four.
    assert benchmark.flops_of(compiled) / 4 == pytest.approx(by_hand, rel=0.01)


@pytest.mark.parametrize(("image_size", "grid_size"), [(64, 2), (96, 3)])
def test_operations_of_the_network(image_size, grid_size):
    config = tiny_config(
        image_size=image_size, model__grid_size=grid_size, model__width_multiplier=0.25
    )
    images = jnp.zeros((2, image_size, image_size, 3), jnp.uint8)
    model = experiment.build_model(config, num_classes=6)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    compiled = jax.jit(make_predict_step(model)).lower(variables, images).compile()
    expected = hand_count_resnet18(image_size, 16, 256, 2 * 5 + 6)
    # BatchNorm, activations and the like are the rest.
    assert expected < benchmark.flops_of(compiled) / 4 / 2 < 1.03 * expected


# ----------------------------------------------------------------------------------- timing


def test_median_and_spread():
    assert timing.timing_of([1.0, 2.0, 4.0, 8.0, 100.0]) == timing.Timing(4.0, 0.75, 5)


class Clock:
    """Time that passes by decree."""

    def __init__(self):
        self.now = 5.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_warm_up_is_excluded(clock):
    durations = iter([100.0, 100.0, 0.25, 0.5, 0.125, 1.0, 1.0, 1.0])

    def run():
        clock.now += next(durations)

    # The fifth begins after 1.875 seconds and ends after 2.875; there is no sixth.
    found = timing.repeat(run, amount=2.0, seconds=2.5)
    assert found == timing.timing_of([8.0, 4.0, 16.0, 2.0, 2.0])


def test_it_is_repeated_at_least_three_times(clock):
    def run():
        clock.now += 10

    assert timing.repeat(run, amount=5.0, seconds=1.0) == timing.Timing(0.5, 0.0, 3)


def test_what_the_loader_made_ahead_is_excluded(clock):
    def batches():
        yield from range(6)  # at once
        while True:
            clock.now += 0.5
            yield

    found = timing.loader_rate(batches(), 6, batch_size=4, seconds=1.0)
    assert found == timing.Timing(8.0, 0.0, 8)


def test_bursts_of_the_loader_are_evened_out(clock):
    def batches():
        while True:  # two at once every half second
            clock.now += 0.5
            yield
            yield

    found = timing.loader_rate(batches(), 2, batch_size=4, seconds=8.0)
    assert found == timing.Timing(16.0, 0.0, 8)


def test_every_box_takes_part_in_the_selection(monkeypatch):
    seen = {}

    def spy(predictions, sizes, **options):
        seen.update(options, shape=predictions.boxes.shape, least=predictions.confidence.min())
        return []

    monkeypatch.setattr(benchmark, "detections_from_predictions", spy)
    benchmark.measure_selection(tiny_config(), 6, seconds=0.0)
    assert seen["shape"] == (4, 2, 2, 2, 4)
    assert seen["least"] >= seen["score_threshold"] == 0.0


# -------------------------------------------------------------------------------- mistakes


def test_a_batch_must_fit_the_devices():
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 cannot be split evenly"):
        benchmark.benchmark(tiny_config(train__batch_size=6), seconds=0.0)


def test_a_mistake_is_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "yolov1_jax.benchmark", "--seconds=-1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
