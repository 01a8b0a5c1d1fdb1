"""The notebooks run from top to bottom, and are kept with their outputs."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Outputs without which a notebook has not told its story, by the name of its file.
EXPECTED = {"01_quickstart": ["baseline", "times smaller", "accuracy changes by", "out_features="]}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Make this interpreter the python3 kernel, whatever kernels the user has installed."""
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    # The tests draw to memory; a notebook shows its pictures.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return "python3"


def outputs(notebook):
    """Collect the outputs of all code cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts(notebook):
    """Collect the texts of all outputs."""
    streams = [output.get("text", "") for output in outputs(notebook)]
    plain = [output.get("data", {}).get("text/plain", "") for output in outputs(notebook)]
    return "\n".join([*streams, *plain])


def has_picture(notebook):
    """Tell whether any output is a picture."""
    return any("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, kernel, tmp_path):
    """Every cell runs without an error or a warning, and the key outputs are there."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name=kernel,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    assert has_picture(notebook)
    assert all(text in texts(notebook) for text in EXPECTED[path.stem])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_with_its_outputs(path):
    """What is stored was run once, in order, and says nothing about the machine it ran on."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert has_picture(notebook)
    assert all(text in texts(notebook) for text in EXPECTED[path.stem])
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not [cell for cell in notebook.cells if cell.metadata]
