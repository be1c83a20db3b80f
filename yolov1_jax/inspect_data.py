"""Shows what training would use of a folder, before training.

    yolov1 inspect PATH [--format=auto|voc|yolo|coco] [--splits=train,val] [--output=page.jpg]

PATH holds images with VOC XML, YOLO text or COCO JSON: docs/data.md. Printed are for each split its
images, objects and classes, how many objects share a cell with another at S = 7, 10 and 14, what
was found out, what is left out or corrected and why, and sizes. Images with their boxes and the
grid are drawn into --output, by default inspect.jpg.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from yolov1_jax import command_line
from yolov1_jax.config import UserError, local_path, split_list
from yolov1_jax.data.annotated_images import AnnotatedImages
from yolov1_jax.data.dataset import GroundTruth
from yolov1_jax.data.source import FORMATS, open_folder, splits_of_folder
from yolov1_jax.data.summary import SplitSummary, print_summary, summarise
from yolov1_jax.training import run_folder
from yolov1_jax.visualization.draw import draw_grid

FLAGS = flags.FlagValues()
_FORMAT = flags.DEFINE_enum("format", "auto", FORMATS, "of the annotations", flag_values=FLAGS)
_SPLITS = flags.DEFINE_list("splits", None, "instead of all that there are", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", "inspect.jpg", "picture, or folder", flag_values=FLAGS)

_GRID_SIZE = 7
_FINER = (10, 14)  # of configs/own_data.py; of 448 pixels without the stride of the head
_TILES, _COLUMNS = 12, 3
_TILE_WIDTH, _TILE_HEIGHT = 486, 390  # pixels


def run(paths: list[str]) -> None:
    if len(paths) != 1:
        raise UserError(f"expected the path of a folder of data, found {len(paths)} paths")
    root = local_path(paths[0])
    splits = split_list(tuple(_SPLITS.value or ())) or splits_of_folder(root, _FORMAT.value)
    sources = {split: open_folder(root, [split], data_format=_FORMAT.value) for split in splits}
    summaries = {split: _summary(source) for split, source in sources.items()}
    first, *others = sources.items()
    print_summary(summaries)
    for split, source in others:
        if unknown := sorted(set(source.class_names) - set(first[1].class_names)):
            print(f"  {split} has classes that {first[0]} lacks: {', '.join(unknown)}")
    Console().print(_sizes(sources))
    output = local_path(_OUTPUT.value)
    if output.is_dir() or not output.suffix:
        output = output / "inspect.jpg"
    with run_folder.replacing(output) as temporary:
        _page(first[1]).save(temporary, quality=85)
    print(f"images of {first[0]}, with the grid of S = {_GRID_SIZE}: {output}")


def _summary(source: AnnotatedImages) -> SplitSummary:
    """That of S = 7, with the collisions of finer grids as the last rows."""
    summary = summarise(source, _GRID_SIZE)
    rows = dict(summary.rows)
    for size in _FINER:
        finer = summarise(source, size).rows
        rows |= {title: count for title, count in finer.items() if f"{size}x{size}" in title}
    return summary._replace(rows=rows)


def _sizes(sources: dict[str, AnnotatedImages]) -> Table:
    """Quantiles of the sides of images and boxes; of the last, roots of the areas."""
    table = Table("", "", box=box.SIMPLE_HEAD)
    for title in ("smallest", "5 %", "median", "95 %", "largest"):
        table.add_column(title, justify="right")
    for split, source in sources.items():
        annotations = source.annotations()
        sizes = annotations.sizes[:, ::-1]  # [N, 2] width, height
        boxes = annotations.boxes_xyxy[:, 2:] - annotations.boxes_xyxy[:, :2]  # [A, 2]
        relative = np.sqrt((boxes / sizes[annotations.image_index]).prod(axis=1))  # [A]
        rows = {
            "image width": sizes[:, 0],
            "image height": sizes[:, 1],
            "box width": boxes[:, 0],
            "box height": boxes[:, 1],
            "box side, % of image": 100 * relative,
        }
        for number, (title, values) in enumerate(rows.items()):
            quantiles = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)) if len(values) else ()
            cells = (f"{value:,.0f}" for value in quantiles)
            table.add_row("" if number else split, title, *cells)
    return table


def _page(source: AnnotatedImages) -> Image.Image:
    """Images spread over the source, with their objects and the grid."""
    shown = np.unique(np.linspace(0, len(source) - 1, _TILES).round().astype(int)).tolist()
    height = -(-len(shown) // _COLUMNS) * _TILE_HEIGHT
    page = Image.new("RGB", (_COLUMNS * _TILE_WIDTH, height), "white")
    for place, i in enumerate(shown):
        record = source[i]
        image = Image.fromarray(record.image)
        image.thumbnail((2 * _TILE_WIDTH, 2 * _TILE_HEIGHT))  # of a large one, lines would be thin
        scale = np.tile(np.divide(image.size, record.image.shape[1::-1]), 2)
        truth = GroundTruth(record.boxes_xyxy * scale, record.labels, record.difficult)
        tile = Image.fromarray(draw_grid(np.asarray(image), truth, source.class_names, _GRID_SIZE))
        tile.thumbnail((_TILE_WIDTH - 6, _TILE_HEIGHT - 6))
        page.paste(tile, (place % _COLUMNS * _TILE_WIDTH, place // _COLUMNS * _TILE_HEIGHT))
    return page


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.run(run, FLAGS, argv, usage=__doc__, takes_arguments=True)


if __name__ == "__main__":
    sys.exit(main())
