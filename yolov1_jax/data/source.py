"""Opens a source of data by the name that `config.data.source` gives it."""

import os
import re
from collections.abc import Sequence

from yolov1_jax.config import UserError
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.data.voc_folder import FolderSource
from yolov1_jax.data.voc_tfds import VocSource


def open_source(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    splits: Sequence[str],
    class_names: Sequence[str] | None,
    unknown_classes: str = "refuse",
    images_required: bool = True,
    image_size: int = 192,
    seed: int = 0,
) -> Source:
    """Opens the splits of a source.

    Args:
      name: "tfds", "folder" or "synthetic".
      root: tfds's data_dir (None for its default), or the folder of the data sets of "folder".
      splits: see `VocSource`, `FolderSource`; of "synthetic" one, "eval", or "eval:100" for its
        first 100 images.
      class_names: index = label; None for the source's own.
      unknown_classes, images_required: see `FolderSource`.
      image_size, seed: of synthetic images.

    Raises:
      UserError: whatever is wrong with the data.
    """
    if name == "folder":
        return FolderSource(
            root or ".",
            splits,
            class_names,
            unknown_classes=unknown_classes,
            images_required=images_required,
        )
    source: Source
    if name == "tfds":
        source = VocSource(splits, root)
    else:
        match = re.fullmatch(r"(\w+)(?::(\d+))?", ",".join(splits))
        if match is None:
            raise UserError(f"expected a split such as eval or eval:100, found {','.join(splits)}")
        split, count = match.groups()
        source = SyntheticSource(split, int(count) if count else None, image_size, seed)
    if class_names is not None and tuple(class_names) != tuple(source.class_names):
        raise UserError(
            f"expected the classes {', '.join(source.class_names)} of this source, found"
            f" {', '.join(class_names)}: leave config.model.class_names unset"
        )
    return source
