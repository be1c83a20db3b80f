"""The table at the start of a run: what each split holds, and what was left out or corrected."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolov1_jax.data.dataset import Report, Source, first_of
from yolov1_jax.yolo.grid import cell_of


class SplitSummary(NamedTuple):
    """What is printed of one split."""

    rows: dict[str, int | str]  # of the table: title -> count, or a text
    objects_per_class: dict[str, int]
    most_objects: int  # in one image
    report: Report
    image_ids: tuple[str, ...] = ()
    contents: tuple[tuple[int, int] | None, ...] = ()  # see `AnnotatedImages.contents`


def summarise(
    source: Source,
    grid_size: int | None = None,
    *,
    min_relative_area: float = 0.0,
    train_difficult: bool = True,
    limit: int | None = None,
) -> SplitSummary:
    """Counts a split by its annotations; no image is read.

    A cell of the S x S grid holds one object (Redmon et al. 2016, section 2): of several whose
    centres fall into it, one is kept and the others are lost to training. They are counted on the
    boxes as annotated, before augmentation, among those objects that training uses.

    Args:
      source: any source.
      grid_size: S; None for images to classify, of which each has one object.
      min_relative_area: of a box, as a fraction of the image; training leaves out boxes that are
        not larger. The resize alone decides here: augmentation can make a box smaller still.
      train_difficult: whether training uses difficult objects.
      limit: count the first so many images only, for endless synthetic data; None counts all.
    """
    annotations = source.annotations(limit)
    image_index, report = annotations.image_index, annotations.report
    boxes_xyxy = annotations.boxes_xyxy / annotations.sizes[image_index][:, [1, 0, 1, 0]]  # [A, 4]
    small = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1) <= min_relative_area  # [A]
    used = ~annotations.difficult | train_difficult  # [A]
    side = grid_size or 1
    cells = cell_of((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, side)  # [A, 2]
    cells_of_images = (image_index * side + cells[:, 0]) * side + cells[:, 1]  # [A]
    cells_of_images = cells_of_images[used & ~small]
    lost = len(cells_of_images) - len(np.unique(cells_of_images))
    per_image = np.diff(annotations.starts)  # [N]
    most_objects = int(per_image.max(initial=0))
    per_class = np.bincount(annotations.labels, minlength=len(annotations.class_names))  # [C]
    rows: dict[str, int | str] = {"images": len(source)}
    if len(annotations) < len(source):
        rows["  counted below, the first"] = len(annotations)
    rows |= {
        "  without objects": int((per_image == 0).sum()),
        "images left out": sum(map(len, report.skipped.values())),
        "objects": len(annotations.labels),
        "  difficult": int(annotations.difficult.sum()),
        "  too small to be trained on": int((used & small).sum()),
        "  most in one image": most_objects,
        f"  lost to cell collisions, {grid_size}x{grid_size}": lost,
        "    as a share": f"{lost / max(used.sum(), 1):.1%}",
        "objects left out": sum(map(len, report.skipped_objects.values())),
    }
    if grid_size is None:
        kept = ("images", "  counted below, the first", "images left out", "objects left out")
        rows = {title: rows[title] for title in kept if title in rows}
    objects_per_class = dict(zip(annotations.class_names, per_class.tolist(), strict=True))
    contents = getattr(source, "contents", ())
    return SplitSummary(
        rows, objects_per_class, most_objects, report, annotations.image_ids, contents
    )


def overlap_notes(
    name: str, split: SplitSummary, other_name: str, other: SplitSummary
) -> tuple[str, ...]:
    """A line on images of one id in both splits, and one on those of equal files and other ids."""
    ids = set(split.image_ids)
    of_content = dict(zip(split.contents, split.image_ids, strict=False))
    same = [one for one in other.image_ids if one in ids]
    copies = [
        f"{one} = {of_content[content]}"
        for content, one in zip(other.contents, other.image_ids, strict=False)
        if content is not None and content in of_content and one not in ids
    ]
    both = f"in both {name} and {other_name}"
    return tuple(
        f"{len(names):,} images are {what}: {first_of(names)}"
        for what, names in ((both, same), (f"{both} under different names", copies))
        if names
    )


def print_summary(summaries: Mapping[str, SplitSummary]) -> None:
    """Prints the splits, given by name ("train"), side by side, then what the reports say.

    Images that are in two of the splits are named, too.
    """
    console = Console()
    table = Table("", box=box.SIMPLE_HEAD)
    for split in summaries:
        table.add_column(Text(split), justify="right", min_width=8)
    for title in dict.fromkeys(title for summary in summaries.values() for title in summary.rows):
        cells = [summary.rows.get(title, "") for summary in summaries.values()]
        table.add_row(title, *(f"{one:,}" if isinstance(one, int) else one for one in cells))
    console.print(table)
    for split, summary in summaries.items():
        classes = sorted(summary.objects_per_class.items(), key=lambda item: (-item[1], item[0]))
        console.print(Text(f"  {split}, objects of {len(classes)} class(es):"))
        console.print(Columns([Text(f"    {name} {count:,}") for name, count in classes]))
    of_note: dict[str, list[str]] = {}  # two splits of one data set may have equal ones
    for split, summary in summaries.items():
        for note in summary.report.notes():
            of_note.setdefault(note, []).append(split)
    for note, splits in of_note.items():
        console.print(Text(f"  {', '.join(splits)}: {note}"), soft_wrap=True)
    for (split, summary), (name, other) in itertools.combinations(summaries.items(), 2):
        for note in overlap_notes(split, summary, name, other):
            console.print(Text(f"  {note}"), soft_wrap=True)
