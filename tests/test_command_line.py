"""Flags and overrides in one style, and errors of one line."""

import importlib

import pytest
from jax.errors import JaxRuntimeError

from inception import command_line
from inception.distributed.preemption import Interrupted
from inception.distributed.processes import ProcessStopped
from inception.errors import EX_TEMPFAIL, ConfigError


@pytest.fixture
def parser():
    parser = command_line.parser("python -m inception.any", "Does something.", config=True)
    parser.add_argument("--config")
    parser.add_argument("file", nargs="?")
    return parser


@pytest.mark.parametrize(
    "words",
    [
        ["--config=a.py", "--config.seed=3", "--config.model.stem=7x7", "x.png"],
        ["--config", "a.py", "--config.seed", "3", "--config.model.stem", "7x7", "x.png"],
        ["--config.seed", "3", "x.png", "--config.model.stem=7x7", "--config=a.py"],
    ],
)
def test_overrides_are_separated_with_and_without_an_equals_sign(parser, words):
    args, overrides = command_line.parse(parser, words)
    assert (args.config, args.file) == ("a.py", "x.png")
    assert overrides == ["seed=3", "model.stem=7x7"]


def test_negative_values_and_empty_ones(parser):
    assert command_line.parse(parser, ["--config.seed", "-1", "--config.data_dir="])[1] == [
        "seed=-1",
        "data_dir=",
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a.png", "b.png"], "b.png"),
        (["--config.seed"], "--config.seed"),
        (["--config.seed", "--config=a.py"], "--config.seed"),
    ],
)
def test_the_rest_is_refused_by_name(parser, words, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.parse(parser, words)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["--confg=a.py"], "--config"),
        (["--kinds", "a.png"], "--kind"),
        (["--hlep"], "--help"),
        (["--batch_size=3"], "--config.batch_size"),
        (["--model.stem", "7x7"], "--config.model.stem"),
    ],
)
def test_a_flag_that_does_not_exist_is_answered_with_the_nearest(parser, words, nearest, capsys):
    parser.add_argument("--kind", required=True)  # missing; the flag misspelled may be this one
    with pytest.raises(SystemExit) as stopped:
        command_line.parse(parser, words)
    assert stopped.value.code == 2
    flag = words[0].partition("=")[0]
    assert f"error: {flag} does not exist; did you mean {nearest}?" in capsys.readouterr().err


def test_a_flag_of_a_subcommand_that_does_not_exist_is_answered_too(capsys):
    parser = command_line.parser("python -m inception.any", "Does something.")
    command = parser.add_subparsers().add_parser("import")
    command.add_argument("--output", required=True)
    with pytest.raises(SystemExit):
        command_line.parse(parser, ["import", "--outptu=a"])
    assert "import: error: --outptu does not exist; did you mean --output?" in (
        capsys.readouterr().err
    )
    assert command_line.parse(parser, ["import", "--output=a"])[0].output == "a"


ADDRESS = "gs://bucket/out"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("inception.weights", ["import", "auto", "absent", f"--output={ADDRESS}"]),
        ("inception.weights", ["import", "auto", ADDRESS, "--output=w"]),
        ("inception.weights", ["import", "auto", "absent", "--output=w", f"--labels={ADDRESS}"]),
        ("inception.weights", ["export", "onnx", "absent", f"--output={ADDRESS}"]),
        ("inception.predict", ["absent", "absent", f"--output={ADDRESS}"]),
        ("inception.predict", ["absent", "absent", f"--plot={ADDRESS}"]),
        ("inception.cost", ["--config=absent.py", f"--plot={ADDRESS}"]),
        ("inception.show", ["--config=absent.py", f"--output={ADDRESS}"]),
        ("inception.plan", ["--config=absent.py", "--topology=v5e:1", f"--table={ADDRESS}"]),
        ("benchmarks", ["--mode=infer", f"--output={ADDRESS}"]),
        ("inception.data.prepare", ["--dataset=absent", f"--manual_dir={ADDRESS}"]),
        ("inception.fid", ["compare", "absent", "absent", f"--json={ADDRESS}"]),
    ],
)
@pytest.mark.parametrize("address", [ADDRESS, ADDRESS.replace("//", "/")])
def test_an_address_where_a_file_must_be_is_refused_before_any_work(
    module, words, address, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    is_package = hasattr(importlib.import_module(module), "__path__")
    main = importlib.import_module(f"{module}.__main__" if is_package else module).main
    words = [word.replace(ADDRESS, address) for word in words]
    assert command_line.run(lambda: main(words)) == 1
    assert f"error: {address} is in a bucket" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_a_config_takes_none_of_its_fields(capsys):
    parser = command_line.parser("python -m inception.any", "Does something.")
    assert "--config" not in parser.format_help()
    with pytest.raises(SystemExit):
        command_line.parse(parser, ["--config.seed=3"])
    assert "--config.seed=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ConfigError("config.seed=-1; it must be 0 or more"), 1, "error: config.seed=-1"),
        (FileNotFoundError(2, "No such file", "a.png"), 1, "a.png"),
        (KeyboardInterrupt("stopped at step 3"), 130, "stopped at step 3"),
        (Interrupted("stopped at step 3"), EX_TEMPFAIL, "stopped at step 3"),
        (ProcessStopped("process 3 has stopped"), EX_TEMPFAIL, "process 3 has stopped"),
        (MemoryError("Unable to allocate 3 TiB"), 1, "out of memory: Unable to allocate 3 TiB"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nat x"), 1, "RESOURCE_EXHAUSTED: 9 GiB. A"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, status, text, capsys):
    def main():
        raise error

    assert command_line.run(main, "A smaller --batch_size needs less") == status
    assert text in capsys.readouterr().err


def test_advice_about_memory_is_each_commands_own(capsys):
    def main():
        raise MemoryError("a.png")

    for advice, line in (
        ("", "error: out of memory: a.png"),
        ("B", "error: out of memory: a.png. B"),
    ):
        assert command_line.run(main, advice) == 1
        assert capsys.readouterr().err.strip() == line


def test_other_errors_keep_their_trace():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command_line.run(main)
    assert command_line.run(lambda: None) == 0
