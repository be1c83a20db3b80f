"""The predict command, called in this process, on a run of random weights."""

import functools
import json
import pathlib
import shutil
import signal

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_run import save_run

from yolov1_jax import predict
from yolov1_jax.data.source import open_folder
from yolov1_jax.detector import Detector, load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {2: 0.5})


_load = functools.cache(load)


@pytest.fixture
def compiled(run, monkeypatch):
    """The run, loaded and compiled once for several tests."""
    monkeypatch.setattr(predict, "load", _load)
    return run


def save(path, size=(80, 60), orientation=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def save_video(path, size, num_frames=5):
    """Frames that get bluer, at 12.5 frames per second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, size)
    for i in range(num_frames):
        writer.write(np.full((size[1], size[0], 3), (50 * (i % 5), 20, 0), np.uint8))
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames, capture.get(cv2.CAP_PROP_FPS)


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_predict(workdir, out, *arguments, code=0):
    assert predict.main([f"--workdir={workdir}", f"--output={out}", *map(str, arguments)]) == code


def test_images_are_drawn_and_described(compiled, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "new" / "out"
    turned, plain = save(photos / "a.jpg", (800, 600), 6), save(photos / "sub" / "a.png", (90, 70))
    (photos / "b.jpg").write_bytes(b"")
    (photos / "c.JPG").write_bytes(b"no image at all")
    (photos / "clip.mp4").write_bytes(b"no video")
    before = turned.read_bytes()
    flags = "--save=drawn,json,crops", "--score_threshold=0.01"
    run_predict(compiled, out, *flags, photos, code=1)  # three are broken

    rows = json_lines(out / "detections.jsonl")
    detector = _load(compiled, "best")
    for row, file, size in zip(rows, (turned, plain), ((600, 800), (90, 70)), strict=True):
        expected = detector(file, score_threshold=0.01)
        assert expected.names
        boxes = [one["box_xyxy"] for one in row["detections"]]
        np.testing.assert_allclose(boxes, expected.boxes_xyxy, atol=0.1)
        assert [one["class"] for one in row["detections"]] == expected.names
        for i, (name, box) in enumerate(zip(expected.names, boxes, strict=True), start=1):
            stem = file.relative_to(photos).with_suffix("")
            with Image.open(out / "crops" / name / f"{stem}_{i}.jpg") as crop:
                np.testing.assert_allclose(crop.size, np.subtract(box[2:], box[:2]), atol=2.1)
        assert (row["file"], row["width"], row["height"]) == (str(file), *size)
        with Image.open(out / file.relative_to(photos)) as image:
            assert image.getexif().get(0x0112, 1) == 1  # not turned twice
            assert image.width * size[1] == size[0] * image.height
    assert turned.read_bytes() == before
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [str(turned), str(plain)]
    assert "2 images" in lines[2]
    assert "3 skipped" in lines[2]
    skipped = [line.split(":")[0].split("/")[-1] for line in printed.err.splitlines()]
    assert sorted(skipped) == ["b.jpg", "c.JPG", "clip.mp4"]


@pytest.mark.parametrize("name", ["voc", "yolo", "coco"])
def test_the_readers_of_data_read_labels_back(compiled, tmp_path, name):
    photos, out = tmp_path / "photos", tmp_path / "out"
    files = [save(photos / f"{i}.jpg", (90 + i, 70), i, seed=i) for i in (1, 6)]  # 6: turned
    run_predict(compiled, out, f"--save={name}", "--score_threshold=0.001", *files)
    assert sorted(path.name for path in out.iterdir()) == ["coco.json" if name == "coco" else name]
    shutil.copytree(photos, (out if name == "coco" else out / name) / "images")
    source = open_folder(out, ["all"], data_format=name)
    found = _load(compiled, "best")(files, score_threshold=0.001)
    for i, expected in enumerate(found):
        boxes, labels, _ = source.annotations()[i]
        names = [source.class_names[label] for label in labels]
        pixel_numbers = np.clip(expected.boxes_xyxy, 1, expected.size * 2)
        for one, box in zip(expected.names, pixel_numbers, strict=True):
            same = [other for other, of in zip(boxes, names, strict=True) if of == one]
            assert np.abs(np.array(same) - box).max(axis=1).min() < 0.011
        assert len(names) == len(expected.names) > 0
        assert source[i].image.shape[1::-1] == expected.size
    if name == "coco":
        content = json.loads((out / "coco.json").read_text())
        scores = [row["score"] for row in content["annotations"]]
        np.testing.assert_allclose(scores, np.concatenate([one.scores for one in found]))


@pytest.mark.parametrize("size", [(160, 240), (131, 201)])
def test_a_video_keeps_its_frames_rate_and_size(compiled, tmp_path, size):
    video, out = save_video(tmp_path / "clip.mp4", size), tmp_path / "out"
    flags = "--save=drawn,json,yolo", "--score_threshold=0.9", "--batch_size=2"
    run_predict(compiled, out, *flags, video)
    frames, rate = frames_of(out / "clip.mp4")
    assert rate == 12.5
    # The codec has even sides only.
    assert {frame.shape for frame in frames} == {(size[1] & ~1, size[0] & ~1, 3)}
    given = frames_of(video)[0]
    for drawn, frame in zip(frames, given, strict=True):
        np.testing.assert_allclose(*(np.median(i, axis=(0, 1)) for i in (drawn, frame)), atol=30)
    rows = json_lines(out / "detections.jsonl")
    assert [(row["file"], row["frame"]) for row in rows] == [(str(video), i) for i in range(1, 6)]
    expected = _load(compiled, "best")([frame[..., ::-1] for frame in given], score_threshold=0.9)
    names = [[one["class"] for one in row["detections"]] for row in rows]
    assert names == [one.names for one in expected] != [[]] * 5
    assert (out / "yolo" / "labels" / "clip_000005.txt").is_file()


def test_ctrl_c_leaves_whole_files(compiled, tmp_path, monkeypatch):
    video, out = save_video(tmp_path / "clip.mp4", (48, 64), num_frames=20), tmp_path / "out"
    stream = Detector.stream

    def interrupted(*arguments, **options):
        for i, found in enumerate(stream(*arguments, **options)):
            if i == 2:
                signal.raise_signal(signal.SIGINT)
            yield found

    monkeypatch.setattr(Detector, "stream", interrupted)
    run_predict(compiled, out, "--save=drawn,json,coco", "--batch_size=4", video, code=130)
    assert len(frames_of(out / "clip.mp4")[0]) == 4
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 4
    assert len(json_lines(out / "detections.jsonl")) == 4
    assert len(list(out.iterdir())) == 3  # nothing half written


def test_results_go_to_the_run_by_default_and_other_files_are_named(compiled, tmp_path, capsys):
    file = save(tmp_path / "a.jpg").rename(tmp_path / "a\udcff.jpg")  # a name that is not UTF-8
    for name in ("a.gif", "b.gif", "phone.heic", ".hidden"):
        (tmp_path / name).touch()
    assert predict.main([f"--workdir={compiled}", str(tmp_path)]) == 0
    assert (compiled / "predictions" / file.name).is_file()
    printed = capsys.readouterr()
    assert "a\\udcff.jpg: " in printed.out
    assert printed.err == "not read: 2 x .gif, 1 x .heic\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--workdir=RUN", "image"),
        ("--workdir=RUN --model=a.onnx photos/a.jpg", "--model"),
        ("--workdir=RUN missing.jpg", "missing.jpg"),
        ("--workdir=RUN photos/*.png", "*.png"),
        ("--workdir=RUN photos/a.jpg --save=xml", "'xml'"),
        ("--workdir=RUN photos/a.jpg --classes=cat", "'cat'"),
        ("--workdir=nothing photos/a.jpg", "config.json"),
        ("--workdir=RUN photos/a.jpg --output=photos", "--output"),
        ("--workdir=RUN photos/../photos --output=./photos", "--output"),
        ("--workdir=RUN clip.mp4 --output=.", "--output"),
    ],
)
def test_mistakes_are_named_in_one_line(run, tmp_path, monkeypatch, capsys, arguments, word):
    monkeypatch.chdir(tmp_path)
    original = save(pathlib.Path("photos/a.jpg")).read_bytes()
    pathlib.Path("clip.mp4").touch()
    assert predict.main(arguments.replace("RUN", str(run)).split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert word in error
    assert pathlib.Path("photos/a.jpg").read_bytes() == original
    assert not pathlib.Path("nothing").exists()


def test_every_input_gets_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "sub/b.jpg", ".hidden.jpg", "x/a.png", "x/a.bmp"):
        save(pathlib.Path(name))
    for name in ("notes.txt", "sub/c.MP4", "sub/c.avi"):
        pathlib.Path(name).write_text("no image")
    inputs, others = predict.find_inputs([".", "a.PNG", "x/*.bmp", "x", "0"], pathlib.Path("out"))
    assert others == {".txt": 1}
    assert {str(file): stem.as_posix() for file, stem in inputs.items()} == {
        "a.PNG": "a",
        "b.jpg": "b",
        "sub/b.jpg": "sub/b",
        "sub/c.MP4": "sub/c",
        "sub/c.avi": "sub/c_2",
        "x/a.bmp": "x/a",
        "x/a.png": "x/a_2",
        "0": "camera_0",
    }


def test_images_of_one_name_are_several_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [str(save(pathlib.Path(name))) for name in ("a/x.jpg", "b/x.jpg", "b/x.png")]
    inputs, _ = predict.find_inputs(files, pathlib.Path("out"))
    items = list(predict.read_items(inputs, pytest.fail))
    assert [item.image_name for item in items] == ["x.jpg", "x_2.jpg", "x.png"]  # as in coco.json
    assert [item.drawn for item in items] == ["x.jpg", "x_2.jpg", "x_3.png"]


@pytest.mark.parametrize("source", ["photos", "photos/*", "photos/**/*.jpg", "*"])
def test_earlier_output_is_no_input(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/out/a.jpg", "photos/out/deep/b.jpg"):
        save(pathlib.Path(name))
    inputs, _ = predict.find_inputs([source], pathlib.Path("photos/out"))
    assert [*inputs] == [pathlib.Path("photos/a.jpg")]
