"""The notebooks run as a reader runs them, and hold nothing but calls into the package."""

import ast
import importlib.util
import pathlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import TINY

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("quickstart", "architecture", "ablations", "finetune", "fid")
BADGE = "https://colab.research.google.com/github/{}/blob/main/notebooks/{}.ipynb"
# A cell of the reader's own program, such as a generator that is trained, may define functions.
OWN = {"fid": 1}
# By notebook: parameters that the test sets, figures that are drawn, and what is said.
RUNS: dict[str, tuple[dict, int, tuple[str, ...]]] = {
    "quickstart": (
        # The program of test_main.py.
        {"overrides": [*TINY, "num_epochs=1", "log_every_steps=20", "schedule=staircase"]},
        3,
        ("validation (360 images)", "of 360 images are wrong at step 90"),
    ),
    "architecture": ({}, 14, ()),
    "ablations": ({}, 4, ("3 runs, 0 of them finished", "report.md: the report")),
    "finetune": (
        {},
        3,
        ("INCEPTION_OFFLINE is set", "own: 10 classes", "random: Logits", "tuned.stablehlo: "),
    ),
    "fid": ({}, 5, ("differ in their protocol, pytorch and clean", "step 1200: FID")),
}

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat")
inputtransformer2 = pytest.importorskip("IPython.core.inputtransformer2")


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python(cell) -> str:
    """The cell as Python; magics and shell commands become calls of IPython."""
    return inputtransformer2.TransformerManager().transform_cell(cell.source)


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_stripped_and_compiles(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert not {"collapsed", "scrolled", "ExecuteTime", "execution"} & cell.metadata.keys()
        compile(python(cell), f"{name}.ipynb, cell {cell.id}", "exec")
    assert not {"widgets", "signature"} & notebook.metadata.keys()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_defined_that_belongs_in_the_package(name):
    notebook = read(name)
    own = tagged(notebook, "own-program")
    assert len(own) == OWN.get(name, 0)
    for cell in code_cells(notebook):
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        nodes = ast.walk(ast.parse(python(cell)))
        assert cell in own or not [node for node in nodes if isinstance(node, definitions)]


def test_all_have_the_badge_and_one_way_to_install():
    notebooks = {name: read(name) for name in NAMES}
    (install,) = {tagged(notebook, "install")[0].source for notebook in notebooks.values()}
    (text,) = {notebook.cells[1].source for notebook in notebooks.values()}
    assert text.startswith("## Installation")
    (repository,) = [
        node.value.value.removeprefix("https://github.com/")
        for node in ast.parse(python(SimpleNamespace(source=install))).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "REPOSITORY"
    ]
    for name, notebook in notebooks.items():
        assert f"]({BADGE.format(repository, name)})" in notebook.cells[0].source
        assert tagged(notebook, "install") == [notebook.cells[2]]


@pytest.mark.parametrize(
    ("devices", "driver", "jax"),
    [
        ((), "", "jax"),
        (("/dev/nvidia0",), "580.65.06", "jax[cuda13]"),
        (("/dev/nvidia0",), "550.54.15", "jax[cuda12]"),
        (("/dev/accel0",), "", "jax[tpu]"),
        (("/dev/vfio/0",), "", "jax[tpu]"),
    ],
)
def test_a_fresh_runtime_gets_a_clone_and_its_own_jax(devices, driver, jax, tmp_path, monkeypatch):
    exists, asked = Path.exists, []

    def clone(command: str) -> None:
        asked.append(command)
        (tmp_path / "inception-clone" / "configs").mkdir(parents=True)
        (tmp_path / "inception-clone" / "configs" / "digits.py").touch()

    ipython = SimpleNamespace(
        system=clone,
        getoutput=lambda command: [driver],
        run_line_magic=lambda *words: asked.append(" ".join(words)),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        pathlib.Path,
        "exists",
        lambda path: str(path) in devices if path.is_absolute() else exists(path),
    )
    names = {"get_ipython": lambda: ipython}
    cell = tagged(read("quickstart"), "install")[0]
    exec(python(cell), names)
    assert asked == [
        "git clone --quiet --depth 1 {REPOSITORY} {clones[0]}",
        "pip install --quiet --editable {clones[0]} {jax}",
    ]
    assert names["jax"] == jax
    assert Path.cwd() == tmp_path / "inception-clone"
    asked.clear()
    exec(python(cell), names)  # a second time there is nothing to do
    assert asked == []
    assert Path.cwd() == tmp_path / "inception-clone"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path, monkeypatch):
    """From its own folder and without a connection, with the parameters set as papermill does."""
    nbclient = pytest.importorskip("nbclient", reason="running notebooks needs nbclient")
    pytest.importorskip("ipykernel", reason="running notebooks needs ipykernel")
    for variable in ("INCEPTION_CACHE", "TORCH_HOME", "HF_HOME", "KERAS_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    monkeypatch.setenv("INCEPTION_OFFLINE", "1")
    monkeypatch.delenv("FID_WEIGHTS", raising=False)
    notebook, (changes, figures, texts) = read(name), RUNS[name]
    for cell in tagged(notebook, "parameters"):
        values = {"workdir": str(tmp_path / "run"), **changes}
        lines = "".join(f"\n{parameter} = {value!r}" for parameter, value in values.items())
        cell.source += lines
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    assert tagged(notebook, "install")[0].outputs == []
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == figures
    said = "".join(output.get("text", "") for output in outputs)
    for text in texts:
        assert text in said
    if name == "finetune" and importlib.util.find_spec("torchvision"):
        assert "the same: " in said  # as torchvision's own network
