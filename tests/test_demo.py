"""The page of `yolov1 demo`: its server over HTTP, its JavaScript, and all of it in a browser."""

import base64
import contextlib
import functools
import http.client
import http.server
import io
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import threading

import chromium
import numpy as np
import pytest
from PIL import Image
from tiny_run import save_run, tiny_config

import yolov1_jax
from yolov1_jax import demo
from yolov1_jax.config import UserError
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.training import run_folder
from yolov1_jax.yolo.decode import clip_one_sided, detections_from_predictions
from yolov1_jax.yolo.grid import Predictions

PAGE = pathlib.Path(demo.__file__).parent / "visualization" / "demo"
LAYERS = ("maxpool size=8 stride=8", "connected output=64 activation=linear")  # 2 x 2 cells of 16
NETWORK = {"model__backbone": "layers", "model__layers": LAYERS, "model__norm": "darknet"}
CONFIG = tiny_config(model__prediction="sigmoid", loss__class_loss="softmax", **NETWORK)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run") / "tiny", {3: None}, CONFIG)


@pytest.fixture(scope="module")
def detector(run):
    return yolov1_jax.load(run)


@contextlib.contextmanager
def running(server):
    """Its address while a thread serves it."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def demo_server(detector, examples=()):
    files = demo.page_files(detector, "tiny", examples, None)
    return demo.DemoServer(("127.0.0.1", 0), detector, files)


@pytest.fixture(scope="module")
def address(detector):
    with running(demo_server(detector)) as address:
        yield address


def tensors(predictions):
    """As the server sends them."""
    arrays = predictions._asdict().items()
    return {name: {"dims": one.shape, "data": one.ravel().tolist()} for name, one in arrays}


def ask(address, method, path, body=None, **headers):
    """Status and content."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def png(size=(90, 60), seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def test_predictions_are_those_of_the_detector(address, detector):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    encoded = png(exif=exif)
    status, content = ask(address, "POST", "/predict", encoded)
    sent = json.loads(content).items()
    found = {name: np.reshape(one["data"], one["dims"]) for name, one in sent}
    assert (status, found["boxes"].shape) == (200, (2, 2, 2, 4))
    batch = Predictions(**{name: np.float32(one)[None] for name, one in found.items()})
    names = ("xy_unit", "classes_per_box", "nms_iou_threshold")
    options = {name: detector.metadata[name] for name in names} | {"score_threshold": 0.0}
    (one,) = detections_from_predictions(batch, np.array([[90, 60]]), **options)
    expected = detector(Image.open(io.BytesIO(encoded)), score_threshold=0.0)
    assert len(expected.scores) > 0
    np.testing.assert_array_equal(one.scores, expected.scores)
    np.testing.assert_array_equal(one.boxes_xyxy, expected.boxes_xyxy)


def test_what_is_no_image_is_refused_and_the_server_lives_on(address):
    large = io.BytesIO()
    Image.new("1", (10_000, 8_001)).save(large, "PNG")  # 11 kB
    bodies = {b"text": b"JPEG", b"": b"JPEG", png()[:2000]: b"broken", large.getvalue(): b"million"}
    for body, word in bodies.items():
        status, content = ask(address, "POST", "/predict", body)
        assert (status, word in content) == (400, True)
    too_long = {"Content_Length": str(demo.MAX_BYTES + 1)}
    assert ask(address, "POST", "/predict", None, **too_long)[0] == 413
    assert ask(address, "GET", "/../demo.py")[0] == 404
    assert ask(address, "POST", "/predict", png())[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8888"}, 200),  # through a tunnel
        ({"Host": "[::1]"}, 200),
        ({"Host": "127.0.0.1.example.org"}, 403),
        ({"Host": "example.org"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://example.org"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_other_sites_are_refused(address, headers, status):
    assert ask(address, "GET", "/settings.json", **headers)[0] == status
    if status == 403:
        assert ask(address, "POST", "/predict", png(), **headers)[0] == status


def test_mistakes_are_one_line(tmp_path, run, capsys, monkeypatch):
    classifier = tmp_path / "classifier"
    run_folder.write_config(classifier, tiny_config(task="classification"))
    (tmp_path / "empty.tgz").touch()
    static = [f"--workdir={run}", f"--static={tmp_path}"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for arguments, word in [
        ([], "--workdir"),
        ([f"--workdir={classifier}"], "classification"),
        (static, "npm"),
        ([*static, f"--onnxruntime_web={tmp_path}/empty.tgz"], "empty.tgz"),
    ]:
        assert demo.main(arguments) == 2
        err = capsys.readouterr().err
        assert word in err
        assert err.count("\n") == 1


def javascript(module, expression, value):
    """What an expression of the page's functions and of `value` is, by node."""
    if not (node := shutil.which("node")):
        pytest.skip("no node to run the page's JavaScript")
    script = f"""import * as page from "{(PAGE / module).as_uri()}";
        import {{ readFileSync }} from "node:fs";
        const value = JSON.parse(readFileSync(0));
        console.log(JSON.stringify({expression}));"""
    command = [node, "--input-type=module", "--eval", script]
    done = subprocess.run(command, input=json.dumps(value).encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


@pytest.mark.parametrize("classes_per_box", ["best", "all"])
@pytest.mark.parametrize(("xy_unit", "clip"), [("cell", "before_nms"), ("image", "after_nms")])
def test_javascript_keeps_what_python_keeps(xy_unit, clip, classes_per_box):
    rng, cells = np.random.default_rng(0), (7, 7)
    boxes = rng.uniform([0, 0, -0.1, -0.1], [1, 1, 0.9, 0.9], (*cells, 2, 4))  # also negative sizes
    scores = rng.uniform(-0.1, 1, (*cells, 7)).round(1)  # some are equal
    predictions = Predictions(*map(np.float32, (boxes, scores[..., :2], scores[..., 2:])))
    options = {"xy_unit": xy_unit, "clip": clip, "classes_per_box": classes_per_box}
    options |= {"score_threshold": 0.35, "nms_iou_threshold": 0.4}
    found = javascript(
        "detections.mjs",
        """page.candidates(page.scoredBoxes(value, value.options), value.options)
            .filter((one) => one.by === null)
            .map((one) => [...one.box.xyxy, one.score, one.label])""",
        {"options": options, **tensors(predictions)},
    )
    batch = Predictions(*(one[None] for one in predictions))
    (expected,) = detections_from_predictions(batch, np.array([[1, 1]]), **options)
    if clip == "after_nms":  # the page shows such boxes without it
        found[:, :4] = clip_one_sided(found[:, :4], np.array([1, 1]))
    assert len(expected.scores) > 20
    np.testing.assert_array_equal(found, np.column_stack(expected))


@pytest.mark.parametrize(("rule", "tolerance"), [("opencv", 1), ("darknet", 1e-3)])
@pytest.mark.parametrize("size", [(90, 37), (20, 64), (256, 64)])
def test_javascript_resizes_as_python(size, rule, tolerance):
    image = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    value = {"data": image.ravel().tolist(), "height": size[0], "width": size[1]}
    found = javascript("network.mjs", f"[...page.resize(value, 64, '{rule}')]", value)
    expected = resize_image(image[..., :3], 64, rule).astype(np.float64)
    np.testing.assert_allclose(found, expected.ravel(), atol=tolerance)
    assert abs(np.mean(found) - np.mean(expected)) < 0.1  # rounded, not cut off


# --- In a browser -----------------------------------------------------------------------------

_DROP = """{
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob("%s"), (character) => character.charCodeAt(0));
  transfer.items.add(new File([bytes], "image.png"));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""
_WAIT = """new Promise((done, fail) => {
  (function look() { %s ? done() : setTimeout(look, 20); })();
  setTimeout(() => fail(document.body.innerText), 30000);
})"""
_SLIDE = """{
  const slider = document.getElementById("%s");
  slider.value = %s;
  slider.dispatchEvent(new Event("input"));
  document.querySelectorAll("#boxes .box").length;
}"""
_BOXES = """[...document.querySelectorAll("#boxes .box")].map(({ style }) =>
  [style.left, style.top, style.width, style.height].map(parseFloat))"""
_PLACE = """{
  const { x, y, width, height } = document.getElementById("grid").getBoundingClientRect();
  [x + 0.6 * width, y + 0.7 * height];
}"""


@pytest.fixture
def page(tmp_path):
    if chromium.PROGRAM is None:
        pytest.skip("no Chromium to open the page in")
    page = chromium.Page(tmp_path / "profile")
    yield page
    page.close()


def drop(page, content):
    page.run(_DROP % base64.b64encode(content).decode())


def check_page(page, address, detector):
    """Uses the page as a person would; its boxes are those of the detector."""
    page.call("Page.navigate", url=f"http://{address}/")
    page.run(_WAIT % "document.title === 'tiny'")
    drop(page, b"text")
    page.run(_WAIT % "document.querySelector('#message.error')")
    image = png()
    drop(page, image)
    page.run(_WAIT % "document.getElementById('message').textContent.startsWith('8 boxes')")
    assert page.run(_SLIDE % ("score", 1)) == 0
    assert page.run(_SLIDE % ("iou", 1)) == 0
    assert page.run(_SLIDE % ("score", 0)) == 8
    expected = detector(Image.open(io.BytesIO(image)), score_threshold=0.0, nms_iou_threshold=1.0)
    boxes = expected.boxes_xyxy / (90, 60, 90, 60) * 100
    boxes[:, 2:] -= boxes[:, :2]
    # The page puts the best on top.
    np.testing.assert_allclose(page.run(_BOXES)[::-1], boxes, atol=0.1)
    assert page.run(_SLIDE % ("iou", 0)) < 8
    x, y = page.run(_PLACE)
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    text = page.run("document.getElementById('cell').textContent")
    assert "row 2, column 2" in text
    assert text.count("kept") + text.count("suppressed, IoU") == 2
    page.run("document.getElementById('camera').click()")
    page.run(_WAIT % "document.getElementById('image').width === 640")
    page.run("document.querySelector('#examples button').click()")
    page.run(_WAIT % "document.getElementById('image').width < 640")
    assert page.run("document.getElementById('camera').textContent") == "Use the camera"
    assert page.console == []


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(run):
    command = [sys.executable, "-m", "yolov1_jax", "demo", f"--workdir={run}", "--nobrowser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        url = process.stdout.readline().decode().split()[0]
        assert ask(url.removeprefix("http://"), "GET", "/")[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.decode().strip()) == (130, b"", "stopped")


@pytest.mark.slow
def test_the_page_with_a_server(page, detector):
    with running(demo_server(detector, [np.zeros((60, 90, 3), np.uint8)])) as address:
        check_page(page, address, detector)


@pytest.fixture
def static(tmp_path, run):
    """The page as a folder, with onnxruntime-web if it can be had."""
    pytest.importorskip("onnxruntime")
    archive, folder = tmp_path / "runtime.tgz", tmp_path / "page"
    with tarfile.open(archive, "w:gz") as file:
        for name in demo.RUNTIME_FILES:
            file.addfile(tarfile.TarInfo(f"package/dist/{name}"))
    arguments = [f"--workdir={run}", f"--static={folder}", f"--onnxruntime_web={archive}"]
    assert demo.main(arguments) == 0
    return folder


@pytest.mark.slow
def test_a_folder_has_all_that_the_page_loads(static):
    names = {path.relative_to(static).as_posix() for path in static.rglob("*.*")}
    of_page = {path.name for path in PAGE.iterdir()}
    examples = {f"examples/{i}.jpg" for i in range(6)}  # the evaluation set has 6 images
    assert names == {*of_page, *demo.RUNTIME_FILES, *examples, "model.onnx", "settings.json"}


@pytest.mark.slow
def test_the_page_without_a_server(page, static, detector):
    try:
        for name, content in demo.runtime_files(None).items():
            (static / name).write_bytes(content)
    except UserError as error:
        pytest.skip(str(error))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=static)
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        check_page(page, address, detector)
