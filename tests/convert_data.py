"""Writes a data set as VOC XML, YOLO text or COCO JSON, as programs that people use write them.

    python tests/convert_data.py BCCD yolo FOLDER

The images are copied. Boxes come from VOC's pixel numbers, of which the first is 1 and the last
belongs to the box: COCO's x, y, width, height are x - 1, y - 1, and one more than the difference.
"""

import json
import pathlib
import shutil
import sys

from voc_tree import annotation_xml, object_xml

from yolov1_jax.data.annotated_images import AnnotatedImages
from yolov1_jax.data.source import class_names_of_folder, open_folder, splits_of_folder


def convert(
    sources: dict[str, AnnotatedImages], data_format: str, folder: pathlib.Path
) -> pathlib.Path:
    """Writes splits by name, all of the same classes, in a format; returns the folder."""
    for split, source in sources.items():
        {"voc": _write_voc, "yolo": _write_yolo, "coco": _write_coco}[data_format](
            folder, split, source
        )
    if data_format == "yolo":
        names = next(iter(sources.values())).class_names
        paths = [f"{split}: ../{split}/images\n" for split in sources]  # as Roboflow has them
        text = f"{''.join(paths)}nc: {len(names)}\nnames: {json.dumps(list(names))}\n"
        (folder / "data.yaml").write_text(text)
    return folder


def _rows(source):
    """Path of the image, its size (width, height), and its objects (class, x, y, w, h)."""
    annotations = source.annotations()
    for i, path in enumerate(source.paths):
        height, width = annotations.sizes[i].tolist()
        objects = [
            (label, left - 1, top - 1, right - left + 1, bottom - top + 1)
            for (left, top, right, bottom), label in zip(
                annotations[i].boxes_xyxy.tolist(), annotations[i].labels.tolist(), strict=True
            )
        ]
        yield pathlib.Path(path), (width, height), objects


def _copy(path, folder):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder)


def _write_voc(folder, split, source):
    """Images and XML side by side, one folder for each split, as Roboflow writes them."""
    for path, (width, height), objects in _rows(source):
        _copy(path, folder / split)
        items = [
            object_xml(source.class_names[label], (x + 1, y + 1, x + w, y + h))
            for label, x, y, w, h in objects
        ]
        named = f"<filename>{path.name}</filename>"
        text = annotation_xml(*items, size=(height, width), more=named)
        (folder / split / f"{path.stem}.xml").write_text(text)


def _write_yolo(folder, split, source):
    """<split>/images and <split>/labels, with six digits."""
    labels = folder / split / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    for path, (width, height), objects in _rows(source):
        _copy(path, folder / split / "images")
        lines = [
            f"{label} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} "
            f"{h / height:.6f}\n"
            for label, x, y, w, h in objects
        ]
        (labels / f"{path.stem}.txt").write_text("".join(lines))


def _write_coco(folder, split, source):
    """annotations/instances_<split>.json and images/<split>, with gaps between the categories."""
    images, annotations = [], []
    for number, (path, (width, height), objects) in enumerate(_rows(source)):
        _copy(path, folder / "images" / split)
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        for label, *box in objects:
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 3 * label + 1}
            annotations.append({**row, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    names = enumerate(source.class_names)
    categories = [{"id": 3 * label + 1, "name": name} for label, name in names]
    content = {"images": images, "categories": categories, "annotations": annotations}
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    root, data_format, folder = sys.argv[1:]
    splits, names = splits_of_folder(root), class_names_of_folder(root, ["all"])
    sources = {split: open_folder(root, [split], names) for split in splits}
    convert(sources, data_format, pathlib.Path(folder))
