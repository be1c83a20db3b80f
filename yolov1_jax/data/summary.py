"""The table at the start of a run: what each split holds, and everything it had to leave out."""

import dataclasses
import textwrap
from collections.abc import Mapping

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from yolov1_jax.data.dataset import Source, SourceReport

_FIRST_NAMES = 3


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """Counts of one split. Objects are those that a run gets to see."""

    num_images: int
    num_counted: int  # the images that the counts below are of
    num_without_objects: int
    num_objects: int
    num_difficult: int
    num_trained: int  # objects that are trained on unless they are too small or lost
    num_too_small: int  # for training, see `summarise`
    objects_per_class: dict[str, int]  # in the order of the labels
    most_objects: int  # in one image
    grid_size: int
    lost_to_collisions: int  # objects whose cell a later object of the image takes
    report: SourceReport

    @property
    def num_skipped_images(self) -> int:
        return sum(map(len, self.report.skipped.values()))

    @property
    def num_skipped_objects(self) -> int:
        return sum(map(len, self.report.skipped_objects.values()))


def summarise(
    source: Source,
    grid_size: int,
    *,
    min_relative_area: float = 0.0,
    train_difficult: bool = True,
    max_images: int | None = None,
) -> SplitSummary:
    """Counts a split by its annotations; no image is read.

    A cell of the S x S grid holds one object (Redmon et al. 2016, section 2): of several whose
    centres fall into it, the last is kept and the others are lost to training. They are counted on
    the boxes as annotated, before augmentation, and like the small ones among those objects only
    that training would use otherwise.

    Args:
      source: any source.
      grid_size: S.
      min_relative_area: of a box, as a fraction of the image; training leaves out boxes that are
        not larger. The resize alone decides here: augmentation can make a box smaller still.
      train_difficult: whether training uses difficult objects. Without, they are neither too small
        nor lost.
      max_images: count the first so many only; None counts all. For endless synthetic scenes.
    """
    num_counted = len(source) if max_images is None else min(len(source), max_images)
    per_class = np.zeros(len(source.class_names), np.int64)
    without_objects = difficult = trained = too_small = most = lost = 0
    for index in range(num_counted):
        record = source.annotation(index)
        count = len(record["labels"])
        per_class += np.bincount(record["labels"], minlength=len(per_class))
        without_objects += count == 0
        difficult += int(record["difficult"].sum())
        most = max(most, count)
        boxes_xyxy = record["boxes_xyxy"]
        if not train_difficult:
            boxes_xyxy = boxes_xyxy[~record["difficult"]]
        trained += len(boxes_xyxy)
        if min_relative_area > 0:
            size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
            large = size.prod(axis=1) > min_relative_area
            too_small += int((~large).sum())
            boxes_xyxy = boxes_xyxy[large]
        lost += len(boxes_xyxy) - _num_cells(boxes_xyxy, grid_size)
    return SplitSummary(
        num_images=len(source),
        num_counted=num_counted,
        num_without_objects=without_objects,
        num_objects=int(per_class.sum()),
        num_difficult=difficult,
        objects_per_class=dict(zip(source.class_names, per_class.tolist(), strict=True)),
        num_trained=trained,
        num_too_small=too_small,
        most_objects=most,
        grid_size=grid_size,
        lost_to_collisions=lost,
        report=source.report,
    )


def _num_cells(boxes_xyxy: np.ndarray, grid_size: int) -> int:
    """In how many cells of the grid the boxes [N, 4] have their centres."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2  # [N, 2]
    rounding = 2 * grid_size * np.finfo(centres.dtype).eps  # as in `encode_targets`
    cells = np.minimum((centres * grid_size + rounding).astype(np.int64), grid_size - 1)  # [N, 2]
    return len(np.unique(cells, axis=0))


def print_summary(summaries: Mapping[str, SplitSummary], console: Console | None = None) -> None:
    """Prints the splits side by side, then each reason with its first file names.

    Args:
      summaries: by the name of the split, such as "train" and "eval".
      console: where to; default the standard output, 80 columns wide where that is no terminal.
    """
    console = console or Console()
    console.print(_counts(summaries))
    for split, summary in summaries.items():
        console.print(_classes(split, summary, console.width))
    if any(_findings(summary.report) for summary in summaries.values()):
        console.print(_reasons(summaries))


def _counts(summaries: Mapping[str, SplitSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for split in summaries:
        table.add_column(Text(split), justify="right", min_width=8)
    splits = list(summaries.values())
    grids = " and ".join(dict.fromkeys(f"{s.grid_size}x{s.grid_size}" for s in splits))

    def row(title: str, *cells: str) -> None:
        table.add_row(Text(title), *map(Text, cells))

    row("images", *(f"{s.num_images:,}" for s in splits))
    if any(s.num_counted < s.num_images for s in splits):
        row("  counted below, the first", *(f"{s.num_counted:,}" for s in splits))
    row("  without objects", *(f"{s.num_without_objects:,}" for s in splits))
    row("skipped images", *(f"{s.num_skipped_images:,}" for s in splits))
    row("objects", *(f"{s.num_objects:,}" for s in splits))
    row("  difficult", *(f"{s.num_difficult:,}" for s in splits))
    if any(s.num_too_small for s in splits):
        row("  too small to be trained on", *(f"{s.num_too_small:,}" for s in splits))
    row("  most in one image", *(f"{s.most_objects:,}" for s in splits))
    row(f"  lost to cell collisions, {grids}", *(f"{s.lost_to_collisions:,}" for s in splits))
    row("    as a share", *(f"{s.lost_to_collisions / max(s.num_trained, 1):.1%}" for s in splits))
    row("skipped objects", *(f"{s.num_skipped_objects:,}" for s in splits))
    return table


def _classes(split: str, summary: SplitSummary, width: int) -> Text:
    """Objects per class, wrapped between classes: a rare or misspelt one shows at a glance."""
    # A stand-in for the space, so that a class and its count stay on one line.
    items = [f"{name} {count:,}".replace(" ", "\0") for name, count in _per_class(summary)]
    text = (
        f"{split}, objects of {len(items)} {'class' if len(items) == 1 else 'classes'}: "
        + ", ".join(items)
    )
    lines = textwrap.wrap(
        text,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    return Text("\n".join(lines).replace("\0", " "))


def _per_class(summary: SplitSummary) -> list[tuple[str, int]]:
    return sorted(summary.objects_per_class.items(), key=lambda item: (-item[1], item[0]))


def _findings(report: SourceReport) -> list[tuple[str, str, list[str]]]:
    groups = (
        ("skipped image", report.skipped),
        ("skipped object", report.skipped_objects),
        ("corrected", report.corrected),
    )
    return [(kind, *item) for kind, reasons in groups for item in sorted(reasons.items())]


def _reasons(summaries: Mapping[str, SplitSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("split")
    table.add_column("count", justify="right")
    table.add_column("left out or corrected, and the first of them", overflow="fold")
    for split, summary in summaries.items():
        for kind, reason, names in _findings(summary.report):
            rest = len(names) - _FIRST_NAMES
            lines = [f"{kind}: {reason}", *(f"  {name}" for name in names[:_FIRST_NAMES])]
            if rest > 0:
                lines.append(f"  and {rest:,} more")
            table.add_row(Text(split), f"{len(names):,}", Text("\n".join(lines)))
    return table
