"""A trained network as a function of images: of a run, or of an exported file."""

import itertools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from yolov1_jax.config import UserError, local_path
from yolov1_jax.data.dataset import UnusableFile
from yolov1_jax.data.images import read_image
from yolov1_jax.data.own_folder import files_below, has_extension
from yolov1_jax.data.transforms import resize_image
from yolov1_jax.training.build import RestoredRun, restore_run, select_options
from yolov1_jax.visualization.draw import DRAWN_SCORE, draw_objects
from yolov1_jax.yolo.decode import detections_from_boxes, detections_from_predictions
from yolov1_jax.yolo.detections import Detections
from yolov1_jax.yolo.grid import Predictions

ImageLike = str | os.PathLike[str] | Image.Image | ArrayLike
Images = ImageLike | Iterable[ImageLike]
Network = Callable[[np.ndarray], Mapping[str, Any]]  # see `load_exported`
_SELECT_OPTIONS = ("xy_unit", "score_threshold", "nms_iou_threshold", "classes_per_box", "clip")
_METADATA = ("class_names", "image_size", "resize", "batch_size", "step", *_SELECT_OPTIONS)


class Detected(Detections):
    """`Detections` (boxes_xyxy, scores, labels) that know their image and the class names."""

    image: ImageLike  # as it was given
    size: tuple[int, int]  # its width and height in pixels
    class_names: tuple[str, ...]  # by label

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels]

    def pixels(self) -> np.ndarray:
        """The image, uint8 RGB [height, width, 3]; a file is read again."""
        return _pixels(self.image)

    def plot(self, scale: float | None = None) -> Image.Image:
        """The image, resized by `scale`, with the detections drawn; None enlarges a small one."""
        return draw_objects(self.pixels(), self.class_names, detections=self, scale=scale)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: the file (None if it was none), its size and the detections.

        A detection has "class", "label", "score" and "box_xyxy", in pixels of the upright image.
        """
        labels, scores, boxes = (part.tolist() for part in (self.labels, self.scores, self[0]))
        return {
            "file": str(self.image) if isinstance(self.image, str | os.PathLike) else None,
            "width": self.size[0],
            "height": self.size[1],
            "detections": [
                {
                    "class": self.class_names[label],
                    "label": label,
                    "score": round(score, 4),
                    "box_xyxy": [round(value, 2) for value in box],
                }
                for label, score, box in zip(labels, scores, boxes, strict=True)
            ],
        }

    def _replace(self, /, **parts: Any) -> "Detected":
        replaced = super()._replace(**parts)
        vars(replaced).update(vars(self))
        return replaced

    def __repr__(self) -> str:
        place = self.to_dict()["file"] or "{} x {} pixels".format(*self.size)
        rows = zip(self.names[:5], self.scores, strict=False)
        best = ", ".join(f"{name} {score:.2f}" for name, score in rows)
        return f"<{len(self.scores)} detected in {place}: {best}{', ...' * (len(self.scores) > 5)}>"


def load(path: str | os.PathLike[str], step: str | int = "best") -> "Detector":
    """The detector of a run folder, or of a network that `yolov1 export` wrote.

    `step` of the run: "best" (by mAP; the latest where none was evaluated), "latest" or a number.
    Raises UserError if there is no such run, checkpoint or file.
    """
    path = local_path(path)
    if path.is_file():
        return Detector(*load_exported(path))
    run = restore_run(path, step)
    # On one device: the others would only repeat its work.
    variables = jax.device_put(run.variables, jax.devices()[0])
    return Detector(
        lambda images: run.setup.predict_step(variables, images)._asdict(), metadata_of(run)
    )


def metadata_of(run: RestoredRun) -> dict[str, Any]:
    """What a detector must know of its network, and so what an exported file carries."""
    config = run.setup.config
    return {
        "class_names": list(config.model.class_names),
        "image_size": config.image_size,
        "resize": config.data.resize,
        "batch_size": None,  # of an exported file that takes no other: a number
        "step": run.step,
        **select_options(config),
    }


def load_exported(path: pathlib.Path) -> tuple[Network, dict[str, Any]]:
    """Reads an exported network and its metadata, those of `metadata_of`.

    FILE.onnx has each of them as JSON in its metadata. FILE.stablehlo is a zip archive of
    metadata.json and network.bin, the bytes of `jax.export.Exported.serialize`; FILE.tflite has one
    of metadata.json behind it. The network takes `images`, uint8 RGB [B, H, W, 3], and gives arrays
    by name, one of

      boxes, confidence, class_scores: those of `Predictions`;
      boxes_xyxy [B, D, 4] as fractions of the image, scores [B, D, C]: decoded;
      boxes_xyxy [B, D, 4], scores [B, D], labels [B, D]: after NMS, and -1 for no detection.

    Raises UserError if it is another file, or if its runtime is not installed.
    """
    try:
        readers = {".onnx": _load_onnx, ".tflite": _load_tflite}
        return readers.get(path.suffix, _load_stablehlo)(path)
    except ImportError as error:
        extra = "tflite" if path.suffix == ".tflite" else "export"
        raise UserError(f"{error}: pip install 'yolov1_jax[{extra}]'") from error
    except Exception as error:  # whatever the parsers of the formats raise
        raise UserError(
            "expected a run, or an .onnx, .stablehlo or .tflite file that yolov1 export wrote, in "
            f"{path}, found {type(error).__name__}: {error}"
        ) from error


def _load_onnx(path: pathlib.Path) -> tuple[Network, dict[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    texts = session.get_modelmeta().custom_metadata_map
    metadata = {name: json.loads(texts[name]) for name in _METADATA}
    return lambda x: dict(zip(names, session.run(names, {"images": x}), strict=True)), metadata


def _load_stablehlo(path: pathlib.Path) -> tuple[Network, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        network = jax.export.deserialize(bytearray(archive.read("network.bin")))
        return jax.jit(network.call), json.loads(archive.read("metadata.json"))


def _load_tflite(path: pathlib.Path) -> tuple[Network, dict[str, Any]]:
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    run = Interpreter(model_path=str(path)).get_signature_runner()
    return lambda images: run(images=images), metadata


class Detector:
    """A trained network: images -> detections. Threads may share one that is not of TFLite."""

    def __init__(self, network: Network, metadata: Mapping[str, Any]) -> None:
        """`network` and `metadata`: see `load_exported` and `metadata_of`."""
        self.class_names: tuple[str, ...] = tuple(metadata["class_names"])  # by label
        self.image_size: int = metadata["image_size"]  # side of the network's input in pixels
        self.batch_size = 8  # images at once, at most; a file may need another number
        self.step: int = metadata["step"]  # of the checkpoint
        self.metadata = dict(metadata)
        self._network = network

    def __call__(self, images: Images, **options: Any) -> Detected | list[Detected]:
        """The detections of an image, or a list of those of several; arguments as of `stream`."""
        if _is_one(images):
            return next(self.stream(images, **options | {"on_unusable": None}))
        return list(self.stream(images, **options))

    def stream(
        self,
        images: Images,
        *,
        score_threshold: float | None = DRAWN_SCORE,
        nms_iou_threshold: float | None = None,
        classes: Collection[str] | None = None,
        on_unusable: Callable[[UnusableFile], None] | None = None,
    ) -> Iterator[Detected]:
        """The detections of each image, by descending score, boxes in its pixels; batch by batch.

        Args:
          images: the path of an image file; a PIL image; an array, RGB or RGBA [H, W, 3 or 4] or
            grey [H, W], of 8 or 16 bits. Or several of these (a list, a generator, an array
            [N, H, W, 3]), or a folder, which stands for all image files below it, by name. Files
            and PIL images are turned upright as their EXIF orientation asks.
          score_threshold: the lowest score of a detection; None for that of the run's evaluations.
          nms_iou_threshold: overlap above which the lower score of two detections of a class is
            removed; None for that of the run's evaluations.
          classes: names of those to keep; None for all.
          on_unusable: called for a file that cannot be used; None raises its error, and so does a
            call for one image.
        """
        given = {"score_threshold": score_threshold, "nms_iou_threshold": nms_iou_threshold}
        options = {name: self.metadata[name] for name in _SELECT_OPTIONS}
        options |= {name: value for name, value in given.items() if value is not None}
        if unknown := {*(classes or ())} - {*self.class_names}:
            raise UserError(f"expected classes of {self.class_names}, found {min(unknown)!r}")
        wanted = [classes is None or name in classes for name in self.class_names]
        inputs, batch_size = self._inputs(images, on_unusable), self.metadata["batch_size"]
        while rows := list(itertools.islice(inputs, batch_size or self.batch_size)):
            # A power of two that the first batch fits in: few shapes have to be compiled.
            batch_size = batch_size or min(self.batch_size, 1 << (len(rows) - 1).bit_length())
            padded = rows + rows[:1] * (batch_size - len(rows))
            outputs = jax.device_get(self._network(np.stack([pixels for *_, pixels in padded])))
            outputs = {name: array[: len(rows)] for name, array in outputs.items()}
            sizes = np.array([size[::-1] for _, size, _ in rows])
            found = detections_from_outputs(outputs, sizes, len(wanted), options)
            for (image, size, _), one in zip(rows, found, strict=True):
                keep = np.array(wanted)[one.labels]
                detected = Detected(*(part[keep] for part in one))
                detected.image, detected.size, detected.class_names = image, size, self.class_names
                yield detected

    def predictions(self, image: ImageLike) -> dict[str, np.ndarray]:
        """What the network gives for one image, not decoded: the arrays of `load_exported`."""
        pixels = resize_image(_pixels(image), self.image_size, self.metadata["resize"])
        batch = np.stack([pixels] * (self.metadata["batch_size"] or 1))
        outputs = jax.device_get(self._network(batch))
        return {name: array[0] for name, array in outputs.items()}

    def _inputs(
        self, images: Images, on_unusable: Callable[[UnusableFile], None] | None
    ) -> Iterator[tuple[ImageLike, tuple[int, int], np.ndarray]]:
        """Images, their width and height, and their pixels resized for the network."""
        for image in _each(images):
            try:
                pixels = _pixels(image)
            except UnusableFile as error:
                if on_unusable is None:
                    raise
                on_unusable(error)
                continue
            resized = resize_image(pixels, self.image_size, self.metadata["resize"])
            yield image, pixels.shape[1::-1], resized

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:5]) + ", ..." * (len(self.class_names) > 5)
        return f"<Detector of {len(self.class_names)} classes ({names}), step {self.step:,}>"


def detections_from_outputs(
    outputs: Mapping[str, np.ndarray], sizes: np.ndarray, num_classes: int, options: dict[str, Any]
) -> list[Detections]:
    """From the outputs of a network, see `load_exported`."""
    if "boxes_xyxy" not in outputs:
        return detections_from_predictions(Predictions(**outputs), sizes, **options)
    scores = outputs["scores"]
    if "labels" in outputs:  # NMS once more: the thresholds of the call may be stricter
        is_class = outputs["labels"][..., None] == np.arange(num_classes)
        scores = np.where(is_class, scores[..., None], -np.inf)  # [B, D, C]
    boxes = outputs["boxes_xyxy"] * sizes[:, None, [1, 0, 1, 0]]
    options = {name: value for name, value in options.items() if name != "xy_unit"}
    return detections_from_boxes(boxes, scores, sizes, **options)


def _is_one(images: Images) -> bool:
    if isinstance(images, str | os.PathLike):
        return not local_path(images).is_dir()
    return isinstance(images, Image.Image) or getattr(images, "ndim", 4) < 4


def _each(images: Images) -> Iterator[ImageLike]:
    """Every image; in place of a folder the image files below it."""
    is_path = isinstance(images, str | os.PathLike)
    for image in [images] if is_path or _is_one(images) else images:  # type: ignore[union-attr]
        if isinstance(image, str | os.PathLike) and (folder := local_path(image)).is_dir():
            if not (files := [name for name in files_below(folder) if has_extension(name)]):
                raise UserError(f"expected images in {folder}, found none")
            yield from (folder / name for name in files)
        else:
            yield image  # type: ignore[misc]


def _pixels(image: ImageLike) -> np.ndarray:
    """uint8 RGB [H, W, 3]"""
    if isinstance(image, str | os.PathLike):
        return read_image(local_path(image))
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode[0] not in "IF":  # more than 8 bits, which Pillow would cut off
            image = image.convert("RGB")
    array = np.atleast_3d(np.asarray(image))
    if array.dtype.str.endswith("u2"):  # in either byte order
        array = (array >> 8).astype(np.uint8)  # the high 8 bits, as of a file
    if array.dtype != np.uint8 or array.shape[2:] not in ((1,), (3,), (4,)) or not array.size:
        raise UserError(
            "expected a path, a PIL image or a uint8 array [height, width, 3], "
            f"found {type(image).__name__} ({array.dtype} {array.shape})"
        )
    return array.repeat(3, axis=2) if array.shape[2] == 1 else array[..., :3]
