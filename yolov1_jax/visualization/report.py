"""The report of a run: one HTML file with all its pictures, and the plots beside it.

All is in <folder>/report; report.html loads nothing from elsewhere. docs/report.md explains the
sections. A plot without numbers to show is not written.
"""

import base64
import html
import importlib.resources
import io
import json
import pathlib
import string
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

from yolov1_jax.data.dataset import GroundTruth, Source
from yolov1_jax.evaluation import errors as error_analysis
from yolov1_jax.evaluation.accuracy import Accuracy, AnyResult
from yolov1_jax.evaluation.evaluator import Result
from yolov1_jax.training.metrics import read_metrics
from yolov1_jax.training.run_folder import replacing, write_text
from yolov1_jax.visualization import plots
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_grid, draw_objects, draw_page
from yolov1_jax.visualization.tables import COUNTS, SUSPECT, percent
from yolov1_jax.yolo.boxes import cxcywh_to_xyxy
from yolov1_jax.yolo.decode import scored_boxes
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions, decode_boxes, encode_targets

_TILES = 8  # best, worst, ... images
_TILE_SIDE = 300  # pixels


class _Page:
    """The sections of report.html, and the files beside it."""

    def __init__(self, folder: pathlib.Path, result: AnyResult, source: Source) -> None:
        self.files: list[pathlib.Path] = []
        self._folder, self._result, self._source = folder, result, source
        self._links: list[str] = []  # HTML, as the sections
        self._sections: list[str] = []

    def add(self, title: str, text: str, *content: str) -> None:
        """Adds a section, its text and content in HTML, unless all of its content is empty."""
        if any(content):
            place = len(self._sections)
            self._links.append(f'<a href="#{place}">{title}</a>')
            self._sections.append(
                f'<section><h2 id="{place}">{title}</h2><p>{text}</p>\n'
                f"<div class=content>{''.join(content)}</div></section>\n"
            )

    def plot(self, name: str, figure: Figure | None) -> str:
        """Writes a figure and gives its HTML."""
        if figure is None:
            return ""
        self.files.append(self._folder / name)
        with replacing(self.files[-1]) as temporary:
            figure.savefig(temporary)
        style = f"--width:{round(100 * figure.get_figwidth())}px"
        return f'<div class=plot style="{style}">{_img(self.files[-1].read_bytes(), name)}</div>'

    def overview(self, name: str) -> str:
        """Writes twelve images spread over the evaluation set and gives their HTML."""
        shown, annotations = _spread(len(self._source), 12), self._result.annotations
        drawn = draw_page(
            [self._source[i].image for i in shown],
            [self._result.detections[i] for i in shown],
            [annotations[i] for i in shown],
            annotations.class_names,
        )
        self.files.append(self._folder / name)
        with replacing(self.files[-1]) as temporary:
            Image.fromarray(drawn).save(temporary, quality=80)
        return f"<div class=wide>{_img(self.files[-1].read_bytes())}</div>"

    def tiles(self, rows: Sequence[Mapping[str, Any]], caption: str) -> str:
        """Images with all their detections, or with the one that a row is of."""
        figures = []
        for row in rows[:_TILES]:
            found = self._result.detections[row["place"]]
            if "score" in row:
                label = self._result.annotations.class_names.index(row["class"])
                found = Detections(*map(np.array, ([row["box_xyxy"]], [row["score"]], [label])))
            figures.append(self.tile(row["place"], caption.format(**row), found))
        return f"<div class=tiles>{''.join(figures) or '<p>none</p>'}</div>"

    def tile(self, image: int, caption: str, found: Detections) -> str:
        """An image with ground truth and detections."""
        pixels, annotations = self._source[image].image, self._result.annotations
        drawn = draw_objects(
            pixels,
            annotations.class_names,
            detections=_visible(found),
            ground_truth=annotations[image],
            scale=_TILE_SIDE / max(pixels.shape[:2]),
        )
        text = html.escape(f"{caption} · {annotations.image_ids[image]}")
        return f"<figure>{_photo(drawn)}<figcaption>{text}</figcaption></figure>"

    def write(self, title: str, subtitle: str, numbers: Mapping[str, float]) -> None:
        cards = [f"<div><dt>{name}</dt><dd>{percent(x)}</dd></div>" for name, x in numbers.items()]
        template = importlib.resources.files("yolov1_jax.visualization") / "report.html"
        content = string.Template(template.read_text(encoding="utf-8")).substitute(
            title=html.escape(title),
            subtitle=html.escape(subtitle),
            navigation="".join(self._links),
            numbers="".join(cards),
            sections="".join(self._sections),
        )
        self.files.append(self._folder / "report.html")
        write_text(self.files[-1], content)


def report_run(
    folder: pathlib.Path,
    result: AnyResult,
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
    page, workdir = _Page(folder / "report", result, source), history_path.parent
    history, is_detection = read_metrics(history_path), isinstance(result, Result)
    page.add(
        "Training",
        "Weighted terms of the loss. " * is_detection
        + "Images of the evaluation set are not augmented.",
        page.plot("losses.png", plots.loss_figure(history)),
        page.plot("map.png" if is_detection else "accuracy.png", plots.score_figure(history)),
    )
    first_batch = workdir / "report" / "first_batch.png"
    page.add(
        "First batch",
        "As the network saw it, with the encoded targets; responsible cells are filled."
        if is_detection
        else "As the network saw it, with the classes that it is compared with.",
        f"<div class=wide>{_photo(Image.open(first_batch))}</div>" if first_batch.exists() else "",
    )
    data = f"{', '.join(config.data.eval)}: {len(result.annotations):,} images"
    if isinstance(result, Accuracy):
        _add_classification(page, result)
        numbers = {"top-1": result.top(1), "top-5": result.top(5)}
        headline = f"top-1 {percent(result.top(1))} %"
    else:
        _add_detection(page, result, source, workdir, history, config)
        numbers = {f"mAP {name}": one.mean_ap for name, one in result.evaluations.items()}
        headline = f"mAP {percent(result.evaluation.mean_ap)} % ({result.protocol})"
        data += f", {len(result.annotations.labels):,} objects"
    subtitle = (
        f"step {step:,} · {data} · {config.model.backbone} · "
        f"{config.image_size} x {config.image_size} pixels"
    )
    page.write(f"{workdir.resolve().name}: {headline}", subtitle, numbers)
    return page.files


def _add_classification(page: _Page, result: Accuracy) -> None:
    names, labels = result.annotations.class_names, result.annotations.labels
    boxes, scores, found = map(np.concatenate, zip(*result.detections, strict=True))
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, found), 1)
    surest = np.argsort(-scores, kind="stable")
    wrong = [
        {
            "place": i,
            "box_xyxy": boxes[i],
            "class": names[found[i]],
            "score": scores[i],
            "labelled": names[labels[i]],
        }
        for i in surest[result.ranks[surest] > 0].tolist()
    ]
    page.add(
        "Which class is taken for which",
        "Right images are on the diagonal.",
        page.plot("confusion.png", plots.confusion_figure(confusion, names)),
    )
    page.add(
        "Confidently wrong",
        "Wrong classes with the highest probabilities. Dashed: what the network was shown.",
        page.tiles(wrong, SUSPECT),
    )
    page.add(
        "Predictions",
        "Images spread over the evaluation set.",
        page.overview("predictions.jpg"),
    )


def _add_detection(
    page: _Page,
    result: Result,
    source: Source,
    workdir: pathlib.Path,
    history: Sequence[Mapping[str, Any]],
    config: ConfigDict,
) -> None:
    points, published = error_analysis.working_points(result), _published(result, config)
    aps = {one["name"]: one["ap"] for one in published if "ap" in one}
    by_class = result.evaluations["reference"] if aps else result.evaluation
    others = [f"{one['name']} {percent(one['mAP'])} ({one['protocol']})" for one in published]
    page.add(
        "Objects and the grid",
        "A cell predicts one object, whose centre is in it. A finer grid loses fewer.",
        page.plot("grid.png", plots.grid_figure(result.annotations, config.model.grid_size)),
    )
    page.add(
        "Precision and recall",
        "The dot is the best F1 of a class, at the score beside it: chosen on these images. "
        + html.escape(f"Published, mAP: {', '.join(others)}." if others else ""),
        page.plot("ap_by_class.png", plots.ap_figure(by_class, aps)),
        page.plot("precision_recall.png", plots.precision_recall_figure(result.evaluation, points)),
    )
    overview = page.overview("detections.jpg")
    if error_analysis.is_installed():
        _add_errors(page, result)
    else:
        page.add(
            "Detections",
            "Images spread over the evaluation set. For the kinds of errors, the images with the "
            'worst results and doubtful labels: <code>pip install "yolov1_jax[errors]"</code>.',
            overview,
        )
    page.add(
        "Learning to see",
        f"The same images at evaluated epochs; detections from a score of {DRAWN_SCORE} on.",
        _strip(page, workdir, history, result),
    )
    page.add(
        "From boxes to detections",
        "A stronger line is a higher score. Cells with the centre of an object are filled.",
        page.plot("boxes.jpg", _boxes_figure(result, source, config)),
    )


def _add_errors(page: _Page, result: Result) -> None:
    errors = error_analysis.find_errors(result, DRAWN_SCORE)
    confusion = plots.confusion_figure(errors["confusion"], result.annotations.class_names)
    page.add(
        "Where errors come from",
        "Each kind is mended alone: they need not add up. The score is confidence times class "
        "probability, and confidence is trained to be the IoU: most curves are above the "
        f"diagonal. Confusion is of detections with a score of at least {DRAWN_SCORE}.",
        page.plot("kinds.png", plots.kinds_figure(errors)),
        page.plot("calibration.png", plots.calibration_figure(errors)),
        page.plot("confusion.png", confusion),
    )
    images, doubtful = errors["images"], errors["labels_to_check"]
    worst = images[:_TILES]
    best = [one for one in images[::-1] if one["tp"] and one not in worst]
    page.add(
        "Worst images",
        "Solid: detection. Dashed: ground truth, named where missed.",
        page.tiles(worst, COUNTS),
    )
    page.add(
        "Best images",
        "Most objects found without an error.",
        page.tiles(best, COUNTS),
    )
    page.add(
        "Confidently wrong",
        "False detections with the highest scores, each alone on its image, with all objects.",
        page.tiles(errors["false_detections"], "{class} {score:.2f}"),
    )
    page.add(
        "Labels to check",
        f"{len(doubtful):,} sure detections where the label says something else, or nothing.",
        page.tiles(doubtful, SUSPECT),
    )


def _strip(
    page: _Page, workdir: pathlib.Path, history: Sequence[Mapping[str, Any]], result: Result
) -> str:
    """The images in eval/<step>.json under "examples", a row each; a column for each evaluation."""
    columns, fingerprint = [], result.annotations.fingerprint()
    for step, row in {row["step"]: row for row in history if "mAP" in row}.items():
        path = workdir / "eval" / f"{step}.json"
        saved = json.loads(path.read_text("utf-8")) if path.exists() else {}
        same = saved.get("evaluation_set", {}).get("fingerprint") == fingerprint
        if same and (found := saved.get("examples")):
            mean_ap = "-" if row["mAP"] is None else percent(row["mAP"])
            columns.append((f"epoch {row['epoch']:.3g}, mAP {mean_ap}", found))
    columns = [columns[i] for i in _spread(len(columns), 6)]
    if len(columns) < 2:
        return ""
    tiles = []
    for image_id in columns[-1][1]:  # in the set, whose fingerprint covers it
        place = result.annotations.image_ids.index(image_id)
        for caption, examples in columns:
            values = np.array(examples.get(image_id, ()), float).reshape(-1, 6)
            found = Detections(values[:, 2:], values[:, 1], values[:, 0].astype(int))
            tiles.append(page.tile(place, caption, found))
    strip = f"<div class=strip style=--columns:{len(columns)}>{''.join(tiles)}</div>"
    return f"<div class=wide>{strip}</div>"


def write_first_batch(
    path: pathlib.Path, batch: Mapping[str, np.ndarray], config: ConfigDict
) -> None:
    """Draws up to twelve images of a training batch with the targets, or classes, to predict.

    `batch`: as `train_batches` gives it; `config`: with the class names.
    """
    batch = {name: values[:12] for name, values in batch.items()}
    class_names, grid_size = config.model.class_names, config.model.grid_size
    drawn = []
    if config.task == "classification":
        whole = np.array([[0, 0, config.image_size, config.image_size]])
        for image, label in zip(batch["image"], batch["labels"], strict=True):
            truth = GroundTruth(whole, label[None], np.zeros(1, bool))
            drawn.append(draw_objects(image, class_names, ground_truth=truth))
    else:
        for image, truth in zip(batch["image"], _targets(batch, config), strict=True):
            drawn.append(Image.fromarray(draw_grid(image, truth, class_names, grid_size)))
    side, columns = _TILE_SIDE + 6, min(4, len(drawn))
    page = Image.new("RGB", (columns * side, -(-len(drawn) // columns) * side), "white")
    for i, tile in enumerate(drawn):
        tile = tile.resize((_TILE_SIDE, _TILE_SIDE))
        page.paste(tile, (i % columns * side, i // columns * side))
    with replacing(path) as temporary:
        page.save(temporary)


def _targets(batch: Mapping[str, np.ndarray], config: ConfigDict) -> list[GroundTruth]:
    """The objects of each image that own a cell, from the encoded targets."""
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
    labels, masks = np.asarray(targets.classes).argmax(axis=-1), np.asarray(targets.object_mask)
    return [
        GroundTruth(one[mask], classes[mask], np.zeros(mask.sum(), bool))
        for one, classes, mask in zip(boxes, labels, masks, strict=True)
    ]


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


def _photo(image: Image.Image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=80)
    return _img(file.getvalue())


def _img(data: bytes, alt: str = "") -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{alt}">'


def read_published() -> dict[str, Any]:
    """Published results ("entry"), and the data that they are of ("data")."""
    file = importlib.resources.files("yolov1_jax") / "published.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _published(result: Result, config: ConfigDict) -> list[dict[str, Any]]:
    """The published results on the same data, by protocols that the result has."""
    content = read_published()
    data, difficult = content["data"], result.annotations.difficult
    splits = [one.replace("voc/", "VOC") for one in config.data.eval]  # tfds's names as well
    counts = [len(result.annotations), np.sum(~difficult), np.sum(difficult)]
    same = counts == [data[f"num_{what}"] for what in ("images", "objects", "difficult")]
    rows = content["entry"] if same and splits == data["splits"] else []
    return [one for one in rows if one["protocol"] in result.evaluations]
