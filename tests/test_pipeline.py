"""What is in a batch, and that it depends on nothing but the source, the seed and the step."""

import gc
import pathlib
import pickle
import subprocess
import sys
import textwrap
import time

import cv2
import numpy as np
import pytest

from yolov1_jax.data.dataset import Record, SourceReport
from yolov1_jax.data.pipeline import _TrainExample, eval_batches, train_batches
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.errors import UserError

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PLAIN = Augmentation(enabled=False, min_area=0)
SIZE = 32


class PaintedSource:
    """Image i is uniformly grey, of level 10 i, with i % 3 objects, the second one difficult."""

    class_names = ("a", "b")

    def __init__(self, length: int, broken: int | None = None) -> None:
        self.length = length
        self.broken = broken
        self.report = SourceReport(num_images=length)
        self.reads = 0

    def __len__(self) -> int:
        return self.length

    def annotation(self, index: int) -> Record:
        count = index % 3
        return {
            "image": b"",
            "boxes_xyxy": np.array([[0.1, 0.2, 0.6, 0.7], [0.2, 0.2, 0.9, 0.4]])[:count],
            "labels": np.array([1, 0], np.int32)[:count],
            "difficult": np.array([False, True])[:count],
            "image_id": f"set/{index}",
            "height": 20 + index % 5,
            "width": 30,
        }

    def __getitem__(self, index: int) -> Record:
        self.reads += 1
        record = self.annotation(index)
        image = np.full((record["height"], record["width"], 3), 10 * index % 256, np.uint8)
        image[:5, :5] = 255 - image[:5, :5]
        record["image"] = image
        if index == self.broken:
            record["image"] = b"not an image"
        return record


def take(source, number: int, **options) -> list[dict[str, np.ndarray]]:
    defaults = {
        "image_size": SIZE,
        "batch_size": 4,
        "max_objects": 3,
        "seed": 0,
        "augmentation": Augmentation(min_area=0),
    }
    with train_batches(source, **(defaults | options)) as batches:
        return [next(batches) for _ in range(number)]


def assert_same(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


# --- Training ---------------------------------------------------------------------------------


def test_no_shared_memory_is_held_behind_the_end():
    """It would stay on the machine, with a warning, when the program ends."""
    with eval_batches(PaintedSource(9), image_size=32, batch_size=2, num_workers=2) as batches:
        assert len(list(batches)) == 5
        with pytest.raises(StopIteration):
            next(batches)
    # What reference cycles hold is freed too late; so nothing is collected here.
    held = [one for one in gc.get_objects() if type(one).__name__ == "SharedMemoryArray"]
    assert not held


def test_training_batch_has_the_contract():
    (batch,) = take(PaintedSource(12), 1, augmentation=PLAIN, train_difficult=True)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((4, SIZE, SIZE, 3), "uint8"),
        "boxes_xyxy": ((4, 3, 4), "float32"),
        "labels": ((4, 3), "int32"),
        "valid": ((4, 3), "bool"),
        "difficult": ((4, 3), "bool"),
        "image_id": ((4,), batch["image_id"].dtype.name),
        "size": ((4, 2), "int32"),
        "mask": ((4,), "bool"),
    }
    assert batch["image_id"].dtype.kind == "U"
    assert batch["mask"].all()
    source = PaintedSource(12)
    for row, image_id in enumerate(batch["image_id"]):
        record = source[int(image_id.split("/")[1])]
        count = len(record["labels"])
        assert batch["valid"][row].tolist() == [True] * count + [False] * (3 - count)
        np.testing.assert_allclose(batch["boxes_xyxy"][row, :count], record["boxes_xyxy"])
        assert not batch["boxes_xyxy"][row, count:].any()
        np.testing.assert_array_equal(batch["labels"][row, :count], record["labels"])
        np.testing.assert_array_equal(batch["difficult"][row, :count], record["difficult"])
        assert batch["size"][row].tolist() == [record["height"], record["width"]]
        assert (batch["image"][row, 20:] == record["image"][10, 10]).all()


def test_difficult_and_small_objects_are_left_out():
    batches = take(PaintedSource(12), 3, augmentation=PLAIN)
    assert not any(batch["difficult"].any() for batch in batches)
    assert sum(batch["valid"].sum() for batch in batches) == 8  # 12 objects, 4 of them difficult
    # The first box is 16 x 16 pixels of 32 x 32, the second 22.4 x 6.4.
    for min_area, number in ((143, 12), (144, 8), (255.9, 8), (256, 0)):
        limits = Augmentation(enabled=False, min_area=min_area)
        batches = take(PaintedSource(12), 3, augmentation=limits, train_difficult=True)
        assert sum(batch["valid"].sum() for batch in batches) == number, min_area


def test_an_object_must_be_large_enough_before_the_augmentation_too():
    # 256 pixels after the resize; scaled by up to 1.1 it would have 309.
    limits = Augmentation(affine_probability=1, min_area=256)
    batches = take(PaintedSource(12), 12, augmentation=limits)
    assert not any(batch["valid"].any() for batch in batches)


def test_each_epoch_is_another_permutation_and_runs_into_the_next():
    ids = np.concatenate([batch["image_id"] for batch in take(PaintedSource(10), 5)])
    first, second = ids[:10], ids[10:]
    assert sorted(first) == sorted(second) == sorted(f"set/{i}" for i in range(10))
    assert first.tolist() != second.tolist()


def test_an_image_is_augmented_anew_each_time():
    (batch,) = take(PaintedSource(1), 1, batch_size=16)
    assert set(batch["image_id"]) == {"set/0"}
    assert len({image.tobytes() for image in batch["image"]}) > 8


def test_source_smaller_than_a_batch():
    (batch,) = take(PaintedSource(3), 1, batch_size=8)
    assert sorted(batch["image_id"][:3]) == ["set/0", "set/1", "set/2"]
    assert len(batch["image"]) == 8


def test_seed_decides():
    source = PaintedSource(12)
    assert_same(take(source, 4, seed=7), take(source, 4, seed=7))
    first, other = take(source, 4, seed=7), take(source, 4, seed=8)
    assert [b["image_id"].tolist() for b in first] != [b["image_id"].tolist() for b in other]


def test_resuming_is_skipping():
    source = PaintedSource(10)
    everything = take(source, 7)
    for step in (1, 4):
        assert_same(take(source, 7 - step, start_step=step), everything[step:])


def test_workers_change_nothing():
    source = PaintedSource(10)
    assert_same(take(source, 5, num_workers=2, start_step=2), take(source, 5, start_step=2))
    # Plain arrays, which outlive the loader's shared memory.
    assert type(take(source, 1, num_workers=1)[0]["image"]) is np.ndarray


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_global_batches(process_count):
    source = PaintedSource(10)
    shares = [
        take(source, 5, start_step=1, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    assert len(shares[0][0]["image"]) == 4 // process_count
    joined = [
        {name: np.concatenate([share[name] for share in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, take(source, 5, start_step=1))


def test_a_million_records_are_shuffled_without_being_listed():
    source = PaintedSource(1_000_000)
    start = time.perf_counter()
    ids = [int(i.split("/")[1]) for batch in take(source, 3) for i in batch["image_id"]]
    assert time.perf_counter() - start < 2
    assert source.reads < 100
    assert max(ids) - min(ids) > 100_000


def test_encoded_images_are_decoded():
    class Encoded(PaintedSource):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            record["image"][10:] = (250, 120, 10)
            record["image"] = cv2.imencode(".png", record["image"][..., ::-1])[1].tobytes()
            return record

    (batch,) = take(Encoded(4), 1, augmentation=PLAIN)
    assert (batch["image"][:, 25, 25] == (250, 120, 10)).all()


# --- Evaluation -------------------------------------------------------------------------------


def evaluate(source, **options) -> list[dict[str, np.ndarray]]:
    with eval_batches(source, **({"image_size": SIZE, "batch_size": 4} | options)) as batches:
        return list(batches)


def test_evaluation_yields_each_image_once_in_order():
    batches = evaluate(PaintedSource(10))
    assert [batch["image"].shape for batch in batches] == [(4, SIZE, SIZE, 3)] * 3
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    assert joined["image_id"].tolist() == [f"set/{i}" for i in range(10)] + ["", ""]
    assert joined["mask"].tolist() == [True] * 10 + [False] * 2
    assert joined["index"].tolist() == [*range(10), -1, -1]
    assert joined["index"].dtype == joined["size"].dtype == np.int32
    assert joined["size"][:10].tolist() == [[20 + i % 5, 30] for i in range(10)]
    assert joined["image"][:10, -1, -1, 0].tolist() == [10 * i for i in range(10)]
    assert not joined["image"][10:].any()


@pytest.mark.parametrize("length", [1, 3, 8, 9])
def test_evaluating_processes_yield_equally_many_batches(length):
    source = PaintedSource(length)
    shares = [evaluate(source, process_index=i, process_count=2) for i in range(2)]
    assert len(shares[0]) == len(shares[1]) == -(-length // 4)
    assert {b["image"].shape for share in shares for b in share} == {(2, SIZE, SIZE, 3)}
    index = np.concatenate([b["index"] for parts in zip(*shares, strict=True) for b in parts])
    assert index[index >= 0].tolist() == list(range(length))


def test_evaluation_with_more_workers_than_batches():
    assert_same(evaluate(PaintedSource(3), num_workers=2), evaluate(PaintedSource(3)))


# --- Mistakes ---------------------------------------------------------------------------------


def test_too_many_objects_are_refused():
    with pytest.raises(UserError, match=r"set/\d: expected at most 1 objects .* found 2"):
        take(PaintedSource(9), 3, max_objects=1, train_difficult=True)
    assert len(take(PaintedSource(9), 3, max_objects=1)) == 3  # the second object is difficult


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_count": 3}, "multiple of the 3 processes, found 4"),
        ({"batch_size": 0}, "positive multiple of the 1 processes, found 0"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"seed": 2**32}, "seed: expected an integer from 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        take(PaintedSource(8), 1, **options)


def test_an_empty_source_is_refused():
    for start in (take, lambda source, _: evaluate(source)):
        with pytest.raises(UserError, match="the data set has no images"):
            start(PaintedSource(0), 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_one_line_wherever_it_is_read(num_workers):
    with pytest.raises(UserError) as caught:
        take(PaintedSource(9, broken=5), 3, num_workers=num_workers)
    assert str(caught.value).startswith("set/5: expected an intact JPEG")
    assert "\n" not in str(caught.value)


def test_an_unexpected_error_can_leave_a_worker():
    class Unpicklable(Exception):
        def __reduce__(self):
            raise TypeError

    class Failing(PaintedSource):
        def __getitem__(self, index):
            raise Unpicklable("the disk is gone")

    example = _TrainExample(Failing(3), SIZE, 3, PLAIN, False)
    with pytest.raises(RuntimeError, match="image 2 of the source failed") as caught:
        example.random_map(2, np.random.default_rng(0))
    assert "the disk is gone" in str(pickle.loads(pickle.dumps(caught.value)))


# --- The end ----------------------------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import multiprocessing, os, signal, sys, time
    from yolov1_jax.data.pipeline import train_batches
    from yolov1_jax.data.synthetic import SyntheticSource
    from yolov1_jax.data.transforms import Augmentation

    def interrupt_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGTERM)

    if __name__ == "__main__":
        batches = train_batches(
            SyntheticSource("train", image_size=32), image_size=32, batch_size=2, max_objects=9,
            seed=0, augmentation=Augmentation(min_area=0), num_workers=2,
        )
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        if sys.argv[1] == "interrupt":
            interrupt_workers()  # before their first line of Python
        batch = next(batches)
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        interrupt_workers()
        for _ in range(12):
            next(batches)
    """
)


def run_script(folder: pathlib.Path, how: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    (folder / "script.py").write_text(SCRIPT)
    # Files, because workers that survive would hold pipes open.
    with open(folder / "stdout", "w") as stdout, open(folder / "stderr", "w") as stderr:
        status = subprocess.run(
            [sys.executable, "script.py", how],
            cwd=folder,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
            stdout=stdout,
            stderr=stderr,
            timeout=120,
            check=False,
        ).returncode
    return status, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def test_closed_batches_say_so():
    batches = eval_batches(PaintedSource(3), image_size=SIZE, batch_size=2)
    next(batches)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_batches_left_open_end_quietly_and_workers_outlive_ctrl_c(tmp_path):
    status, _, stderr = run_script(tmp_path, "interrupt")
    assert (status, stderr) == (0, "")


def test_a_killed_run_leaves_no_worker_behind(tmp_path):
    _, stdout, _ = run_script(tmp_path, "kill")
    workers = [pathlib.Path("/proc", pid) for pid in stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)
