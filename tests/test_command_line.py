"""What a user meets: lists with commas, one line for a mistake, exit codes.

A small program with the project's own --config runs in a process of its own for each command line,
because flags are parsed once in a process.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import pytest

from yolov1_jax import command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]

PROGRAM = '''"""Says what it was asked for."""
from absl import flags
from yolov1_jax import command_line
from yolov1_jax.errors import RunError, UserError

CONFIG = command_line.define_config()
FAIL = flags.DEFINE_string("fail", None, "how to fail")

def main(arguments):
    errors = {"user": UserError("two\\n   lines"), "run": RunError("diverged"), "bug": KeyError(),
              "ctrl-c": KeyboardInterrupt()}
    if FAIL.value:
        raise errors[FAIL.value]
    config = CONFIG.value
    print(arguments, config.data.train, config.model.class_names, config.model.backbone,
          config.optimizer.decay_epochs, config.data.root, config.data.train_difficult)

if __name__ == "__main__":
    command_line.run(main)
'''
# Files that are no config.
BROKEN = {
    "syntax": "x = 1\ny = = 2\n",
    "missing": "def get_config():\n    # Not in this world.\n    import nowhere\n",
    "empty": "",
    "dict": "def get_config():\n    return {'seed': 1}\n",
}
DEFAULT = "[] ('train',) None resnet18 () None False"

# name -> (arguments, exit code, text in stdout, text in stderr)
CASES = {
    "default config": ([], 0, DEFAULT, ""),
    "positional": (["a", "b"], 0, "['a', 'b'] ", ""),
    "config": (["--config={configs}/r50.py"], 0, " resnet50 ", ""),
    "config apart": (["--config", "{configs}/r50.py"], 0, " resnet50 ", ""),
    "list": (["--config.data.train=a:x+y,b"], 0, "('a:x+y', 'b')", ""),
    "list of one": (["--config.data.train=a"], 0, "('a',)", ""),
    "list apart": (["--config.data.train", "a,b", "rest"], 0, "['rest'] ('a', 'b')", ""),
    "list with spaces": (["--config.data.train= a , b "], 0, "('a', 'b')", ""),
    "tuple": (["--config.data.train=('a','b')"], 0, "('a', 'b')", ""),
    "quotes": (["--config.model.class_names=red cell,o'x"], 0, "('red cell', \"o'x\")", ""),
    "list twice": (["--config.data.train=a", "--config.data.train=b,c"], 0, "('b', 'c')", ""),
    "list twice apart": (
        ["--config.data.train", "a", "--config.seed=1", "--config.data.train", "b"],
        0,
        "[] ('b',)",
        "",
    ),
    "numbers twice": (
        ["--config.optimizer.decay_epochs=1,2", "--config.optimizer.decay_epochs", "3,4"],
        0,
        "(3, 4)",
        "",
    ),
    "numbers": (["--config.optimizer.decay_epochs=10,20"], 0, "(10, 20)", ""),
    "optional": (["--config.data.root=here"], 0, " here False", ""),
    "switch": (["--config.data.train_difficult"], 0, " None True", ""),
    "switch off": (["--noconfig.data.train_difficult"], 0, " None False", ""),
    "help": (["--help"], 0, "--config: file with", ""),
    "full help": (["--helpfull"], 0, "Says what it was asked for.", ""),
    "unknown key": (["--config.train.batchsize=1"], 2, "", "did you mean config.train.batch_size?"),
    "unknown section": (["--config.zzz.x=1"], 2, "", "the sections are"),
    "key of a number": (["--config.seed.x=1"], 2, "", "config.seed.x does not exist"),
    "unknown switch": (["--noconfig.data.difficult"], 2, "", "config.data.difficult does not"),
    "second key unknown": (["--config.seed=1", "--config.sed=1"], 2, "", "config.sed does not"),
    "unknown key of a file": (["--config={configs}/r34.py", "--config.b=1"], 2, "", "config.b "),
    "wrong type": (["--config.image_size=large"], 2, "", "--config.image_size=large: "),
    "no value": (["--config.image_size"], 2, "", "--config.image_size"),
    "unknown flag": (["--confg.seed=1"], 2, "", "Unknown command line flag 'confg.seed'"),
    "no such file": (["--config=nowhere.py"], 2, "", "expected a config file at 'nowhere.py'"),
    "no file": (["--config"], 2, "", "expected a config file at ''"),
    "config of a syntax error": (
        ["--config={broken}/syntax.py"],
        2,
        "",
        "syntax.py, line 2, found SyntaxError: ",
    ),
    "config of a missing module": (
        ["--config={broken}/missing.py"],
        2,
        "",
        "missing.py, line 3, found ModuleNotFoundError: No module named 'nowhere'",
    ),
    "config without a function": (["--config={broken}/empty.py"], 2, "", "empty.py, found "),
    "config of another type": (["--config={broken}/dict.py"], 2, "", "dict.py, found "),
    "config that is text": (["--config={readme}"], 2, "", "README.md, line "),
    "Ctrl-C": (["--fail=ctrl-c"], 130, "", "error: interrupted\n"),
    "user error": (["--fail=user"], 2, "", "error: two lines\n"),
    "run error": (["--fail=run"], 1, "", "error: diverged\n"),
    "bug": (["--fail=bug"], 1, "", "Traceback"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All command lines, a few at once."""
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM)
    for name, text in BROKEN.items():
        (program.parent / f"{name}.py").write_text(text)
    places = {"configs": ROOT / "configs", "broken": program.parent, "readme": ROOT / "README.md"}

    def run(case):
        arguments = [argument.format(**places) for argument in case[0]]
        return subprocess.run(
            [sys.executable, str(program), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(run, CASES.values()), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_command_line(name, results):
    _, code, out, err = CASES[name]
    result = results[name]
    assert result.returncode == code, result.stderr
    assert out in result.stdout
    assert err in result.stderr
    if code in (2, 130):
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    elif code == 0:
        assert result.stderr == ""


def test_fail_prints_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.fail("a\n\n  b", 3)
    assert caught.value.code == 3
    assert capsys.readouterr().err == "error: a b\n"


@pytest.mark.parametrize("program", ["benchmark", "evaluate", "export", "main"])
def test_programs_of_flags_alone_refuse_the_rest(program):
    """--splits a b would mean a, and say nothing about b."""
    result = subprocess.run(
        [sys.executable, "-m", f"yolov1_jax.{program}", "rest"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: expected flags only, found 'rest': ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["--num_processes=2", "--process_id=1"])
def test_processes_that_could_not_find_each_other_are_refused(flag, tmp_path):
    """Each would train the same run."""
    result = subprocess.run(
        [sys.executable, "-m", "yolov1_jax.main", f"--workdir={tmp_path / 'run'}", flag],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: --num_processes and --process_id need --coordinator=")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
