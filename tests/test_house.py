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
    ("plan",),
    ("ablation", "doctor"),
    ("training", "fid"),
    ("evaluation",),
    ("predict",),
    ("weights",),
    ("show", "cost"),
    ("workdir",),
    ("config",),
    ("data", "defaults"),
    ("command_line", "fields", "paper"),
    ("distributed", "network"),
    ("ops", "errors", "runtime"),
)


def _modules() -> dict[str, Path]:
    """The files by the names that they are imported by."""
    return {
        ".".join(["inception", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): path
        for path in ROOT.rglob("*.py")
        if path != ROOT / "__init__.py"
    }


def _imports(path: Path) -> set[str]:
    """The modules of inception that a file imports, in functions too."""
    modules, found = _modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in modules else node.module for name in inner}
    return found & modules.keys()


def _room(module: str) -> str:
    return module.split(".")[1]


def _row(module: str) -> int:
    return next(number for number, row in enumerate(ROWS) if _room(module) in row)


def _has_circle(graph: dict[str, set[str]]) -> bool:
    while leaves := {name for name, others in graph.items() if not others}:
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    return bool(graph)


@pytest.mark.parametrize("module", sorted(_modules()))
def test_imports_point_down(module):
    for other in _imports(_modules()[module]):
        same_room = _room(module) == _room(other)
        assert same_room or _row(other) > _row(module), f"{module} imports {other}"


def test_no_circle_of_files_or_folders():
    files = {module: _imports(path) - {module} for module, path in _modules().items()}
    assert not _has_circle(files)
    rooms: dict[str, set[str]] = {}
    for module, others in files.items():
        rooms.setdefault(_room(module), set()).update(set(map(_room, others)) - {_room(module)})
    assert not _has_circle(rooms)


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
    heavy |= {"requests", "urllib3", "httpx"}
    assert not heavy & set(runs[0])
