"""Training within this process: mistakes are refused early, and no interruption changes a run."""

import contextlib
import copy
import os
import shutil
import signal

import jax
import pytest
from end_to_end import (
    SHRUNK,
    assert_same_arrays,
    assert_same_run,
    checkpoint_steps,
    evaluations,
    rows,
)
from flax import linen as nn

from yolov1_jax import config as configs
from yolov1_jax import main
from yolov1_jax import train as train_module
from yolov1_jax.config import UserError
from yolov1_jax.evaluation.evaluator import PROTOCOLS
from yolov1_jax.models.batch_norm import BatchNorm
from yolov1_jax.models.resnet import BACKBONES
from yolov1_jax.training import build
from yolov1_jax.training.metrics import MetricWriter, NonFiniteLoss
from yolov1_jax.training.preemption import watch_signals

pytestmark = pytest.mark.xdist_group("train")


class OneLayer(nn.Module):
    """A backbone that compiles in no time, with BatchNorm's statistics as the real ones have."""

    width_multiplier: float
    dtype: object
    param_dtype: object

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(8, (32, 32), strides=32, use_bias=False)(images)  # [B, H/32, W/32, 8]
        return nn.relu(BatchNorm(use_running_average=not train)(x))


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """A small backbone, and one compilation for all runs of the same network and optimizer."""
    setups, real = {}, build.Setup

    def setup(config, num_images=1):
        key = (repr(configs.replace(config, "seed", 0)), num_images)
        if key not in setups:
            setups[key] = real(config, num_images)
        found = copy.copy(setups[key])
        found.config = config
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", OneLayer)
        patch.setattr(build, "Setup", setup)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


def train(workdir, overrides=None):
    config = configs.shipped_config("quickstart")
    for key, value in {**SHRUNK, **(overrides or {})}.items():
        config = configs.override(config, key, str(value))
    with watch_signals():
        return train_module.train_and_evaluate(config, workdir)


class Crash(Exception):
    """Ends a run without warning; nothing catches it."""


@contextlib.contextmanager
def interrupted(by, step=None):
    """Crashes or signals after a step; without one, in the middle of an evaluation."""

    def strike():
        if by is Crash:
            raise Crash
        os.kill(os.getpid(), by)

    class Interrupting(MetricWriter):
        def step(self, number):
            super().step(number)
            if number == step:
                strike()

        def track(self, items, description, total):
            for i, item in enumerate(super().track(items, description, total)):
                if i == 1 and step is None:
                    strike()
                yield item

    crash = pytest.raises(Crash) if by is Crash else contextlib.nullcontext()
    with pytest.MonkeyPatch.context() as patch, crash:
        patch.setattr(train_module, "MetricWriter", Interrupting)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(workdir)
    return workdir


@pytest.fixture
def finished(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_crashed_and_stopped_it_ends_like_a_run_never_interrupted(whole, tmp_path):
    workdir = tmp_path / "run"
    with interrupted(Crash, 5):
        train(workdir)
    assert checkpoint_steps(workdir) == [3]
    # An evaluation is given up: the next start makes up for it.
    with interrupted(signal.SIGTERM):
        assert train(workdir) == 143
    assert checkpoint_steps(workdir) == [3, 6]
    assert not (workdir / "eval").exists()
    # Between two rows of metrics.
    with interrupted(signal.SIGINT, 7):
        assert train(workdir) == 130
    assert checkpoint_steps(workdir) == [3, 6, 7]
    assert train(workdir) == 0
    assert_same_run(workdir, whole)
    # The score made up for is with its checkpoint, where the best is looked up.
    for folder in (workdir, whole):
        assert "null" not in (folder / "checkpoints/6/metrics/metrics").read_text()


@pytest.mark.slow
def test_classification_is_continued_like_detection(tmp_path):
    classification = {"task": "classification", "train.num_steps": 6, "train.eval_every_steps": 3}
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(whole, classification)
    with interrupted(signal.SIGTERM):
        assert train(run, classification) == 143
    assert train(run, classification) == 0
    assert_same_run(run, whole)
    found = [row["top1"] for row in rows(whole) if row["split"] == "eval"]
    assert found == [evaluations(whole)[name]["top1"] for name in ("3.json", "6.json")]


@pytest.mark.slow
def test_a_damaged_checkpoint_and_a_run_that_is_finished(whole, finished, caplog):
    shutil.rmtree(finished / "checkpoints" / "12" / "state")
    train(finished)
    assert "checkpoint 12 is damaged" in caplog.text
    assert_same_run(finished, whole)

    # Started again, only what is missing is made again.
    before = (finished / "metrics.jsonl").read_bytes()
    (finished / "eval" / "12.json").unlink()
    shutil.rmtree(finished / "report")
    train(finished)
    assert (finished / "metrics.jsonl").read_bytes() == before
    assert_same_run(finished, whole)
    assert (finished / "report" / "losses.png").is_file()


def test_the_loss_of_an_evaluation_and_the_first_batch_are_kept(whole):
    evaluated = [row for row in rows(whole) if row["split"] == "eval"]
    trained = [row for row in rows(whole) if row["split"] == "train"]
    assert [row["step"] for row in evaluated] == [6, 12]
    for row in evaluated:
        terms = {name for name in row if name.startswith("loss/")}
        assert terms == {name for name in trained[0] if name.startswith("loss/")}
        assert row["loss"] == pytest.approx(sum(row[name] for name in terms))
        assert 0.1 < row["loss"] / trained[-1]["loss"] < 10  # in the same unit
    assert (whole / "report" / "first_batch.png").is_file()
    assert (whole / "report" / "report.html").is_file()


def test_a_loss_that_is_not_finite_ends_the_run_and_spoils_nothing(whole, finished):
    shutil.rmtree(finished / "checkpoints" / "12")
    # Step 10 makes the update, step 11 meets it.
    with pytest.raises(NonFiniteLoss, match=r"step 11 .*loss/wh=") as caught:
        train(finished, {"optimizer.learning_rate": 1e30})
    assert str(caught.value).count("synthetic/train/0000") == 8
    assert rows(finished)[-1]["step"] == 10
    assert checkpoint_steps(finished) == [3, 6, 9]
    for step in (6, 9):
        assert_same_arrays(finished, whole, step)
    train(finished)
    assert_same_run(finished, whole)


def test_a_checkpoint_knows_the_meaning_of_its_predictions(finished):
    """Neither its arrays nor, when it is lost, config.json say that they are of another run."""
    (finished / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.model\.prediction='raw'"):
        train(finished, {"model.prediction": "sigmoid"})


def test_another_seed_is_another_run(whole, tmp_path):
    with interrupted(Crash, 3):
        train(tmp_path / "run", {"seed": 1})
    assert abs(rows(tmp_path / "run")[0]["loss"] - rows(whole)[0]["loss"]) > 0.1


@pytest.mark.parametrize(
    ("key", "value", "telling"),
    [
        ("model.grid_size", 5, "grid_size=5"),
        ("train.batch_size", 6, "multiple of 4"),
        ("model.pretrained", "/no/weights.safetensors", "/no/weights.safetensors"),
        ("data.root", "/no/other", "/no/other"),
    ],
)
def test_a_mistake_gets_one_line_before_data_is_read(tmp_path, capsys, key, value, telling):
    changes = {**SHRUNK, "data.source": "folder", "data.root": "/no/where", key: value}
    flags = [f"--config.{name}={text}" for name, text in changes.items()]
    assert main.main([f"--workdir={tmp_path / 'run'}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert telling in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.glob("run/*")} <= {".lock"}


def test_a_refused_command_leaves_a_run_as_it_is(whole):
    before = {path: path.is_file() and path.read_bytes() for path in whole.rglob("*")}
    with pytest.raises(UserError, match="holds a run"):
        train(whole, {"train.num_steps": 5})
    assert {path: path.is_file() and path.read_bytes() for path in whole.rglob("*")} == before


@pytest.mark.slow
def test_it_ends_early_where_the_config_says_so(tmp_path):
    def steps_evaluated():
        return [row["step"] for row in rows(tmp_path / "run") if row["split"] == "eval"]

    # The learning rate is tiny: the mAP stays the same.
    patience = {"train.patience": 2, "train.eval_every_steps": 1}
    assert train(tmp_path / "run", patience) == 0
    assert steps_evaluated() == [1, 2, 3]
    # Complete: all protocols, pictures, and nothing to do for the same command.
    assert set(evaluations(tmp_path / "run")["3.json"]["protocols"]) == set(PROTOCOLS)
    assert (tmp_path / "run" / "report").is_dir()
    assert train(tmp_path / "run", patience) == 0
    # Time is measured from the start of each command.
    assert train(tmp_path / "run", {"train.max_hours": 1e-9, "train.log_every_steps": 2}) == 0
    assert steps_evaluated() == [1, 2, 3, 4]
