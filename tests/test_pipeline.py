"""What is in a batch, and that it depends on nothing but the source, the seed and the step."""

import dataclasses
import gc
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, GroundTruth, Record
from yolov1_jax.data.object_windows import ObjectWindows
from yolov1_jax.data.pipeline import eval_batches, train_batches
from yolov1_jax.data.transforms import Augmentation, resize_image

ALL_OBJECTS = Augmentation(min_area=0)
PLAIN = Augmentation(enabled=False, min_area=0)


class GreySource:
    """Image i has the level 10 i and i % 3 objects, the second one difficult; image 5 may fail."""

    class_names = ("a", "b")

    def __init__(self, length: int, error: type[Exception] | None = None) -> None:
        self.length, self.error = length, error

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Record:
        if self.error and index == 5:
            raise self.error("the disk is gone")
        count, height = index % 3, 20 + index % 5
        image = np.full((height, 30, 3), 10 * index % 256, np.uint8)
        image[:5, :5] = 255 - image[:5, :5]
        boxes_xyxy = np.array([[3, 4, 18, 14], [6, 4, 27, 8]]) * [[1, height / 20] * 2]
        objects = boxes_xyxy, np.array([1, 0], np.int32), np.array([False, True])
        return Record(image, f"set/{index}", *(values[:count] for values in objects))

    def annotations(self, limit=None):
        records = [self[i] for i in range(len(self))]
        sizes = [record.image.shape[:2] for record in records]
        truths = [GroundTruth(*record[2:]) for record in records]
        ids = [record.image_id for record in records]
        return Annotations.build(self.class_names, ids, sizes, truths)


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError


def take(source, number: int, **options) -> list[dict[str, np.ndarray]]:
    options = {"batch_size": 4, "seed": 0, "augmentation": ALL_OBJECTS, **options}
    with train_batches(source, image_size=32, max_objects=3, **options) as batches:
        return [next(batches) for _ in range(number)]


def evaluate(source, **options) -> list[dict[str, np.ndarray]]:
    with eval_batches(source, image_size=32, batch_size=4, **options) as batches:
        return list(batches)


def test_training_batch_has_the_contract():
    (batch,) = take(GreySource(12), 1, augmentation=PLAIN, train_difficult=True)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((4, 32, 32, 3), "uint8"),
        "boxes_xyxy": ((4, 3, 4), "float32"),
        "labels": ((4, 3), "int32"),
        "valid": ((4, 3), "bool"),
        "index": ((4,), "int32"),
    }
    expected = np.array([[0.1, 0.2, 0.6, 0.7], [0.2, 0.2, 0.9, 0.4], [0, 0, 0, 0]], np.float32)
    for row, index in enumerate(batch["index"]):
        valid = np.arange(3) < index % 3
        assert batch["valid"][row].tolist() == valid.tolist()
        np.testing.assert_allclose(batch["boxes_xyxy"][row], expected * valid[:, None], rtol=1e-6)
        assert batch["labels"][row].tolist() == [int(valid[0]), 0, 0]
        assert (batch["image"][row, 20:] == 10 * index).all()


def test_difficult_and_small_objects_are_left_out():
    small = Augmentation(enabled=False, min_area=144.1)
    for limits, train_difficult in ((PLAIN, False), (small, True)):  # 4 of 12 objects each
        batches = take(GreySource(12), 3, augmentation=limits, train_difficult=train_difficult)
        assert sum(batch["valid"].sum() for batch in batches) == 8


def test_each_epoch_is_another_permutation_augmented_anew():
    index = np.concatenate([batch["index"] for batch in take(GreySource(10), 5)]).tolist()
    assert sorted(index[:10]) == sorted(index[10:]) == list(range(10))
    assert index[:10] != index[10:]
    assert np.ptp(take(GreySource(1_000_000), 3)[2]["index"]) > 100_000
    (batch,) = take(GreySource(1), 1, batch_size=16)  # a source smaller than a batch
    assert len({image.tobytes() for image in batch["image"]}) > 8


def test_seed_decides_and_resuming_is_skipping():
    source = GreySource(10)
    everything, other = take(source, 7, seed=7), take(source, 7, seed=8)
    for step in (0, 1, 4):
        np.testing.assert_equal(take(source, 7 - step, seed=7, start_step=step), everything[step:])
    assert [b["index"].tolist() for b in other] != [b["index"].tolist() for b in everything]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_global_batches(count):
    options = {"start_step": 1, "process_count": count}
    shares = [take(GreySource(10), 5, process_index=i, **options) for i in range(count)]
    joined = [
        {name: np.concatenate([share[name] for share in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    np.testing.assert_equal(joined, take(GreySource(10), 5, start_step=1))


@pytest.mark.parametrize(("length", "count"), [(10, 1), (8, 1), (1, 2), (3, 2), (9, 2)])
def test_evaluation_yields_each_image_once_in_order(length, count):
    shares = [
        evaluate(GreySource(length), process_index=i, process_count=count) for i in range(count)
    ]
    assert {len(share) for share in shares} == {-(-length // 4)}
    batches = [batch for parts in zip(*shares, strict=True) for batch in parts]
    assert {b["image"].shape for b in batches} == {(4 // count, 32, 32, 3)}
    index, image = (np.concatenate([b[name] for b in batches]) for name in ("index", "image"))
    assert index.tolist() == [*range(length), *[-1] * (-length % 4)]
    assert image[:length, -1, -1, 0].tolist() == [10 * i for i in range(length)]
    assert not image[length:].any()


def test_darknets_resize_is_not_rounded():
    batches = evaluate(GreySource(6), resize="darknet")
    assert {batch["image"].dtype for batch in batches} == {np.dtype(np.float32)}
    image = batches[0]["image"][1]
    np.testing.assert_array_equal(image, resize_image(GreySource(6)[1].image, 32, "darknet"))
    # The second process has nothing but rows of zeros to add, in the same type.
    (empty,) = evaluate(GreySource(1), resize="darknet", process_count=2, process_index=1)
    assert empty["image"].dtype == np.float32


MOSAIC = Augmentation(
    mosaic_probability=1.0,
    expand_probability=0.5,
    crop_probability=0.5,
    erase_probability=0.5,
    flip_probability=0.0,
    color_probability=0.0,
    affine_probability=0.0,
    min_area=0,
)


class WhiteBoxSource(GreySource):
    """Black images with one white object, wider or narrower."""

    def __getitem__(self, index: int) -> Record:
        left = index % 3 * 8
        image = np.zeros((40, 60, 3), np.uint8)
        image[10:30, left:50] = 255
        box = np.array([[left, 10, 50, 30]], float)
        return Record(image, f"set/{index}", box, np.array([index % 2]), np.array([False]))


def test_a_mosaic_holds_four_images_and_their_boxes():
    plain = {f"{name}_probability": 0.0 for name in ("expand", "crop", "erase")}
    settings = dataclasses.replace(MOSAIC, **plain)
    (batch,) = take(WhiteBoxSource(9), 1, augmentation=settings)
    assert batch["boxes_xyxy"].shape == (4, 12, 4)
    for image, boxes, valid in zip(
        batch["image"], batch["boxes_xyxy"], batch["valid"], strict=True
    ):
        assert valid.sum() == 4
        drawn = np.zeros((32, 32), bool)
        for left, top, right, bottom in np.rint(32 * boxes[valid]).astype(int):
            drawn[top:bottom, left:right] = True
        assert (drawn != (image[..., 0] > 127)).sum() < 0.15 * drawn.sum()  # pixels at the edges
    index = np.concatenate(
        [one["index"] for one in take(WhiteBoxSource(8), 2, augmentation=settings)]
    )
    assert sorted(index) == list(range(8))  # an epoch still begins with each image once


def test_the_last_steps_are_plain_and_those_before_as_ever():
    source = GreySource(10)
    everything = take(source, 6, augmentation=MOSAIC)
    ended = take(source, 6, augmentation=MOSAIC, plain_from_step=3)
    np.testing.assert_equal(ended[:3], everything[:3])
    calm = take(source, 6, augmentation=dataclasses.replace(MOSAIC, enabled=False))
    for found, expected in zip(ended[3:], calm[3:], strict=True):
        np.testing.assert_array_equal(found["image"], expected["image"])
    later = take(source, 2, augmentation=MOSAIC, plain_from_step=3, start_step=2)
    np.testing.assert_equal(later, ended[2:4])


@pytest.mark.slow
def test_workers_change_nothing_and_hold_no_shared_memory_at_the_end():
    options = {"start_step": 2, "augmentation": MOSAIC, "plain_from_step": 5}
    batches = take(GreySource(10), 5, num_workers=2, **options)
    np.testing.assert_equal(batches, take(GreySource(10), 5, **options))
    assert type(batches[0]["image"]) is np.ndarray  # outlives the loader's shared memory
    np.testing.assert_equal(evaluate(GreySource(9), num_workers=2), evaluate(GreySource(9)))
    # What reference cycles hold is freed too late; so nothing is collected here.
    assert not [one for one in gc.get_objects() if type(one).__name__ == "SharedMemoryArray"]


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_failing_image_is_named_wherever_it_is_read(num_workers):
    with pytest.raises(RuntimeError, match=r"image 5 (.|\n)*the disk is gone"):
        take(GreySource(9, UnpicklableError), 3, num_workers=num_workers)
    with pytest.raises(UserError, match="the disk is gone"):
        take(GreySource(9, UserError), 3)


SCRIPT = """
import multiprocessing, os, signal, sys, time
from test_pipeline import ALL_OBJECTS, GreySource, train_batches
if __name__ == "__main__":
    options = dict(image_size=32, batch_size=2, max_objects=2, seed=0, num_workers=2)
    batches = train_batches(GreySource(9), augmentation=ALL_OBJECTS, **options)
    while len(workers := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print(*(worker.pid for worker in workers), flush=True)
    for number in (1, 12):  # at first before their first line of Python
        for worker in workers:
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGTERM)
        for _ in range(number):
            next(batches)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [("exit", 0), ("kill", -9)])
def test_workers_outlive_ctrl_c_and_end_with_their_parent(tmp_path, how, status):
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    tests = pathlib.Path(__file__).parent
    env = {"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/bin:/bin"}
    with out.open("w") as file:  # workers that survive would hold a pipe open
        ended = subprocess.run([sys.executable, script, how], stdout=file, stderr=file, env=env)
    assert ended.returncode == status
    workers = [pathlib.Path("/proc", pid) for pid in out.read_text().split()]
    assert len(workers) == 2  # and no error is printed
    while any(worker.exists() for worker in workers):
        time.sleep(0.1)


def test_a_batch_of_windows_has_the_objects_labels():
    windows = ObjectWindows(GreySource(9))  # 6 objects: one in images 1, 4, 7, one easy in 2, 5, 8
    batches = take(windows, 6, augmentation=PLAIN)
    assert {name: (array.shape, array.dtype.name) for name, array in batches[0].items()} == {
        "image": ((4, 32, 32, 3), "uint8"),
        "labels": ((4,), "int32"),
        "index": ((4,), "int32"),
    }
    levels = [10 * image for image in windows.images]
    for batch in batches:
        assert batch["labels"].tolist() == [1] * 4
        for image, index in zip(batch["image"], batch["index"], strict=True):
            assert image[-1, -1].tolist() == [levels[index]] * 3
    assert {int(i) for batch in batches for i in batch["index"]} == set(range(6))
    rows = [row for batch in evaluate(windows) for row in zip(*batch.values(), strict=True)]
    assert [int(index) for _, index in rows] == [*range(6), -1, -1]
    assert [int(image[-1, -1, 0]) for image, _ in rows] == [*levels, 0, 0]
