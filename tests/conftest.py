"""A strict test run: four fake CPU devices, no silent rank promotion, warnings are errors."""

import json
import os
import pathlib
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # that of the user

import end_to_end
import filelock
import pytest

# A shell lets the programs in its background ignore Ctrl-C, and so all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real images and weights, kept beside the checkout where the developers have them."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id) -> tuple[pathlib.Path, end_to_end.Ended]:
    """The run folder of a run that nothing has interrupted, not to be changed, and how it ended."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent  # which the workers of pytest share
    workdir, record = folder / "reference", folder / "reference.json"
    with filelock.FileLock(f"{record}.lock"):
        if not record.exists():
            record.write_text(json.dumps(end_to_end.Program(folder / "compiled").train(workdir)))
    return workdir, end_to_end.Ended(*json.loads(record.read_text()))


@pytest.fixture(scope="session")
def program(reference) -> end_to_end.Program:
    """The real program. The reference run has compiled most of what its starts need."""
    return end_to_end.Program(reference[0].with_name("compiled"))
