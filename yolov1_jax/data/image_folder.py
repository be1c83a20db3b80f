"""Images without boxes, in a folder for each class: of each image, all is one object.

rose/a.jpg, tulip/new/b.jpg    the class is the first folder
train/rose/a.jpg, val/...      below folders of splits
"""

import collections
import functools
from collections.abc import Sequence

from yolov1_jax.data.annotated_images import AnnotatedObject, Annotation, ListedImage
from yolov1_jax.data.own_folder import Found, Split, has_extension, image_id, split_of_name


def find(root: str, files: Sequence[str]) -> Found | None:
    """The data set that these files are; None if no image is in a folder of a class."""
    paths = {file: file.split("/")[:-1] for file in files if has_extension(file)}
    # Beside folders that are no splits, one called "train" is a class, unless it has folders.
    firsts = {folders[0] for folders in paths.values() if folders}
    if not all(map(split_of_name, firsts)):
        firsts = {folders[0] for folders in paths.values() if len(folders) > 1}
    parts: dict[str, list[ListedImage]] = collections.defaultdict(list)
    for file, folders in paths.items():
        split = split_of_name(folders[0]) if folders and folders[0] in firsts else ""
        for class_name in folders[bool(split) :][:1]:
            read = functools.partial(_whole_image, class_name)
            parts[split].append(ListedImage(image_id(file), file, read, upright=True))
    if not parts:
        return None
    splits = {split: functools.partial(Split, images) for split, images in parts.items()}
    return Found("images by class", "a folder for each", splits)


def _whole_image(class_name: str, size: tuple[int, int] | None) -> Annotation | None:
    if size is None:
        return None
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    return Annotation(size, [AnnotatedObject(1, class_name, box, False)])
