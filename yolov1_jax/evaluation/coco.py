"""COCO's average precision and recall, by COCO's own program (pycocotools).

AP is the mean over the overlaps 0.50, 0.55 ... 0.95 of the mean precision at 101 levels of recall;
AP50 and AP75 are those of one overlap. AR1, AR10 and AR100 are the recall, averaged over the
overlaps, with that many detections per image and class. Small, medium and large are objects of up
to 32 x 32, up to 96 x 96, and more pixels of the original image. The 100 best detections of a class
in an image count. A detection is assigned to an object that is still free, unlike in PASCAL VOC's
rule. Equal scores are ordered by the numbers of their images.

Difficult objects are COCO's crowds: they need not be found, and a detection that lies in one
(overlap over the detection's area) is ignored.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov1_jax.data.dataset import Annotations
from yolov1_jax.evaluation.average_precision import ClassEvaluation, Evaluation
from yolov1_jax.evaluation.ground_truth import category_ids, coco_annotations
from yolov1_jax.evaluation.results_files import coco_results
from yolov1_jax.yolo.detections import Detections

# The numbers of COCOeval.summarize after AP, in its order.
PARTS = (
    "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def evaluate_coco(detections: Sequence[Detections], annotations: Annotations) -> Evaluation:
    """COCO's evaluation of detections, one element an image, in the order of the annotations.

    `mean_ap` is AP, `parts` has PARTS, NaN where there is no such object, `parts_by_class` AP50 of
    each class. The curves are means over the overlaps, at the 101 levels of recall.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth = COCO()
        truth.dataset = coco_annotations(annotations)
        truth.createIndex()
        results = coco_results(detections, annotations)
        found = truth.loadRes(results) if results else COCO()
        program = COCOeval(truth, found, iouType="bbox")
        program.evaluate()
        program.accumulate()
        program.summarize()
    # It marks by -1 what does not exist because there are no objects.
    mean_ap, *parts = np.where(program.stats == -1, np.nan, program.stats).tolist()
    precision = program.eval["precision"][..., 0, -1]  # [overlap, recall, class]; of all areas
    precision = np.where(precision == -1, np.nan, precision)

    labels = np.concatenate([[], *(one.labels for one in detections)])
    classes, ap50 = {}, {}
    numbers = category_ids(annotations)
    for label, name in enumerate(annotations.class_names):
        of_class = precision[..., sorted(numbers).index(numbers[label])].copy()
        num_objects = int(np.sum((annotations.labels == label) & ~annotations.difficult))
        ap50[name] = float(of_class[0].mean())
        classes[name] = ClassEvaluation(
            ap=float(of_class.mean()),
            recall=program.params.recThrs if num_objects else np.zeros(0),
            precision=of_class.mean(axis=0) if num_objects else np.zeros(0),
            num_objects=num_objects,
            num_detections=int(np.sum(labels == label)),
        )
    return Evaluation(
        protocol="coco",
        classes=classes,
        mean_ap=mean_ap,
        parts=dict(zip(PARTS, parts, strict=True)),
        parts_by_class={"AP50": ap50},
    )
