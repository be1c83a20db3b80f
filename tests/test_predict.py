"""The predict command, called in this process, on a run of random weights."""

import functools
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from tiny_run import save_run

from yolov1_jax import predict
from yolov1_jax.detector import load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {1: None, 2: 0.5, 3: 0.25})


_load = functools.cache(load)


@pytest.fixture
def compiled(run, monkeypatch):
    """The run, loaded and compiled once for several tests."""
    monkeypatch.setattr(predict, "load", _load)
    return run


def save(path, size=(80, 60), orientation=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def test_images_are_drawn_and_described(run, tmp_path, capsys):
    photos, out, found = tmp_path / "photos", tmp_path / "out", tmp_path / "new" / "found.json"
    turned, plain = save(photos / "a.jpg", (800, 600), 6), save(photos / "sub" / "a.png", (90, 70))
    (photos / "b.jpg").write_bytes(b"")
    (photos / "c.JPG").write_bytes(b"no image at all")
    before = turned.read_bytes()
    flags = [f"--workdir={run}", f"--output={out}", f"--json={found}", "--score_threshold=0.01"]
    assert predict.main([*flags, str(photos), "--step=latest"]) == 0

    content = json.loads(found.read_text())
    detector = load(run, 3)
    names = detector.class_names
    assert content["class_names"] == list(names)
    first, second = content["images"]
    for entry, file, size in ((first, turned, (600, 800)), (second, plain, (90, 70))):
        (detections,) = detector(file, score_threshold=0.01)
        assert len(detections.scores) > 0
        for row, box, score, label in zip(entry["detections"], *detections, strict=True):
            assert (row["class"], row["label"]) == (names[label], label)
            assert row["score"] == pytest.approx(score, abs=1e-3)
            assert row["box_xyxy"] == pytest.approx(box, abs=0.1)
        assert (entry["width"], entry["height"]) == size
        assert entry["file"] == str(file)
        assert entry["annotated"] == str(out / file.relative_to(photos))
        with Image.open(entry["annotated"]) as image:
            assert image.getexif().get(0x0112, 1) == 1  # not turned twice
            assert image.width * size[1] == size[0] * image.height
    assert [pathlib.Path(one["file"]).name for one in content["skipped"]] == ["b.jpg", "c.JPG"]
    assert all(one["reason"] for one in content["skipped"])
    assert turned.read_bytes() == before
    printed = capsys.readouterr()
    lines = [line.split(":")[0] for line in printed.out.splitlines()]
    assert lines == [f"{one['file']} -> {one['annotated']}" for one in (first, second)]
    assert ["b.jpg" in line or "c.JPG" in line for line in printed.err.splitlines()] == [True] * 2


def test_results_go_to_the_run_by_default_and_names_need_not_be_utf_8(compiled, tmp_path, capsys):
    file = save(tmp_path / "a.jpg").rename(tmp_path / "a\udcff.jpg")
    assert predict.main([f"--workdir={compiled}", str(file)]) == 0
    assert (compiled / "predictions" / file.name).is_file()
    assert "a\\udcff.jpg: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--workdir=RUN", "image"),
        ("RUN photos/a.jpg", "no --workdir=RUN"),
        ("--workdir=RUN missing.jpg", "missing.jpg"),
        ("--workdir=RUN empty", ".webp"),
        ("--workdir=RUN photos/broken.jpg", "read"),
        ("--workdir=RUN photos/a.jpg --step=7", "7"),
        ("--workdir=nothing photos/a.jpg", "config.json"),
        ("--workdir=RUN photos/a.jpg --output=photos", "--output"),
        ("--workdir=RUN photos/a.jpg --json=empty", "--json"),
        ("--workdir=RUN photos/../photos --output=./photos", "--output"),
    ],
)
def test_mistakes_are_named_in_one_line(run, tmp_path, monkeypatch, capsys, arguments, word):
    monkeypatch.chdir(tmp_path)
    original = save(pathlib.Path("photos/a.jpg")).read_bytes()
    pathlib.Path("photos/broken.jpg").write_bytes(b"")
    pathlib.Path("empty").mkdir()
    assert predict.main(arguments.replace("RUN", str(run)).split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert word in error
    assert pathlib.Path("photos/a.jpg").read_bytes() == original
    assert not pathlib.Path("nothing").exists()


def test_files_of_other_formats_are_named(compiled, tmp_path, capsys):
    save(tmp_path / "photos" / "scan.TIF")
    for name in ("a.gif", "b.gif", "phone.heic", "notes", ".hidden"):
        (tmp_path / "photos" / name).write_bytes(b"GIF89a")
    found = tmp_path / "found.json"
    assert predict.main([f"--workdir={compiled}", f"--json={found}", str(tmp_path / "photos")]) == 0
    content = json.loads(found.read_text())
    assert [pathlib.Path(one["file"]).name for one in content["images"]] == ["scan.TIF"]
    skipped = [pathlib.Path(one["file"]).name for one in content["skipped"]]
    assert skipped == ["a.gif", "b.gif", "notes", "phone.heic"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["a.gif, b.gif", "notes", "phone.heic"]


def test_a_drawing_that_cannot_be_written_loses_no_detections(compiled, tmp_path, capsys):
    for name in ("a.png", "b/c.png", "d.png"):
        save(tmp_path / "photos" / name)
    out, found = tmp_path / "out", tmp_path / "found.json"
    out.mkdir()
    (out / "b").write_text("in the way of a folder")
    flags = [f"--workdir={compiled}", f"--output={out}", f"--json={found}"]
    assert predict.main([*flags, str(tmp_path / "photos")]) == 1
    images = json.loads(found.read_text())["images"]
    assert [one["annotated"] for one in images] == [str(out / "a.png"), None, None]
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b"]


def test_every_image_gets_a_name_of_its_own_and_the_output_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "sub/b.jpg", ".hidden.jpg", "out/b.jpg", "x/a.png", "x/a.bmp"):
        save(pathlib.Path(name))
    pathlib.Path("notes.txt").write_text("no image")
    planned, others = predict.plan([".", "a.PNG", "x/a.bmp", "x"], pathlib.Path("out"))
    assert others == [pathlib.Path("notes.txt")]
    assert {str(file): str(annotated) for file, annotated in planned.items()} == {
        "a.PNG": "out/a.png",
        "b.jpg": "out/b.jpg",
        "sub/b.jpg": "out/sub/b.jpg",
        "x/a.bmp": "out/x/a.png",
        "x/a.png": "out/x/a_2.png",
    }
