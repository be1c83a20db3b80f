"""Where a detector fails, and whether one is better than another, by hotcoco.

hotcoco is optional (pip install "yolov1_jax[errors]") and imported by this file alone. It compares
as COCO does, at an IoU of 0.5, so its AP is the AP50 of our protocol `coco`. The kinds of errors
and what mending them is worth are those of TIDE (Bolya et al. 2020).
"""

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Annotations
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.evaluation.ground_truth import coco_annotations, number_images
from yolov1_jax.evaluation.results_files import coco_results
from yolov1_jax.yolo.detections import Detections, join_detections

KINDS = {
    "Loc": "badly placed",  # right class, IoU of 0.1 to 0.5
    "Cls": "wrong class",  # IoU of at least 0.5 with an object of another class
    "Both": "both of these",  # IoU of 0.1 to 0.5 with an object of another class
    "Dupe": "found twice",
    "Bkg": "background",  # IoU below 0.1 with every object
    "Miss": "missed",  # the object is in none of the above
}


def is_installed() -> bool:
    return [int(number) for number in re.findall(r"\d+", _version())[:2]] >= [1, 3]


def check_installed() -> None:
    if not is_installed():
        raise UserError(
            f"expected hotcoco 1.3 or later, found {_version() or 'none'}: "
            'pip install "yolov1_jax[errors]"'
        )


def _version() -> str:
    """The version of hotcoco; empty if it is not installed."""
    try:
        return importlib.metadata.version("hotcoco")
    except importlib.metadata.PackageNotFoundError:
        return ""


def find_errors(result: Result, score_threshold: float) -> dict[str, Any]:
    """Sorts out the errors of detections. The threshold is for all but AP and calibration.

    Returns:
      The content of errors.json. `place` is that of the image in the annotations; lists begin with
      the worst or the surest.
        ap50: as in `coco`
        kinds: {kind: {count, gain, share}}; gain: AP50 without them minus ap50; share of 1 - ap50
        thresholds: {class: ...}, see `working_points`
        confusion: [C + 1, C + 1], objects by detections; the last of each is background
        calibration: bins of hotcoco; calibration_error: between avg_confidence and avg_accuracy
        images: [{place, image, tp, fp, fn, ...}]: right and false detections, missed objects
        false_detections: [{place, image, class, score, box_xyxy, labelled}]
        labels_to_check: those that may be right; labelled: the class of the label, or "nothing"

    Raises:
      UserError: hotcoco is not installed.
    """
    annotations, ids = result.annotations, result.annotations.image_ids
    everything = _evaluate(result.detections, annotations)
    tide = everything.tide_errors()
    # Confidence times class score may exceed 1 without a sigmoid; such a score counts as 1.
    clipped = [one._replace(scores=np.clip(one.scores, 0, 1)) for one in result.detections]
    calibration = _evaluate(clipped, annotations).calibration()
    lost = max(1 - tide["ap_base"], 1e-9)

    # Only detections that count: those of difficult objects are neither right nor wrong.
    image, joined = join_detections(result.detections)
    counted = np.zeros(len(image), bool)
    counted[[number - 1 for number in everything.image_diagnostics()["dt_status"]]] = True
    kept = np.flatnonzero(counted & (joined.scores >= score_threshold))  # [D]
    by_image = [kept[image[kept] == i] for i in range(len(ids))]
    at_threshold = _evaluate([Detections(*(p[i] for p in joined)) for i in by_image], annotations)
    diagnostics = at_threshold.image_diagnostics(score_thr=0.5)

    labelled = {
        one["dt_id"]: one["gt_category"] or "nothing" for one in diagnostics["label_errors"]
    }
    wrong: list[dict[str, Any]] = []
    for number, status in sorted(diagnostics["dt_status"].items()):  # hotcoco's order varies
        if status == "fp":
            i = int(image[kept[number - 1]])
            box, score, label = (part[kept[number - 1]].tolist() for part in joined)
            what = {"class": annotations.class_names[label], "score": score, "box_xyxy": box}
            wrong.append({"place": i, "image": ids[i], **what, "labelled": labelled.get(number)})
    wrong.sort(key=lambda one: -one["score"])
    summary, numbers = diagnostics["img_summary"], enumerate(number_images(annotations))
    images = [{"place": i, "image": ids[i], **summary[n]} for i, n in numbers if n in summary]
    images.sort(key=lambda one: (-(one["fp"] + 1.01 * one["fn"]) / (1 + one["tp"]), one["tp"]))
    return {
        "ap50": tide["ap_base"],
        "kinds": {
            name: {"count": tide["counts"][key], "gain": gain, "share": gain / lost}
            for key, name in KINDS.items()
            for gain in [tide["delta_ap"][key]]
        },
        "thresholds": working_points(result),
        "confusion": at_threshold.confusion_matrix(max_det=len(kept) + 1)["matrix"].tolist(),
        "calibration_error": calibration["ece"],
        "calibration": [one for one in calibration["bins"] if one["count"]],
        "images": images,
        "false_detections": wrong,
        "labels_to_check": [one for one in wrong if one["labelled"]],
    }


def working_points(result: Result) -> dict[str, dict[str, float]]:
    """The threshold of the best F1 of each class with found objects; precision and recall there.

    By the matches of voc10. It was chosen on these data, so the F1 is a little too good.
    """
    _, joined = join_detections(result.detections)
    points = {}
    for label, (name, one) in enumerate(result.evaluations["voc10"].classes.items()):
        scores = np.sort(joined.scores[joined.labels == label])[::-1]  # as the evaluation has them
        f1 = 2 * one.precision * one.recall / np.maximum(one.precision + one.recall, 1e-9)
        f1[:-1][scores[:-1] == scores[1:]] = 0  # a threshold takes all of equal scores
        if np.any(f1 > 0):  # NaN without objects
            curves = {"threshold": scores, "precision": one.precision, "recall": one.recall}
            best = int(np.argmax(f1))
            points[name] = {key: float(one[best]) for key, one in {**curves, "f1": f1}.items()}
    return points


def differences(
    annotations: Annotations, first: Sequence[Detections], second: Sequence[Detections]
) -> dict[str, tuple[float, float, float]]:
    """AP, AP50 and AP75 of COCO: second minus first, and the ends of its 95 % interval.

    The interval is of 1,000 bootstrap samples of the images, the same for both.
    """
    pair = _evaluate(first, annotations), _evaluate(second, annotations)
    import hotcoco

    found = hotcoco.compare(*pair, n_bootstrap=1000, seed=0, confidence=0.95)
    return {
        name: (found["deltas"][name], found["ci"][name]["lower"], found["ci"][name]["upper"])
        for name in ("AP", "AP50", "AP75")
    }


def _evaluate(detections: Sequence[Detections], annotations: Annotations) -> Any:
    check_installed()
    import hotcoco

    truth = hotcoco.COCO(coco_annotations(annotations))
    evaluation = hotcoco.COCOeval(
        truth, truth.load_res(coco_results(detections, annotations)), "bbox"
    )
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation
