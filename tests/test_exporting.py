"""Networks as files of other runtimes: each does what the run does, and says so."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_run import random_state, save_run, tiny_config

import yolov1_jax
from yolov1_jax import export
from yolov1_jax.detector import load_exported
from yolov1_jax.exporting import stablehlo_file
from yolov1_jax.exporting.comparison import Difference, compare, run_file
from yolov1_jax.exporting.network import build_network, detections, reference_step
from yolov1_jax.models.batch_norm import fold_batch_norms
from yolov1_jax.training.build import RestoredRun, Setup
from yolov1_jax.training.step import inference_variables
from yolov1_jax.yolo.nms import select_detections

onnx_file = pytest.importorskip("yolov1_jax.exporting.onnx_file")
pytest.importorskip("onnxruntime")
pytest.importorskip("flatbuffers")

DARKNET = {"image_size": 128, "model__backbone": "fast", "model__norm": "darknet"}
DARKNET |= {
    "data__resize": "darknet",
    "model__prediction": "darknet",
    "model__head_negative_slope": 0.1,
}
DARKNET |= {"eval__clip": "after_nms", "eval__classes_per_box": "all", "model__head_depth": 3}
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


def test_folding_leaves_a_bias():
    run, images, _ = made("convolutional")
    folded = fold_batch_norms(run.setup.model, run.variables, images)
    assert {*folded["backbone"]["bn1"]} == {"bias"}
    last = run.variables["params"]["head"]["predict"]  # no BatchNorm behind it
    np.testing.assert_array_equal(folded["head"]["predict"]["kernel"], last["kernel"])


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


def test_the_command_writes_a_detector(workdir, tmp_path, capsys):
    path = tmp_path / "a.onnx"
    arguments = [f"--workdir={workdir}", f"--output={path}", "--outputs=detections"]
    assert export.main(arguments) == 0
    assert "onnx, float32" in capsys.readouterr().out
    image = Image.fromarray(made("layers")[1][0])
    detector, run = yolov1_jax.load(path), yolov1_jax.load(workdir)
    assert repr(detector) == repr(run)
    one, other = (each(image, score_threshold=0.1) for each in (detector, run))
    assert one.names == other.names != []
    np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


def test_a_file_that_differs_is_not_written(workdir, tmp_path, monkeypatch, capsys):
    def other(run, **options):
        network = build_network(run, **options)
        return network._replace(weights=jax.tree.map(lambda leaf: leaf * 1.01, network.weights))

    monkeypatch.setattr(export, "build_network", other)
    path = tmp_path / "new" / "a.stablehlo"
    assert export.main([f"--workdir={workdir}", f"--output={path}"]) == 1
    assert "not written" in capsys.readouterr().err
    assert not [*path.parent.iterdir()]


def test_tflite_has_limits(workdir, tmp_path, capsys):
    assert export.main([f"--workdir={workdir}", "--format=tflite"]) == 2
    assert "--batch_size" in capsys.readouterr().err
