"""The commands of this repository: their parsers, and the commands that Markdown pages name."""

import argparse
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
# `python -m tests.stress.kills` is for developers only, and is parsed but not listed.
FOLDERS = ("inception", "docs", "benchmarks")

_PARSER = re.compile(r'command_line\.parser\(\s*"python (?:-m )?([\w.]+)"')
_CODE = re.compile(r"^(?: {4,}|\t).*$", re.MULTILINE)
_FENCED = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")


def all_commands() -> list[str]:
    """Every command, "main.py" first, then the modules that `python -m` runs."""
    files = [ROOT / "main.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    found = {name for path in files for name in _PARSER.findall(path.read_text())}
    rooms = ["main", *FOLDERS]
    return sorted(found, key=lambda name: (rooms.index(name.split(".")[0]), name))


class _Built(BaseException):
    """Ends a command as soon as its parser is complete."""


@cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of "main.py" or of a module, built as the command itself builds it.

    Raises:
      ModuleNotFoundError: If there is no such module.
    """

    def stop(parser: argparse.ArgumentParser, *_) -> None:
        raise _Built(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            _main_of(command)()
        except _Built as built:
            return built.args[0]
    raise LookupError(f"python {command} parses no arguments")


def _main_of(command: str) -> Callable:
    if command == "main.py":
        return importlib.import_module("main").main
    is_package = (ROOT / command.replace(".", "/")).is_dir()
    return importlib.import_module(f"{command}.__main__" if is_package else command).main


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a command's subcommands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def code_of(markdown: str) -> Iterator[str]:
    """The lines of all code of a page: fenced, indented and inline, continued lines joined."""
    blocks = _FENCED.findall(markdown)
    rest = _FENCED.sub("", markdown)
    blocks += ["\n".join(_CODE.findall(rest))]
    for block in blocks:
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    for span in _INLINE.findall(_CODE.sub("", rest)):
        yield " ".join(span.split())


def commands_of(markdown: str, program: str) -> list[list[str]]:
    """The words of every command of a page that begins with `program`.

    Brackets around what may be left out are removed; environment variables before it are too.
    """
    found = []
    for line in code_of(markdown):
        for part in re.split(r"&&|;|\|(?!\w)", re.sub(r"\[(?=-)|(?<=\S)\](?=\s|$)", "", line)):
            words = re.sub(r"^\s*(?:[A-Z_]+=\S* +)*", "", part)
            if words.startswith(f"{program} "):
                found.append(shlex.split(words, comments=True))
    return found
