"""A run as one function of images, as it is exported.

B batch, D boxes of an image, C classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolov1_jax import config as configs
from yolov1_jax.detector import metadata_of
from yolov1_jax.models.batch_norm import fold_batch_norms, folded_batch_norms
from yolov1_jax.training.build import RestoredRun, build_model, finish_function, select_options
from yolov1_jax.training.step import make_predict_step
from yolov1_jax.yolo.boxes import iou_xyxy
from yolov1_jax.yolo.decode import scored_boxes
from yolov1_jax.yolo.grid import Predictions

OUTPUTS = ("predictions", "boxes", "detections")  # see `detector.load_exported`
WEIGHTS = ("float32", "float16")
Arrays = dict[str, jax.Array]


class Network(NamedTuple):
    """What is written to a file.

    Attributes:
      function: (weights, images [B, H, H, 3]) -> arrays by name, see `load_exported`.
      weights: with BatchNorm folded into them.
      metadata: see `detector.metadata_of`.
    """

    function: Callable[[Any, jax.Array], Arrays]
    weights: Any
    metadata: dict[str, Any]

    def images(self) -> jax.ShapeDtypeStruct:
        """The shape and type of the images; the batch is a symbol where it is free."""
        (batch,) = jax.export.symbolic_shape("batch")
        side = self.metadata["image_size"]
        kind = np.float32 if self.metadata["resize"] == "darknet" else np.uint8  # not rounded
        return jax.ShapeDtypeStruct((self.metadata["batch_size"] or batch, side, side, 3), kind)

    def of_images(self, images: jax.Array) -> Arrays:
        """`function` with the weights as constants, which the inner jit leaves in their type."""
        return jax.jit(self.function)(self.weights, images)


def build_network(
    run: RestoredRun,
    *,
    outputs: str = "predictions",
    weights: str = "float32",
    batch_size: int | None = None,
) -> Network:
    """The network of a run, which computes in float32 whatever the run did.

    Args:
      outputs: one of `OUTPUTS`: the network alone, with decoding, or with NMS as well, at the
        thresholds of the run's evaluations.
      weights: the type of the kernels in the file, one of `WEIGHTS`.
      batch_size: None leaves it free.
    """
    predict, options = reference_step(run), select_options(run.setup.config)
    xy_unit, clip = options.pop("xy_unit"), options.pop("clip") == "before_nms"
    metadata = metadata_of(run) | {"batch_size": batch_size}
    image = jax.ShapeDtypeStruct((1, *[metadata["image_size"]] * 2, 3), np.uint8)
    params = fold_batch_norms(_float32_model(run), run.variables, image)
    stored = jax.tree.map(
        lambda leaf: np.asarray(leaf, weights if leaf.ndim > 1 else np.float32), params
    )

    def function(params: Any, images: jax.Array) -> Arrays:
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        with folded_batch_norms():
            predictions = predict({"params": params}, images)
        if outputs == "predictions":
            return predictions._asdict()
        whole = np.ones((1, 2), np.float32)
        boxes, scores = scored_boxes(predictions, whole, xy_unit=xy_unit, clip=clip)
        if outputs == "boxes":
            return {"boxes_xyxy": boxes, "scores": scores}
        return detections(boxes, scores, **options)

    return Network(function, stored, metadata)


def reference_step(run: RestoredRun) -> Callable[[Any, jax.Array], Predictions[jax.Array]]:
    """(variables, images) -> Predictions of the run's network, computed in float32."""
    predict = make_predict_step(_float32_model(run), finish_function(run.setup.config))

    def step(variables: Any, images: jax.Array) -> Predictions[jax.Array]:
        with jax.default_matmul_precision("highest"):  # accelerators round to fewer bits by default
            return predict(variables, images)

    return step


def _float32_model(run: RestoredRun) -> Any:
    return build_model(configs.replace(run.setup.config, "compute_dtype", "float32"))


def detections(
    boxes: jax.Array,
    scores: jax.Array,
    *,
    score_threshold: float,
    nms_iou_threshold: float,
    classes_per_box: str,
) -> Arrays:
    """`nms.select_detections` in JAX: boxes [B, D, 4] and scores [B, D, C] -> arrays by name.

    "boxes_xyxy" [B, N, 4], "scores" [B, N] and "labels" int32 [B, N], -1 for no detection, by
    descending score. N is D where `classes_per_box` is "best", else D * C: none is left out.
    """
    num_boxes, num_classes = scores.shape[1:]
    classes = jnp.arange(num_classes)[None, None]
    candidate = scores >= score_threshold
    if classes_per_box == "best":
        candidate &= jnp.argmax(scores, axis=-1)[..., None] == classes
    scores = jnp.where(candidate, scores, -jnp.inf)
    scores = jnp.where(keep_best(boxes, scores, nms_iou_threshold), scores, -jnp.inf)
    if classes_per_box == "best":
        labels, scores = jnp.argmax(scores, axis=-1), jnp.max(scores, axis=-1)  # [B, D]
    else:
        labels = jnp.broadcast_to(classes, scores.shape).reshape(-1, num_boxes * num_classes)
        boxes = jnp.repeat(boxes, num_classes, axis=1)
        scores = scores.reshape(labels.shape)
    columns = [boxes[..., i] for i in range(4)]
    order, *columns, labels = jax.lax.sort((-scores, *columns, labels.astype(jnp.int32)))
    found, columns = order < jnp.inf, [one[..., None] for one in columns]
    return {
        "boxes_xyxy": jnp.where(found[..., None], jnp.concat(columns, axis=-1), 0.0),
        "scores": jnp.where(found, -order, 0.0),
        "labels": jnp.where(found, labels, -1),
    }


@jax.jit
def keep_best(boxes: jax.Array, scores: jax.Array, iou_threshold: float) -> jax.Array:
    """`nms.greedy_nms` for each class: [B, D, 4], [B, D, C] -> bool [B, D, C].

    A box whose score is -inf is no candidate. ONNX has an operator for it, see onnx_file.py.
    """
    candidate = scores > -jnp.inf
    places = jnp.arange(scores.shape[1])
    later = places[:, None] < places[None]  # [D, D]
    one, other = scores[:, :, None], scores[:, None]
    better = (one > other) | ((one == other) & later[None, ..., None])  # [B, D, D, C]
    overlap = iou_xyxy(boxes[:, :, None], boxes[:, None]) > iou_threshold  # [B, D, D]
    removes = better & overlap[..., None]

    # The best is right after the first round, and every box a round after those that may remove it.
    def refine(kept: jax.Array) -> jax.Array:
        return candidate & ~jnp.any(removes & kept[:, :, None], axis=1)

    def is_unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(state[0] != state[1])

    first = candidate, refine(candidate)
    return jax.lax.while_loop(is_unfinished, lambda state: (state[1], refine(state[1])), first)[1]
