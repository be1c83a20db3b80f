"""One image and its annotation, looked at together: what of them can be used, and how.

Frame: boxes come out in [0, 1], relative to the image that is used: the stored one, or that one
turned upright.
"""

import os
from typing import NamedTuple

import numpy as np

from yolov1_jax.data.annotations import Annotation, place_boxes, read_annotation
from yolov1_jax.data.dataset import SourceReport, UnusableFile
from yolov1_jax.data.image_sets import ListedImage
from yolov1_jax.data.images import SWAPS_SIDES, ImageHeader, read_header


class FoundObject(NamedTuple):
    """A usable object of an annotation."""

    box_xyxy: np.ndarray  # float64 [4] in [0, 1]
    class_name: str
    difficult: bool
    name: str  # for people: "VOC2012/2008_000008 object 2 (dog)"
    annotation_path: str


class ExaminedImage(NamedTuple):
    """A usable image."""

    height: int  # of the image that is used, in pixels
    width: int
    orientation: int  # EXIF orientation to undo after decoding, 1 for stored pixels
    objects: list[FoundObject]


def read_both(root: str, image: ListedImage) -> tuple[ImageHeader, Annotation] | UnusableFile:
    """The image's header and the annotation; `UnusableFile` is returned, for use in threads."""
    if image.image_path is None and image.annotation_path is None:
        return UnusableFile("neither image nor annotation found")
    if image.image_path is None:
        return UnusableFile("image is missing")
    if image.annotation_path is None:
        return UnusableFile("annotation is missing")
    try:
        return (
            read_header(os.path.join(root, image.image_path)),
            read_annotation(os.path.join(root, image.annotation_path)),
        )
    except UnusableFile as unusable:
        return unusable


def examine(
    image: ListedImage, header: ImageHeader, annotation: Annotation, report: SourceReport
) -> ExaminedImage:
    """Settles which pixels are used and places the boxes in them; `report` notes what it did."""
    if header.has_alpha:
        report.correct("transparency dropped", image.image_id)
    if header.is_16_bit:
        report.correct("16-bit image, high 8 bits used", image.image_id)
    height, width, orientation, correction = _frame(header, annotation)
    if correction is not None:
        report.correct(correction, image.image_id)

    objects: list[FoundObject] = []
    placed = place_boxes(annotation.boxes_xyxy, height, width)
    for i, class_name in enumerate(annotation.names):
        name = f"{image.image_id} object {i + 1} ({class_name or '?'})"
        problem = placed.problem[i] if class_name else "object without a class name"
        if problem is not None:
            report.skip_object(problem, name)
            continue
        if placed.clipped[i]:
            report.correct("box clipped to the image", name)
        difficult = annotation.difficult[i]
        if difficult is None:
            report.correct("difficult is neither 0 nor 1, taken as 0", name)
        objects.append(
            FoundObject(
                placed.boxes_xyxy[i], class_name, bool(difficult), name, str(image.annotation_path)
            )
        )
    return ExaminedImage(height, width, orientation, objects)


def _frame(header: ImageHeader, annotation: Annotation) -> tuple[int, int, int, str | None]:
    """Height, width and EXIF orientation of the image the boxes refer to; what was corrected.

    VOC annotations refer to the pixels as stored. But an annotation tool that obeys EXIF shows, and
    measures, a turned image: then the size in the annotation is the stored one with its sides
    swapped, and the image is turned to match. Any other difference of size leaves the boxes as they
    are, pixels of the image that is there.
    """
    stored = (header.height, header.width)
    annotated = (annotation.height, annotation.width)
    if header.orientation in SWAPS_SIDES and annotated == stored[::-1] != stored:
        return *annotated, header.orientation, "EXIF rotation applied, as in the annotation"
    if annotated != stored:
        if 0 in annotated:
            return *stored, 1, "size missing in the annotation, image's own used"
        return *stored, 1, "size wrong in the annotation, image's own used"
    if header.orientation != 1:
        return *stored, 1, "EXIF orientation ignored, as in the annotation"
    return *stored, 1, None
