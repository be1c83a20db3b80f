"""Weights in and out through the real program: a checkpoint becomes a run, a bad file one line."""

import re

import jax
import numpy as np
import pytest
from end_to_end import checkpoint_steps, end, evaluations, finish, rows
from tiny_run import save_run, tiny_config
from torch_files import dictionary, example, legacy_file, name, state_dict, zip_file

from yolov1_jax.detector import restore_variables
from yolov1_jax.export import export_weights

NETWORK = {"model.width_multiplier": 0.0625, "model.head_channels": 1024}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A detector under the reference's names, and what it must come to."""
    folder = tmp_path_factory.mktemp("exported")
    run = save_run(folder / "run", {5: 0.5}, tiny_config(optimizer__ema_decay=0.9))
    export_weights(run, folder / "detector.safetensors")
    return folder / "detector.safetensors", restore_variables(run, "best").variables


def test_a_checkpoint_of_the_reference_becomes_a_run(program, exported, tmp_path):
    kept, variables = exported
    path = tmp_path / "detector.safetensors"
    path.write_bytes(kept.read_bytes())
    start = {**NETWORK, "model.pretrained": path, "model.pretrained_format": "reference"}
    workdir = tmp_path / "run"
    ended = program.train(workdir, {**start, "train.num_steps": 0})
    assert ended.code == 0, ended.err
    assert f"pretrained detector from {path} (sha256 " in ended.out
    assert checkpoint_steps(workdir) == [0]
    assert evaluations(workdir).keys() == {"0.json"}
    assert (workdir / "report" / "detections.jpg").exists()
    restored = restore_variables(workdir, "best")
    jax.tree.map(np.testing.assert_array_equal, restored.variables, variables)

    # The same command evaluates nothing anew, and with more steps it trains on: without the file.
    path.unlink()
    ended = program.train(workdir, {**start, "train.num_steps": 2, "train.eval_every_steps": 2})
    assert ended.code == 0, ended.err
    assert "continues from the checkpoint of step 0" in ended.out
    assert [(row["split"], row["step"]) for row in rows(workdir)] == [
        ("eval", 0),
        ("train", 2),
        ("eval", 2),
    ]


HOSTILE = dictionary({"conv1.weight": name("os", "abort") + b")R"})
FILES = {
    "hostile": (zip_file(HOSTILE, {}), r"asks for 'os\.abort' at 'conv1\.weight'"),
    "hostile and old": (legacy_file(HOSTILE, {}), r"asks for 'os\.abort' at 'conv1\.weight'"),
    "truncated": (zip_file(*state_dict(example()))[:-30], "is not a complete zip archive"),
    "another network": (zip_file(*state_dict(example())), "lacks parameter bn1.bias and 99 more"),
}


@pytest.fixture(scope="module")
def refused(program, exported, tmp_path_factory):
    """A program for each of the files, and one whose config contradicts its checkpoint."""
    folder = tmp_path_factory.mktemp("refused")
    started = {}
    for kind, (content, _) in FILES.items():
        path = folder / f"{kind}.pth"
        path.write_bytes(content)
        started[kind] = program.start(folder / kind, {**NETWORK, "model.pretrained": path})
    contradiction = {
        "model.pretrained": exported[0],
        "model.pretrained_format": "reference",
        "loss.class_loss": "softmax" if tiny_config().loss.class_loss == "squared" else "squared",
    }
    started["contradiction"] = program.start(folder / "contradiction", NETWORK | contradiction)
    yield started
    for process in started.values():
        end(process)


@pytest.mark.parametrize("kind", [*FILES, "contradiction"])
def test_a_bad_file_gets_one_line_and_exit_code_2(refused, kind):
    ended = finish(refused[kind])
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.out
    if kind in FILES:
        assert f"{kind}.pth" in ended.err
        assert re.search(FILES[kind][1], ended.err)
    else:
        assert re.search(r"detector\.safetensors.* set config\.loss\.class_loss to", ended.err)
