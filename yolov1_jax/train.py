"""The training loop, from top to bottom: data, model, resume, steps, evaluation, report."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import NamedSharding
from ml_collections import ConfigDict
from rich.console import Console

from yolov1_jax import config as configs
from yolov1_jax import evaluate
from yolov1_jax.data.dataset import Source
from yolov1_jax.data.pipeline import train_batches
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.detector import read_image
from yolov1_jax.evaluation import evaluator as scoring
from yolov1_jax.evaluation.ground_truth import AnnotatedImages
from yolov1_jax.training import build as experiment
from yolov1_jax.training import run_folder
from yolov1_jax.training.checkpoint import Checkpoints, abstract_tree
from yolov1_jax.training.clock import Clock
from yolov1_jax.training.inference import predict_source
from yolov1_jax.training.loss_window import LossWindow, check_finite_state
from yolov1_jax.training.metrics import MetricWriter, read_metrics
from yolov1_jax.training.preemption import StopRequested, StopSignal
from yolov1_jax.training.pretrained import check_pretrained, with_pretrained
from yolov1_jax.training.sharding import (
    batch_sharding,
    data_mesh,
    replicated_sharding,
    shard_batch,
)
from yolov1_jax.training.step import (
    TrainState,
    create_train_state,
    inference_variables,
    make_predict_step,
    make_train_step,
)
from yolov1_jax.visualization.report import ap_table

# What of a batch the train step reads; the rest stays on the host.
DEVICE_KEYS = ("image", "boxes_xyxy", "labels", "valid")


def train_and_evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains, or continues to train, the run in `workdir`; then evaluates and reports.

    Returns early, after saving, when the process was asked to stop (SIGTERM, Ctrl-C).

    Raises:
      UserError: a mistake in the config or the data.
      NonFiniteLoss: training diverged; the last good checkpoint is kept.
    """
    experiment.check(config)
    if not run_folder.has_checkpoints(workdir):  # to continue, no file is needed
        check_pretrained(config.model.pretrained)
    run_folder.make(workdir)
    is_main = jax.process_index() == 0

    # Data. The class names are part of the run: the labels that its checkpoints predict.
    train_source = experiment.open_train_source(config)
    config = configs.replace(config, "model.class_names", tuple(train_source.class_names))
    eval_source = experiment.open_eval_source(config)
    # Synthetic scenes are endless: a sample stands for them.
    limit = 2000 if config.data.source == "synthetic" else None
    min_area = config.data.augmentation.min_area / config.image_size**2
    summaries = {
        "train": summarise(
            train_source,
            config.model.grid_size,
            min_relative_area=min_area,
            train_difficult=config.data.train_difficult,
            max_images=limit,
        ),
        "eval": summarise(eval_source, config.model.grid_size, max_images=limit),
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
        workdir=workdir,
        config=config,
        predict_step=predict_step,
        source=eval_source,
        images=scoring.annotated_images(eval_source),
        last_step=length.num_steps,
        sharding=over_batch,
    )

    run_folder.check_config(workdir, config)
    with Checkpoints(
        run_folder.checkpoints_dir(workdir), keep=config.train.keep_checkpoints
    ) as checkpoints:
        run_folder.check_length(workdir, checkpoints.steps(), length.num_steps)
        key = jax.random.key(config.seed)
        restored = checkpoints.restore_latest(abstract_tree(create, key, sharding=replicated))
        if restored is not None:
            state, meta = restored
        else:
            state = jax.jit(create, out_shardings=replicated)(key)
            state = with_pretrained(state, config, optimizer, replicated)
            meta = {"evaluation_due": length.num_steps == 0}  # such a run keeps what it starts from
        step = int(state.step)
        window = LossWindow(meta.get("window"))
        result = None
        with (
            StopSignal() as stop,
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
            MetricWriter(
                workdir,
                resume_step=step,
                num_steps=length.num_steps,
                steps_per_epoch=length.steps_per_epoch,
                is_main_process=is_main,
            ) as writer,
        ):
            # Only now: a command that is refused changes nothing.
            run_folder.write_config(workdir, config, is_main_process=is_main)
            if is_main:
                print_summary(summaries)
            if restored is not None:
                writer.print(f"continues from the checkpoint of step {step:,}")
            stopping = False
            if meta.get("evaluation_due"):
                # The run was stopped when this step was to be evaluated, or in the middle of it.
                result = evaluate_state(state, step, writer, stop)
                stopping = result is None
                if result is not None:
                    meta = {**meta, "evaluation_due": False}
                    checkpoints.save(step, state, meta, mean_ap=_mean_ap(result), replace=True)
            clock = Clock()
            previous = None
            while step < length.num_steps and not stopping:
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

                stopping = stop.received()
                last = step == length.num_steps
                log_now = last or step % config.train.log_every_steps == 0
                evaluate_now = last or step % length.eval_every_steps == 0
                save_now = stopping or evaluate_now or step % length.checkpoint_every_steps == 0
                if not (log_now or save_now):
                    continue
                window.add(*previous)
                previous = None
                if log_now:
                    rate = learning_rate((step - 1) // config.train.accumulation_steps)
                    speed = {"learning_rate": float(rate), "images_per_second": clock.read()}
                    writer.write("train", step, {**window.flush(), **speed})
                if not save_now:
                    continue
                # What is not finite is never saved: it would spoil the run for ever.
                check_finite_state(step, state, batch["image_id"])
                with clock.paused():
                    result = None
                    if evaluate_now and not stopping:
                        result = evaluate_state(state, step, writer, stop)
                        stopping = result is None
                    # Stopping is to be quick: the evaluation is made up for by the next run.
                    meta = {"window": window.content(), "evaluation_due": evaluate_now and stopping}
                    checkpoints.save(step, state, meta, mean_ap=_mean_ap(result))
            if result is None and not stopping:
                # A run that was complete before this command has nothing left but its report.
                result = evaluate_state(state, step, writer, stop)
            checkpoints.wait()
            if result is None or stopping:
                writer.print(f"stopped after step {step:,}; the same command continues it")
                return
            best = checkpoints.best_step()
            if is_main:
                class_names = config.model.class_names
                pictures = evaluate.report(workdir, result, step, eval_source, class_names)
                tags = {f"report/{path.stem}": read_image(path) for path in pictures}
                writer.write_images(step, tags)

    if is_main:
        _conclude(workdir, result, step, best)


def _evaluate(
    state: TrainState,
    step: int,
    writer: MetricWriter,
    stop: StopSignal,
    *,
    workdir: pathlib.Path,
    config: ConfigDict,
    predict_step: Callable[..., Any],
    source: Source,
    images: AnnotatedImages,
    last_step: int,
    sharding: NamedSharding,
) -> scoring.Result | None:
    """Evaluates a state; writes eval/<step>.json and a row of metrics. None if it was stopped."""

    def track(batches: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        return stop.interrupting(writer.track(batches, description, total))

    try:
        predictions, sizes = predict_source(
            functools.partial(predict_step, inference_variables(state)),
            source,
            image_size=config.image_size,
            batch_size=config.eval.batch_size,
            num_workers=config.data.num_workers,
            sharding=sharding,
            track=track,
        )
    except StopRequested:
        return None
    result = scoring.evaluate_predictions(
        predictions,
        sizes,
        images,
        protocol=config.eval.protocol,
        select_options=experiment.select_options(config),
        others=scoring.PROTOCOLS if step >= last_step else scoring.QUICK_PROTOCOLS,
    )
    data = config.data
    summary = scoring.evaluation_summary(
        result, source=data.source, splits=configs.split_list(data.eval), step=step
    )
    if jax.process_index() == 0:
        run_folder.write_json(workdir / "eval" / f"{step}.json", summary)
    # A run that is continued here, or that was complete, may have its row already.
    rows = read_metrics(run_folder.metrics_path(workdir))
    if not any(row["split"] == "eval" and row["step"] == step for row in rows):
        ap_by_class = {f"ap/{name}": ap for name, ap in summary["ap"].items()}
        row = {"mAP": summary["mAP"], "protocol": result.protocol, **ap_by_class}
        writer.write("eval", step, row)
    return result


def _mean_ap(result: scoring.Result | None) -> float | None:
    return None if result is None else result.evaluation.mean_ap


def _conclude(
    workdir: pathlib.Path, result: scoring.Result, step: int, best_step: int | None
) -> None:
    """Prints the result and where everything is."""
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
