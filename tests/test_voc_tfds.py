"""The tfds source: preparation from the archives, and what it reads from them."""

import hashlib
import http.server
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from unittest import mock

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.download import checksums, extractor
from tensorflow_datasets.object_detection import voc as tfds_voc
from voc_tree import VocTree, annotation_xml, encode, object_xml, pixels

from yolov1_jax.config import UserError
from yolov1_jax.data.voc_tfds import VocSource

ARCHIVES = {
    "VOCtrainval_06-Nov-2007.tar": ("2007", ("train", "val")),
    "VOCtest_06-Nov-2007.tar": ("2007", ("test",)),
    "VOCtrainval_11-May-2012.tar": ("2012", ("train", "val")),
}
LABELS = ("person", "aeroplane", "TVmonitor", "dog", "sofa", "dog")
POSES = ("Frontal", "Rear", "Left", "Right", "Unspecified")
PART = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"  # is no object of its own
MANUAL = "downloads/manual"
TRAINVAL_2012 = "VOCtrainval_11-May-2012.tar"
ALL = ["voc/2007:train+validation", "voc/2012:train", "voc/2012:validation", "voc/2007:test"]


def image(k):
    """One without objects, one with whole and fractional boxes, one with every whole number.

    Returns: JPEG; height, width; of each object class, xmin, ymin, xmax, ymax, difficult; XML.
    """
    height, width = size = ((37, 50), (333, 500), (500, 486))[k % 3]
    steps = np.minimum(np.arange(501)[:, None] + [[0, 0, 1, 1]], [width, height] * 2)
    boxes = ([], [(1, 1, width, height), (45.70000076293945, 3.5, 471.2, 99.9)], steps.tolist())
    objects = [(LABELS[(i + k) % 6], box, i % 3 == 1) for i, box in enumerate(boxes[k % 3])]
    more = "<pose>{}</pose><truncated>{}</truncated><difficult>{:d}</difficult>" + PART
    xml = [
        object_xml(label, box, more.format(POSES[i % 5], i % 2, difficult))
        for i, (label, box, difficult) in enumerate(objects)
    ]
    jpeg = encode(pixels(*size), "JPEG", quality=20 + k)
    return jpeg, size, objects, annotation_xml(*xml, size=size)


def write_archives(folder):
    """Six images in each set, without VOC2012test.tar. -> {"VOC2007/train_0": image(0)}"""
    folder.mkdir(parents=True)
    written = {}
    for filename, (year, image_sets) in ARCHIVES.items():
        kind = {"dataset": f"VOCdevkit/VOC{year}", "extension": ".jpg"}
        with tempfile.TemporaryDirectory() as root, tarfile.open(folder / filename, "w") as tar:
            tree = VocTree(pathlib.Path(root))
            for image_set in image_sets:
                tree.list(image_set, [f"{image_set}_{k}" for k in range(6)], kind["dataset"])
                for k in range(6):
                    written[f"VOC{year}/{image_set}_{k}"] = jpeg, _, _, xml = image(k)
                    tree.add(f"{image_set}_{k}", image=jpeg, xml=xml, **kind)
            tar.add(f"{root}/VOCdevkit", "VOCdevkit")
    return written


def url_infos(folder, base="http://127.0.0.1:9/"):
    """What tensorflow_datasets would have registered; nothing answers at the default address."""
    infos = {}
    for filename in ARCHIVES:
        data = (folder / filename).read_bytes()
        size, checksum = utils.Size(len(data)), hashlib.sha256(data).hexdigest()
        infos[base + filename] = checksums.UrlInfo(size, checksum, filename)
    return infos


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with small archives, both years prepared. -> (folder, the images in it)"""
    root = tmp_path_factory.mktemp("prepared")
    images = write_archives(root / MANUAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_voc.Voc, "url_infos", url_infos(root / MANUAL))
        patch.setattr("time.sleep", lambda seconds: None)  # between two tries to download
        VocSource(ALL, root)
        yield root, images


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A data folder with the archives in place and nothing prepared."""
    shutil.copytree(prepared[0] / MANUAL, tmp_path / MANUAL)
    return tmp_path


def run_python(code, data_dir):
    """A fresh interpreter in which the archives of the data folder count as the official ones."""
    tests = pathlib.Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{tests}:{tests.parent}"}
    before = (
        f"from test_voc_tfds import *\nroot = pathlib.Path({str(data_dir)!r})\n"
        "tfds_voc.Voc.url_infos = url_infos(root / MANUAL)\n"
    )
    command = [sys.executable, "-c", before + code]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_records_and_annotations_are_what_the_archives_hold(prepared):
    root, images = prepared
    source = pickle.loads(pickle.dumps(VocSource(ALL, root)))
    annotations = source.annotations()
    assert sorted(annotations.image_ids) == sorted(images)
    for i, record in enumerate(source):
        jpeg, size, objects, _ = images[record.image_id]
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(record.image, pixels)
        names = [source.class_names[label] for label in record.labels]
        assert names == [label.lower() for label, _, _ in objects]
        assert record.difficult.tolist() == [difficult for _, _, difficult in objects]
        expected = np.array([box for _, box, _ in objects]).reshape(-1, 4)
        whole = expected % 1 == 0
        np.testing.assert_array_equal(record.boxes_xyxy[whole], expected[whole])
        np.testing.assert_allclose(record.boxes_xyxy, expected, rtol=0, atol=3e-5)  # float32
        assert annotations.image_ids[i] == record.image_id
        assert tuple(annotations.sizes[i]) == size
        np.testing.assert_equal(tuple(annotations[i]), tuple(record[2:]))
    np.testing.assert_array_equal(source.annotations(3).sizes, annotations.sizes[:3])


def test_splits_are_joined_in_the_order_given_and_wrong_ones_refused(prepared):
    def ids(*splits):
        return VocSource(splits, prepared[0]).annotations().image_ids

    train, validation, test = (ids(f"voc/2007:{s}") for s in ("train", "validation", "test"))
    joined = test + ids("voc/2012:train") + train
    assert ids("voc/2007:test", "voc/2012:train", "voc/2007:train") == joined
    assert ids("voc/2007:train + validation") == train + validation
    assert ids("voc/2007:train[:50%]", "voc/2007:train[50%:]") == train
    with pytest.raises(UserError, match="overlap"):
        ids("voc/2007:train", "voc/2007:train[:1]")
    for split in ("voc/2012:val", "voc/2010:train", "voc/2012:test", "voc/2007:train[:9]"):
        with pytest.raises(UserError, match=re.escape(split)):
            ids(split)


def test_equal_to_what_tfds_itself_prepares(prepared, tmp_path, monkeypatch):
    root, manual = prepared[0], prepared[0] / MANUAL
    # tensorflow_datasets uses TensorFlow for VOC in two modules, to open files.
    tensorflow = mock.Mock(**{"io.gfile.GFile": open, "compat.as_text": str})
    monkeypatch.setattr(tfds_voc, "tf", tensorflow)
    monkeypatch.setattr(extractor, "tf", tensorflow)
    monkeypatch.setattr(tfds_voc.Voc, "url_infos", url_infos(manual, tfds_voc._VOC_DATA_URL))
    official = tfds.builder("voc/2007", data_dir=tmp_path, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=str(manual), try_download_gcs=False)
    official.download_and_prepare(download_config=config)
    files, official_files = (
        {file.name: file.read_bytes() for file in (folder / "voc/2007/5.0.0").iterdir()}
        for folder in (root, tmp_path)
    )
    infos = [json.loads(f.pop("dataset_info.json")) for f in (files, official_files)]
    for info in infos:
        info["splits"].sort(key=lambda split: split["name"])
    assert infos[0] | {"downloadSize": infos[1]["downloadSize"]} == infos[1]
    assert files == official_files
    assert len([name for name in files if "array_record" in name]) == 3


def test_prepared_data_need_no_archive_and_damage_is_named(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared[0] / "voc", tmp_path / "voc")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))  # the default folder
    assert len(VocSource(ALL)) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["voc"]
    records = next((tmp_path / "voc/2007/5.0.0").glob("*train*"))
    records.write_bytes(records.read_bytes()[:-500])
    with pytest.raises(UserError, match=str(records.parent)):
        VocSource(["voc/2007:train"]).annotations()


@pytest.mark.slow
def test_one_of_two_processes_prepares_and_none_imports_tensorflow(data_dir):
    code = "VocSource(['voc/2007:test'], root)[0]; assert 'tensorflow' not in sys.modules"
    processes = [run_python(code, data_dir) for _ in range(2)]
    notes = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("preparing dataset" in note for note in notes) == 1


@pytest.mark.slow
def test_killed_while_writing_it_starts_again(prepared, data_dir):
    code = (
        "read, calls = tarfile.TarFile.extractfile, iter(range(99))\n"
        "kill = lambda: os.kill(os.getpid(), 9)\n"
        "tarfile.TarFile.extractfile = lambda *a: kill() if next(calls) == 16 else read(*a)\n"
        "VocSource(['voc/2007:train'], root)"
    )
    process = run_python(code, data_dir)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (data_dir / "voc/2007/5.0.0").exists()
    source, expected = (VocSource(ALL[:1], root) for root in (data_dir, prepared[0]))
    np.testing.assert_equal([*map(tuple, source)], [*map(tuple, expected)])
    assert [path.name for path in (data_dir / "voc/2007").iterdir()] == ["5.0.0"]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data` at every address, in the ways that servers of archives have."""

    def do_GET(self):
        server = self.server
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        server.starts.append(start)
        body = server.data[start:] if server.continues else server.data
        self.send_response(206 if server.continues else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after])


@pytest.fixture
def server(prepared, monkeypatch):
    manual = prepared[0] / MANUAL
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.starts, server.continues, server.cut_after = [], True, None
        server.data = (manual / TRAINVAL_2012).read_bytes()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(tfds_voc.Voc, "url_infos", url_infos(manual, address))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("found", "options", "starts"),
    [
        (0, {}, [0]),
        (123_456, {}, [123_456]),  # of an interrupted run
        (0, {"cut_after": 262_144}, [0, 262_144]),  # a broken connection
        (123_456, {"continues": False}, [123_456, 0]),
    ],
)
def test_a_download_continues_where_it_stopped(server, tmp_path, found, options, starts):
    vars(server).update(options)
    manual = tmp_path / MANUAL
    manual.mkdir(parents=True)
    (manual / f"{TRAINVAL_2012}.part").write_bytes(server.data[:found])
    assert len(VocSource(["voc/2012:train"], tmp_path)) == 6
    assert (manual / TRAINVAL_2012).read_bytes() == server.data
    assert server.starts[: len(starts)] == starts
    assert [path.name for path in manual.iterdir()] == [TRAINVAL_2012]


@pytest.mark.parametrize("found", [b"", b"another"])
def test_without_the_official_archive_the_message_names_it(data_dir, found):
    path = data_dir / MANUAL / TRAINVAL_2012
    path.write_bytes(found) if found else path.unlink()
    with pytest.raises(UserError, match=str(path)):
        VocSource(["voc/2012:train"], data_dir)
    assert path.read_bytes() == found if found else not path.exists()  # a user's file stays
