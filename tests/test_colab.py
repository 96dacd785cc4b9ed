"""The notebook runs from top to bottom, in smoke size."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
# What the last cell of each prints.
LAST_WORDS = {"quickstart": "test accuracy", "theory": "largest difference"}
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    for name, value in {
        "SMOKE": "1",
        "WORKDIR": str(tmp_path / "run"),
        "JAX_PLATFORMS": "cpu",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XLA_FLAGS", os.environ["QUICK_XLA_FLAGS"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    # A command of a cell that fails raises nothing: what it was to leave must be there.
    assert (tmp_path / "run" / "report.html").exists()
    assert LAST_WORDS[path.stem] in str(notebook.cells[-1].outputs)
