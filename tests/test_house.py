"""The rooms of the house: what imports what, and how little the network alone needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inception

ROOT = Path(inception.__file__).parent
# From the top down; a module may import from its own row's folder and from rows below it.
ROWS = (
    ("ablation", "doctor", "show", "features"),
    ("cost",),
    ("train",),
    ("finetune",),
    ("weights",),
    ("evaluate",),
    ("train_step", "evaluator", "confusion_plot"),
    ("workdir", "predict"),
    ("preemption",),
    ("checkpoints", "logbook", "metrics", "losses"),
    ("files",),
    ("state", "data"),
    ("optimizers", "augment", "sharding", "command_line", "config", "paper"),
    ("model",),
    ("modules",),
    ("layers", "defaults"),
    ("preprocessing", "errors"),
)


def _modules() -> dict[str, Path]:
    return {
        ".".join(["inception", *path.relative_to(ROOT).with_suffix("").parts]): path
        for path in ROOT.rglob("*.py")
        if path != ROOT / "__init__.py"
    }


def _imports(path: Path) -> set[str]:
    """The modules of inception that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name in _modules()}


def _row(module: str) -> int:
    if module.endswith(".__main__"):  # a command stands above the library
        return 0
    room = module.split(".")[1]
    return next(number for number, row in enumerate(ROWS) if room in row)


@pytest.mark.parametrize("module", sorted(_modules()))
def test_imports_point_down(module):
    for other in _imports(_modules()[module]):
        same_folder = module.split(".")[1] == other.split(".")[1]
        assert same_folder or _row(other) > _row(module), f"{module} imports {other}"


def test_no_circle_of_files():
    graph = {module: _imports(path) - {module} for module, path in _modules().items()}
    while leaves := {module for module, others in graph.items() if not others}:
        graph = {m: others - leaves for m, others in graph.items() if m not in leaves}
    assert not graph


def test_the_library_does_not_import_the_configs():
    for path in _modules().values():
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not {"configs", "benchmarks", "main", "tests"} & names


def test_no_name_stands_for_a_function_and_a_module():
    for name in inception.__all__:
        assert not (ROOT / f"{name}.py").exists()
        assert not (ROOT / name).is_dir()
        assert getattr(inception, name).__module__.startswith("inception.")
    with pytest.raises(AttributeError, match="nothing"):
        _ = inception.nothing


def test_the_network_alone_is_quick_and_loads_no_pipeline():
    code = (
        "import sys, time; start = time.process_time(); import inception; inception.Inception; "
        "print(time.process_time() - start, *sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert min(float(seconds) for seconds, *_ in runs) < 2
    heavy = {"cv2", "grain", "orbax.checkpoint", "tensorflow", "tensorflow_datasets", "clu"}
    assert not heavy & set(runs[0])
