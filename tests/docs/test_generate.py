"""The generated pages are as the code is, and the generator says so when they are not."""

import ast
import re

import pytest

import inception
from docs import generate
from docs.commands import ROOT, all_commands
from inception.defaults import FIELDS


@pytest.fixture(scope="module")
def pages():
    return generate.pages()


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_committed_page_is_not_stale(name, pages):
    file = generate.FOLDER / name
    # Python's versions break the lines of a usage differently.
    assert file.read_text().split() == pages[file].split(), "run python -m docs.generate"


def test_every_field_command_and_export_is_there(pages):
    config, api, commands = (
        pages[generate.FOLDER / f"{name}.md"] for name in ("config", "api", "commands")
    )
    assert all(f"| `{name}`" in config for name in FIELDS)
    assert all(f"### inception.{name}\n" in api for name in inception.__all__)
    names = {
        name.removeprefix("python ").removeprefix("-m ")
        for name in re.findall(r"^## (.*)", commands, re.M)
    }
    assert names == set(all_commands())
    modules = (ROOT / "inception").rglob("*.py")
    programs = [path for path in modules if "exit(command_line.run(" in path.read_text()]
    assert len(programs) == sum(name.startswith("inception.") for name in names)


def test_a_stale_page_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"page.md": lambda: "a b\n"})
    assert generate.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "page.md").write_text((tmp_path / "page.md").read_text().replace("a b", "a\nb"))
    assert generate.stale() == []  # a line is broken elsewhere
    (tmp_path / "page.md").write_text("a c\n")
    assert generate.stale() == [tmp_path / "page.md"]


def test_a_docstrings_sections_become_lists():
    docstring = "What.\n\nArgs:\n  x: One\n    and more.\n  y: Two.\n\nReturns:\n  Both.\n"
    assert generate._markdown(docstring) == (
        "What.\n\n**Args**\n\n- `x`: One and more.\n- `y`: Two.\n\n**Returns**\n\nBoth."
    )


def test_signatures_are_as_they_are_written():
    (node,) = ast.parse("def f(a: int, b=2, *, c: str = 'x') -> bool: pass").body
    assert generate._signature(node) == "f(a: int, b=2, *, c: str = 'x') -> bool"
