"""Writes pth_*.pth with PyTorch, for the reader that does without it.

    pip install -e '.[parity]'
    python tests/golden/make_pth_golden.py

pth_zip.pth and pth_legacy.pth hold the state dict of pth_values.py, in the two formats of
torch.save; pth_wrapped.pth holds it as a training program does: of a DataParallel model, beside
an optimizer and a counter.
"""

import collections
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from golden.pth_values import expected

FOLDER = pathlib.Path(__file__).parent


def state_dict() -> "collections.OrderedDict[str, torch.Tensor]":
    values = {}
    for name, array in expected().items():
        if array.dtype.name == "bfloat16":
            values[name] = torch.tensor(array.astype("float32")).to(torch.bfloat16)
        else:
            values[name] = torch.tensor(array)
    counting = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    result = collections.OrderedDict(values)
    result["transposed"] = (counting[0, 0] - 3).T
    result["row"] = counting[1, 2, 3]
    result["parameter"] = torch.nn.Parameter(values["parameter"])
    result._metadata = {"": {"version": 1}}
    return result


def wrapped() -> dict[str, object]:
    values = {f"module.{name}": value for name, value in state_dict().items()}
    moments = {0: {"step": 3, "exp_avg": torch.ones(2, 2)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}
    return {"epoch": 3, "state_dict": values, "optimizer": optimizer, "best": None}


def write(folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the files; returns their paths."""
    files = {
        "pth_zip.pth": (state_dict(), {}),
        "pth_legacy.pth": (state_dict(), {"_use_new_zipfile_serialization": False}),
        "pth_wrapped.pth": (wrapped(), {}),
    }
    for name, (content, options) in files.items():
        torch.save(content, folder / name, **options)
    return [folder / name for name in files]


if __name__ == "__main__":
    write(FOLDER)
