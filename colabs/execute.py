"""Runs notebooks and keeps what they show:

    python colabs/execute.py [vision language ...]

They run in a folder that is thrown away. Pages of HTML that are large, such as reports, are left
out of what is kept; a warning is an error.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "colabs"
# A page of HTML with more letters than this is not kept.
LARGEST = 40_000


def execute(path: Path, folder: Path, small: bool = False) -> nbformat.NotebookNode:
    """Runs a notebook from top to bottom in a folder.

    Args:
        path: of the notebook.
        folder: where it runs.
        small: whether in seconds, to see that it runs.

    Raises:
        nbclient.exceptions.CellExecutionError: for a cell that fails.
        ValueError: for one that warns.
    """
    notebook = nbformat.read(path, as_version=4)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    env |= {"SMALL": "1"} if small else {}
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=env)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise ValueError(f"{path.name}, {cell['id']}: {output['text']}")
    return notebook


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook with those of its outputs that are worth keeping."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in map(_kept, cell.outputs) if output]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    data = output.get("data")
    if data is None:
        return output
    output.metadata.clear()
    if not any(data.values()):  # where a bar has been
        return None
    if len(data.get("text/html", "")) > LARGEST:
        return nbformat.v4.new_output("display_data", {"text/plain": "(seen when it is run)"})
    return output


def main(names: list[str]) -> None:
    """Runs some notebooks, or all, and writes them with what they show."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = cleaned(execute(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.stem}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
