"""docs/notebook.ipynb runs from top to bottom; its assertions compare NumPy with the package."""

import pathlib

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        cell.source = cell.source.replace("num_steps = 600", "num_steps = 20")
    nbclient.execute(notebook, cwd=tmp_path, timeout=500, kernel_name="python3")
    texts = [one.get("text", "") for cell in notebook.cells for one in cell.get("outputs", ())]
    assert any("mAP" in text for text in texts)
