"""Against the C program: its numbers are those of golden/make_darknet_golden.py."""

import pathlib

import jax
import numpy as np
import pytest
from golden import darknet_cases as cases

from yolov1_jax import config as configs
from yolov1_jax.config import read_config_file
from yolov1_jax.data.dataset import Annotations, GroundTruth
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.evaluation.results_files import results_files
from yolov1_jax.training import build
from yolov1_jax.training.step import make_train_step
from yolov1_jax.weights.darknet import read_darknet, read_header, write_darknet
from yolov1_jax.yolo.darknet_loss import darknet_loss
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.grid import (
    Predictions,
    encode_targets,
    finish_predictions,
    split_predictions,
)

CLASS_NAMES = ("aeroplane", "bicycle", "bird", "boat")
QUICK = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def golden():
    with np.load(pathlib.Path(__file__).parent / "golden" / "darknet_golden.npz") as file:
        return dict(file)


def network(name, folder):
    """Config, model and variables, from a cfg file and a weights file."""
    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    cfg.write_text(cases.CFGS[name])
    weights.write_bytes(cases.weights_file(name))
    names = CLASS_NAMES[: {"released": 4, "paper": 3}[name]]
    config = configs.replace(read_config_file(f"yolov1:{cfg}"), "model.class_names", names)
    shapes, detection = build.abstract_variables(config), build.detection_layer(config)
    return config, build.build_model(config), read_darknet(weights, shapes, detection=detection)[0]


def objects():
    """boxes_xyxy, labels and valid of the four images, [4, 3, ...]."""
    rows = np.zeros((4, 3, 5), np.float32)
    valid = np.zeros((4, 3), bool)
    for i, some in enumerate(cases.OBJECTS):
        valid[i, : len(some)] = True
        rows[i, : len(some)] = np.reshape(some, (-1, 5))
    centres, sizes = rows[..., 1:3], rows[..., 3:]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)
    return boxes, rows[..., 0].astype(np.int32), valid


def of_each_class(rows):
    """Rows of class, score and box: by class and score, because Darknet's order is another."""
    rows = np.array(rows, np.float64)
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


def test_resized_image(golden):
    resized = resize_image(cases.image(*cases.IMAGE_SIZE), 16, "darknet") / np.float32(255)
    np.testing.assert_allclose(resized.transpose(2, 0, 1), golden["resized"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", ["released", "paper"])
def test_outputs_and_detections(golden, name, tmp_path):
    config, model, variables = network(name, tmp_path)
    pixels = resize_image(cases.image(*cases.IMAGE_SIZE), config.image_size, config.data.resize)
    apply = jax.jit(model.apply, static_argnums=2, compiler_options=QUICK)
    raw = np.asarray(apply(variables, pixels[None], False))
    outputs = split_predictions(
        raw, boxes_per_cell=model.boxes_per_cell, num_classes=model.num_classes
    )
    boxes, confidence, class_scores = (part.ravel() for part in outputs)
    found, expected = np.concatenate([class_scores, confidence, boxes]), golden[f"{name}_output"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

    predictions = jax.device_get(
        finish_predictions(outputs, prediction="darknet", xy_unit=config.loss.xy_unit)
    )
    options = build.select_options(config)
    # yolo test: relative boxes, which it does not clip.
    relative = {**options, "score_threshold": 0.2, "nms_iou_threshold": 0.4}
    (found,) = detections_from_predictions(predictions, np.array([[1, 1]]), **relative)
    label, score, x, y, w, h = golden[f"{name}_test"].T
    low, high = np.maximum([x - w / 2, y - h / 2], 0), np.minimum([x + w / 2, y + h / 2], 1)
    expected = of_each_class(np.column_stack([label, score, *low, *high]))
    rows = of_each_class(np.column_stack([found.labels, found.scores, found.boxes_xyxy]))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)
    # yolo valid: its files.
    size = np.array([cases.IMAGE_SIZE])
    found = detections_from_predictions(predictions, size, **options)
    nothing = GroundTruth(np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, bool))
    annotations = Annotations.build(config.model.class_names, ["scene"], size, [nothing])
    files = results_files(found, annotations, results_format="darknet", set_name="test")
    ours = [
        f"{pathlib.Path(path).name} {line}" for path in files for line in files[path].split("\n")
    ]
    ours = [line.split() for line in ours if " " in line.strip()]
    theirs = [line.split() for line in golden[f"{name}_valid"].tolist()]
    assert len(ours) == len(theirs)
    assert {tuple(one[:2]) for one in ours} == {tuple(one[:2]) for one in theirs}
    names = sorted({one[0] for one in theirs})
    ours, theirs = (
        of_each_class([[names.index(one[0]), *map(float, one[2:])] for one in lines])
        for lines in (ours, theirs)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(cases.LOSSES))
def test_gradients_of_the_loss(golden, name):
    rescore, softmax = cases.LOSSES[name]
    class_scores, confidence, boxes = np.split(cases.loss_inputs(), [12, 20], axis=1)
    outputs = Predictions(
        boxes.reshape(4, 2, 2, 2, 4),
        confidence.reshape(4, 2, 2, 2),
        class_scores.reshape(4, 2, 2, 3),
    )
    encoding = {"xy_unit": "cell", "collision": "first", "class_target": "winner"}

    def loss(outputs):
        targets = encode_targets(*objects(), grid_size=2, num_classes=3, **encoding)
        return darknet_loss(
            outputs,
            targets,
            object_weight=1.5,
            class_weight=0.7,
            objectness_target="iou" if rescore else "one",
            class_loss="softmax" if softmax else "squared",
        ).total

    boxes, confidence, class_scores = jax.jit(jax.grad(loss), compiler_options=QUICK)(outputs)
    parts = (np.asarray(one).reshape(4, -1) for one in (class_scores, confidence, boxes))
    found = np.concatenate(list(parts), axis=1)
    np.testing.assert_allclose(-found, golden[f"{name}_delta"], rtol=1e-5, atol=2e-6)


def test_updates_and_the_file_after_them(golden, tmp_path):
    """Five updates through two changes of the rate; in Darknet, each of two subdivisions."""
    config, model, variables = network("paper", tmp_path)
    setup = build.Setup(config)
    step = make_train_step(model, setup.optimizer, build.loss_function(config))
    step = jax.jit(step, compiler_options=QUICK)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), setup.abstract_state())
    state = state._replace(params=variables["params"])
    boxes, labels, valid = objects()
    batch = {"image": cases.train_images(), "boxes_xyxy": boxes, "labels": labels, "valid": valid}
    for _ in range(cases.NUM_UPDATES):
        state, _ = step(state, batch)

    content = golden["trained"].tobytes()
    path, detection = tmp_path / "trained.weights", build.detection_layer(config)
    path.write_bytes(content)
    assert read_header(path).seen == 4 * cases.NUM_UPDATES
    expected, _ = read_darknet(path, variables, detection=detection)
    moved = [
        np.abs(new - old).max()
        for new, old in zip(*map(jax.tree.leaves, (expected, variables)), strict=True)
    ]
    assert min(moved) > 1e-3
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6),
        state.params,
        expected["params"],
    )
    # What C wrote comes back byte for byte.
    write_darknet(tmp_path / "copy.weights", expected, read_header(path), detection=detection)
    assert (tmp_path / "copy.weights").read_bytes() == content
