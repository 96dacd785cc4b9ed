"""Notebooks run from top to bottom, in small, and carry what they have shown."""

import html
import importlib.util
import os
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.formatters import HTMLFormatter

from jaxdistill.notebook import report

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
FAMILIES = {"quickstart", "vision", "language", "records", "sampler", "data_set", "theory"}


def program():
    """``colabs/execute.py``, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("execute", ROOT / "colabs" / "execute.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_family_has_one():
    assert {path.stem for path in NOTEBOOKS} == FAMILIES


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", os.environ["QUICK_XLA_FLAGS"])
    # A cell that fails or warns is an error.
    notebook = program().execute(path, tmp_path, small=True)
    kinds = {kind for cell in code_of(notebook) for o in cell.outputs for kind in o.get("data", {})}
    assert "image/png" in kinds
    # It left nothing beside its folder, and was clean before as well as after.
    assert not (ROOT / "runs").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_carries_what_it_has_shown(path):
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert "image/png" in {kind for output in outputs for kind in output.get("data", {})}
    words = "\n".join(
        str(output.get("text", "")) + str({**output.get("data", {}), "image/png": ""})
        for output in outputs
    )
    # Nothing of the machine on which it ran.
    assert not re.search(r"/(tmp|root|home|work|usr|opt)/|" + re.escape(str(ROOT)), words)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_in_colab_and_runs_in_its_own_process(path):
    notebook = nbformat.read(path, as_version=4)
    title, *rest = notebook.cells[0].source.splitlines()
    assert title.startswith("# ")
    where = f"https://colab.research.google.com/github/jaxdistill/jaxdistill/blob/main/colabs/{path.name}"
    assert any(line.startswith("[![") and line.endswith(f"({where})") for line in rest)
    cells = code_of(notebook)
    # The first cell chooses JAX for the runtime, the same in all of them.
    first = code_of(nbformat.read(NOTEBOOKS[0], as_version=4))[0].source
    assert cells[0].source == first
    assert "SMALL = " in cells[1].source
    program = "\n".join(cell.source for cell in cells)
    assert "jax.debug.visualize_array_sharding(" in program
    assert not re.search(r"^\s*!", program, re.M)


def test_a_report_is_shown_in_a_cell(tmp_path):
    page = '<!doctype html><p class="a">1 < 2 & "3"</p>'
    (tmp_path / "report.html").write_text(page)
    shown = HTMLFormatter()(report(tmp_path, height=300))  # a warning would be an error
    (kept,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert html.unescape(kept) == page
    assert 'height="300"' in shown
