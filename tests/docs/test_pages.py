"""Links lead somewhere, messages are ones that the code has, the picture is not stale."""

import ast
import re
import tomllib

import matplotlib
import pytest
import yaml
from matplotlib.figure import Figure

import inception
from docs import draw_flow
from docs.commands import ROOT
from inception.cost import diagram
from inception.cost.counting import count_network
from tests.docs.test_commands import PAGES

_CODE = re.compile(r"^ *```.*?^ *```|^ {4,}.*?$|`[^`]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")


def _anchors(page) -> set[str]:
    """As GitHub and MkDocs make them: lower case, without punctuation, with hyphens."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title).strip().lower() for title in titles]
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in _LINK.findall(text):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert path.resolve().is_relative_to(ROOT)
        assert not anchor or anchor in _anchors(path), f"{target}#{anchor}"


def test_every_page_is_on_the_site_and_in_its_contents():
    def files(part) -> list[str]:
        if isinstance(part, str):
            return [part]
        values = part.values() if isinstance(part, dict) else part
        return [file for value in values for file in files(value)]

    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == sorted(pages)
    readme = (ROOT / "README.md").read_text()
    assert {page for page in pages if "/" not in page and f"docs/{page}" not in readme} == {
        "index.md"
    }


def _strings_of_the_code() -> str:
    """All strings of the package, with "..." for what an f-string fills in."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text, node.values))
        return str(node.value) if isinstance(node, ast.Constant) else "..."

    nodes = [
        node
        for path in [ROOT / "main.py", *(ROOT / "inception").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.JoinedStr, ast.Constant))
    ]
    return "\n".join(map(text, nodes))


def test_the_messages_of_the_troubleshooting_page_exist():
    code = _strings_of_the_code()
    rows = re.findall(
        r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE
    )
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 40
    for message in messages:
        parts = map(re.escape, filter(None, re.split(r"\s*\.\.\.\s*", message)))
        assert re.search(".*?".join(parts), code), message


def _draw_network() -> Figure:
    return diagram.draw(count_network(inception.load_config("configs/v3.py")), "v3")


@pytest.mark.parametrize(
    ("name", "draw", "least"),
    [("inception_v3", _draw_network, 100), ("data_flow", draw_flow.draw, 25)],
)
def test_the_pictures_are_not_stale(name, draw, least, tmp_path):
    """Their texts are not; curves and fonts differ between versions of Matplotlib."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw().savefig(tmp_path / "now.svg")
    texts = [
        re.findall(r"<text[^>]*>([^<]*)</text>", file.read_text())
        for file in (tmp_path / "now.svg", ROOT / f"docs/images/{name}.svg")
    ]
    assert len(texts[0]) >= least
    assert texts[0] == texts[1], "run the command of CONTRIBUTING.md"


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["project"]["version"]
    assert f"## {citation['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "inception/py.typed").is_file()
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["inception"]
