"""Writes the pages of docs/reference/ from the code that they describe.

    python -m docs.generate [--check]

--check writes nothing; the status is 1 if a page is not as the code is.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from docs import measured
from docs.commands import all_commands, parser_of, subparsers
from inception import command_line, defaults
from inception.fields import Check
from inception.workdir.identity import MAY_CHANGE

FOLDER = Path(__file__).parent / "reference"
MODULES = ("inception", "inception.fid")  # whose __all__ is public
_NOTE = "<!-- Written by `python -m docs.generate`. -->\n\n"
_SOURCE = re.compile(r"\b(sections? [\d. and]*\d|tables? \d|figures? \d+|released code)\b")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)


def config() -> str:
    """Every field of a config, group by group."""
    page = [
        "# Fields of a config\n\n",
        "`--config.FIELD=VALUE` sets a field in any command that has a config. The sections and "
        "tables are those of the [paper](https://arxiv.org/abs/1512.00567); the released code is "
        "Google's TensorFlow implementation. Fields marked * may be changed when a run continues; "
        "so may all of `eval` and `evaluations`.\n\n"
        "`--config.evaluations.NAME.FIELD=VALUE` adds an evaluation at the end of a run: its "
        "fields are those of `eval`, and those that are not set have `eval`'s values.\n",
    ]
    for title, group in defaults.GROUPS.items():
        page.append(f"\n## {title}\n\n| field | default | meaning and unit | values | source |\n")
        page.append("|---|---|---|---|---|\n")
        for name, field in group.items():
            meaning = field.meaning
            if field.needs:
                other, values = field.needs
                meaning += f" Only with {other} = {' or '.join(map(str, values))}."
            cells = (
                f"`{name}`{' *' if name in MAY_CHANGE else ''}",
                f"`{_shown(field.default)}`",
                meaning,
                _values(field.check),
                ", ".join(dict.fromkeys(_SOURCE.findall(field.meaning))),
            )
            page.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(page)


def _shown(value: Any) -> str:
    """A default as a command line would set it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else f"{value}" or '""'


def _values(check: Check) -> str:
    """The values of a field, without the limits that no run reaches."""
    right = check.right.replace(" and at most 1,000,000,000", "").replace("printable ", "")
    return re.sub(r"'(\w*)'", r"`\1`", right).replace("one of (", "").removesuffix(")")


def commands() -> str:
    """What every command prints for --help."""
    page = ["# Commands\n\nWhat each command prints for `--help`.\n"]
    with mock.patch.dict("os.environ", COLUMNS="100", NO_COLOR="1"):
        for command in all_commands():
            name = f"python {command}" if command == "main.py" else f"python -m {command}"
            parser = parser_of(command)
            page.append(f"\n## {name}\n\n{_fenced(parser.format_help())}")
            for sub, subparser in subparsers(parser).items():
                page.append(f"\n### {name} {sub}\n\n{_fenced(subparser.format_help())}")
    return "".join(page)


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def api() -> str:
    """Signature and docstring of everything that the public modules export."""
    page = [
        "# Public functions and classes\n\n"
        "What is not here may change without notice. Arrays' shapes are in brackets.\n"
    ]
    for name in MODULES:
        module = importlib.import_module(name)
        page.append(f"\n## {name}\n")
        for export in module.__all__:
            page.append("".join(_described(module, export)))
    return "".join(page)


def _described(module: ModuleType, export: str) -> Iterator[str]:
    thing = getattr(module, export)
    yield f"\n### {module.__name__}.{export}\n\n"
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        yield f"A {type(thing).__name__}: {', '.join(f'`{each}`' for each in thing)}.\n"
        return
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    yield _definition(node)
    for method in _public_methods(node):
        yield f"\n#### {export}.{method.name}\n\n{_definition(method)}"


def _definition(node: ast.FunctionDef | ast.ClassDef) -> str:
    return f"```python\n{_signature(node)}\n```\n\n{_markdown(ast.get_docstring(node) or '')}\n"


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """A definition without its body, as it is written: the same in all versions of Python."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return _wrapped(f"{node.name}(", _arguments(node.args), f"){returns}")
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _wrapped(f"{node.name}(", _arguments(each.args), ")")
    fields = [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]
    return _wrapped(f"{node.name}(", fields, ")")


def _arguments(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + [*arguments.defaults]
    pairs = [*zip(positional, defaults, strict=True)]
    shown = [_argument(*pair) for pair in pairs if pair[0].arg not in ("self", "cls")]
    if arguments.vararg:
        shown.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += map(_argument, arguments.kwonlyargs, arguments.kw_defaults)
    return shown


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    shown = ast.unparse(argument)
    if default is None:
        return shown
    return (
        f"{shown} = {ast.unparse(default)}"
        if argument.annotation
        else f"{shown}={ast.unparse(default)}"
    )


def _wrapped(start: str, parts: Sequence[str], end: str) -> str:
    line = f"{start}{', '.join(parts)}{end}"
    if len(line) <= 88:
        return line
    return "\n".join([start, *(f"    {part}," for part in parts), end])


def _public_methods(node: ast.stmt) -> list[ast.FunctionDef]:
    if not isinstance(node, ast.ClassDef):
        return []
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    return [
        each
        for each in methods
        if (not each.name.startswith("_") or each.name == "__call__") and ast.get_docstring(each)
    ]


def _markdown(docstring: str) -> str:
    """A docstring in Markdown: its sections as lists, its indented code as it is."""
    parts = _SECTION.split(docstring)
    text = [_prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        text.append(f"**{title}**\n\n{_items(body)}")
    return "\n\n".join(text)


def _prose(text: str) -> str:
    """Paragraphs; lines of code, which some examples do not indent, stay lines."""
    paragraphs = text.strip("\n").split("\n\n")
    return "\n\n".join(
        f"```python\n{each}\n```" if re.search(r"^\w[\w, .]* = |^from |^for ", each) else each
        for each in paragraphs
    )


def _items(body: str) -> str:
    """The entries of a section, "name: meaning", continued on lines that are indented more."""
    lines = inspect.cleandoc(body).splitlines()
    items: list[str] = []
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        elif line:
            items.append(line)
    named = [re.match(r"([\w.*, ]+): (.*)", item) for item in items]
    if all(named):
        return "\n".join(f"- `{match[1]}`: {match[2]}" for match in named if match)
    return " ".join(items)


PAGES = {"config.md": config, "api.md": api, "commands.md": commands, "measured.md": measured.page}


def pages() -> dict[Path, str]:
    """The generated pages as they should be."""
    return {FOLDER / name: _NOTE + page() for name, page in PAGES.items()}


def stale() -> list[Path]:
    """The pages that are not as they should be; only where lines are broken may differ."""
    return [
        file
        for file, text in pages().items()
        if not file.exists() or file.read_text().split() != text.split()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes or checks the pages."""
    parser = command_line.parser("python -m docs.generate", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    args, _ = command_line.parse(parser, argv)
    if args.check:
        for file in (found := stale()):
            print(f"{file} is stale: python -m docs.generate")
        return int(bool(found))
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main))
