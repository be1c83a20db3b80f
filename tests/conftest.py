"""A strict test run: four fake CPU devices, no silent rank promotion, warnings are errors."""

import os
import pathlib
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import end_to_end
import pytest
from absl import flags

# What a shell puts in the background has Ctrl-C ignored, and so has all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _parsed_flags():
    # grain's worker processes read absl flags, which `app.run` would have parsed.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real images and weights, kept beside the checkout where the developers have them."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> end_to_end.Program:
    """The real program, with a compilation cache of this session."""
    return end_to_end.Program(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def reference(
    program: end_to_end.Program, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, end_to_end.Ended]:
    """The run folder of a run that nothing has interrupted, not to be changed, and how it ended."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    return workdir, program.train(workdir)
