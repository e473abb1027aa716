"""The one style of all commands: flags, fields of a config, errors of one line, exit statuses."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from inception.errors import UserError

OVERRIDE = "--config."


def parser(prog: str, doc: str) -> argparse.ArgumentParser:
    """A command's parser.

    Args:
      prog: how the command is called, "python -m inception.cost".
      doc: the docstring of its module, shown by --help.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=doc,
        epilog="Any field of a config can be set: --config.FIELD=VALUE. inception/defaults.py "
        "explains every one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line in which --config.FIELD=VALUE and --config.FIELD VALUE are overrides.

    Returns:
      The parser's own arguments, and the overrides, "FIELD=VALUE", for `config.load`. What is
      neither ends the program with the parser's usage.
    """
    words = iter(sys.argv[1:] if argv is None else argv)
    own, overrides = [], []
    for word in words:
        if not word.startswith(OVERRIDE):
            own.append(word)
        elif "=" in word:
            overrides.append(word.removeprefix(OVERRIDE))
        elif (value := next(words, "--")).startswith("--"):
            parser.error(f"{word} needs a value: {word}=VALUE")
        else:
            overrides.append(f"{word.removeprefix(OVERRIDE)}={value}")
    return parser.parse_args(own), overrides


def run(main: Callable[[], int | None]) -> int:
    """Runs a command: errors that a user can mend become one line, Ctrl-C status 130."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return main() or 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(stopped or "interrupted", file=sys.stderr)
        return 130
