"""The report of a run: plots, one HTML file that holds them, and tables for the terminal.

All is in <folder>/report; report.html loads nothing from elsewhere. docs/report.md explains the
sections. A plot without numbers to show is not written.
"""

import base64
import functools
import html
import importlib.resources
import io
import json
import math
import pathlib
import string
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image
from rich.markup import escape
from rich.table import Table

from yolov1_jax.data.dataset import GroundTruth, Source
from yolov1_jax.evaluation import errors as error_analysis
from yolov1_jax.evaluation.accuracy import AnyResult
from yolov1_jax.evaluation.average_precision import Evaluation
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.training.run_folder import replacing, write_text
from yolov1_jax.visualization import plots
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_grid, draw_objects, draw_page
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy
from yolov1_jax.yolo.decode import scored_boxes
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes, encode_targets

_TILES = 8  # best, worst, ... images
_TILE_SIDE = 300  # pixels
_KIND = "{name:14}{gain:.3f}  {share:.0%} of the lost, {count:,} errors"
_COUNTS = "{tp} found, {fp} false, {fn} missed"
_SUSPECT = "{class} {score:.2f}, labelled {labelled}"
_Section = tuple[str, str, str]  # title, text, content; the last two are HTML


def report_result(
    folder: pathlib.Path,
    result: Result,
    source: Source,
    history_path: pathlib.Path,
    *,
    config: ConfigDict,
    step: int,
) -> list[pathlib.Path]:
    """Draws everything into <folder>/report and returns the files, report.html as the last.

    `folder`: the run folder, or that of a single evaluation; `source`: that the result is of;
    `history_path`: the run's metrics.jsonl, which may be missing; `config`, `step`: of the run.
    """
    folder, workdir = folder / "report", history_path.parent
    history = read_metrics(history_path)
    written: list[pathlib.Path] = []

    def plot(name: str, figure: Figure | None) -> str:
        """Writes a figure and gives its HTML."""
        if figure is None:
            return ""
        written.append(folder / name)
        with replacing(written[-1]) as temporary:
            figure.savefig(temporary)
        style = f"--width:{round(100 * figure.get_figwidth())}px"
        return f'<div class=plot style="{style}">{_img(written[-1].read_bytes(), name)}</div>'

    points, published = error_analysis.working_points(result), _published(result, config)
    aps = {one["name"]: one["ap"] for one in published if "ap" in one}
    by_class = result.evaluations["reference"] if aps else result.evaluation
    others = [f"{one['name']} {_percent(one['mAP'])} ({one['protocol']})" for one in published]
    write_page(folder / "detections.jpg", result, source)
    first_batch = workdir / "report" / "first_batch.png"
    sections = [
        (
            "Training",
            "Weighted terms of the loss. Images of the evaluation set are not augmented.",
            plot("losses.png", plots.loss_figure(history))
            + plot("map.png", plots.mean_ap_figure(history)),
        ),
        (
            "First batch",
            "As the network saw it, with the encoded targets; responsible cells are filled.",
            f"<div class=wide>{_photo(Image.open(first_batch))}</div>"
            if first_batch.exists()
            else "",
        ),
        (
            "Objects and the grid",
            "A cell predicts one object, whose centre is in it. A finer grid loses fewer.",
            plot("grid.png", plots.grid_figure(result.annotations, config.model.grid_size)),
        ),
        (
            "Precision and recall",
            "The dot is the best F1 of a class, at the score beside it: chosen on these images. "
            + html.escape(f"Published, mAP: {', '.join(others)}." if others else ""),
            plot("ap_by_class.png", plots.ap_figure(by_class, aps))
            + plot(
                "precision_recall.png", plots.precision_recall_figure(result.evaluation, points)
            ),
        ),
        *_error_sections(plot, folder, result, source),
        _strip_section(workdir, history, result, source),
        (
            "From boxes to detections",
            "A stronger line is a higher score. Cells with the centre of an object are filled.",
            plot("boxes.jpg", _boxes_figure(result, source, config)),
        ),
    ]
    numbers = {f"mAP {name}": one.mean_ap for name, one in result.evaluations.items()}
    name, mean_ap = workdir.resolve().name, _percent(result.evaluation.mean_ap)
    subtitle = (
        f"step {step:,} · {', '.join(config.data.eval)}: {len(result.annotations):,} images, "
        f"{len(result.annotations.labels):,} objects · {config.model.backbone} · "
        f"{config.image_size} x {config.image_size} pixels"
    )
    shown = [one for one in sections if one[2]]
    template = importlib.resources.files("yolov1_jax.visualization") / "report.html"
    content = string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{name}: mAP {mean_ap} % ({result.protocol})"),
        subtitle=html.escape(subtitle),
        navigation="".join(f'<a href="#{i}">{one[0]}</a>' for i, one in enumerate(shown)),
        numbers="".join(
            f"<div><dt>{name}</dt><dd>{_percent(one)}</dd></div>" for name, one in numbers.items()
        ),
        sections="".join(
            f'<section><h2 id="{i}">{title}</h2><p>{text}</p>\n'
            f"<div class=content>{content}</div></section>\n"
            for i, (title, text, content) in enumerate(shown)
        ),
    )
    write_text(folder / "report.html", content)
    return [*written, folder / "detections.jpg", folder / "report.html"]


def _error_sections(
    plot: Callable[[str, Figure | None], str], folder: pathlib.Path, result: Result, source: Source
) -> list[_Section]:
    if not error_analysis.is_installed():
        text = (
            "Images spread over the evaluation set. For the kinds of errors, the images with the "
            'worst results and doubtful labels: <code>pip install "yolov1_jax[errors]"</code>.'
        )
        return [
            (
                "Detections",
                text,
                f"<div class=wide>{_img((folder / 'detections.jpg').read_bytes())}</div>",
            )
        ]
    errors = error_analysis.find_errors(result, DRAWN_SCORE)

    def tiles(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
        """Images with all their detections, or with the one that a row is of."""
        figures = []
        for row in rows[:_TILES]:
            found = result.detections[row["place"]]
            if "score" in row:
                label = result.annotations.class_names.index(row["class"])
                found = Detections(*map(np.array, ([row["box_xyxy"]], [row["score"]], [label])))
            figures.append(_tile(result, source, row["place"], caption.format(**row), found))
        return f"<div class=tiles>{''.join(figures) or '<p>none</p>'}</div>"

    confusion = plots.confusion_figure(errors["confusion"], result.annotations.class_names)
    images, doubtful = errors["images"], errors["labels_to_check"]
    return [
        (
            "Where errors come from",
            "Each kind is mended alone: they need not add up. The score is confidence times class "
            "probability, and confidence is trained to be the IoU: most curves are above the "
            f"diagonal. Confusion is of detections with a score of at least {DRAWN_SCORE}.",
            plot("kinds.png", plots.kinds_figure(errors))
            + plot("calibration.png", plots.calibration_figure(errors))
            + plot("confusion.png", confusion),
        ),
        (
            "Worst images",
            "Solid: detection. Dashed: ground truth, named where missed.",
            tiles(images, _COUNTS),
        ),
        ("Best images", "Most objects found without an error.", tiles(images[::-1], _COUNTS)),
        (
            "Confidently wrong",
            "False detections with the highest scores, each alone on its image, with all objects.",
            tiles(errors["false_detections"], "{class} {score:.2f}"),
        ),
        (
            "Labels to check",
            f"{len(doubtful):,} sure detections where the label says something else, or nothing.",
            tiles(doubtful, _SUSPECT),
        ),
    ]


def _strip_section(
    workdir: pathlib.Path,
    history: Sequence[Mapping[str, Any]],
    result: Result,
    source: Source,
) -> _Section:
    """The images in eval/<step>.json under "examples", a row each; a column for each evaluation."""
    columns, fingerprint = [], result.annotations.fingerprint()
    for step, row in {row["step"]: row for row in history if "mAP" in row}.items():
        path = workdir / "eval" / f"{step}.json"
        saved = json.loads(path.read_text("utf-8")) if path.exists() else {}
        same = saved.get("evaluation_set", {}).get("fingerprint") == fingerprint
        if same and (found := saved.get("examples")):
            mean_ap = "-" if row["mAP"] is None else _percent(row["mAP"])
            columns.append((f"epoch {row['epoch']:.3g}, mAP {mean_ap}", found))
    columns = [columns[i] for i in _spread(len(columns), 6)]
    places = {image_id: i for i, image_id in enumerate(result.annotations.image_ids)}
    tiles = []
    for image_id in columns[-1][1] if len(columns) > 1 else ():
        for caption, examples in columns if image_id in places else ():
            values = np.array(examples.get(image_id, ()), float).reshape(-1, 6)
            found = Detections(values[:, 2:], values[:, 1], values[:, 0].astype(int))
            tiles.append(_tile(result, source, places[image_id], caption, found))
    strip = f"<div class=strip style=--columns:{len(columns)}>{''.join(tiles)}</div>"
    text = f"The same images at evaluated epochs; detections from a score of {DRAWN_SCORE} on."
    return "Learning to see", text, f"<div class=wide>{strip}</div>" if tiles else ""


def write_first_batch(
    path: pathlib.Path, batch: Mapping[str, np.ndarray], config: ConfigDict
) -> None:
    """Draws up to twelve images of a training batch with the targets that the loss compares with.

    `batch`: as `train_batches` gives it; `config`: with the class names.
    """
    batch = {name: values[:12] for name, values in batch.items()}
    targets = encode_targets(
        *(jnp.asarray(batch[name]) for name in ("boxes_xyxy", "labels", "valid")),
        grid_size=config.model.grid_size,
        num_classes=len(config.model.class_names),
        xy_unit=config.loss.xy_unit,
        collision=config.loss.collision,
        class_target="winner",  # the class of the box that is drawn
    )
    boxes = decode_boxes(np.asarray(targets.boxes)[..., None, :], xy_unit=config.loss.xy_unit)
    boxes = cxcywh_to_xyxy(boxes[..., 0, :]) * config.image_size  # [B, S, S, 4]
    tiles = []
    for image, of_image, mask, classes in zip(
        batch["image"], boxes, np.asarray(targets.object_mask), targets.classes, strict=True
    ):
        labels = np.asarray(classes)[mask].argmax(axis=-1)
        truth = GroundTruth(of_image[mask], labels, np.zeros(len(labels), bool))
        drawn = draw_grid(image, truth, config.model.class_names, config.model.grid_size)
        tile = np.asarray(Image.fromarray(drawn).resize((_TILE_SIDE, _TILE_SIDE)))
        tiles.append(np.pad(tile, ((0, 6), (0, 6), (0, 0)), constant_values=255))
    columns = min(4, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    with replacing(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary)


def write_page(path: pathlib.Path, result: AnyResult, source: Source) -> None:
    """Draws twelve images spread over the evaluation set, with ground truth and detections."""
    shown = _spread(len(source), 12)
    page = draw_page(
        [source[i].image for i in shown],
        [result.detections[i] for i in shown],
        [result.annotations[i] for i in shown],
        result.annotations.class_names,
    )
    with replacing(path) as temporary:
        Image.fromarray(page).save(temporary, quality=80)


def _boxes_figure(result: Result, source: Source, config: ConfigDict) -> Figure | None:
    """Every box of one image: as predicted, from the threshold on, after NMS."""
    if not result.predictions:
        return None
    # An image where many objects are found, and not much else.
    counts = np.array([np.sum(one.scores >= DRAWN_SCORE) for one in result.detections])
    image = int(np.argmax(counts - 3 * abs(counts - np.diff(result.annotations.starts))))
    predictions = Predictions(*(part[None] for part in result.predictions[image]))
    size, xy_unit = result.annotations.sizes[image], config.loss.xy_unit
    (boxes,), (scores,) = scored_boxes(predictions, size[None], xy_unit=xy_unit)
    found = Detections(boxes, scores.max(axis=-1), scores.argmax(axis=-1))
    truth = result.annotations[image]
    panels = {
        "boxes of the network": found,
        f"with a score of at least {DRAWN_SCORE}": _visible(found),
        "after NMS": _visible(result.detections[image]),
        "annotated": Detections(truth.boxes_xyxy, np.ones(len(truth.labels)), truth.labels),
    }
    return plots.boxes_figure(source[image].image, config.model.grid_size, truth, panels)


def _spread(length: int, count: int) -> list[int]:
    """Up to `count` places from the first to the last of `length`."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int)).tolist()


def _visible(found: Detections) -> Detections:
    return Detections(*(part[found.scores >= DRAWN_SCORE] for part in found))


def _tile(result: Result, source: Source, image: int, caption: str, found: Detections) -> str:
    """An image with ground truth and detections."""
    pixels = source[image].image
    drawn = draw_objects(
        pixels,
        result.annotations.class_names,
        detections=_visible(found),
        ground_truth=result.annotations[image],
        scale=_TILE_SIDE / max(pixels.shape[:2]),
    )
    text = html.escape(f"{caption} · {result.annotations.image_ids[image]}")
    return f"<figure>{_photo(drawn)}<figcaption>{text}</figcaption></figure>"


def _photo(image: Image.Image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=80)
    return _img(file.getvalue())


def _img(data: bytes, alt: str = "") -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{alt}">'


def _published(result: Result, config: ConfigDict) -> list[dict[str, Any]]:
    """The published results on the same data, by protocols that the result has."""
    file = importlib.resources.files("yolov1_jax") / "published.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    data, difficult = content["data"], result.annotations.difficult
    splits = [one.replace("voc/", "VOC") for one in config.data.eval]  # tfds's names as well
    counts = [len(result.annotations), np.sum(~difficult), np.sum(difficult)]
    same = counts == [data[f"num_{what}"] for what in ("images", "objects", "difficult")]
    rows = content["entry"] if same and splits == data["splits"] else []
    return [one for one in rows if one["protocol"] in result.evaluations]


def ap_table(evaluation: Evaluation, *, step: int | None = None) -> Table:
    """AP of each class in percent, for a terminal. `step`: of the run; None for no run's."""
    title = evaluation.protocol + ("" if step is None else f", step {step:,}")
    table = Table(title=title, title_justify="left", show_footer=True)
    classes = evaluation.classes.values()
    table.add_column("class", footer="mAP", overflow="fold")
    add_column = functools.partial(table.add_column, justify="right", no_wrap=True)
    add_column("AP", footer=_percent(evaluation.mean_ap))
    add_column("objects", footer=f"{sum(one.num_objects for one in classes):,}")
    add_column("detections", footer=f"{sum(one.num_detections for one in classes):,}")
    for name, one in evaluation.classes.items():
        counts = f"{one.num_objects:,}", f"{one.num_detections:,}"
        table.add_row(escape(name), _percent(one.ap), *counts)
    return table


def protocol_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """The mAP by every protocol, and the other APs of COCO's, in percent, for a terminal."""
    table = Table(show_edge=False)
    numbers = []
    for protocol, evaluation in evaluations.items():
        aps = {name: value for name, value in evaluation.parts.items() if name.startswith("AP")}
        for name, value in {protocol: evaluation.mean_ap, **aps}.items():
            table.add_column(name.removeprefix("AP_"), justify="right", no_wrap=True)
            numbers.append(_percent(value))
    table.add_row(*numbers)
    return table


def error_summary(errors: Mapping[str, Any]) -> str:
    """The main content of errors.json in lines for a terminal; of long lists the first ten."""
    kinds, points = (
        [{"name": name, **one} for name, one in errors[key].items()]
        for key in ("kinds", "thresholds")
    )
    parts: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "AP50 gained by mending one kind of error": (_KIND, kinds),
        "best F1, and the threshold for it": ("{name:14}{f1:.3f}  {threshold:.2f}", points),
        "worst images": ("{image}: " + _COUNTS, errors["images"][:10]),
        "labels to check": ("{image}: " + _SUSPECT, errors["labels_to_check"][:10]),
    }
    lines = [f"AP50 {errors['ap50']:.3f}, calibration error {errors['calibration_error']:.3f}"]
    for title, (template, rows) in parts.items():
        lines += [f"{title}:", *(f"  {template.format(**row)}" for row in rows)]
    return "\n".join(lines)


def _percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"
