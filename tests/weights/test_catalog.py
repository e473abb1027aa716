"""The commands about published weights."""

import pytest

from inception import command_line
from inception.weights import locate
from inception.weights.__main__ import main
from inception.weights.registry import REGISTRY
from tests.loopback import BODY, publish, repository


def _run(*words: str) -> int:
    return command_line.run(lambda: main([*words]))


def test_list_shows_all_and_what_is_here(web, monkeypatch, capsys):
    offered = publish(monkeypatch, web, BODY)
    assert _run("list") == 0
    assert "yes" not in capsys.readouterr().out
    locate.locate(offered)
    capsys.readouterr()
    assert _run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(REGISTRY)
    assert [line.split()[0] for line in lines if line.endswith("yes")] == ["keras"]
    torchvision = next(line for line in lines if line.startswith("torchvision"))
    for shown in ("109 MB", "1000", "77.29 / 93.45", "342", "BSD-3"):
        assert shown in torchvision


def test_download_prints_the_path_and_where_finds_it(web, monkeypatch, capsys):
    publish(monkeypatch, web, BODY)
    assert _run("where", "keras") == 1
    assert REGISTRY["keras"].urls[0] in capsys.readouterr().err
    assert _run("download", "keras") == 0
    path = capsys.readouterr().out
    assert _run("where", "keras") == 0
    assert capsys.readouterr().out == path


def test_download_copies_where_one_wants_it_and_overwrites_nothing(web, monkeypatch, tmp_path):
    publish(monkeypatch, web, BODY)
    output = tmp_path / "new" / "w.h5"
    assert _run("download", "keras", f"--output={output}") == 0
    assert output.read_bytes() == BODY
    output.write_bytes(b"mine")
    assert _run("download", "keras", f"--output={output}") == 1
    assert output.read_bytes() == b"mine"
    assert _run("download", "keras", "--output=gs://bucket/w.h5") == 1


def test_a_repository_is_copied_as_a_folder(web, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", web.url())
    files = {"config.json": b"{}", "model.safetensors": BODY}
    repository(web, files | {"README.md": b"a card"}, commit="a" * 40)
    assert _run("download", "hf-hub:me/mine", f"--output={tmp_path / 'mine'}") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == files


@pytest.mark.parametrize("command", ["download", "where"])
def test_an_unknown_name_lists_the_nearest(web, capsys, command):
    assert _run(command, "torchvison") == 1
    assert "torchvision" in capsys.readouterr().err.replace("'torchvison'", "")
