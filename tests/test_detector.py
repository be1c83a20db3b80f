"""A saved run as a function of images, through the front door of the package."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from annotated_sets import truth
from PIL import Image
from tiny_run import random_state, save_run, tiny_config

import yolov1_jax
from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations, Record
from yolov1_jax.detector import Detected, Detector, load, metadata_of
from yolov1_jax.training import run_folder
from yolov1_jax.training.build import restore_run, select_options
from yolov1_jax.training.step import inference_variables
from yolov1_jax.yolo.decode import detections_from_predictions
from yolov1_jax.yolo.grid import Predictions

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), {10: 0.5, 20: 0.3, 30: None})


@pytest.fixture(scope="module")
def detector(run):
    return yolov1_jax.load(str(run))


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def assert_equal(found, expected):
    assert len(expected.scores) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_paths_arrays_and_pil_images_are_the_same_image(detector, tmp_path):
    image, path = pixels(20, 30), tmp_path / "image.png"
    pil = Image.fromarray(image)
    pil.save(path)
    view = image[:, ::-1].copy()[:, ::-1]  # not contiguous
    rgba = pil.convert("RGBA")
    kinds = [path, str(path), image, view, pil, rgba, np.asarray(rgba)]
    expected, *others = detector(kinds, score_threshold=0.0)
    for found in others:
        assert_equal(found, expected)
    assert all(isinstance(detector(kind), Detected) for kind in kinds)  # one image, not a list
    grey = image[..., 0]
    one, other = (detector(each, score_threshold=0.0) for each in (grey, np.dstack([grey] * 3)))
    assert_equal(one, other)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_pil_image_is_that_of_its_file(detector, tmp_path, name, dtype):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    grey = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 30), dtype)
    # Pillow 13 turns an uncompressed grey TIFF wrongly.
    Image.fromarray(grey).save(tmp_path / name, exif=exif, compression="tiff_lzw")
    with Image.open(tmp_path / name) as pil:
        one, other = detector([tmp_path / name, pil])
        assert one.size == other.size == (20, 30)
        np.testing.assert_array_equal(one.plot(), other.plot())


def test_folders_batches_and_generators_are_several_images(detector, tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.PNG", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(20, 30)).save(tmp_path / name)
    found = detector(tmp_path)
    assert [one.image for one in found] == [tmp_path / n for n in ("a.jpg", "b.png", "deep/c.PNG")]
    assert [one.size for one in detector(np.zeros((2, 20, 30, 3), np.uint8))] == [(30, 20)] * 2
    read = []
    images = (read.append(i) or pixels(8, 8) for i in range(100))
    next(detector.stream(images))
    assert len(read) == detector.batch_size  # the others are left in the generator


def test_a_result_knows_its_image_and_the_class_names(detector, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels(500, 600)).save(path)
    found = detector(path, score_threshold=0.0)
    boxes_xyxy, scores, labels = found
    assert found.names == [detector.class_names[label] for label in labels]
    assert f"{len(scores)} detected in {path}: {found.names[0]} {scores[0]:.2f}" in repr(found)
    drawn = found.plot()
    assert drawn.size == found.size == (600, 500)
    content = json.loads(json.dumps(found.to_dict()))
    assert [content[key] for key in ("file", "width", "height")] == [str(path), 600, 500]
    assert [row["class"] for row in content["detections"]] == found.names
    boxes = [row["box_xyxy"] for row in content["detections"]]
    np.testing.assert_allclose(boxes, boxes_xyxy, atol=0.01)
    best = found._replace(boxes_xyxy=boxes_xyxy[:1], scores=scores[:1], labels=labels[:1])
    assert best.names == found.names[:1]
    assert (np.asarray(best.plot()) != np.asarray(drawn)).any()
    assert "step 10" in repr(detector)


class Photos(list):
    """A source without objects."""

    class_names = ("cat",)

    def __getitem__(self, index):
        return Record(super().__getitem__(index), str(index), *truth())


def test_images_are_detected_as_alone_and_as_in_an_evaluation(run, detector, monkeypatch):
    images = [pixels(10 + i, 40, seed=i) for i in range(9)]
    monkeypatch.setattr(detector, "batch_size", 4)
    together = detector(images, score_threshold=0.0)

    setup, variables, *_ = restore_run(run)
    ids, sizes = [str(i) for i in range(9)], [image.shape[:2] for image in images]
    annotations = Annotations.build(("cat",), ids, sizes, [truth()] * 9)
    batches = list(setup.predictions(variables, Photos(images), annotations))
    assert [i for _, index, _ in batches for i in index] == [*range(9), -1, -1, -1]
    parts = zip(*(predictions for predictions, *_ in batches), strict=True)
    predictions = Predictions(*(np.concatenate(part)[:9] for part in parts))
    options = select_options(setup.config) | {"score_threshold": 0.0}
    evaluated = detections_from_predictions(predictions, np.array(sizes), **options)
    for i in (0, 8):
        for other in (detector(images[i], score_threshold=0.0), evaluated[i]):
            for one, two in zip(together[i], other, strict=True):
                np.testing.assert_allclose(one[:3], two[:3], rtol=1e-4, atol=1e-3)
    assert detector([]) == []


def test_the_threshold_is_that_of_the_call(detector):
    image = pixels(64, 64)
    found = detector(image, score_threshold=0.0)
    assert (np.diff(found.scores) <= 0).all()
    fewer = detector(image, score_threshold=found.scores[1])
    assert len(fewer.scores) == 2 < len(found.scores)
    assert_equal(detector(image, score_threshold=0.0), found)
    name = found.names[-1]
    of_one_class = detector(image, score_threshold=0.0, classes=[name])
    assert of_one_class.names == [other for other in found.names if other == name]
    with pytest.raises(UserError, match="'x'"):
        detector(image, classes=["x", name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *((np.zeros(shape, np.uint8), "uint8") for shape in ((8, 8, 2), (3, 8, 8), (0, 8, 3))),
        ([None], "NoneType"),
        ([b"GIF89a"], "bytes"),
        (Image.new("F", (8, 8)), "float32"),
        ("a\0.png", "path"),
        (np.zeros((8, 8, 3)), "float64"),
        *((ROOT / name, name) for name in ("nothing.jpg", "tests", "setup.cfg")),
    ],
)
def test_what_is_no_image_is_refused(detector, wrong, message):
    with pytest.raises(UserError, match=message):
        detector(wrong, on_unusable=print)  # which is of several images


@pytest.mark.parametrize(("step", "number"), [("best", 10), ("latest", 30), (20, 20), ("20", 20)])
def test_the_step_is_chosen(run, step, number):
    restored = restore_run(run, step)
    assert restored.step == number
    expected = inference_variables(random_state(tiny_config(), seed=number))
    jax.tree.map(np.testing.assert_array_equal, restored.variables, expected)


@pytest.mark.parametrize("step", ["15", "newest", "-1"])
def test_a_step_that_is_not_there(run, step):
    with pytest.raises(UserError, match=r"\[10, 20, 30\]"):
        load(run, step)


def test_no_run_and_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path / "nothing")
    run_folder.write_config(tmp_path, tiny_config())
    with pytest.raises(UserError, match="checkpoint"):
        load(tmp_path)


def test_the_package_lists_what_it_has_without_importing_it():
    program = "import sys, yolov1_jax; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    program += "; assert 'load' in dir(yolov1_jax)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# Two boxes of the same place, as fractions of the image, and one elsewhere.
BOXES = [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5]]
DECODED = {"boxes_xyxy": BOXES, "scores": [[0.9, 0.1], [0.8, 0.1], [0.1, 0.7]]}
AFTER_NMS = {"boxes_xyxy": BOXES, "scores": [0.9, 0.0, 0.7], "labels": [0, -1, 1]}


@pytest.mark.parametrize("outputs", [DECODED, AFTER_NMS])
def test_an_exported_network_may_decode_and_select(run, outputs):
    arrays = {name: np.float32([value]) for name, value in outputs.items()}
    metadata = metadata_of(restore_run(run))
    metadata |= {"class_names": ["cat", "dog"], "batch_size": 1, "score_threshold": 0.8}
    detector = Detector(lambda images: arrays, metadata)
    first, second = detector([pixels(100, 200)] * 2)
    assert first.names == second.names == ["cat", "dog"]
    np.testing.assert_allclose(first.scores, [0.9, 0.7], atol=1e-6)
    np.testing.assert_array_equal(first.boxes_xyxy, [[0, 0, 100, 50], [100, 0, 200, 50]])
    assert detector(pixels(8, 8), score_threshold=None).names == ["cat"]  # as in evaluations
    overlapping = detector(pixels(8, 8), nms_iou_threshold=1.0)
    assert len(overlapping.scores) == (3 if outputs is DECODED else 2)


@pytest.mark.parametrize("name", ["run.safetensors", "run.onnx"])
def test_other_files_are_no_network(tmp_path, name):
    if name == "run.onnx":
        pytest.importorskip("onnxruntime")
    path = tmp_path / name
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"\.stablehlo"):
        load(path)
