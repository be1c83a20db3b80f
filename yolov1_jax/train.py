"""The training loop, from top to bottom: data, model, resume, steps, evaluation, report."""

import dataclasses
import pathlib

import jax
from ml_collections import ConfigDict
from rich.console import Console

from yolov1_jax import config as configs
from yolov1_jax.data.pipeline import train_batches
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.data.transforms import Augmentation
from yolov1_jax.evaluation.evaluator import PROTOCOLS, QUICK_PROTOCOLS, Evaluator, Result
from yolov1_jax.training import build, run_folder
from yolov1_jax.training.checkpoint import Checkpoints
from yolov1_jax.training.metrics import (
    Clock,
    LossWindow,
    MetricWriter,
    check_finite_state,
    read_metrics,
)
from yolov1_jax.training.preemption import StopSignal
from yolov1_jax.training.pretrained import with_pretrained
from yolov1_jax.training.sharding import shard_batch
from yolov1_jax.training.step import TrainState, inference_variables
from yolov1_jax.visualization.report import ap_table, report_result
from yolov1_jax.weights.safetensors_file import check_origin


def train_and_evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains, or continues to train, the run in `workdir`; then evaluates and reports.

    Returns early, after saving, when the process was asked to stop (SIGTERM, Ctrl-C).

    Raises:
      UserError: a mistake in the config or the data.
      NonFiniteLoss: training diverged; the last good checkpoint is kept.
    """
    build.check(config)
    if config.model.pretrained and not run_folder.checkpoint_steps(workdir):
        check_origin(config.model.pretrained)  # before the data is prepared, which takes long
    run_folder.make(workdir)
    is_main = jax.process_index() == 0

    # Data. The class names are part of the run: the labels that its checkpoints predict.
    train_source = build.open_split(config, "train")
    config = configs.replace(config, "model.class_names", tuple(train_source.class_names))
    eval_source = build.open_split(config, "eval")
    annotations = eval_source.annotations()
    # A sample stands for the endless synthetic training set.
    limit = 2000 if config.data.source == "synthetic" else None
    summaries = {
        "train": summarise(
            train_source,
            config.model.grid_size,
            min_relative_area=config.data.augmentation.min_area / config.image_size**2,
            train_difficult=config.data.train_difficult,
            limit=limit,
        ),
        "eval": summarise(eval_source, config.model.grid_size),
    }
    max_objects = max(1, *(summary.most_objects for summary in summaries.values()))

    # Model and steps, sharded over all devices.
    setup = build.Setup(config, num_images=len(train_source))
    num_steps = setup.length.num_steps

    run_folder.check_run(workdir, config, num_steps)
    with Checkpoints(
        run_folder.checkpoints_dir(workdir), keep=config.train.keep_checkpoints
    ) as checkpoints:
        restored = checkpoints.restore_latest(setup.abstract_state())
        if restored is not None:
            state, meta = restored
        else:
            state = setup.create_state(jax.random.key(config.seed))
            state = with_pretrained(state, config, setup.optimizer, setup.replicated)
            meta = {"evaluation_due": num_steps == 0}  # a run without steps is evaluated as it is
        step = int(state.step)
        window = LossWindow(**meta.get("window", {}))
        result = None
        with (
            StopSignal() as stop,
            train_batches(
                train_source,
                image_size=config.image_size,
                batch_size=config.train.batch_size,
                max_objects=max_objects,
                seed=config.seed,
                augmentation=Augmentation(**config.data.augmentation),
                train_difficult=config.data.train_difficult,
                start_step=step,
                num_workers=config.data.num_workers,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            ) as batches,
            MetricWriter(
                workdir,
                resume_step=step,
                num_steps=num_steps,
                steps_per_epoch=setup.length.steps_per_epoch,
            ) as writer,
        ):

            def evaluate(state: TrainState, step: int) -> Result | None:
                """Evaluates a state; writes eval/<step>.json and a row. None if it was stopped."""
                evaluator = Evaluator(
                    annotations,
                    protocol=config.eval.protocol,
                    protocols=PROTOCOLS if step >= num_steps else QUICK_PROTOCOLS,
                    **build.select_options(config),
                )
                variables = inference_variables(state)
                for row in setup.predictions(variables, eval_source, writer.track):
                    if stop.received():
                        return None
                    evaluator.update(*row)
                result = evaluator.compute()
                if is_main:
                    _write_result(workdir, config, result, step, writer)
                return result

            # Only now: a command that is refused changes nothing.
            if is_main:
                run_folder.write_config(workdir, config)
                print_summary(summaries)
            if restored is not None:
                writer.print(f"continues from the checkpoint of step {step:,}")
            stopping = False
            if meta.get("evaluation_due"):
                # The run was stopped before or while it evaluated this step.
                result = evaluate(state, step)
                stopping = result is None
                if result is not None:
                    meta = {**meta, "evaluation_due": False}
                    checkpoints.save(step, state, meta, mean_ap=result.evaluation.mean_ap)
            clock = Clock()
            previous = None
            while step < num_steps and not stopping:
                batch = next(batches)
                index = batch.pop("index")
                state, metrics = setup.train_step(state, shard_batch(batch, setup.over_batch))
                step += 1
                clock.count(config.train.batch_size)
                # The losses of the step before are read while the device works on this one.
                if previous is not None:
                    window.add(*previous)
                previous = (step, metrics, lambda i=index: [train_source[k].image_id for k in i])
                writer.step(step)

                stopping = stop.received()
                last = step == num_steps
                log_now = last or step % config.train.log_every_steps == 0
                evaluate_now = last or step % setup.length.eval_every_steps == 0
                save_now = stopping or evaluate_now
                save_now |= step % setup.length.checkpoint_every_steps == 0
                if not (log_now or save_now):
                    continue
                image_ids = previous[-1]
                window.add(*previous)
                previous = None
                if log_now:
                    update = (step - 1) // config.train.accumulation_steps
                    speed = {
                        "learning_rate": float(setup.learning_rate(update)),
                        "images_per_second": clock.read(),
                    }
                    writer.write("train", step, {**window.flush(), **speed})
                if not save_now:
                    continue
                # A state that is not finite is never saved: the run could not continue from it.
                check_finite_state(step, state, image_ids)
                result = None
                if evaluate_now and not stopping:
                    result = evaluate(state, step)
                    stopping = result is None
                # A stop must be quick: the next run makes up for the evaluation.
                due = evaluate_now and stopping
                meta = {"window": dataclasses.asdict(window), "evaluation_due": due}
                mean_ap = None if result is None else result.evaluation.mean_ap
                checkpoints.save(step, state, meta, mean_ap=mean_ap)
                clock.restart()
            if result is None and not stopping:
                # The run was complete before this command: only its report is made again.
                result = evaluate(state, step)
            checkpoints.wait()
            if result is None or stopping:
                writer.print(f"stopped after step {step:,}; the same command continues it")
                return
            best = checkpoints.best_step()
            if is_main:
                report_result(workdir, result, eval_source, run_folder.metrics_path(workdir))
    if is_main:
        _conclude(workdir, result, step, best)


def _write_result(
    workdir: pathlib.Path, config: ConfigDict, result: Result, step: int, writer: MetricWriter
) -> None:
    splits = configs.split_list(config.data.eval)
    summary = result.summary(source=config.data.source, splits=splits, step=step)
    run_folder.write_json(workdir / "eval" / f"{step}.json", summary)
    # A run that continues here, or that was complete, may have its row already.
    rows = read_metrics(run_folder.metrics_path(workdir))
    if not any(row["split"] == "eval" and row["step"] == step for row in rows):
        ap_by_class = {f"ap/{name}": ap for name, ap in summary["ap"].items()}
        row = {"mAP": summary["mAP"], "protocol": result.protocol, **ap_by_class}
        writer.write("eval", step, row)


def _conclude(workdir: pathlib.Path, result: Result, step: int, best_step: int | None) -> None:
    """Prints the result and where everything is."""
    console = Console()
    console.print(ap_table(result.evaluation, step=step))
    checkpoints = run_folder.checkpoints_dir(workdir)
    for name, path in {
        "pictures": workdir / "report",
        "metrics": run_folder.metrics_path(workdir),
        "results": workdir / "eval" / f"{step}.json",
        "weights": checkpoints / str(step),
        "best weights": checkpoints / str(best_step),
    }.items():
        if name != "best weights" or best_step not in (None, step):
            console.print(f"{name:13}{path}", soft_wrap=True, highlight=False)
