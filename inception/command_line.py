"""What all commands share: flags, fields of a config, errors of one line, exit statuses."""

import argparse
import difflib
import itertools
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence

from inception import runtime
from inception.distributed import processes
from inception.errors import UserError

OVERRIDE = "--config."
# What to do when memory runs out, for commands that have these fields.
SMALLER_BATCH = "A smaller config.batch_size or more config.accumulation_steps need less"


class _Parser(argparse.ArgumentParser):
    """Names the nearest flag where one does not exist; so do the parsers of its subcommands."""

    def parse_known_args(self, args=None, namespace=None):
        if self._subparsers is None:  # and before it misses a flag that may be the one misspelled
            self._check_flags(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _check_flags(self, words: Sequence[str]) -> None:
        known = [*re.findall(r"--[\w-]+", self.format_usage()), "--help"]
        for word in itertools.takewhile(lambda word: word != "--", words):
            flag = word.partition("=")[0]
            if not flag.startswith("--") or flag in known:
                continue
            nearest = difflib.get_close_matches(flag, known, n=1, cutoff=0.8)
            if self.epilog and not nearest:
                self.error(f"{flag} does not exist; did you mean {OVERRIDE}{flag[2:]}?")
            nearest = nearest or difflib.get_close_matches(flag, known, n=1, cutoff=0.0)
            self.error(f"{flag} does not exist; did you mean {nearest[0]}?")


def parser(prog: str, doc: str, *, config: bool = False) -> argparse.ArgumentParser:
    """A command's parser.

    Args:
      prog: How the command is called, such as "python -m inception.cost".
      doc: Docstring of its module, shown by --help.
      config: Whether the command has a config, whose fields can be set.
    """
    fields = (
        "--config.FIELD=VALUE sets a field of the config; inception/defaults.py has every field."
    )
    return _Parser(
        prog=prog,
        description=doc,
        epilog=fields if config else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line in which --config.FIELD=VALUE and --config.FIELD VALUE are overrides.

    Returns:
      The parser's own arguments, and the overrides, "FIELD=VALUE", for `config.load`. Anything
      else ends the program with the parser's usage.
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
    if overrides and not parser.epilog:
        parser.error(f"this command has no config: leave out {OVERRIDE}{overrides[0]}")
    return parser.parse_args(own), overrides


def command_of(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> str:
    """The command that these arguments, or this process's, are of, as a shell takes it."""
    return f"{parser.prog} {shlex.join(sys.argv[1:] if argv is None else argv)}"


def run(main: Callable[[], int | None], memory_advice: str = "") -> int:
    """Runs a command and returns its exit status; errors that a user can fix become one line.

    75 means that the same command continues from what is saved, 130 that Ctrl-C stopped it. If one
    of several processes ends, for whatever reason, the others do not wait for it.

    Args:
      main: The command; returns its exit status, None for 0.
      memory_advice: What to do when memory runs out, in terms of the command's own flags.
    """
    runtime.configure()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        status = main() or 0
    except (UserError, OSError) as error:
        processes.exit_if_peer_lost(error)
        print(f"{processes.name()}error: {error}", file=sys.stderr)
        status = getattr(error, "status", 1)
    except KeyboardInterrupt as stopped:
        print(f"{processes.name()}{stopped or 'interrupted'}", file=sys.stderr)
        status = getattr(stopped, "status", 130)
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            reason = str(error).partition("\n")[0]
            line = ". ".join(filter(None, (f"out of memory: {reason}", memory_advice)))
            print(f"{processes.name()}error: {line}", file=sys.stderr)
        elif processes.name():
            processes.exit_if_peer_lost(error)
            traceback.print_exc()
        else:
            raise
        status = 1
    if status:
        processes.exit_together(status)
    return status
