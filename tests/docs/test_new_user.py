"""The pages' commands in their order, as a new user runs them, and TensorBoard on what they leave.

All that need no data, no download and no accelerator; the network of the digits is shrunk.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from docs.commands import ROOT, commands_of
from tests.conftest import TINY
from tests.docs.browser import dom

pytestmark = pytest.mark.slow

# README first, then as the site's contents have them.
ORDER = ["README", *re.findall(r"([\w/]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)]
SHORT = ("num_epochs=0.05", "schedule=staircase", "log_every_steps=2")
_NEEDS = (
    "configs/digits.py",
    "runs/digits",
    "inception.weights list",
    "inception.cost --config=configs/v3.py --plot",
)


def _page(name: str) -> str:
    return (ROOT / ("README.md" if name == "README" else f"docs/{name}.md")).read_text()


def _commands() -> list[list[str]]:
    pages = [_page(name) for name in ORDER if not name.startswith("reference")]
    lines = [" ".join(words) for page in pages for words in commands_of(page, "python")]
    run = [line for line in dict.fromkeys(lines) if any(each in line for each in _NEEDS)]
    return [line.split() for line in run]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The repository without what was written into it, and an empty home folder."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "home").mkdir()
    for path in ROOT.iterdir():
        if path.name == "docs":  # some commands write there
            shutil.copytree(path, folder / "docs")
        elif not path.name.startswith(".") and path.name not in ("runs", "weights", "site"):
            (folder / path.name).symlink_to(path)
    return folder


def _run(workspace, *command: str) -> None:
    environment = {**os.environ, "HOME": str(workspace / "home")}
    done = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def done(workspace):
    """Runs the commands; returns them."""
    commands = _commands()
    for _, *words in commands:
        if "onnx" in words and not importlib.util.find_spec("onnx"):
            continue
        shrunk = "--config=configs/digits.py" in words
        fields = [f"--config.{field}" for field in (*TINY, *SHORT)] if shrunk else []
        _run(workspace, sys.executable, *words, *fields)
    return commands


def test_the_commands_leave_what_the_pages_say(workspace, done):
    assert len(done) > 10
    kinds = {words[2] for words in done if words[1] == "-m"}
    assert kinds >= {"inception.weights", "inception.cost", "inception.doctor", "inception.show"}
    results = json.loads((workspace / "runs/digits/results.json").read_text())
    assert results["examples"] == 360
    assert (workspace / "runs/digits/eval_validation_4.json").exists()
    assert (workspace / "runs/digits_tuned/results.json").exists()
    assert (workspace / "weights/digits/model.json").exists()


def test_the_python_of_the_export_page_runs(workspace, done):
    pytest.importorskip("onnxruntime", reason="the page needs requirements-export.txt")
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", _page("export"), re.MULTILINE)
    code = "".join(block for block in blocks if "import" in block and "python -m" not in block)
    assert code.count("import") >= 4
    lines = [line.removeprefix("    ") for line in code.splitlines()]
    _run(workspace, sys.executable, "-c", "\n".join(lines) + "\nassert logits.shape == (2, 10)")


def test_tensorboard_shows_the_curves_by_their_names(workspace, done):
    program = pytest.importorskip("tensorboard.program", reason="needs tensorboard")
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", f"--logdir={workspace}/runs/digits", "--port=0"])
    lines = map(json.loads, (workspace / "runs/digits/metrics.jsonl").read_text().splitlines())
    last = {name: value for line in lines for name, value in line.items()}
    names = ("train/loss", "train/top1", "train/learning_rate", "eval/ema_top1", "eval/ema_loss")
    titles = [f'title="{name}"' for name in names]
    # Below each curve is its last value, without zeros at the end.
    values = [f"{last[name]:.4f}".rstrip("0") for name in ("train/loss", "eval/ema_loss")]
    page = dom(f"{board.launch()}?tagFilter=loss|top1|rate#timeseries", *titles, *values)
    assert [each for each in (*titles, *values) if each not in page] == []
