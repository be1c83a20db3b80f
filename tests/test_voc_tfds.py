"""The tfds source: preparation from the archives, and what it reads from them."""

import concurrent.futures
import fcntl
import hashlib
import http.server
import io
import json
import multiprocessing
import operator
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import types

import fake_voc
import numpy as np
import pytest
import tensorflow_datasets as tfds
from rich.console import Console
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.object_detection import voc as tfds_voc

from yolov1_jax.data import voc_archives, voc_prepare
from yolov1_jax.data import voc_tfds as voc
from yolov1_jax.data.voc_prepare import prepare_voc
from yolov1_jax.data.voc_tfds import VocSource
from yolov1_jax.errors import UserError

TRAINVAL_2007 = "VOCtrainval_06-Nov-2007.tar"
ALL = ["voc/2007:train+validation", "voc/2012:train", "voc/2012:validation", "voc/2007:test"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Small archives in place of the registered ones. -> (folder, what is in them)"""
    folder = tmp_path_factory.mktemp("archives")
    years = fake_voc.write_archives(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_voc.Voc, "url_infos", fake_voc.url_infos(folder))
        yield folder, years


@pytest.fixture
def data_dir(archives, tmp_path):
    """A data folder with the archives in place and nothing prepared."""
    shutil.copytree(archives[0], tmp_path / "downloads" / "manual")
    return tmp_path


@pytest.fixture(scope="module")
def prepared(archives, tmp_path_factory):
    """A data folder with both years prepared. Read only: a test that changes it copies it."""
    root = tmp_path_factory.mktemp("prepared")
    shutil.copytree(archives[0], root / "downloads" / "manual")
    prepare_voc(["2007", "2012"], root)
    return root


def run_python(code: str, *args: object, **kwargs) -> subprocess.Popen:
    """A fresh interpreter in which the archives of folder argv[1] count as the official ones."""
    tests = pathlib.Path(__file__).parent
    preamble = (
        f"import sys, pathlib; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n"
        "import fake_voc; fake_voc.register(pathlib.Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", preamble + code, *map(str, args)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


# What is read


def test_records_are_what_the_archives_hold(archives, prepared):
    source = VocSource(ALL, prepared)
    expected = {
        f"VOC{year}/{name}": image
        for year, sets in archives[1].items()
        for images in sets.values()
        for name, image in images.items()
    }
    records = {source[i]["image_id"]: source[i] for i in range(len(source))}
    assert records.keys() == expected.keys()
    for image_id, record in records.items():
        image = expected[image_id]
        assert record["image"] == image.jpeg
        assert (record["width"], record["height"]) == image.size
        names = [source.class_names[label] for label in record["labels"]]
        assert names == [label.lower() for label in image.labels]
        assert record["difficult"].tolist() == image.difficult
        assert record["boxes_xyxy"].shape == (len(image.boxes), 4)
        assert record["boxes_xyxy"].dtype == np.float64
        assert record["labels"].dtype == np.int32
        for box, pixels in zip(record["boxes_xyxy"], np.array(image.boxes), strict=True):
            relative = pixels / np.array([*image.size, *image.size])
            whole = pixels == np.round(pixels)
            np.testing.assert_array_equal(box[whole], relative[whole])
            np.testing.assert_allclose(box, relative, rtol=0, atol=6e-8)  # tfds keeps float32
    assert any((np.array(image.boxes) % 1).any() for image in expected.values())
    assert any(image.boxes == [] for image in expected.values())


def test_report_counts_images_and_objects(archives, prepared):
    report = VocSource(["voc/2007:train+validation"], prepared).report
    images = [*archives[1]["2007"]["train"].values(), *archives[1]["2007"]["val"].values()]
    assert report.num_images == len(images) == 12
    assert report.num_objects == sum(len(image.boxes) for image in images)
    assert report.num_difficult == sum(sum(image.difficult) for image in images) > 0
    assert report.num_without_objects == 2
    assert not report.skipped


def test_splits_are_joined_in_the_order_given(prepared):
    def ids(*splits: str) -> list[str]:
        source = VocSource(splits, prepared)
        return [source.annotation(i)["image_id"] for i in range(len(source))]

    train, validation, test = (ids(f"voc/2007:{s}") for s in ("train", "validation", "test"))
    train_2012 = ids("voc/2012:train")
    assert ids("voc/2007:test", "voc/2012:train", "voc/2007:train") == test + train_2012 + train
    assert ids("voc/2007:train + validation") == train + validation
    assert ids("voc/2007:train[:50%]", "voc/2007:train[50%:]") == train
    assert len({*train, *validation, *test, *train_2012}) == 24


def test_image_comes_from_the_same_place_as_its_annotation(prepared):
    source = VocSource(ALL, prepared)
    parts = [VocSource([split], prepared) for split in ALL]
    for i, record in enumerate(
        r for part in parts for r in map(part.__getitem__, range(len(part)))
    ):
        assert source[i]["image"] == record["image"]
        assert source[i]["image_id"] == record["image_id"]


def test_annotation_is_the_record_without_image_and_may_be_changed(prepared):
    source = VocSource(["voc/2007:train"], prepared)
    for i in range(len(source)):
        annotation, record = source.annotation(i), source[i]
        assert annotation.pop("image") == b""
        assert record.pop("image")[:2] == b"\xff\xd8"
        np.testing.assert_equal(annotation, record)
        unchanged = pickle.loads(pickle.dumps(annotation))
        annotation["boxes_xyxy"] *= 0
        annotation["labels"] += 1
        annotation["difficult"][:] ^= True
        np.testing.assert_equal(source.annotation(i), unchanged | {"image": b""})


def test_index_outside_is_refused(prepared):
    source = VocSource(["voc/2007:train"], prepared)
    assert source[np.int64(5)]["image_id"] == source[5]["image_id"]
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"record {index} of 6"):
            source[index]


def test_copy_in_a_spawned_process_reads_the_same(prepared):
    source = VocSource(["voc/2007:train", "voc/2012:train"], prepared)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        record = pool.submit(operator.getitem, source, 8).result()
    np.testing.assert_equal(record, source[8])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_equal(
        [again[i] for i in range(len(again))], [*map(source.__getitem__, range(12))]
    )


def test_class_names_are_those_of_tfds(prepared):
    features = tfds.builder("voc/2012", data_dir=prepared).info.features
    assert list(voc.VOC_CLASS_NAMES) == features["objects"]["label"].names
    assert list(voc.VOC_CLASS_NAMES) == sorted(voc.VOC_CLASS_NAMES)


def test_every_whole_pixel_survives_float32():
    for side in (*range(1, 60), 333, 375, 486, 500, 1000, 4000):
        pixels = np.arange(side + 1, dtype=np.float64)
        stored = (pixels / side).astype(np.float32)
        boxes = voc._exact_boxes([*np.stack([stored] * 4, axis=1)], (side, side))
        np.testing.assert_array_equal(boxes, np.stack([pixels / side] * 4, axis=1))


def test_boxes_from_tfds_order_with_their_own_side():
    stored = np.array([10 / 40, 20 / 50, 30.5 / 40, 45.7 / 50], np.float32)  # y x y x
    box = voc._exact_boxes([stored], (50, 40))[0]
    assert box[:2].tolist() == [20 / 50, 10 / 40]
    assert box[2:].tolist() == [float(stored[3]), float(stored[2])]  # fractions as they were


def test_default_folder_is_that_of_tfds(prepared, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared))
    assert len(VocSource(["voc/2007:train"])) == 6


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([], r"expected a list of splits of voc/2007:train\+validation\+test; voc/2012:"),
        ("voc/2012:train", "expected a list of splits"),
        (["voc/2012:val"], "expected a split of .*train.* found 'voc/2012:val'"),
        (["voc/2012:train+trainval"], "expected a split of .* found 'voc/2012:train.trainval'"),
        (["voc/2010:train"], "expected a split of .*2007.*2012.* found 'voc/2010:train'"),
        (["VOC2012:train"], "expected a split of .* found 'VOC2012:train'"),
        (["voc/2012:test"], "annotations of VOC2012 test are not public"),
        (["voc/2007:train[:9]"], r"cannot open voc/2007:train\[:9\] .*incompatible with 6"),
        (["voc/2007:train[x]"], r"cannot open voc/2007:train\[x\]"),
        (["voc/2007:train[:0]"], r"cannot open voc/2007:train\[:0\]"),
        (["voc/2007:train", "voc/2007:train[:1]"], "do not overlap, found VOC2007/00000. twice"),
    ],
)
def test_wrong_splits_are_refused(prepared, splits, message):
    with pytest.raises(UserError, match=message) as error:
        VocSource(splits, prepared)
    assert "\n" not in str(error.value)


# Preparation


def test_equal_to_what_tfds_itself_prepares(archives, prepared, tmp_path, monkeypatch):
    # tensorflow_datasets uses TensorFlow for VOC in two modules, to open files.
    shim = types.SimpleNamespace(
        io=types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open)),
        compat=types.SimpleNamespace(as_text=str),
    )
    monkeypatch.setattr(tfds_voc, "tf", shim)
    monkeypatch.setattr(extractor, "tf", shim)
    manual = tmp_path / "downloads" / "manual"
    shutil.copytree(archives[0], manual)
    images = {"test": {"2008_000099": archives[1]["2012"]["train"]["2008_000001"]}}
    fake_voc.write_archive(manual / "VOC2012test.tar", "2012", images, annotations=False)
    official_urls = fake_voc.url_infos(manual, tfds_voc._VOC_DATA_URL)
    monkeypatch.setattr(tfds_voc.Voc, "url_infos", official_urls)

    ours = tmp_path / "ours"
    shutil.copytree(manual, ours / "downloads" / "manual")
    prepare_voc(["2007", "2012"], ours)
    for year in ("2007", "2012"):
        official = tfds.builder(f"voc/{year}", data_dir=tmp_path, file_format="array_record")
        official.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=str(manual), try_download_gcs=False
            )
        )
        folder, official_folder = (d / "voc" / year / "5.0.0" for d in (ours, tmp_path))
        info, official_info = (
            json.loads((f / "dataset_info.json").read_text()) for f in (folder, official_folder)
        )
        assert official_info.pop("downloadSize")
        for description in (info, official_info):
            description["splits"].sort(key=lambda split: split["name"])
        assert info == official_info
        assert [s["name"] for s in info["splits"]] == ["test", "train", "validation"]
        names = sorted(f.name for f in official_folder.iterdir())
        assert sorted(f.name for f in folder.iterdir()) == names
        for split in ("train", "validation", "test"):
            serialized, official_serialized = (
                list(
                    tfds.data_source(
                        f"voc/{year}",
                        split=split,
                        data_dir=directory,
                        deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
                    )
                )
                for directory in (ours, tmp_path)
            )
            assert serialized == official_serialized
            assert len(serialized) == (1 if (year, split) == ("2012", "test") else 6)
    assert (ours / "voc/.config/metadata.json").read_bytes() == (
        tmp_path / "voc/.config/metadata.json"
    ).read_bytes()


def test_2012_needs_no_test_archive(prepared):
    info = tfds.builder("voc/2012", data_dir=prepared).info
    assert sorted(info.splits) == ["train", "validation"]


def test_tensorflow_is_never_imported(archives, data_dir):
    code = (
        "from yolov1_jax.data.voc_tfds import VocSource\n"
        "source = VocSource(['voc/2007:train', 'voc/2012:train'], sys.argv[2])\n"
        "[source[i] for i in range(len(source))]\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(str(loaded & {'tensorflow', 'torch'}) if loaded & {'tensorflow', 'torch'} else 0)"
    )
    process = run_python(code, archives[0], data_dir)
    assert process.communicate()[1].count("Preparing voc/") == 2
    assert process.returncode == 0


def test_of_two_processes_one_prepares_and_the_other_waits(archives, data_dir):
    code = (
        "from yolov1_jax.data.voc_tfds import VocSource\n"
        "assert len(VocSource(['voc/2007:test'], sys.argv[2])) == 6"
    )
    with (data_dir / "downloads" / "voc-2007.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = [run_python(code, archives[0], data_dir) for _ in range(2)]
        for process in processes:
            assert process.stderr.readline() == (
                "Waiting for another process that prepares voc/2007\n"
            )
    notes = sorted(process.communicate()[1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert notes == ["", f"Preparing voc/2007 in {data_dir}\n"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_while_writing_it_starts_again(archives, prepared, data_dir, how):
    code = (
        "import os, yolov1_jax.data.voc_builder as b\n"
        "objects = b._objects\n"
        "count = iter(range(9))\n"
        f"stop = lambda: os.kill(os.getpid(), {int(how)})\n"
        "b._objects = lambda x: stop() if next(count) == 8 else objects(x)\n"
        "from yolov1_jax.data.voc_prepare import prepare_voc\n"
        "prepare_voc(['2007'], sys.argv[2])"
    )
    process = run_python(code, archives[0], data_dir)
    process.communicate()
    assert process.returncode == -how
    assert (data_dir / "downloads" / "voc-2007-staging").exists()
    assert not (data_dir / "voc/2007/5.0.0").exists()

    source, expected = (VocSource(ALL[:1], root) for root in (data_dir, prepared))
    assert len(source) == 12
    np.testing.assert_equal(
        [*map(source.__getitem__, range(12))], [*map(expected.__getitem__, range(12))]
    )
    left = {path.name for path in (data_dir / "downloads").iterdir()}
    assert left == {"manual", "voc-2007.lock"}


def test_prepared_data_needs_no_archive_and_no_write_access(prepared, tmp_path):
    shutil.copytree(prepared / "voc", tmp_path / "voc")
    assert len(VocSource(ALL, tmp_path)) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]


def test_unknown_year_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a VOC year of 2007, 2012, found '2009'"):
        prepare_voc(["2009"], tmp_path)


@pytest.mark.parametrize("wrong", ["content", "size"])
def test_archive_that_is_not_the_official_one_is_refused(archives, data_dir, wrong):
    path = data_dir / "downloads" / "manual" / TRAINVAL_2007
    official = path.read_bytes()
    changed = bytes([official[0] ^ 1]) + official[1:] if wrong == "content" else official[:-1]
    path.write_bytes(changed)
    expected, found = (
        (f"sha256 {hashlib.sha256(official).hexdigest()}", hashlib.sha256(changed).hexdigest())
        if wrong == "content"
        else (f"{len(official)} bytes", f"{len(official) - 1}")
    )
    message = f"{path}: expected {expected}, found {found}; delete it"
    with pytest.raises(UserError, match=re.escape(message)):
        prepare_voc(["2007"], data_dir)
    assert path.read_bytes() == changed  # it is the user's to delete
    assert not (data_dir / "voc/2007/5.0.0").exists()


def test_missing_archive_without_network_says_what_to_put_where(archives, data_dir):
    path = data_dir / "downloads" / "manual" / TRAINVAL_2007
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    with pytest.raises(
        UserError, match=r"could not be downloaded .*refused.*put it there"
    ) as error:
        prepare_voc(["2007"], data_dir)
    described = f"{TRAINVAL_2007} ({size} bytes, sha256 {digest}) is not in {path.parent}"
    assert described in str(error.value)
    assert "\n" not in str(error.value)


def test_too_little_disk_space_is_said_first(archives, data_dir, monkeypatch):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(voc_prepare.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"preparing voc/2007 needs about .* found 0\.0 GB free"):
        prepare_voc(["2007"], data_dir)


def test_data_of_another_kind_or_damaged_is_refused(prepared, tmp_path):
    shutil.copytree(prepared / "voc", tmp_path / "voc")
    folder = tmp_path / "voc/2007/5.0.0"
    records = next(folder.glob("*train*"))
    records.write_bytes(records.read_bytes()[:30000])
    with pytest.raises(UserError, match=r"cannot read voc/2007 in .*5\.0\.0: .*delete that folder"):
        VocSource(["voc/2007:train"], tmp_path)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="expected files in array_record, found tfrecord"):
        VocSource(["voc/2007:validation"], tmp_path)
    info.write_text("{")
    with pytest.raises(UserError, match=r"cannot open voc/2007 in .*delete its folder"):
        VocSource(["voc/2007:validation"], tmp_path)
    info.unlink()
    with pytest.raises(UserError, match=r"5\.0\.0: expected a complete data set, found a part"):
        VocSource(["voc/2007:validation"], tmp_path)


@pytest.mark.parametrize("data_dir", ["gs://bucket/voc", "{file}"])
def test_folder_that_cannot_be_one_is_refused(archives, tmp_path, data_dir):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"expected a folder on this machine|cannot prepare voc/2007"
    ):
        prepare_voc(["2007"], data_dir.format(file=tmp_path / "file"))


# Download


class Server(http.server.ThreadingHTTPServer):
    """Serves `data` under any address, in the ways that servers of archives have."""

    data = b""
    ranges = True  # continues where asked to
    cut_after: int | None = None  # closes each connection after so many bytes
    starts: list[int]

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server = self.server
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            server.starts.append(start)
            partial = server.ranges and start > 0
            body = server.data[start:] if partial else server.data
            self.send_response(206 if partial else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: server.cut_after])

        def log_message(self, *args):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        self.starts = []


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def archive(server):
    server.data = np.random.default_rng(0).bytes(3_000_000)
    return voc_archives.Archive(
        filename="a.tar",
        url=f"http://127.0.0.1:{server.server_port}/a.tar",
        size=len(server.data),
        sha256=hashlib.sha256(server.data).hexdigest(),
    )


def fetch(archive, folder):
    return voc_archives.fetch(archive, folder, Console(file=io.StringIO()))


def test_download_is_kept_for_the_next_time(server, archive, tmp_path):
    assert fetch(archive, tmp_path).read_bytes() == server.data
    assert fetch(archive, tmp_path) == tmp_path / "a.tar"
    assert server.starts == [0]
    assert os.listdir(tmp_path) == ["a.tar"]


def test_partial_download_is_continued(server, archive, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(server.data[:1234567])
    assert fetch(archive, tmp_path).read_bytes() == server.data
    assert server.starts == [1234567]


def test_broken_connections_are_continued(server, archive, tmp_path):
    server.cut_after = 1_100_000
    assert fetch(archive, tmp_path).read_bytes() == server.data
    assert server.starts == [0, 1_100_000, 2_200_000]


def test_server_that_cannot_continue_sends_all_again(server, archive, tmp_path):
    server.ranges = False
    (tmp_path / "a.tar.part").write_bytes(bytes(5000))
    assert fetch(archive, tmp_path).read_bytes() == server.data


def test_server_that_never_gets_further_is_given_up(server, archive, tmp_path):
    server.cut_after = 0
    with pytest.raises(UserError, match=r"a\.tar .*server closed the connection; put it there"):
        fetch(archive, tmp_path)
    assert len(server.starts) == 1


@pytest.mark.parametrize("content", [b"<html>not here</html>", b"x" * 3_000_000, b"x" * 9_000_000])
def test_download_of_something_else_is_refused_and_removed(server, archive, tmp_path, content):
    server.data = content
    with pytest.raises(UserError, match=r"a\.tar.*(expected (3000000 bytes|sha256 )|closed)"):
        fetch(archive, tmp_path)
    assert not (tmp_path / "a.tar").exists()
    if len(content) >= archive.size:
        assert os.listdir(tmp_path) == []


def test_whole_preparation_by_download(archives, server, tmp_path, monkeypatch):
    base = f"http://127.0.0.1:{server.server_port}/"
    path = archives[0] / "VOCtrainval_11-May-2012.tar"
    monkeypatch.setattr(tfds_voc.Voc, "url_infos", fake_voc.url_infos(archives[0], base))
    server.data = path.read_bytes()
    assert len(VocSource(["voc/2012:train"], tmp_path)) == 6
    assert (tmp_path / "downloads" / "manual" / path.name).read_bytes() == server.data
    assert server.starts == [0]


def test_registered_archives(archives, monkeypatch):
    monkeypatch.delattr(tfds_voc.Voc, "url_infos")  # the small ones; the real ones are inherited
    by_year = {year: voc_archives.archives_of(year) for year in voc_prepare.YEARS}
    assert by_year.keys() == {"2007", "2012"}
    trainval = by_year["2012"]["trainval"]
    assert trainval.filename == "VOCtrainval_11-May-2012.tar"
    assert trainval.size == 1_999_639_040
    assert trainval.sha256.startswith("e14f7632")
    assert trainval.url.endswith(f"/{trainval.filename}")
    assert by_year["2007"]["trainval"].size == 460_032_000
    assert by_year["2007"]["test"].size == 451_020_800
