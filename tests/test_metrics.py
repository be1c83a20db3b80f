import json
import math
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from yolov1_jax.training.metrics import MetricWriter, read_metrics


def writer(workdir, *, resume_step=0, is_main_process=True):
    return MetricWriter(
        workdir,
        resume_step=resume_step,
        num_steps=100,
        steps_per_epoch=8,
        is_main_process=is_main_process,
        console=Console(quiet=True),
    )


def tensorboard_events(workdir):
    """The events of all files in the order written. A record: length, checksum, data, checksum."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
    return events


def tensorboard_scalars(workdir):
    return {
        (value.tag, event.step): value.simple_value
        for event in tensorboard_events(workdir)
        for value in event.summary.value
    }


def test_rows_are_json_objects_on_disk_when_written(tmp_path):
    with writer(tmp_path / "new" / "run") as metrics:
        metrics.write("train", 10, {"loss": 2.5, "loss/xy": np.float32(0.1), "images": 7})
        lines = (tmp_path / "new" / "run" / "metrics.jsonl").read_text().splitlines()
        assert lines == [
            '{"split": "train", "step": 10, "epoch": 1.25, "loss": 2.5, "loss/xy": 0.1,'
            ' "images": 7}'
        ]
        metrics.write("eval", 16, {"mAP": jnp.float32(0.3), "protocol": "voc07"})
    rows = read_metrics(tmp_path / "new" / "run" / "metrics.jsonl")
    assert [row["split"] for row in rows] == ["train", "eval"]
    assert rows[1] == {
        "split": "eval", "step": 16, "epoch": 2.0, "mAP": 0.3, "protocol": "voc07"
    }  # fmt: skip


def test_float32_reads_back_to_the_same_bits(tmp_path):
    values = np.random.default_rng(0).normal(size=200).astype(np.float32) ** 9
    with writer(tmp_path) as metrics:
        metrics.write("train", 1, {str(i): value for i, value in enumerate(values)})
        metrics.write("train", 2, {str(i): jnp.asarray(value) for i, value in enumerate(values)})
    for row in read_metrics(tmp_path / "metrics.jsonl"):
        back = np.array([row[str(i)] for i in range(200)], np.float32)
        np.testing.assert_array_equal(back, values)


def test_values_that_are_not_finite_are_null_and_not_in_tensorboard(tmp_path):
    with writer(tmp_path) as metrics:
        metrics.write("train", 1, {"a": math.nan, "b": np.float32(np.inf), "c": 1.0, "d": None})
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [row[key] for key in "abcd"] == [None, None, 1.0, None]
    tags = {tag for tag, _ in tensorboard_scalars(tmp_path)}
    assert tags == {"train/c", "train/epoch"}


def test_a_metric_is_one_number(tmp_path):
    with writer(tmp_path) as metrics, pytest.raises(ValueError, match=r"shape \(2,\)"):
        metrics.write("train", 1, {"loss": np.zeros(2)})


def test_resume_drops_the_rows_that_will_be_written_again(tmp_path):
    with writer(tmp_path) as metrics:
        for step in (10, 20, 30, 40):
            metrics.write("train", step, {"loss": 1.0 / step})
            metrics.write("eval", step, {"mAP": step / 100})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with writer(tmp_path, resume_step=20) as metrics:
        # Dropped at once, not with the first row.
        assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:4]
        metrics.write("train", 30, {"loss": 7.0})
    after = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert after[:4] == before[:4]
    assert [json.loads(line)["loss"] for line in after[4:]] == [7.0]
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.jsonl"]


def test_a_new_run_in_a_folder_whose_run_left_no_checkpoint(tmp_path):
    with writer(tmp_path) as metrics:
        metrics.write("train", 10, {"loss": 1.0})
    with writer(tmp_path, resume_step=0) as metrics:
        metrics.write("train", 10, {"loss": 2.0})
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [2.0]


@pytest.mark.parametrize(
    "torn",
    [
        b'{"split": "train", "st',
        b"{",
        b"\0" * 40,
        b"\xff\xfe",
        b"3\n",
        b'{"a": 1}\n',
        b'{"step": 20}\n',
    ],
)
def test_a_torn_last_line_is_removed(tmp_path, torn):
    with writer(tmp_path) as metrics:
        metrics.write("train", 10, {"loss": 1.0})
        metrics.write("train", 20, {"loss": 2.0})
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_metrics(path)) == 2
    with writer(tmp_path, resume_step=20) as metrics:
        assert path.read_bytes() == whole
        metrics.write("train", 30, {"loss": 3.0})
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30]


def test_read_metrics_without_a_file(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tensorboard_has_the_same_numbers_and_purges_on_resume(tmp_path):
    with writer(tmp_path) as metrics:
        metrics.write("train", 10, {"loss": 4.0, "loss/xy": 0.5})
        metrics.write("eval", 10, {"mAP": 0.25, "ap/dog": 0.5, "protocol": "voc07"})
    scalars = tensorboard_scalars(tmp_path)
    assert scalars["train/loss", 10] == 4.0
    assert scalars["train/loss/xy", 10] == 0.5
    assert scalars["eval/mAP", 10] == 0.25
    assert scalars["eval/ap/dog", 10] == 0.5
    with writer(tmp_path, resume_step=5):
        pass
    starts = [
        event.step
        for event in tensorboard_events(tmp_path)
        if event.HasField("session_log") and event.session_log.status == event_pb2.SessionLog.START
    ]
    assert starts[-1] == 6


def test_images_go_to_tensorboard(tmp_path):
    with writer(tmp_path) as metrics:
        metrics.write_images(7, {"report/losses": np.zeros((4, 6, 3), np.uint8)})
    images = [
        (value.tag, event.step, value.image.height, value.image.width)
        for event in tensorboard_events(tmp_path)
        for value in event.summary.value
    ]
    assert images == [("report/losses", 7, 4, 6)]


def test_other_processes_touch_nothing(tmp_path):
    with writer(tmp_path / "run", is_main_process=False) as metrics:
        metrics.write("train", 1, {"loss": 1.0})
        metrics.write_images(1, {"a": np.zeros((2, 2, 3), np.uint8)})
        metrics.step(1)
        metrics.print("hello")
        assert list(metrics.track(range(3), "evaluating", 3)) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_two_runs_write_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with writer(tmp_path / name) as metrics:
            metrics.write("train", 3, {"loss": np.float32(1 / 3), "learning_rate": 1e-4})
    a, b = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab")
    assert a == b
