"""The site builds without a warning, and its front page shows its pictures."""

import html
import json
import os
import re
import subprocess
import sys

import pytest

from docs import links
from docs.commands import ROOT
from tests.docs.browser import dom, served

# Asks the front page, in a frame, for its heading and for each picture's width as it was loaded.
_PROBE = """<iframe src="index.html" onload="
  const page = frames[0].document;
  const pictures = [...page.images].map(each => [each.getAttribute('src'), each.naturalWidth]);
  document.title = JSON.stringify([page.querySelector('h1').innerText, pictures])"></iframe>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the site needs requirements-docs.txt")
    pytest.importorskip("material", reason="the site needs requirements-docs.txt")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_front_page_shows_its_pictures(site):
    (site / "probe.html").write_text(_PROBE)
    with served(site) as address:
        page = dom(f"{address}/probe.html", "<title>")
    (title,) = re.findall(r"<title>(.*?)</title>", page, re.DOTALL)
    heading, pictures = json.loads(html.unescape(title))
    assert "Inception" in heading
    widths = dict(pictures)
    assert {"images/inception_v3.svg", "images/quickstart.png"} <= widths.keys()
    assert min(widths.values()) > 0


@pytest.mark.slow
def test_no_link_of_the_site_leaves_its_folder(site):
    pages = list(site.rglob("index.html"))
    assert len(pages) > 20
    for page in pages:
        for target in re.findall(r'href="([^":#?]+)["#?]', page.read_text()):
            path = (site if target.startswith("/") else page.parent) / target.lstrip("/")
            assert path.exists(), f"{page}: {target}"
            assert path.resolve().is_relative_to(site.resolve())
    assert not list(site.rglob("*.py"))


def test_links_to_the_repository_are_names_or_addresses(monkeypatch):
    class Page:
        class file:
            abs_src_path = str(ROOT / "docs" / "reference" / "x.md")
            src_path = "reference/x.md"

    text = "[`main.py`](../../main.py) and [weights](../weights.md#sources)"
    monkeypatch.delenv("REPOSITORY", raising=False)
    assert links.on_page_markdown(text, Page) == "`main.py` and [weights](../weights.md#sources)"
    monkeypatch.setenv("REPOSITORY", "https://host/files/")
    shown = "[`main.py`](https://host/files/main.py) and [weights](../weights.md#sources)"
    assert links.on_page_markdown(text, Page) == shown


def test_a_link_to_no_file_is_a_warning(caplog):
    class Page:
        class file:
            abs_src_path = str(ROOT / "docs" / "x.md")
            src_path = "x.md"

    assert links.on_page_markdown("[a](../nothing.py#b)", Page) == "`a`"
    assert "x.md: link to ../nothing.py, which does not exist" in caplog.text
