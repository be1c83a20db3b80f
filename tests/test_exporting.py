"""Networks as files of other runtimes: each does what the run does, and says so."""

import functools

import jax
import numpy as np
import pytest
from golden.darknet_cases import RELEASED
from PIL import Image
from tiny_run import random_state, save_run, tiny_config

import yolov1_jax
from yolov1_jax import export, main
from yolov1_jax.detector import load_exported
from yolov1_jax.exporting import stablehlo_file
from yolov1_jax.exporting.comparison import Difference, compare, run_file
from yolov1_jax.exporting.network import build_network, detections, reference_step
from yolov1_jax.training.build import RestoredRun, Setup
from yolov1_jax.training.step import inference_variables
from yolov1_jax.yolo.nms import select_detections

onnx_file = pytest.importorskip("yolov1_jax.exporting.onnx_file")
pytest.importorskip("onnxruntime")
pytest.importorskip("flatbuffers")

DARKNET = {"image_size": 128, "model__backbone": "fast", "model__norm": "darknet"}
DARKNET |= {"data__resize": "darknet", "model__prediction": "darknet", "model__head_depth": 3}
DARKNET |= {"model__head_negative_slope": 0.1, "eval__clip": "after_nms"}
DARKNET |= {"eval__classes_per_box": "all"}
LAYERS = ("convolutional filters=8 size=3 stride=2 pad=1 batch_normalize=1 activation=leaky",)
LAYERS += ("maxpool size=16 stride=16", "local filters=4 size=1 activation=leaky", "dropout")
LAYERS += ("connected output=64 activation=linear",)
NETWORKS = {
    "convolutional": {"model__prediction": "sigmoid", "loss__class_loss": "softmax"},
    "connected": {**DARKNET, "model__head": "connected", "model__head_hidden": 256},
    "local": {**DARKNET, "model__head": "local", "model__head_neck_channels": 128},
    "layers": {"model__backbone": "layers", "model__layers": LAYERS, "model__norm": "darknet"},
}


@functools.cache
def made(name):
    """A run of random weights, images and what it predicts for them."""
    config = tiny_config(**NETWORKS[name])
    run = RestoredRun(Setup(config), inference_variables(random_state(config, 0)), 3, "")
    side = config.image_size
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
    if config.data.resize == "darknet":
        images = images.astype(np.float32) + 0.25
    return run, images, jax.device_get(jax.jit(reference_step(run))(run.variables, images))


def difference(name, path, write, **options):
    run, images, expected = made(name)
    write(path, build_network(run, **options))
    network, _ = load_exported(path)
    found = run_file(network, images, options.get("batch_size"))
    return compare(found, expected, run)


@pytest.mark.parametrize(
    ("name", "outputs", "suffix"),
    [
        ("convolutional", "predictions", ".onnx"),
        ("connected", "detections", ".onnx"),
        ("local", "boxes", ".onnx"),
        ("layers", "detections", ".onnx"),
        ("layers", "detections", ".stablehlo"),
    ],
)
def test_the_file_does_what_the_run_does(tmp_path, name, outputs, suffix):
    write = {".onnx": onnx_file.write, ".stablehlo": stablehlo_file.write}[suffix]
    found = difference(name, tmp_path / f"a{suffix}", write, outputs=outputs)
    assert found.num_boxes > 10
    assert found.num_unmatched == 0
    assert found.largest < 1e-5


def test_tflite(tmp_path):
    tflite_file = pytest.importorskip("yolov1_jax.exporting.tflite_file")
    pytest.importorskip("ai_edge_litert")
    options = {"outputs": "boxes", "batch_size": 2}
    assert difference("layers", tmp_path / "a.tflite", tflite_file.write, **options).largest < 1e-5


def test_float16_halves_the_file_and_batches_may_be_fixed(tmp_path):
    path = tmp_path / "a.onnx"
    options = {"weights": "float16", "batch_size": 2}
    assert 1e-5 < difference("convolutional", path, onnx_file.write, **options).largest < 1e-2
    run, images, _ = made("convolutional")
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"]))
    assert path.stat().st_size < 2.2 * num_parameters
    network, metadata = load_exported(path)
    assert metadata["batch_size"] == 2
    with pytest.raises(Exception, match="images"):
        network(images[:3])


def test_nms_is_that_of_numpy():
    """Ties, a box that is removed and so removes none, and boxes of two classes."""
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 6, (3, 40, 2)) / 8
    boxes = np.concatenate([corners, corners + rng.integers(1, 4, (3, 40, 2)) / 8], -1)
    boxes = boxes.astype(np.float32)
    scores = rng.integers(0, 9, (3, 40, 2)).astype(np.float32) / 8
    for classes in ("best", "all"):
        options = {"score_threshold": 0.3, "classes_per_box": classes}
        found = jax.device_get(detections(boxes, scores, nms_iou_threshold=0.3, **options))
        expected = select_detections(boxes, scores, iou_threshold=0.3, **options)
        for i, one in enumerate(expected):
            number = len(one.scores)
            assert 5 < number < 40
            np.testing.assert_array_equal(found["scores"][i, :number], one.scores)
            rows = {tuple(row) for row in np.column_stack([*one])}
            parts = (found[key][i, :number] for key in ("boxes_xyxy", "scores", "labels"))
            assert {tuple(row) for row in np.column_stack([*parts])} == rows
            assert (found["labels"][i, number:] == -1).all()


@pytest.mark.parametrize(
    ("difference", "weights", "same"),
    [
        (Difference(5e-5, 0, 100), "float32", True),
        (Difference(5e-4, 0, 100), "float32", False),
        (Difference(5e-4, 1, 100), "float16", True),
        (Difference(0.0, 2, 100), "float32", False),
        (Difference(0.0, 0, 0), "float32", False),
        (Difference(float("nan"), 0, 100), "float32", False),
    ],
)
def test_what_rounding_explains(difference, weights, same):
    assert difference.is_rounding(weights) is same


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = tiny_config(**NETWORKS["layers"])
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5}, config)


@pytest.mark.parametrize("name", ["a.onnx", "a.stablehlo"])
def test_the_command_writes_a_detector(workdir, tmp_path, capsys, name):
    path = tmp_path / name
    assert export.main([f"--workdir={workdir}", f"--output={path}", "--outputs=detections"]) == 0
    assert f"{path.suffix[1:]}, float32" in capsys.readouterr().out
    image = Image.fromarray(made("layers")[1][0])
    detector, run = yolov1_jax.load(path), yolov1_jax.load(workdir)
    assert repr(detector) == repr(run)
    one, other = (each(image, score_threshold=0.1) for each in (detector, run))
    assert one.names == other.names != []
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


@pytest.mark.slow
def test_a_trained_darknet_is_what_its_files_hold(tmp_path):
    cfg = RELEASED.replace("classes=4", "classes=6").replace("output=171", "output=189")
    (tmp_path / "tiny.cfg").write_text(cfg)
    data = {"source": "synthetic", "train": "train:8", "eval": "eval:4", "num_workers": 0}
    flags = [f"--config.data.{key}={value}" for key, value in data.items()]
    flags += [f"--config=yolov1:{tmp_path}/tiny.cfg", "--config.train.batch_size=4"]
    run, read = tmp_path / "run", tmp_path / "read"
    assert main.main([*flags, f"--workdir={run}", "--config.train.num_steps=2"]) == 0
    files = [tmp_path / f"a.{suffix}" for suffix in ("onnx", "stablehlo", "weights")]
    for file in files:
        assert export.main([f"--workdir={run}", f"--output={file}"]) == 0
    flags += [f"--workdir={read}", f"--config.model.pretrained={files[2]}"]
    assert main.main([*flags, "--config.train.num_steps=0"]) == 0
    files.pop().unlink()
    assert main.main([*flags, "--config.train.num_steps=0"]) == 0  # what has begun needs no file

    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    expected = yolov1_jax.load(run)(image, score_threshold=0.0)
    for place in (read, *files):
        found = yolov1_jax.load(place)(image, score_threshold=0.0)
        assert found.names == expected.names != []
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-2)


def test_a_file_that_differs_is_not_written(workdir, tmp_path, monkeypatch, capsys):
    def other(run, **options):
        network = build_network(run, **options)
        return network._replace(weights=jax.tree.map(lambda leaf: leaf * 1.01, network.weights))

    monkeypatch.setattr(export, "build_network", other)
    path = tmp_path / "new" / "a.stablehlo"
    assert export.main([f"--workdir={workdir}", f"--output={path}"]) == 1
    assert "not written" in capsys.readouterr().err
    assert not [*path.parent.iterdir()]
