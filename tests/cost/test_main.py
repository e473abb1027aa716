"""The command: its table, its errors, and what it imports."""

import subprocess
import sys

import pytest

from inception import command_line
from inception.cost import __main__ as command


def test_the_command_compares_configs(capsys):
    paths = [f"--config=configs/{name}.py" for name in ("v3", "v2", "figure8_none")]
    assert command_line.run(lambda: command.main(paths)) == 0
    output = capsys.readouterr().out
    assert "23,817,352" in output
    assert "cannot be matched" in output  # the 3.8 G of table 3
    comparison = [line.split() for line in output.splitlines()[-3:]]
    assert comparison == [
        ["v3", "23,817,352", "5.713", "G", "1.000", "4.8", "G"],
        ["v2", "23,798,184", "5.300", "G", "0.928", "3.8", "G"],
        ["figure8_none", "23,817,352", "5.713", "G", "1.000", "-"],
    ]


def test_the_papers_figure_is_not_shown_beside_another_network(capsys):
    command.main(["--config=configs/v3.py", "--config.batch_size=32"])
    assert "4.8 G" in capsys.readouterr().out
    command.main(["--config=configs/v3.py", "--config.image_size", "151"])
    assert "4.8 G" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.image_size=60", "config.image_size=60"),
        ("--config.model.stm=7x7", "config.model.stm"),
        ("--num_classes=0", "num_classes=0"),
        ("--plot=no/such/folder.png", "no/such/folder.png"),
    ],
)
def test_errors_are_one_line(argument, message, capsys):
    assert command_line.run(lambda: command.main(["--config=configs/digits.py", argument])) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_slow_is_imported():
    slow = ("tensorflow", "tensorflow_datasets", "matplotlib")
    code = f"import sys, inception.cost.__main__; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
