"""Every command on a page is one that its program takes, and what it names is there."""

import argparse
import ast
import difflib
import re
import textwrap
import tomllib

import pytest

import inception
from docs.commands import ROOT, commands_of, parser_of, subparsers
from inception import command_line
from inception.ablation.rows import config_file
from inception.config import differences, flatten
from inception.weights.sources import SOURCES

PATTERNS = ("*.md", "docs/**/*.md", "launch/*.md", ".github/**/*.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
HAND_WRITTEN = [page for page in PAGES if page.parent.name != "reference"]


def _found(program: str) -> dict[str, list[str]]:
    """Each command of the pages once, with the first page that has it."""
    return {
        " ".join(words): words
        for page in HAND_WRITTEN
        for words in commands_of(page.read_text(), program)
    }


PYTHON = {**_found("python"), **_found("python3")}


def _configs(args: argparse.Namespace) -> list[str]:
    """The config files of a command, without the one that CONTRIBUTING.md lets the reader write."""
    given = getattr(args, "config", None) or []
    files = [given] if isinstance(given, str) else [*given]
    files += [str(config_file(name)) for name in getattr(args, "configs", "").split(",") if name]
    return [file for file in files if "v3_no_smoothing" not in file]


@pytest.mark.parametrize("line", PYTHON, ids=str)
def test_python_commands_parse(line):
    _, *words = PYTHON[line]
    if words[:2] in (["-m", "venv"], ["-m", "pip"]):
        return
    module = words[words[0] == "-m"]
    parser, rest = parser_of(module), words[(words[0] == "-m") + 1 :]
    if not rest or (rest[0] in subparsers(parser) and len(rest) == 1):  # it is only mentioned
        return
    args, overrides = command_line.parse(parser, rest)
    for config in _configs(args):
        inception.load_config(config, [each for each in overrides if "FIELD=" not in each])
    if hasattr(args, "source"):
        assert args.source in ("auto", *SOURCES)


def test_there_are_commands_of_every_kind():
    """The search for commands finds those of all forms: blocks, tables, continued lines."""
    modules = {words[2] for words in PYTHON.values() if words[1] == "-m"}
    assert modules >= {f"inception.{name}" for name in ("cost", "doctor", "plan", "fid", "weights")}
    assert sum(words[1] == "main.py" for words in PYTHON.values()) > 10
    assert sum(len(words) > 7 for words in PYTHON.values()) > 3


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("    python a.py \\\n        --b=1  # c\n", ["python a.py --b=1"]),
        ("```\npip x && python a.py\n```", ["python a.py"]),
        ("| `python a.py [--b]` | x |", ["python a.py --b"]),
        ("`A=1 python a.py\nb`, python c.py", ["python a.py b"]),
    ],
)
def test_commands_of_a_page(page, expected):
    assert [" ".join(words) for words in commands_of(page, "python")] == expected


@pytest.mark.parametrize(
    "line", ["python main.py --confg=configs/v3.py", "python -m inception.cost --config"]
)
def test_a_command_that_does_not_parse_is_found(line, capsys):
    (words,) = commands_of(f"`{line}`", "python")
    module = words[1 + (words[1] == "-m")]
    with pytest.raises(SystemExit):
        command_line.parse(parser_of(module), words[2 + (words[1] == "-m") :])
    assert difflib.get_close_matches("--config", capsys.readouterr().err.split(), cutoff=0.5)


def test_the_example_of_an_experiment_is_a_row(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## An experiment in ten lines")[1]
    lines = text.split("Then")[0].splitlines()
    code = "\n".join(line.removeprefix("    ") for line in lines if line[:4].isspace() or not line)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/v3_no_smoothing.py").write_text(code)
    row = inception.load_config(tmp_path / "configs/v3_no_smoothing.py")
    changed = differences(*map(flatten, (inception.load_config("configs/v3.py"), row)))
    assert changed == {"label_smoothing": (0.1, 0.0)}


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_code_compiles_and_its_names_exist(page):
    for block in re.findall(r"(?:^ {4,}.*\n|^\n(?= {4}))+", page.read_text(), re.MULTILINE):
        code = textwrap.dedent(block)
        if not re.match(r"\s*(import|from|model,|extract|\"\"\") ?", code):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "inception":
                assert node.attr in {*inception.__all__, "data"}


@pytest.mark.parametrize("line", _found("pip"), ids=str)
def test_what_pip_installs_is_there(line):
    _, command, *words = line.split()
    assert command == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = extras["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option == "-r":
            assert (ROOT / value).is_file()
        if match := re.fullmatch(r"\.\[(\w+)\]", option):
            assert match[1] in known


@pytest.mark.parametrize("line", _found("pytest"), ids=str)
def test_the_tests_that_are_named_are_there(line):
    for word in _found("pytest")[line]:
        if word.startswith("tests/"):
            assert list(ROOT.glob(word.rstrip("/")))
