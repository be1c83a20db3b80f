"""Results files of the worst kind against the devkit's rules, read and applied line by line.

Everything that makes two evaluations differ is in them at once: few distinct confidences, in an
order of lines that is not that of the images; boxes that overlap by exactly one half; difficult
objects; fractions of a pixel; boxes of a single pixel, beyond the image, or inverted; images and
whole classes without a detection, and classes without an object.
"""

import math

import numpy as np
import pytest
from annotated_sets import images_of
from slow_mean_ap import random_images, slow_class

from yolov1_jax.evaluation.average_precision import inclusive_overlap
from yolov1_jax.evaluation.evaluator import score_results_file
from yolov1_jax.yolo.detections import Detections

CLASSES = ("found", "lost", "without objects", "difficult only", "never there", "crowded")


def adversarial_set(rng, num_images, fraction):
    """Detections and ground truth with labels of CLASSES."""
    detections, truths = random_images(rng, num_images, 2, fraction)
    labels = np.array([0, 5])  # what random_images calls 0 and 1
    for index, (one, truth) in enumerate(zip(detections, truths, strict=True)):
        found_labels, true_labels = labels[one.labels], labels[truth.labels]
        difficult = truth.difficult.copy()
        # A few objects of a class that nobody detects, and of one that is always difficult.
        change = rng.random(len(true_labels))
        true_labels = np.where(change < 0.15, 1, np.where(change > 0.85, 3, true_labels))
        difficult |= true_labels == 3
        change = rng.random(len(found_labels))
        found_labels = np.where(change < 0.1, 2, np.where(change > 0.9, 3, found_labels))
        boxes = one.boxes_xyxy.copy()
        odd = rng.random(len(boxes))
        boxes[odd < 0.05, 2:] = boxes[odd < 0.05, :2]  # a single pixel
        boxes[odd > 0.95, 2] = boxes[odd > 0.95, 0] - 3  # inverted
        boxes[(odd > 0.9) & (odd < 0.95)] -= 20  # beyond the image
        truths[index] = truth._replace(labels=true_labels, difficult=difficult)
        detections[index] = Detections(boxes, one.scores, found_labels)
    return detections, truths


def write_shuffled(rng, folder, detections):
    """The devkit's files, lines in random order. {label: lines as (score, image, box)}."""
    rows = [
        (float(score), image, box, int(label))
        for image, one in enumerate(detections)
        for box, score, label in zip(*one, strict=True)
    ]
    lines = {label: [] for label in range(len(CLASSES))}
    for index in rng.permutation(len(rows)):
        *row, label = rows[index]
        lines[label].append(row)
    for label, of_class in lines.items():
        if CLASSES[label] in ("lost", "never there"):
            assert not of_class
            continue
        text = "".join(
            f"{image + 1:06d} {score!r} {' '.join(repr(float(value)) for value in box)}\n"
            for score, image, box in of_class
        )
        (folder / f"comp4_det_test_{CLASSES[label]}.txt").write_text(text)
    return lines


@pytest.mark.parametrize("fraction", [1, 4, 10])  # whole, quarter and inexact tenths of a pixel
def test_equals_the_devkits_rules_line_by_line(tmp_path, fraction):
    rng = np.random.default_rng(fraction)
    for number, num_images in enumerate([1, 2, 5, 30, 30, 60]):
        detections, truths = adversarial_set(rng, num_images, fraction)
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = write_shuffled(rng, folder, detections)
        image_ids = [f"VOC2007/{image + 1:06d}" for image in range(num_images)]
        images = images_of(*image_ids, truths=truths, class_names=CLASSES)
        _, _, summary = score_results_file(folder, images)
        for protocol in ("voc07", "voc10"):
            aps = {}
            for label, name in enumerate(CLASSES):
                ap, _, _ = slow_class(lines[label], truths, label, protocol)
                aps[name] = None if math.isnan(ap) else ap
            actual = summary["protocols"][protocol]
            defined = [ap for ap in aps.values() if ap is not None]
            expected = {"mAP": np.mean(defined) if defined else None, **aps}
            for name, value in {"mAP": actual["mAP"], **actual["ap"]}.items():
                if expected[name] is None:
                    assert value is None
                else:
                    assert value == pytest.approx(expected[name], rel=0, abs=1e-9)


def test_the_sets_are_as_bad_as_they_say(tmp_path):
    rng = np.random.default_rng(0)
    detections, truths = adversarial_set(rng, 60, 1)
    lines = write_shuffled(rng, tmp_path, detections)
    images = images_of(
        *(f"VOC2007/{image + 1:06d}" for image in range(60)), truths=truths, class_names=CLASSES
    )
    _, _, summary = score_results_file(tmp_path, images)
    aps = summary["ap"]
    assert (aps["lost"], aps["without objects"]) == (0, None)
    assert (aps["difficult only"], aps["never there"]) == (None, None)
    assert 0 < aps["found"] < 1
    assert 0 < aps["crowded"] < 1
    assert sum(len(of_class) for of_class in lines.values()) > 200
    assert len({score for of_class in lines.values() for score, _, _ in of_class}) <= 4
    assert all(lines[label] for label in (0, 2, 3, 5))
    pairs = [
        (box, true)
        for one, truth in zip(detections, truths, strict=True)
        for box in one.boxes_xyxy
        for true in truth.boxes_xyxy
    ]
    overlaps = inclusive_overlap(*map(np.array, zip(*pairs, strict=True)))
    assert np.sum(overlaps == 0.5) > 20
    assert sum(truth.difficult.sum() for truth in truths) > 20
    assert any(len(one.labels) == 0 for one in detections)
    # The order of the lines matters: that of the images gives another result.
    changed = []
    for label in (0, 5):
        by_image = sorted(lines[label], key=lambda row: row[1])
        ap, _, _ = slow_class(by_image, truths, label, "voc10")
        changed.append(abs(ap - summary["protocols"]["voc10"]["ap"][CLASSES[label]]) > 1e-3)
    assert any(changed)
