"""launch/: the one-machine script with the real program, the others with what they call faked."""

import os
import pathlib
import signal
import subprocess
import time

import pytest
from end_to_end import (
    ENDLESS,
    ROOT,
    Interruption,
    assert_same_losses,
    checkpoint_steps,
    finish,
    rows,
    wait_until,
)

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


def children(process: subprocess.Popen) -> dict[int, int]:
    """The programs that a launcher has started: id in the run -> process id."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (folder / "cmdline").read_text().split("\0")
        except (OSError, ValueError, IndexError):
            continue
        for argument in arguments:
            if parent == process.pid and argument.startswith("--process_id="):
                found[int(argument.partition("=")[2])] = int(folder.name)
    return found


def alive(process_id: int) -> bool:
    return pathlib.Path(f"/proc/{process_id}").exists()


def test_two_processes_give_the_losses_of_one(program, reference, tmp_path):
    ended = program.train(tmp_path / "run", {"train.num_steps": 6}, num_processes=2)
    assert ended.code == 0
    assert "error" not in ended.err.lower()
    assert_same_losses(tmp_path / "run", reference[0])
    # One of them speaks, writes and draws.
    assert ended.out.count("step 6/6") == 2  # train and eval
    assert (tmp_path / "run" / "report" / "losses.png").is_file()


def test_sigterm_stops_all_processes_after_the_same_step(program, reference, tmp_path):
    process = program.start(tmp_path / "run", ENDLESS, num_processes=2)
    wait_until(lambda: len(rows(tmp_path / "run")) >= 2, process)
    both = children(process)
    assert sorted(both) == [0, 1]
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    ended = finish(process)
    assert time.monotonic() - start < 20
    assert ended.code == 0
    step = rows(tmp_path / "run")[-1]["step"]
    assert f"stopped after step {step};" in ended.out
    # A checkpoint of several processes is there only when all of them have written it.
    assert checkpoint_steps(tmp_path / "run") == [step]
    assert not any(map(alive, both.values()))

    # What two have saved, one continues.
    ended = program.train(tmp_path / "run", {**ENDLESS, "train.num_steps": step + 1})
    assert ended.code == 0
    assert f"continues from the checkpoint of step {step}" in ended.out
    assert [row["step"] for row in rows(tmp_path / "run")[: step + 1]] == [*range(1, step + 2)]


def test_a_killed_process_ends_the_run(program, tmp_path):
    process = program.start(tmp_path / "run", ENDLESS, num_processes=2)
    wait_until(lambda: len(rows(tmp_path / "run")) >= 1, process)
    both = children(process)
    os.kill(both[1], signal.SIGKILL)
    start = time.monotonic()
    ended = finish(process)
    assert time.monotonic() - start < 30
    assert ended.code != 0
    assert not any(map(alive, both.values()))


def test_an_error_in_one_process_ends_the_run_and_is_shown(program, tmp_path):
    # What this process opens in the middle of an evaluation.
    error = Interruption(r"open .*/metrics\.jsonl$", "error", "--process_id=1")
    overrides = {"train.num_steps": 2}
    start = time.monotonic()
    ended = program.train(tmp_path / "run", overrides, num_processes=2, interruption=error)
    assert time.monotonic() - start < 120  # the other waits for it, at first
    assert ended.code != 0
    assert "an error made by the test" in ended.err


def test_a_mistake_is_reported_and_ends_all_processes(program, tmp_path):
    ended = program.train(tmp_path / "run", {"model.grid_size": 5}, num_processes=2)
    assert ended.code == 2
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert lines
    assert set(lines) == {lines[0]}
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("arguments", [[], ["--workdir=run"], ["0"], ["two"]])
def test_without_a_number_of_processes_it_says_how_it_is_used(arguments):
    ended = subprocess.run(
        [ROOT / "launch" / "local.sh", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: launch/local.sh NUM_PROCESSES")


@pytest.fixture
def fakes(tmp_path):
    """fakes(name): puts a program of that name on the path that prints what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def fake(name: str, script: str) -> dict[str, str]:
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}

    return fake


ECHO = 'echo "$(printf "[%s]" "$@") gpu=${CUDA_VISIBLE_DEVICES:-}"'


def run_script(name: str, arguments: list[str], environment: dict[str, str]):
    return subprocess.run(
        [ROOT / "launch" / name, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_local_process_takes_a_gpu_of_those_allowed(fakes):
    fakes("nvidia-smi", "true")
    environment = {**fakes("python", ECHO), "PORT": "1234"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    ended = run_script("local.sh", ["2", "--workdir=a b"], environment)
    assert ended.returncode == 0
    common = "[-m][yolov1_jax.main][--workdir=a b][--coordinator=localhost:1234][--num_processes=2]"
    expected = [f"{common}[--process_id={i}] gpu={i}" for i in (0, 1)]
    assert sorted(ended.stdout.splitlines()) == expected

    ended = run_script("local.sh", ["2"], {**environment, "CUDA_VISIBLE_DEVICES": "5,7"})
    assert sorted(line[-1] for line in ended.stdout.splitlines()) == ["5", "7"]
    ended = run_script("local.sh", ["2"], {**environment, "CUDA_VISIBLE_DEVICES": "5"})
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_the_exit_code_is_that_of_the_process_that_failed(fakes):
    script = 'for a in "$@"; do if [[ $a == --process_id=1 ]]; then exit 7; fi; done; sleep 1'
    environment = {**fakes("python", script), "PORT": "1234"}
    assert run_script("local.sh", ["3"], environment).returncode == 7


def test_slurm_starts_the_same_program(fakes):
    environment = {**fakes("srun", ECHO), "SLURM_CPUS_PER_TASK": "5"}
    ended = run_script("slurm.sh", ["--workdir=a b"], environment)
    assert ended.returncode == 0
    assert "[--cpus-per-task=5]" in ended.stdout
    # JAX picks the GPU of a process among all those of the node.
    assert "gpus" not in ended.stdout
    assert "[python][-m][yolov1_jax.main][--workdir=a b][--distributed]" in ended.stdout


def test_tpu_pod_starts_the_same_program_on_every_host(fakes, tmp_path):
    # The fake runs what would be run on the hosts.
    fakes("python", ECHO)
    environment = fakes("gcloud", 'echo "$*" >&2; for a in "$@"; do :; done; bash -c "${a#*=}"')
    environment.update(TPU_NAME="pod", ZONE="zone", CHECKOUT=str(tmp_path))
    ended = run_script("tpu_pod.sh", ["--workdir=a b"], environment)
    assert ended.returncode == 0
    assert "tpu-vm ssh pod --zone=zone --worker=all" in ended.stderr
    assert "[-m][yolov1_jax.main][--workdir=a b][--distributed]" in ended.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_started_and_parsed(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
