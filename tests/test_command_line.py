"""What a user meets: flags, config values, one line for a mistake, exit codes."""

import re
import subprocess
import sys

import jax
import pytest
from absl import flags

from yolov1_jax import command_line
from yolov1_jax import config as configs
from yolov1_jax.config import RunError, UserError

FLAGS = flags.FlagValues()
CONFIG = command_line.ConfigFlag(FLAGS)
FAIL = flags.DEFINE_string("fail", None, "how to fail", flag_values=FLAGS)
ERRORS = {
    "user": UserError("two\n   lines"),
    "run": RunError("diverged"),
    "disk": OSError(28, "No space left on device"),
    "memory": MemoryError("30 GiB"),
    "device": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    "peer": jax.errors.JaxRuntimeError("UNKNOWN: Gloo: Connection closed by peer [::1]:4"),
    "ctrl-c": KeyboardInterrupt(),
}


def run(arguments, takes_arguments=True):
    """(exit code, positional arguments, config)."""
    seen = []

    def body(positional):
        if FAIL.value:
            raise ERRORS[FAIL.value]
        seen.extend([positional, CONFIG.value, CONFIG.name])

    code = command_line.run(body, FLAGS, arguments, usage="", takes_arguments=takes_arguments)
    return code, *seen


def test_defaults_also_after_another_call():
    run(["--config=r50", "--config.seed=3"])
    code, positional, config, name = run([])
    assert (code, positional, name, config.seed) == (0, [], "quickstart", 0)


@pytest.mark.parametrize(
    ("arguments", "positional", "key", "value"),
    [
        (["--config=configs/r50.py"], [], "model.backbone", "resnet50"),
        (["--config", "r50", "a"], ["a"], "model.backbone", "resnet50"),
        (["--config=ablations:color_off"], [], "data.augmentation.color_probability", 0.0),
        (["--config.data.train=a:x+y,b", "c"], ["c"], "data.train", ("a:x+y", "b")),
        (["--config.data.train=a", "--config.data.train=b,c"], [], "data.train", ("b", "c")),
        (["--config.data.root=a=b"], [], "data.root", "a=b"),
        (["--config.data.train_difficult=1", "a"], ["a"], "data.train_difficult", True),
        (["--config.eval.score_threshold", "0.5"], [], "eval.score_threshold", 0.5),
    ],
)
def test_config_values(arguments, positional, key, value):
    code, found, config, _ = run(arguments)
    assert (code, found) == (0, positional)
    assert configs.flatten(config)[key] == value


@pytest.mark.parametrize(
    ("arguments", "code", "telling"),
    [
        (["--config.train.batchsize=1"], 2, "did you mean config.train.batch_size"),
        (["--config.image_size"], 2, "config.image_size"),
        (["--config=nowhere.py"], 2, "nowhere.py"),
        (["--fail=user"], 2, "error: two lines\n"),
        (["--fail=run"], 1, "error: diverged\n"),
        (["--fail=disk"], 1, "make room"),
        (["--fail=memory"], 1, "batch size"),
        (["--fail=device"], 1, "batch size"),
        (["--fail=peer"], 1, "same command continues"),
        (["--image_size=64"], 2, "--config.image_size"),
        (["--batch_size=8"], 2, "--config.eval.batch_size or --config.train.batch_size"),
        (["--config=r35"], 2, "r34, r50, strong"),
        (["--fail="], 2, "--fail is empty"),
        (["--fail=ctrl-c"], 130, "interrupted"),
        (["--fail=user", "b"], 2, "'b'"),
        (["r34"], 2, "--config=r34?"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(arguments, code, telling, capsys):
    assert run(arguments, takes_arguments=False)[0] == code
    out, err = capsys.readouterr()
    assert out == ""
    assert telling in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_every_command_has_help(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["yolov1", name, "--help"])
    assert command_line.main() == 0
    # Its docstring, then its flags.
    assert re.search(r"yolov1.*^ +--\w+:", capsys.readouterr().out, re.MULTILINE | re.DOTALL)


def test_a_fault_of_the_program_is_no_line(monkeypatch):
    monkeypatch.setitem(ERRORS, "fault", ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        run(["--fail=fault"])


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"]])
def test_the_version(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["yolov1", *arguments])
    assert command_line.main() == 0
    assert re.fullmatch(r"yolov1_jax \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_an_unknown_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["yolov1", "trian"])
    assert command_line.main() == 2
    assert "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize("stdout", ["/dev/full", "closed pipe"])
def test_output_that_nobody_takes_is_no_traceback(stdout):
    with open("/dev/full", "w") as full:
        pipe = full if stdout == "/dev/full" else subprocess.PIPE
        command = [sys.executable, "-m", "yolov1_jax", "--help"]
        process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
        if process.stdout:
            process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
    assert process.wait() == 1
    assert error.count("\n") == (stdout == "/dev/full")
