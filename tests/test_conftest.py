"""`pytest --last-skipped`, and what CI takes from the README."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[1]


class _Cache(dict):
    def set(self, name, value):
        self[name] = value


def _run(cache: _Cache, outcomes: dict[str, bool]) -> None:
    """A session in which tests were skipped (True) or ran, each with its reports."""
    skips = conftest.Skips(cache)
    for nodeid, skipped in outcomes.items():
        for when in ("setup",) if skipped else ("setup", "call", "teardown"):
            report = SimpleNamespace(nodeid=nodeid, when=when, skipped=skipped)
            skips.pytest_runtest_logreport(report)
    skips.pytest_sessionfinish()


def _select(cache: _Cache, *nodeids: str) -> list[str]:
    items = [SimpleNamespace(nodeid=nodeid) for nodeid in nodeids]
    config = SimpleNamespace(
        getoption=lambda name: name == "--last-skipped",
        cache=cache,
        hook=SimpleNamespace(pytest_deselected=lambda items: None),
    )
    conftest.pytest_collection_modifyitems(config, items)
    return [item.nodeid for item in items]


def test_what_was_skipped_is_run_again_until_it_has_run():
    cache = _Cache()
    assert _select(cache, "a") == []
    _run(cache, {"a": True, "b": False, "c": True})
    assert _select(cache, "a", "b", "c") == ["a", "c"]
    _run(cache, {"a": False, "b": False})  # c was not selected: it is still to be run
    assert _select(cache, "a", "b", "c") == ["c"]


def test_a_module_that_was_skipped_as_a_whole_is_run_again():
    """By pytest.importorskip at its top, so that its tests are not known."""
    cache, tests = _Cache(), ["x/test_a.py::one", "x/test_a.py::two[1]", "x/test_ab.py::one"]
    skips = conftest.Skips(cache)
    for nodeid, skipped in (("x/test_a.py", True), ("x/test_ab.py", False)):
        skips.pytest_collectreport(SimpleNamespace(nodeid=nodeid, skipped=skipped))
    skips.pytest_sessionfinish()
    assert _select(cache, *tests) == tests[:2]
    _run(cache, {tests[0]: False, tests[1]: True})
    assert _select(cache, *tests) == tests[1:2]


def test_pytest_reports_such_a_module(pytester):
    hooks = "pytest_addoption, pytest_collection_modifyitems, pytest_configure"
    pytester.makeconftest(f"from tests.conftest import {hooks}")
    pytester.makepyfile(
        test_whole="import pytest; pytest.importorskip('absent')\ndef test_it(): assert True",
        test_other="def test_it(): assert True",
    )
    pytester.inline_run("-p", "no:xdist")
    (pytester.path / "absent.py").touch()
    pytester.syspathinsert()
    again = pytester.inline_run("-p", "no:xdist", "--last-skipped")
    assert [report.nodeid for report in again.listoutcomes()[0]] == ["test_whole.py::test_it"]


def test_tests_run_without_pytests_cache(pytester):
    hooks = "pytest_addoption, pytest_collection_modifyitems, pytest_configure"
    pytester.makeconftest(f"from tests.conftest import {hooks}")
    pytester.makepyfile("def test_it(): assert True")
    options = ("-p", "no:xdist", "-p", "no:cacheprovider")
    pytester.inline_run(*options).assertoutcome(passed=1)
    result = pytester.runpytest_inprocess(*options, "--last-skipped")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--last-skipped needs pytest's cache*"])


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="only a checkout has .ci")
def test_ci_runs_the_two_commands_of_the_readme():
    (extract,) = re.findall(r"^commands=\$\((.*)\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True)
    first, second = found.stdout.splitlines()
    assert first.startswith("pip install -r requirements.txt && python main.py --config=")
    assert second == "pip install -r requirements-dev.txt && pytest"
