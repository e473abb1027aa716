"""The notebook runs as a reader runs it, and holds nothing but calls into the package."""

import ast
from pathlib import Path

import pytest

from tests.conftest import TINY

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat")


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_outputs_are_stripped(notebook):
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_nothing_is_defined_that_belongs_in_the_package(notebook):
    for cell in code_cells(notebook):
        lines = cell.source.splitlines()
        magics = [line for line in lines if line.lstrip().startswith(("!", "%"))]
        code = "\n".join(line for line in lines if line not in magics)
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, definitions)]


@pytest.mark.slow
def test_it_runs(notebook, tmp_path):
    """From its own folder, with the parameters replaced as papermill does."""
    nbclient = pytest.importorskip("nbclient", reason="running notebooks needs nbclient")
    pytest.importorskip("ipykernel", reason="running notebooks needs ipykernel")
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    overrides = [*TINY, f"data_dir={tmp_path}", "num_epochs=1", "log_every_steps=20"]
    overrides += ["schedule=staircase"]  # the program of test_main.py
    parameters.source = f"workdir = {str(tmp_path / 'run')!r}\noverrides = {overrides}"
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 2
    text = "".join(output.get("text", "") for output in outputs)
    assert "validation (360 images)" in text  # evaluate_run
    assert "of 360 images are wrong at step 90" in text
    nbformat.write(notebook, tmp_path / "executed.ipynb")
