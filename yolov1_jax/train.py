"""The training loop, from top to bottom: data, model, resume, steps, evaluation, report."""

import dataclasses
import datetime
import math
import pathlib
import shlex
import time

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console

from yolov1_jax import config as configs
from yolov1_jax.data.summary import print_summary, summarise
from yolov1_jax.evaluation.accuracy import EVALUATORS, AnyResult
from yolov1_jax.evaluation.evaluator import PROTOCOLS, QUICK_PROTOCOLS
from yolov1_jax.training import build, run_folder
from yolov1_jax.training.checkpoint import Checkpoints
from yolov1_jax.training.metrics import (
    SCORES,
    LossWindow,
    MetricWriter,
    check_finite,
    evaluations_without_improvement,
    read_metrics,
    score_name,
)
from yolov1_jax.training.preemption import StopSignal
from yolov1_jax.training.pretrained import check_pretrained, with_pretrained
from yolov1_jax.training.sharding import agreed, shard_batch, start_devices
from yolov1_jax.training.step import TrainState, inference_variables
from yolov1_jax.visualization.report import report_run, write_first_batch
from yolov1_jax.visualization.tables import result_table

# What to do with a run, by config.task.
_NEXT = {
    "detection": "yolov1 predict --workdir={} IMAGE_OR_FOLDER",
    "classification": "yolov1 train --config=CONFIG --config.model.pretrained={}",
}


def train_and_evaluate(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Trains, or continues to train, the run in `workdir`; then evaluates and reports.

    Returns:
      0, or 130 or 143 if it was asked to stop by Ctrl-C or SIGTERM: it has saved then.

    Raises:
      UserError: a mistake in the config or the data.
      NonFiniteLoss: training diverged; the last good checkpoint is kept.
    """
    start = time.perf_counter()
    config = configs.with_absolute_paths(config)
    build.check(config)
    checkpoints = run_folder.checkpoints_dir(workdir)
    if config.model.pretrained and not run_folder.checkpoint_steps(checkpoints):
        check_pretrained(config)  # before the data is prepared, which takes long
    run_folder.make(workdir)
    with run_folder.lock(workdir):
        return _train(config, workdir, start)


def _train(config: ConfigDict, workdir: pathlib.Path, start: float) -> int:
    is_main, metrics_path = jax.process_index() == 0, run_folder.metrics_path(workdir)
    if is_main:
        print(
            f"{config.model.backbone}, {build.count_parameters(config) / 1e6:.1f} M parameters, "
            f"{config.image_size} x {config.image_size} pixels, {start_devices()}; "
            f"run folder {workdir}\nreading the data",
            flush=True,
        )

    # Data. The class names are part of the run: the labels that its checkpoints predict.
    train_source = build.open_split(config, "train")
    config = configs.replace(config, "model.class_names", tuple(train_source.class_names))
    eval_source = build.open_split(config, "eval")
    annotations = eval_source.annotations()
    summaries = {
        "train": summarise(train_source, **build.summary_options(config, "train")),
        "eval": summarise(eval_source, **build.summary_options(config, "eval")),
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
            run_folder.check_run(workdir, config, num_steps, meta.get("prediction"))
        else:
            state = setup.create_state(jax.random.key(config.seed))
            state = with_pretrained(state, setup)
            meta = {"evaluation_due": num_steps == 0}  # a run without steps is evaluated as it is
        step = int(state.step)
        if step < num_steps:
            run_folder.check_space(workdir, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        window = LossWindow(**meta.get("window", {}))
        result = None
        with (
            StopSignal() as stop,
            setup.train_batches(train_source, max_objects, start_step=step) as batches,
            MetricWriter(
                workdir,
                resume_step=step,
                num_steps=num_steps,
                steps_per_epoch=setup.length.steps_per_epoch,
            ) as writer,
        ):

            def evaluate(state: TrainState, step: int, *, final: bool) -> AnyResult | None:
                """Evaluates a state; writes eval/<step>.json and a row. None if it was stopped."""
                evaluator = EVALUATORS[config.task](
                    annotations,
                    protocol=config.eval.protocol,
                    protocols=PROTOCOLS if final else QUICK_PROTOCOLS,
                    **build.evaluator_options(config),
                )
                variables = inference_variables(state)
                for row in setup.predictions(variables, eval_source, annotations, writer.track):
                    if stop.received():
                        return None
                    evaluator.update(*row)
                result = evaluator.compute()
                if is_main:
                    splits = configs.split_list(config.data.eval)
                    summary = result.summary(source=config.data.source, splits=splits, step=step)
                    run_folder.write_json(workdir / "eval" / f"{step}.json", summary)
                    # A run that goes on here, or that was complete, may have its row already.
                    rows = read_metrics(metrics_path)
                    if ("eval", step) not in [(row["split"], row["step"]) for row in rows]:
                        writer.write("eval", step, result.row())
                return result

            def no_longer_better() -> bool:
                waited = evaluations_without_improvement(read_metrics(metrics_path))
                return agreed(waited >= (config.train.patience or math.inf))

            # Only now: a command that is refused changes nothing.
            if is_main:
                run_folder.write_config(workdir, config)
                if config.data.source == "folder":  # whose splits may be of our own making
                    for name, summary in summaries.items():
                        ids = "".join(f"{image_id}\n" for image_id in summary.image_ids)
                        run_folder.write_text(workdir / "splits" / f"{name}.txt", ids)
                print_summary(summaries)
            if restored is not None:
                writer.print(f"continues from the checkpoint of step {step:,}")
            stopping = False
            if meta.get("evaluation_due"):
                # The run was stopped before or while it evaluated this step.
                result = evaluate(state, step, final=step >= num_steps)
                stopping = result is None
                if result is not None:
                    done = {**meta, "evaluation_due": False}
                    checkpoints.save(step, state, done, score=result.score)
            complete = step >= num_steps or no_longer_better()
            if not complete and not stopping:
                writer.print("compiling the train step")
            previous, clock, clock_step = None, time.perf_counter(), step
            while not complete and not stopping:
                batch = next(batches)
                index = batch.pop("index")
                if step == 0 and is_main:
                    write_first_batch(workdir / "report" / "first_batch.png", batch, config)
                state, metrics = setup.train_step(state, shard_batch(batch, setup.over_batch))
                step += 1
                # The losses of the step before are read while the device works on this one.
                if previous is not None:
                    window.add(*previous)
                previous = (step, metrics, lambda i=index: [train_source[k].image_id for k in i])
                writer.step(step)

                stopping = stop.received()
                log_now = step % config.train.log_every_steps == 0
                hours = (time.perf_counter() - start) / 3600
                time_is_up = log_now and agreed(hours > (config.train.max_hours or math.inf))
                complete = step == num_steps or time_is_up
                log_now |= complete
                evaluate_now = complete or setup.length.evaluates_after(step)
                save_now = stopping or evaluate_now
                save_now |= step % setup.length.checkpoint_every_steps == 0
                if not (log_now or save_now):
                    continue
                window.add(*previous)
                if log_now:
                    update = (step - 1) // config.train.accumulation_steps
                    images = (step - clock_step) * config.train.batch_size
                    speed = {
                        "learning_rate": float(setup.learning_rate(update)),
                        "images_per_second": images / (time.perf_counter() - clock),
                    }
                    writer.write("train", step, {**window.flush(), **speed})
                if save_now:
                    # A state that is not finite is never saved: the run could not go on from it.
                    check_finite(f"the state after step {step}", state, previous[-1])
                    result = None
                    if evaluate_now and not stopping:
                        result = evaluate(state, step, final=complete)
                        stopping = result is None
                    # A stop must be quick: the next run makes up for the evaluation.
                    due = evaluate_now and stopping
                    meta = {"window": dataclasses.asdict(window), "evaluation_due": due}
                    meta["prediction"] = config.model.prediction
                    score = None if result is None else result.score
                    checkpoints.save(step, state, meta, score=score)
                    if result is not None and no_longer_better():
                        better = f"better {SCORES[config.task]} in {config.train.patience}"
                        writer.print(f"no {better} evaluations: complete")
                        complete = True
                previous, clock, clock_step = None, time.perf_counter(), step
            if not stopping and (result is None or not result.is_complete):
                # The run was complete before this command, or its last evaluation was a quick one.
                result = evaluate(state, step, final=True)
            checkpoints.wait()
            if result is None or stopping:
                writer.print(f"stopped after step {step:,}; the same command continues it")
                if jax.process_count() > 1:  # a scheduler may end all processes after the first
                    multihost_utils.sync_global_devices("stopped")
                return stop.exit_code
            best = checkpoints.best_step()
            if is_main:
                report_run(workdir, result, eval_source, metrics_path, config=config, step=step)
            if jax.process_count() > 1:  # the others must not leave while this one draws
                multihost_utils.sync_global_devices("reported")
    if is_main:
        _conclude(config, workdir, result, step, best, time.perf_counter() - start)
    return 0


def _conclude(
    config: ConfigDict,
    workdir: pathlib.Path,
    result: AnyResult,
    step: int,
    best_step: int | None,
    seconds: float,
) -> None:
    """Prints the result, where everything is, and what to do next."""
    console = Console()
    console.print(result_table(result, step=step))
    checkpoints, metrics_path = (
        run_folder.checkpoints_dir(workdir),
        run_folder.metrics_path(workdir),
    )
    lines: dict[str, object] = {
        "pictures": workdir / "report",
        "metrics": metrics_path,
        "results": workdir / "eval" / f"{step}.json",
        "weights": checkpoints / str(step),
    }
    if best_step not in (None, step):
        lines["best weights"] = checkpoints / str(best_step)
    for row in read_metrics(metrics_path):
        if row["split"] == "eval" and row["step"] == best_step:
            name = score_name(row)
            protocol = f" ({row['protocol']})" if "protocol" in row else ""
            lines[f"best {name}"] = f"{row[name]:.1%}{protocol} at step {best_step:,}"
    lines["time"] = datetime.timedelta(seconds=round(seconds))
    lines["next"] = _NEXT[config.task].format(shlex.quote(str(workdir)))
    for title, value in lines.items():
        console.print(f"{title:13}{value}", soft_wrap=True, highlight=False, markup=False)
