"""The training loop, from top to bottom: data, model, resume, steps, evaluation, report."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict
from rich.console import Console

from yolov1_jax import config as configs
from yolov1_jax import evaluate, experiment, run_folder
from yolov1_jax.checkpoint import Checkpoints, abstract_tree
from yolov1_jax.data.pipeline import train_batches
from yolov1_jax.data.records import Source
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.evaluation.detections import GroundTruth
from yolov1_jax.loss_window import LossWindow
from yolov1_jax.metric_writer import MetricWriter
from yolov1_jax.preemption import StopSignal
from yolov1_jax.report import ap_table
from yolov1_jax.sharding import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    replicated_sharding,
    shard_batch,
)
from yolov1_jax.train_step import (
    TrainState,
    create_train_state,
    inference_variables,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.weights.torchvision import load_backbone

# What of a batch the train step reads; the rest stays on the host.
DEVICE_KEYS = ("image", "boxes_xyxy", "labels", "valid")


def train_and_evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains, or continues to train, the run in `workdir`; then evaluates and reports.

    Returns early, after saving, when the process was asked to stop (SIGTERM, Ctrl-C).

    Raises:
      UserError: a mistake in the config or the data.
      NonFiniteLoss: training diverged; the last good checkpoint is kept.
    """
    configs.check(config)
    check_batch_size(config.train.batch_size, "config.train.batch_size")
    check_batch_size(config.eval.batch_size, "config.eval.batch_size")
    is_main = jax.process_index() == 0

    # Data. The class names are part of the run: the labels that its checkpoints predict.
    train_source = experiment.open_train_source(config)
    config = configs.replace(config, "model.class_names", tuple(train_source.class_names))
    eval_source = experiment.open_eval_source(config)
    # Synthetic scenes are endless: a sample stands for them.
    limit = 2000 if config.data.source == "synthetic" else None
    summaries = {
        "train": summarise(train_source, config.model.grid_size, limit),
        "eval": summarise(eval_source, config.model.grid_size, limit),
    }
    max_objects = max(1, *(summary.most_objects for summary in summaries.values()))

    # Model and steps. Sharding is decided here; the functions below know of no device.
    mesh = data_mesh()
    over_batch, replicated = batch_sharding(mesh), replicated_sharding(mesh)
    model = experiment.build_model(config, len(config.model.class_names))
    length = experiment.duration(config, len(train_source))
    optimizer = experiment.optimizer(config, length)
    learning_rate = experiment.schedule(config, length)
    create = functools.partial(
        create_train_state, model=model, optimizer=optimizer, image_size=config.image_size
    )
    train_step = jax.jit(
        make_train_step(
            model,
            optimizer,
            target_options=experiment.target_options(config),
            loss_options=experiment.loss_options(config),
        ),
        in_shardings=(replicated, over_batch),
        out_shardings=(replicated, replicated),
        donate_argnums=0,
    )
    predict_step = jax.jit(
        make_predict_step(model, class_loss=config.loss.class_loss),
        in_shardings=(replicated, over_batch),
        out_shardings=over_batch,
    )

    evaluate_state = functools.partial(
        _evaluate,
        config=config,
        predict_step=predict_step,
        source=eval_source,
        ground_truth=evaluate.ground_truth_of(eval_source),
        sharding=over_batch,
    )

    if is_main:
        run_folder.write_config(workdir, config)
    with Checkpoints(
        run_folder.checkpoints_dir(workdir), keep=config.train.keep_checkpoints
    ) as checkpoints:
        key = jax.random.key(config.seed)
        restored = checkpoints.restore_latest(abstract_tree(create, key, sharding=replicated))
        if restored is not None:
            state, meta = restored
        else:
            state, meta = jax.jit(create, out_shardings=replicated)(key), {}
            if config.model.pretrained is not None:
                state = _with_pretrained_backbone(state, config, optimizer, replicated)
        step = int(state.step)
        window = LossWindow(meta.get("window"))
        result = None

        with (
            StopSignal() as stop,
            MetricWriter(
                workdir,
                resume_step=step,
                num_steps=length.num_steps,
                steps_per_epoch=length.steps_per_epoch,
                is_main_process=is_main,
            ) as writer,
            train_batches(
                train_source,
                image_size=config.image_size,
                batch_size=config.train.batch_size,
                max_objects=max_objects,
                seed=config.seed,
                augmentation=experiment.augmentation(config),
                train_difficult=config.data.train_difficult,
                start_step=step,
                num_workers=config.data.num_workers,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            ) as batches,
        ):
            if is_main:
                print_summary(summaries)
            if restored is not None:
                writer.print(f"continues from the checkpoint of step {step:,}")
            clock = _Clock()
            previous = None
            while step < length.num_steps:
                batch = next(batches)
                on_device = shard_batch({name: batch[name] for name in DEVICE_KEYS}, over_batch)
                state, metrics = train_step(state, on_device)
                step += 1
                clock.count(config.train.batch_size)
                # The losses of the step before are read while the device works on this one.
                if previous is not None:
                    window.add(*previous)
                previous = (step, metrics, batch["image_id"])
                writer.step(step)

                stopping = stop.received(step)
                last = step == length.num_steps
                log_now = last or step % config.train.log_every_steps == 0
                evaluate_now = last or step % length.eval_every_steps == 0
                save_now = evaluate_now or step % length.checkpoint_every_steps == 0
                if not (stopping or log_now or save_now):
                    continue
                # Nothing is saved before its losses are known to be finite.
                window.add(*previous)
                previous = None
                if log_now:
                    rate = learning_rate((step - 1) // config.train.accumulation_steps)
                    speed = {"learning_rate": float(rate), "images_per_second": clock.read()}
                    writer.write("train", step, {**window.flush(), **speed})
                if evaluate_now and not stopping:
                    with clock.paused():
                        result = evaluate_state(state, step, workdir, writer)
                if save_now or stopping:
                    mean_ap = None if result is None or stopping else result.evaluation.mean_ap
                    with clock.paused():
                        checkpoints.save(step, state, {"window": window.content()}, mean_ap=mean_ap)
                if stopping:
                    checkpoints.wait()
                    writer.print(f"stopped after step {step:,}; the same command continues it")
                    return
            checkpoints.wait()
            # A run that was complete before this command has nothing left but its report.
            if result is None:
                result = evaluate_state(state, step, workdir, writer)
            best = checkpoints.best_step()

    if is_main:
        _conclude(workdir, result, step, best, eval_source, config.model.class_names)


def _with_pretrained_backbone(
    state: TrainState,
    config: ConfigDict,
    optimizer: optax.GradientTransformation,
    sharding: NamedSharding,
) -> TrainState:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables, loaded = load_backbone(config.model.pretrained, variables, config.model.backbone)
    if jax.process_index() == 0:
        print(f"pretrained backbone from {loaded}")
    # Copied by jit into buffers of their own: the train step donates, and so destroys, its input.
    # The optimizer's state is made anew, because a weight average starts from the weights loaded.
    start = jax.jit(
        lambda variables: state._replace(
            params=jax.tree.map(jnp.copy, variables["params"]),
            batch_stats=jax.tree.map(jnp.copy, variables["batch_stats"]),
            opt_state=optimizer.init(variables["params"]),
        ),
        out_shardings=sharding,
    )
    return start(variables)


def _evaluate(
    state: TrainState,
    step: int,
    workdir: pathlib.Path,
    writer: MetricWriter,
    *,
    config: ConfigDict,
    predict_step: Callable[..., Any],
    source: Source,
    ground_truth: list[GroundTruth],
    sharding: NamedSharding,
) -> evaluate.Result:
    """Evaluates a state; writes eval/<step>.json and a row of metrics."""
    predictions, sizes = evaluate.predict_source(
        functools.partial(predict_step, inference_variables(state)),
        source,
        image_size=config.image_size,
        batch_size=config.eval.batch_size,
        num_workers=config.data.num_workers,
        sharding=sharding,
        track=writer.track,
    )
    result = evaluate.evaluate_predictions(
        predictions,
        sizes,
        ground_truth,
        class_names=config.model.class_names,
        protocol=config.eval.protocol,
        select_options=experiment.select_options(config),
    )
    summary = evaluate.summary(result, step)
    if jax.process_index() == 0:
        run_folder.write_json(workdir / "eval" / f"{step}.json", summary)
    ap_by_class = {f"ap/{name}": ap for name, ap in summary["ap"].items()}
    writer.write("eval", step, {"mAP": summary["mAP"], "protocol": result.protocol, **ap_by_class})
    return result


def _conclude(
    workdir: pathlib.Path,
    result: evaluate.Result,
    step: int,
    best_step: int | None,
    source: Source,
    class_names: Sequence[str],
) -> None:
    """Draws the pictures; prints the result and where everything is."""
    evaluate.report(workdir, result, step, source, class_names)
    console = Console()
    console.print(ap_table(result.evaluation, step=step))
    places = {
        "pictures": workdir / "report",
        "metrics": run_folder.metrics_path(workdir),
        "results": workdir / "eval" / f"{step}.json",
        "weights": run_folder.checkpoints_dir(workdir) / str(step),
    }
    if best_step is not None and best_step != step:
        places["best weights"] = run_folder.checkpoints_dir(workdir) / str(best_step)
    for name, path in places.items():
        console.print(f"{name:13}{path}", soft_wrap=True, highlight=False)


class _Clock:
    """Images per second of training alone, since it was last read."""

    def __init__(self) -> None:
        self._images = 0
        self._start = time.perf_counter()

    def count(self, images: int) -> None:
        self._images += images

    def read(self) -> float:
        speed = self._images / (time.perf_counter() - self._start)
        self._images, self._start = 0, time.perf_counter()
        return speed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        pause = time.perf_counter()
        yield
        self._start += time.perf_counter() - pause
