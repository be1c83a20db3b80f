import io
import json
import logging
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from yolov1_jax import predict
from yolov1_jax.errors import UserError
from yolov1_jax.predict import plan, predict_files
from yolov1_jax.yolo.detections import Detections

NAMES = ("cat", "dog")


def save(path, size=(80, 60), orientation=None, colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", size, colour).save(path, exif=exif)
    return path


def detect_left_half(images):
    """Two detections an image: a dog in the left half, and a fainter cat everywhere."""
    found = []
    for image in images:
        assert image.dtype == np.uint8
        height, width = image.shape[:2]
        boxes = np.array([[0, 0, width, height], [0, 0, width / 2, height]], np.float64)
        found.append(Detections(boxes, np.array([0.25, 0.875]), np.array([0, 1])))
    return found


def test_folders_are_searched_and_their_shape_is_kept(tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "out"
    for name in ("b.jpg", "a.PNG", "sub/b.jpg", ".hidden.jpg"):
        save(photos / name)
    (photos / "notes.txt").write_text("no image")
    tasks = plan([str(photos)], output)
    assert [
        (task.file.relative_to(photos), task.annotated.relative_to(output)) for task in tasks
    ] == [
        (pathlib.Path("a.PNG"), pathlib.Path("a.png")),
        (pathlib.Path("b.jpg"), pathlib.Path("b.jpg")),
        (pathlib.Path("sub/b.jpg"), pathlib.Path("sub/b.jpg")),
    ]
    assert not output.exists()


def test_images_of_one_name_get_names_of_their_own(tmp_path):
    files = [save(tmp_path / name) for name in ("x/a.png", "y/a.png", "z/a.bmp", "z/a.jpg")]
    tasks = plan([str(file) for file in files], tmp_path / "out")
    assert [task.annotated.name for task in tasks] == ["a.png", "a_2.png", "a_3.png", "a.jpg"]


def test_an_image_given_twice_is_one_task(tmp_path):
    file = save(tmp_path / "a.png")
    assert len(plan([str(file), str(tmp_path)], tmp_path / "out")) == 1


def test_results_of_an_earlier_call_are_not_images(tmp_path, monkeypatch):
    save(tmp_path / "a.jpg")
    save(tmp_path / "out" / "a.jpg")
    assert [task.file.name for task in plan([str(tmp_path)], tmp_path / "out")] == ["a.jpg"]
    monkeypatch.chdir(tmp_path)
    assert len(plan(["."], pathlib.Path("out"))) == 1


@pytest.mark.parametrize("given", ["photos/a.jpg", "photos", "./photos/../photos/a.jpg"])
def test_originals_are_never_replaced(tmp_path, monkeypatch, given):
    save(tmp_path / "photos" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"replace .*a\.jpg.*choose another --output"):
        plan([given], tmp_path / "photos")


def test_paths_that_hold_nothing(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        plan([str(tmp_path / "missing.jpg")], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"found none whose name ends in \.jpg"):
        plan([str(tmp_path / "empty")], tmp_path / "out")


def test_what_is_detected_is_drawn_and_described(tmp_path):
    file = save(tmp_path / "a.png", size=(800, 600))
    before = file.read_bytes()
    (entry,) = predict_files(detect_left_half, NAMES, plan([str(file)], tmp_path / "out"))
    assert entry == {
        "file": str(file),
        "annotated": str(tmp_path / "out" / "a.png"),
        "width": 800,
        "height": 600,
        "detections": [
            {"class": "dog", "label": 1, "score": 0.875, "box_xyxy": [0.0, 0.0, 400.0, 600.0]},
            {"class": "cat", "label": 0, "score": 0.25, "box_xyxy": [0.0, 0.0, 800.0, 600.0]},
        ],
    }
    assert file.read_bytes() == before
    with Image.open(entry["annotated"]) as annotated:
        assert annotated.size == (800, 600)
        assert np.unique(np.asarray(annotated).reshape(-1, 3), axis=0).shape[0] > 3


def test_photographs_are_turned_upright(tmp_path):
    file = save(tmp_path / "a.jpg", size=(800, 600), orientation=6)
    (entry,) = predict_files(detect_left_half, NAMES, plan([str(file)], tmp_path / "out"))
    assert (entry["width"], entry["height"]) == (600, 800)
    assert entry["detections"][0]["box_xyxy"] == [0, 0, 300, 800]
    with Image.open(entry["annotated"]) as annotated:
        assert annotated.size == (600, 800)
        assert annotated.getexif().get(0x0112, 1) == 1  # not turned twice


def test_unreadable_files_are_reported_in_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "_IMAGES_AT_ONCE", 2)
    for name in ("b.jpg", "d.jpg", "e.jpg"):
        save(tmp_path / name)
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"no image at all")
    entries = list(predict_files(detect_left_half, NAMES, plan([str(tmp_path)], tmp_path / "out")))
    assert [pathlib.Path(entry["file"]).name for entry in entries] == [
        "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"
    ]  # fmt: skip
    assert [entry.get("reason") for entry in entries] == [
        "image is empty", None, "image is not JPEG, PNG, BMP or WebP", None, None
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.jpg", "d.jpg", "e.jpg"]


def test_boxes_without_area_are_no_detections(tmp_path):
    def detect(images):
        boxes = np.array([[50, 10, 20, 40], [10, 40, 20, 10], [5, 5, 5, 9], [1, 2, 3, 4.0]])
        return [Detections(boxes, np.full(4, 0.5), np.zeros(4, int)) for _ in images]

    (entry,) = predict_files(detect, NAMES, plan([str(save(tmp_path / "a.jpg"))], tmp_path / "out"))
    assert [one["box_xyxy"] for one in entry["detections"]] == [[1, 2, 3, 4]]


def test_the_detector_is_not_called_without_images(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (entry,) = predict_files(lambda images: 1 / 0, NAMES, plan([str(tmp_path)], tmp_path / "out"))
    assert entry == {"file": str(tmp_path / "a.jpg"), "reason": "image is empty"}


@pytest.fixture
def run_main(tmp_path, monkeypatch):
    """`main` with the flags given and a detector that needs no run."""
    level = logging.getLogger().level

    def run(*paths, **flags):
        names = ("workdir", "output", "json", "score_threshold", "step")
        for name in names:
            value = types.SimpleNamespace(value=flags.get(name))
            monkeypatch.setattr(predict, f"_{name.upper()}", value, raising=False)

        def detector(images, score_threshold):
            assert score_threshold == flags.get("score_threshold")
            return detect_left_half(images)

        detector.class_names = NAMES
        monkeypatch.setattr(predict, "load", lambda workdir, step: detector)
        monkeypatch.setattr(predict, "read_config", lambda workdir: None)
        predict.main([str(path) for path in paths])

    yield run
    logging.getLogger().setLevel(level)


def test_main_draws_into_the_run_folder_and_writes_json(tmp_path, run_main, capsys):
    photos = tmp_path / "photos"
    save(photos / "a.jpg")
    (photos / "b.jpg").write_bytes(b"")
    run_main(photos, workdir=tmp_path / "run", json=tmp_path / "found.json", score_threshold=0.125)
    annotated = tmp_path / "run" / "predictions" / "a.jpg"
    assert annotated.is_file()
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["class_names"] == ["cat", "dog"]
    assert [image["annotated"] for image in content["images"]] == [str(annotated)]
    assert content["skipped"] == [{"file": str(photos / "b.jpg"), "reason": "image is empty"}]
    printed = capsys.readouterr()
    assert printed.out == f"{annotated}: dog 0.88, cat 0.25\n"
    assert printed.err == f"skipped {photos / 'b.jpg'}: image is empty\n"


def test_main_refuses_where_nothing_can_be_read(tmp_path, run_main):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"none among 1 files \(.*a\.jpg: image is empty\)"):
        run_main(tmp_path / "a.jpg", workdir=tmp_path / "run")
    with pytest.raises(UserError, match="no image is given"):
        run_main(workdir=tmp_path / "run")
    with pytest.raises(UserError, match="--workdir is missing"):
        run_main(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("flag", "path"),
    [
        ("output", "/dev/null"),
        ("output", "/proc/x"),
        ("output", "/dev/null/x"),
        ("json", "/proc/x.json"),
        ("json", "/dev/null"),
        ("json", "/dev"),
        ("json", "x" * 300 + "/found.json"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    tmp_path, monkeypatch, run_main, flag, path
):
    monkeypatch.setattr(predict, "predict_files", lambda *args: pytest.fail("too late"))
    file = save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=f"--{flag}"):
        run_main(file, workdir=tmp_path / "run", **{flag: path})


def test_names_need_not_be_utf_8(tmp_path, run_main, monkeypatch):
    file = save(tmp_path / "a.jpg")
    file = file.rename(tmp_path / "a\udcff.jpg")
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    run_main(file, workdir=tmp_path / "run", json=tmp_path / "found.json")
    assert b"a\\udcff.jpg: dog" in stdout.buffer.getvalue()
    assert json.loads((tmp_path / "found.json").read_text())["images"][0]["file"] == str(file)


def test_a_name_that_is_too_long_is_missing(tmp_path):
    with pytest.raises(UserError, match="found nothing there"):
        plan(["x" * 300], tmp_path / "out")


def test_a_missing_run_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "yolov1_jax.predict", f"--workdir={tmp_path}", "missing.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: expected the config.json of a run in {tmp_path}, found")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
