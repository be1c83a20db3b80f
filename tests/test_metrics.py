"""Means of the losses, metrics.jsonl also across an interruption, TensorBoard, the display."""

import dataclasses
import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov1_jax.training.metrics import (
    LossWindow,
    MetricWriter,
    NonFiniteLoss,
    check_finite,
    evaluations_without_improvement,
    read_metrics,
)

NAMES = ["loss", "loss/class", "loss/wh", "loss/xy", "gradient_norm"]
ROW = {"loss": 24.25635, "loss/xy": 1.2365983, "images_per_second": 512.0}


def image_ids():
    return ["VOC2007/000012", "VOC2007/000017"]


def metrics_of(first, **changes):
    """Numbers that float32 holds exactly, in another order than they are shown in."""
    values = {name: first + i / 8 for i, name in enumerate(NAMES)} | changes
    return {name: jnp.float32(values[name]) for name in sorted(values)}


def window_of(*numbers, **fields):
    window = LossWindow(**fields)
    for step, number in enumerate(numbers, start=1):
        window.add(step, metrics_of(number), image_ids)
    return window


def writer(workdir, resume_step=0):
    return MetricWriter(workdir, resume_step=resume_step, num_steps=400, steps_per_epoch=16)


def test_means_since_the_last_flush():
    window = window_of(1.0, 2.0, 6.0)
    means = window.flush()
    assert means == {name: 3.0 + i / 8 for i, name in enumerate(NAMES)}
    assert list(means) == NAMES  # the total first
    window.add(4, metrics_of(10.0), image_ids)
    assert window.flush()["loss"] == 10.0
    assert window.flush() == {}


def test_an_interrupted_window_continues_to_the_same_bits():
    numbers = np.random.default_rng(0).random(5)
    saved = json.dumps(dataclasses.asdict(window_of(*numbers[:3])))  # as in a checkpoint
    resumed = window_of(*numbers[3:], **json.loads(saved))
    assert resumed.flush() == window_of(*numbers).flush()


@pytest.mark.parametrize(("name", "value"), [("loss/wh", np.nan), ("gradient_norm", -np.inf)])
def test_a_loss_that_is_not_finite_is_named_and_not_counted(name, value):
    window = window_of(1.0)
    with pytest.raises(NonFiniteLoss) as caught:
        window.add(42, metrics_of(1.0, **{name: value}), image_ids)
    for part in ("step 42 ", f"({name}={value})", *image_ids()):
        assert part in str(caught.value)
    assert window.count == 1


def test_a_state_that_is_not_finite_is_named():
    good = {"a": {"kernel": jnp.ones((2, 3))}, "count": jnp.int32(3)}
    check_finite("the state after step 7", good, image_ids)
    bad = {**good, "b": {"kernel": jnp.ones((2, 3)).at[1, 2].set(jnp.inf)}}
    with pytest.raises(NonFiniteLoss, match=r"step 7 .*b/kernel.*VOC2007/000012"):
        check_finite("the state after step 7", bad, image_ids)


def test_rows_are_on_disk_and_in_tensorboard(tmp_path):
    path = tmp_path / "new" / "run" / "metrics.jsonl"
    with writer(path.parent) as metrics:
        metrics.write("train", 8, ROW)
        row = '{"split": "train", "step": 8, "epoch": 0.5, "loss": 24.25635, "loss/xy": 1.2365983,'
        assert path.read_text() == row + ' "images_per_second": 512.0}\n'
        metrics.write("eval", 32, {"mAP": 0.7, "ap/dog": None, "protocol": "voc07"})
    expected = {"mAP": 0.7, "ap/dog": None, "protocol": "voc07"}
    assert read_metrics(path)[1] == {"split": "eval", "step": 32, "epoch": 2.0, **expected}

    (file,) = (path.parent / "tensorboard").iterdir()
    events = file.read_bytes()  # protocol buffers
    assert all(tag in events for tag in (b"train/loss/xy", b"eval/mAP"))
    assert all(struct.pack("<f", value) in events for value in (1.2365983, 0.7))
    assert all(tag not in events for tag in (b"protocol", b"ap/dog"))


@pytest.mark.parametrize("torn", [b"", b'{"split": "train", "st', b"\0\xff", b"[1]\nnull\n{}\n"])
def test_a_resumed_run_drops_torn_rows_and_those_that_it_will_write_again(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    with writer(tmp_path) as metrics:
        for step in (10, 20, 30, 40):
            metrics.write("train", step, {**ROW, "loss": 1.0 / step})
            metrics.write("eval", step, {"mAP": step / 100})
    before = path.read_bytes()
    path.write_bytes(before + torn)
    assert len(read_metrics(path)) == 8
    with writer(tmp_path, resume_step=20) as metrics:
        # At once, not with the first row.
        assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[:4])
        metrics.write("train", 30, ROW)
    assert [row["step"] for row in read_metrics(path)] == [10, 10, 20, 20, 30]


def test_other_processes_touch_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with writer(tmp_path / "run") as metrics:
        metrics.write("train", 1, ROW)
        metrics.print("hello")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def shown(request, tmp_path, capsys, monkeypatch):
    """What a few rows show with some environment, without the control codes of a terminal."""
    for name, value in {"COLUMNS": "80", **request.param}.items():
        monkeypatch.setenv(name, value)
    with writer(tmp_path) as metrics:
        metrics.step(39)
        metrics.step(40)
        metrics.print("skipped [bold]2[/bold] files " + "of a long list " * 6)
        metrics.write("train", 40, ROW)
        metrics.write("eval", 40, {"mAP": 0.5123, "protocol": "voc07", "ap/dog": 0.7})
        assert len(list(metrics.track(range(2), "evaluating", 2))) == 2
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)


@pytest.mark.parametrize("shown", [{}, {"FORCE_COLOR": "1", "TERM": "dumb"}], indirect=True)
def test_a_pipe_gets_one_line_per_row(shown):
    printed, train, evaluation = shown.splitlines()
    assert printed.startswith("skipped [bold]2[/bold] files of a long")  # neither wrapped nor bold
    row = r"epoch 2\.5/25\.0  step 40/400  loss 24\.26  loss/xy 1\.237  images_per_second 512  0:"
    assert re.match(f"train  {row}", train)
    assert re.match(r"eval  epoch 2\.5/25\.0  step 40/400  mAP 51\.2%  0:", evaluation)


@pytest.mark.parametrize("shown", [{"FORCE_COLOR": "1", "TERM": "xterm"}], indirect=True)
def test_a_terminal_gets_a_bar_that_fits_it(shown):
    assert "train  epoch" not in shown
    assert shown.count("mAP 51.2%") == 1
    lines = [line for line in re.split(r"[\r\n]", shown) if "━" in line]
    assert max(map(len, lines)) <= 80
    assert re.fullmatch(r"epoch 2\.5/25\.0 .* 40/400 .*loss 24\.26  512 images/s *", lines[-1])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((), 0), ((0.2,), 0), ((0.2, 0.1), 1), ((0.1, 0.3, 0.3, 0.2), 2), ((None, 0.1, None), 1)],
)
def test_evaluations_without_improvement(scores, expected):
    rows = [{"split": "train", "step": 1, "loss": 0.0}]
    rows += [{"split": "eval", "step": step, "mAP": score} for step, score in enumerate(scores)]
    assert evaluations_without_improvement(rows) == expected
    of_classification = [{"top1" if key == "mAP" else key: row[key] for key in row} for row in rows]
    assert evaluations_without_improvement(of_classification) == expected
