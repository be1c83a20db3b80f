"""Shows a run at work on a web page: the boxes of an image, and why each is kept or not.

    yolov1 demo --workdir=runs/r34 [IMAGE...]
    yolov1 demo --workdir=runs/r34 --static=FOLDER [IMAGE...]

Drop an image on the page, or use the camera; move the thresholds; click on a cell of the grid. The
first form serves the page to this machine until Ctrl-C, and keeps no image. The second writes the
same page as a folder for any web server, with the network as ONNX: it runs in the browser. It needs
pip install 'yolov1_jax[export]', and npm for onnxruntime-web or its file, from
"npm pack onnxruntime-web" on another machine. The page offers the IMAGEs as examples, by default 8
of the run's evaluation set.
"""

import contextlib
import http.server
import importlib.resources
import io
import json
import mimetypes
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import webbrowser
from collections.abc import Sequence

import cv2
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from yolov1_jax import command_line, export
from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import MAX_PIXELS, decode_image, read_header
from yolov1_jax.detector import Detector, load
from yolov1_jax.training import run_folder
from yolov1_jax.training.build import select_options
from yolov1_jax.visualization.draw import COLOURS, DRAWN_SCORE

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "run folder", flag_values=FLAGS)
_STEP = flags.DEFINE_string("step", "best", "best, latest or a step number", flag_values=FLAGS)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "address to serve at; 0.0.0.0 for all machines", flag_values=FLAGS
)
_PORT = flags.DEFINE_integer("port", 0, "0 for any that is free", 0, 65535, flag_values=FLAGS)
_BROWSER = flags.DEFINE_bool("browser", True, "open the page in a browser", flag_values=FLAGS)
_STATIC = flags.DEFINE_string("static", None, "folder to write", flag_values=FLAGS)
_RUNTIME = flags.DEFINE_string(
    "onnxruntime_web", None, "its FILE.tgz; else npm gets it", flag_values=FLAGS
)

MAX_BYTES = 20_000_000  # of an image that is sent to the server
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def page_files(
    detector: Detector, title: str, examples: Sequence[np.ndarray], model: str | None
) -> dict[str, bytes]:
    """The files of the page by name. `model`: of the ONNX file beside them; None for a server."""
    page = importlib.resources.files("yolov1_jax.visualization") / "demo"
    files = {one.name: one.read_bytes() for one in page.iterdir()}
    names = [f"examples/{i}.jpg" for i in range(len(examples))]
    for name, pixels in zip(names, examples, strict=True):
        image, content = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((1024, 1024))
        image.save(content, "JPEG", quality=95)
        files[name] = content.getvalue()
    # The first run of a network takes long: before the page is opened.
    grid = detector.predictions(np.zeros((8, 8, 3), np.uint8))["confidence"].shape
    settings = {**detector.metadata, "score_threshold": DRAWN_SCORE, "grid": grid, "model": model}
    settings |= {"title": title, "examples": names, "colours": COLOURS}
    settings |= {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
    return files | {"settings.json": json.dumps(settings).encode()}


class DemoServer(http.server.ThreadingHTTPServer):
    """Serves files from memory, and answers an image with the predictions of the network."""

    def __init__(self, address: tuple[str, int], detector: Detector, files: dict[str, bytes]):
        super().__init__(address, _Handler)
        self.detector, self.files = detector, files
        self.one_at_a_time = threading.Lock()  # so that many requests need no more memory
        self.hosts = re.compile(
            rf"(localhost|[\d.]+|\[[\da-f:]+\]|{re.escape(address[0])})(:\d+)?", re.IGNORECASE
        )


class _Handler(http.server.BaseHTTPRequestHandler):
    server: DemoServer
    timeout = 60  # seconds for a client that sends nothing

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client has gone
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def parse_request(self) -> bool:
        """Refuses other sites, also those whose name leads to this machine (DNS rebinding)."""
        if not super().parse_request():
            return False
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if self.server.hosts.fullmatch(host) and origin in (None, f"http://{host}"):
            return True
        self._answer(403, b"expected localhost or an address of this machine as Host and Origin")
        return False

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].lstrip("/") or "index.html"
        if name in self.server.files:
            self._answer(200, self.server.files[name], mimetypes.guess_type(name)[0] or "")
        else:
            self._answer(404, b"there is no such page")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BYTES:
            return self._answer(413, f"expected at most {MAX_BYTES:,} bytes".encode())
        encoded = self.rfile.read(int(length))
        try:
            with self.server.one_at_a_time:
                read_header(encoded, "image")
                pixels = decode_image(encoded, "image", cv2.IMREAD_COLOR_RGB)
                predictions = self.server.detector.predictions(pixels)
        except UnusableFile as error:
            return self._answer(400, error.reason.encode())
        tensors = {
            name: {"dims": array.shape, "data": array.ravel().tolist()}
            for name, array in predictions.items()
        }
        self._answer(200, json.dumps(tensors).encode(), "application/json")

    def _answer(self, code: int, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)


def runtime_files(archive: pathlib.Path | None) -> dict[str, bytes]:
    """The files of onnxruntime-web that a page needs, from its archive or by npm."""
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            npm = shutil.which("npm")
            pack = [npm or "npm", "pack", RUNTIME, "--silent"]
            if not npm or subprocess.run(pack, cwd=folder, stdout=subprocess.DEVNULL).returncode:
                raise UserError(
                    f"expected npm to pack {RUNTIME}, found that it failed or is not installed: "
                    f"give --onnxruntime_web=FILE.tgz, made by `npm pack {RUNTIME}` elsewhere"
                )
            (archive,) = pathlib.Path(folder).glob("*.tgz")
        try:
            with tarfile.open(archive) as members:
                return {
                    name: members.extractfile(f"package/dist/{name}").read()  # type: ignore[union-attr]
                    for name in RUNTIME_FILES
                }
        except (KeyError, tarfile.TarError) as error:
            raise UserError(f"expected {RUNTIME} in {archive}, found {error}") from error


def run(paths: list[str]) -> int:
    if _WORKDIR.value is None:
        raise UserError("expected --workdir=RUN, the folder of a trained run, found none")
    workdir = local_path(_WORKDIR.value)
    config = run_folder.read_config(workdir)
    select_options(config)  # refuses classification
    if _STATIC.value is not None:
        return _write_folder(local_path(_STATIC.value), workdir, config, paths)
    detector, examples = load(workdir, _STEP.value), list[np.ndarray]()
    try:
        examples = export.example_images(config, paths)
    except UserError as error:
        if paths:
            raise
        print(f"no example images: {error}", file=sys.stderr)
    files = page_files(detector, workdir.resolve().name, examples, None)
    with DemoServer((_HOST.value, _PORT.value), detector, files) as server:
        url = f"http://{_HOST.value}:{server.server_port}"
        print(f"{url} until Ctrl-C", flush=True)
        if _BROWSER.value:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.serve_forever()
    return 0


def _write_folder(
    folder: pathlib.Path, workdir: pathlib.Path, config: ConfigDict, paths: list[str]
) -> int:
    run_folder.make(folder)
    files = runtime_files(None if _RUNTIME.value is None else local_path(_RUNTIME.value))
    model = folder / "model.onnx"
    options = [f"--workdir={workdir}", f"--step={_STEP.value}", f"--output={model}"]
    if code := export.main([*options, *paths]):
        return code
    examples = export.example_images(config, paths)
    files |= page_files(load(model), workdir.resolve().name, examples, model.name)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    print(f"{folder}: written; to look at it: python -m http.server --directory {folder}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
