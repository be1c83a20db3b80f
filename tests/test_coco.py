"""COCO's numbers by hand, and by pycocotools on files."""

import dataclasses
import json
import math

import numpy as np
import pytest
from annotated_sets import found, images_of, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from slow_mean_ap import CLASSES, random_images

from yolov1_jax.data.coco_json import read_coco_annotations
from yolov1_jax.evaluation.coco import evaluate_coco
from yolov1_jax.evaluation.ground_truth import coco_annotations
from yolov1_jax.evaluation.results_files import coco_results, read_results

BOX, ELSEWHERE = (1, 1, 10, 10), (51, 51, 60, 60)  # 100 pixels


def evaluate(detections, objects, class_names=("a",)):
    """One image."""
    return evaluate_coco([detections], images_of(truths=[objects], class_names=class_names))


@pytest.mark.parametrize(
    ("rows", "num_overlaps"),
    # These of BOX's ten rows: the overlap is rows / 10. 0.5 is enough for the first, and so on.
    [(4, 0), (5, 1), (6, 3), (7, 5), (8, 7), (9, 9), (10, 10)],
)
def test_each_overlap_counts_for_a_tenth(rows, num_overlaps):
    result = evaluate(found(((1, 1, 10, rows), 0.9, 0)), truth((BOX, 0, False)))
    assert result.mean_ap == pytest.approx(num_overlaps / 10)
    assert result.parts["AP50"] == pytest.approx(float(rows >= 5))
    assert result.parts["AP75"] == pytest.approx(float(rows >= 8))
    assert result.parts["AR1"] == pytest.approx(num_overlaps / 10)
    # The curve is the mean over the overlaps, so that the area under it is AP.
    np.testing.assert_allclose(result.classes["a"].precision, num_overlaps / 10, atol=1e-12)


def test_sizes_are_areas_in_pixels_of_the_original():
    """32 x 32 is small, and medium too: COCO's ranges share their borders."""
    at_border, above = (1, 1, 32, 32), (101, 1, 133, 32)
    objects = truth((at_border, 0, False), (above, 0, False))
    parts = evaluate(found((at_border, 0.9, 0)), objects).parts
    assert parts["AP_small"] == pytest.approx(1)
    assert parts["AP_medium"] == pytest.approx(51 / 101)  # one of two: levels 0 to 0.5
    assert parts["AR_medium"] == pytest.approx(0.5)
    assert math.isnan(parts["AP_large"])
    assert math.isnan(parts["AR_large"])


def test_difficult_objects_and_classes_without_objects_are_left_out():
    inside = (2, 2, 3, 3)  # wholly inside of BOX, a crowd, with an overlap of 4 %
    objects = truth((BOX, 0, True), (ELSEWHERE, 0, False), (BOX, 2, True))
    detections = found((BOX, 0.9, 0), (inside, 0.8, 0), (ELSEWHERE, 0.7, 0), (BOX, 0.9, 1))
    result = evaluate(detections, objects, ("a", "b", "c"))
    assert result.mean_ap == pytest.approx(1)
    assert (result.classes["a"].num_objects, result.classes["a"].num_detections) == (1, 3)
    assert result.classes_without_objects == ("b", "c")
    assert math.isnan(result.classes["b"].ap)
    assert math.isnan(result.parts_by_class["AP50"]["b"])
    assert evaluate(found(), truth((BOX, 0, False))).mean_ap == 0
    assert math.isnan(evaluate(found((BOX, 0.9, 0)), truth()).mean_ap)


@pytest.mark.parametrize("other_program", [False, True])
def test_equals_pycocotools_on_files(tmp_path, other_program):
    """Many scores are equal: pycocotools orders them by the numbers of the images.

    Files of other programs have images, categories, objects and detections in no order, and areas
    of masks.
    """
    rng = np.random.default_rng(0)
    detections, truths = random_images(rng, 30, 1)
    detections = [one._replace(scores=np.round(one.scores)) for one in detections]
    image_ids = [f"VOC{year}/{year}_{number}" for year in (2012, 2007) for number in range(15)]
    annotations = images_of(*image_ids, truths=truths, class_names=CLASSES)
    if other_program:
        annotations = dataclasses.replace(
            annotations,
            image_numbers=tuple(rng.permutation(1000)[:30].tolist()),
            category_ids=(7, 90, 3, 8, 1, 5),
            areas=rng.choice([500.0, 5000.0, 50000.0], len(annotations.labels)),
        )
    content, rows = coco_annotations(annotations), coco_results(detections, annotations)
    if other_program:
        for shuffled in (content["annotations"], content["categories"], rows):
            rng.shuffle(shuffled)
    paths = tmp_path / "annotations.json", tmp_path / "detections.json"
    for path, value in zip(paths, (content, rows), strict=True):
        path.write_text(json.dumps(value))
    annotations = read_coco_annotations(paths[0])
    coco = evaluate_coco(read_results(paths[1], annotations).detections, annotations)

    objects = COCO(str(paths[0]))
    program = COCOeval(objects, objects.loadRes(str(paths[1])), "bbox")
    program.evaluate()
    program.accumulate()
    program.summarize()
    numbers = [coco.mean_ap, *coco.parts.values()]
    np.testing.assert_array_equal(np.nan_to_num(numbers, nan=-1), program.stats)
    precision = program.eval["precision"][..., 0, -1]  # [overlap, recall, class]
    for number, category_id in enumerate(program.params.catIds):
        name = objects.cats[category_id]["name"]
        numbers = [coco.classes[name].ap, coco.parts_by_class["AP50"][name]]
        expected = [precision[..., number].mean(), precision[0, :, number].mean()]
        np.testing.assert_allclose(np.nan_to_num(numbers, nan=-1), expected, rtol=0, atol=1e-15)
