"""The three sources of records, by the name that `config.data.source` gives them."""

import os
from collections.abc import Callable, Sequence

from yolov1_jax.data.dataset import Source
from yolov1_jax.data.synthetic import SyntheticSource
from yolov1_jax.data.voc_folder import FolderSource
from yolov1_jax.data.voc_tfds import VocSource
from yolov1_jax.errors import UserError


def open_source(
    name: str,
    *,
    root: str | os.PathLike[str] | None,
    splits: Sequence[str],
    class_names: Sequence[str] | None,
    unknown_classes: str,
    image_size: int,
    seed: int,
) -> Source:
    """Opens the splits of a source.

    Args:
      name: "tfds", "folder" or "synthetic".
      root: tfds's data_dir (None for its default), or the top of the tree of "folder".
      splits: see `VocSource`, `FolderSource`, `SyntheticSource`; of the synthetic source one,
        "eval", or with the number of its scenes, "eval:100".
      class_names: of the labels; None for the source's own.
      unknown_classes: "refuse" or "skip" objects that class_names lacks.
      image_size, seed: of synthetic scenes.

    Raises:
      UserError: whatever is wrong with the data.
    """
    sources: dict[str, Callable[[], Source]] = {
        "tfds": lambda: _with_class_names(VocSource(splits, root), class_names),
        "folder": lambda: FolderSource(
            root or ".", splits, class_names, unknown_classes=unknown_classes
        ),
        "synthetic": lambda: _with_class_names(
            SyntheticSource(*_name_and_count(splits), image_size=image_size, seed=seed), class_names
        ),
    }
    return sources[name]()


def _name_and_count(splits: Sequence[str]) -> tuple[str, int | None]:
    """("eval:100",) -> ("eval", 100); ("eval",) -> ("eval", None)."""
    if len(splits) != 1:
        raise UserError(f"the synthetic source takes one split, got {tuple(splits)}: name one")
    name, colon, count = splits[0].partition(":")
    if colon and not count.isdecimal():
        raise UserError(
            f"expected a split such as 'eval' or 'eval:100' (its first 100 scenes), found "
            f"{splits[0]!r}: correct config.data"
        )
    return name, int(count) if colon else None


def _with_class_names(source: Source, class_names: Sequence[str] | None) -> Source:
    """Refuses names that are not the source's own, which cannot be chosen."""
    if class_names is not None and tuple(class_names) != tuple(source.class_names):
        raise UserError(
            f"this source's classes are {tuple(source.class_names)}, config.model.class_names has "
            f"{tuple(class_names)}: leave it unset"
        )
    return source
