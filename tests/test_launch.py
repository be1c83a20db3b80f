"""launch/: the one-machine script with the real program, the others with faked schedulers."""

import os
import pathlib
import signal
import subprocess
import time

import pytest
from end_to_end import ROOT, assert_same_losses, checkpoint_steps, finish, rows

pytestmark = pytest.mark.xdist_group("launch")
# A run that ends only when it is told to.
NEVER = ("num_steps", "eval_every_steps", "checkpoint_every_steps")
ENDLESS = {"train.log_every_steps": 1, **{f"train.{name}": 1_000_000 for name in NEVER}}


@pytest.fixture
def endless(program, tmp_path):
    """A run of two processes that has made its second step, and the ids of both."""
    launcher = program.start(tmp_path / "run", ENDLESS, num_processes=2)
    while len(rows(tmp_path / "run")) < 2:
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.01)
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text()
    commands = {int(i): pathlib.Path(f"/proc/{i}/cmdline").read_text() for i in children.split()}
    processes = sorted(i for i in commands if "yolov1_jax.main" in commands[i])
    yield launcher, processes
    finish(launcher, timeout=60)
    assert not any(pathlib.Path(f"/proc/{i}").exists() for i in processes)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(program, reference, tmp_path):
    workdir = tmp_path / "run"
    ended = program.train(workdir, {"train.num_steps": 6}, num_processes=2)
    assert ended.code == 0
    assert "error" not in ended.err.lower()
    assert_same_losses(workdir, reference[0])
    # Only one of them writes, shows and draws.
    assert ended.out.count("step 6/6") == 2  # train and eval
    assert (workdir / "report" / "losses.png").is_file()


@pytest.mark.slow
def test_sigterm_stops_all_processes_after_the_same_step(program, endless, tmp_path):
    endless[0].send_signal(signal.SIGTERM)
    ended = finish(endless[0])
    assert ended.code == 143
    step = rows(tmp_path / "run")[-1]["step"]
    assert f"stopped after step {step};" in ended.out
    # A checkpoint of several processes is there only when all of them have written it.
    assert checkpoint_steps(tmp_path / "run") == [step]

    # What two have saved, one continues.
    ended = program.train(tmp_path / "run", {**ENDLESS, "train.num_steps": step + 1})
    assert ended.code == 0
    assert f"continues from the checkpoint of step {step}" in ended.out
    assert [row["step"] for row in rows(tmp_path / "run")[: step + 1]] == [*range(1, step + 2)]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_run(endless, which):
    os.kill(endless[1][which], signal.SIGKILL)
    ended = finish(endless[0], timeout=60)
    assert ended.code not in (0, 2, 130, 143)
    assert "the same command continues" in ended.err


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_along(endless):
    os.kill(endless[0].pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(pathlib.Path(f"/proc/{i}").exists() for i in endless[1]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "code", "telling"),
    [({"train.num_steps": 6}, 1, "made by the test"), ({"model.grid_size": 5}, 2, "grid_size=5")],
)
def test_an_error_ends_all_processes(program, tmp_path, overrides, code, telling):
    # Process 1 fails when it opens this in the place of metrics.jsonl, and process 0 waits for it.
    place = {"interrupt_at": "open /dev/null$", "by": "error"}
    ended = program.train(tmp_path / "run", overrides, num_processes=2, **place)
    assert ended.code == code
    assert telling in ended.err


def launch(folder, script, arguments, gpus="", **programs):
    """Runs a script, which finds `programs` of the test in the place of the real ones."""
    for name, program in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!/usr/bin/env bash\n{program}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PORT": "1234"}
    environment |= {"SLURM_CPUS_PER_TASK": "5", "TPU_NAME": "pod", "ZONE": "zone"}
    environment |= {"CHECKOUT": str(folder), "CUDA_VISIBLE_DEVICES": gpus}
    command = [ROOT / "launch" / script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


ECHO = 'echo "$(printf "[%s]" "$@") gpu=${CUDA_VISIBLE_DEVICES:-}"'


@pytest.mark.parametrize("arguments", [["--workdir=run"], ["0"]])
def test_without_a_number_of_processes_it_says_how_it_is_used(tmp_path, arguments):
    ended = launch(tmp_path, "local.sh", arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: launch/local.sh NUM_PROCESSES")


def test_each_local_process_takes_a_gpu_of_those_allowed(tmp_path):
    ended = launch(tmp_path, "local.sh", ["2", "--workdir=a b"], nvidia_smi="true", python=ECHO)
    common = "[-m][yolov1_jax.main][--workdir=a b][--coordinator=localhost:1234][--num_processes=2]"
    expected = [f"{common}[--process_id={i}] gpu={i}" for i in (0, 1)]
    assert sorted(ended.stdout.splitlines()) == expected

    ended = launch(tmp_path, "local.sh", ["2"], gpus="5,7")
    assert sorted(line[-1] for line in ended.stdout.splitlines()) == ["5", "7"]
    ended = launch(tmp_path, "local.sh", ["2"], gpus="5")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_the_exit_code_is_that_of_the_process_that_failed(tmp_path):
    script = 'for a in "$@"; do if [[ $a == --process_id=1 ]]; then exit 7; fi; done; sleep 0.5'
    assert launch(tmp_path, "local.sh", ["3"], python=script).returncode == 7


def test_slurm_starts_the_same_program(tmp_path):
    out = launch(tmp_path, "slurm.sh", ["--workdir=a b"], srun=ECHO).stdout
    assert "[--cpus-per-task=5]" in out
    assert "gpus" not in out  # JAX picks the GPU of a process among all those of the node
    assert "[python][-m][yolov1_jax.main][--workdir=a b][--distributed]" in out


def test_tpu_pod_starts_the_same_program_on_every_host(tmp_path):
    # This gcloud runs here what the real one would run on the hosts.
    gcloud = 'echo "$*" >&2; for a in "$@"; do :; done; bash -c "${a#*=}"'
    ended = launch(tmp_path, "tpu_pod.sh", ["--workdir=a b"], python=ECHO, gcloud=gcloud)
    assert "tpu-vm ssh pod --zone=zone --worker=all" in ended.stderr
    assert "[-m][yolov1_jax.main][--workdir=a b][--distributed]" in ended.stdout
