"""The one style of all commands: flags, fields of a config, errors of one line, exit statuses."""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable, Sequence

from inception import runtime
from inception.distributed import processes
from inception.errors import UserError

OVERRIDE = "--config."
# What to do when memory runs out, for commands that have these fields.
SMALLER_BATCH = "A smaller config.batch_size or more config.accumulation_steps need less"


def parser(prog: str, doc: str, *, config: bool = False) -> argparse.ArgumentParser:
    """A command's parser.

    Args:
      prog: how the command is called, "python -m inception.cost".
      doc: the docstring of its module, shown by --help.
      config: whether the command has a config, whose fields can be set.
    """
    fields = (
        "--config.FIELD=VALUE sets any field of the config; inception/defaults.py has them all."
    )
    return argparse.ArgumentParser(
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
    if overrides and not parser.epilog:
        parser.error(f"this command has no config: leave out {OVERRIDE}{overrides[0]}")
    return parser.parse_args(own), overrides


def run(main: Callable[[], int | None], memory_advice: str = "") -> int:
    """Runs a command: errors that a user can mend become one line; returns its exit status.

    The line about memory that ran out ends in `memory_advice`, which names the command's own flags.

    75 means that the same command goes on from what is saved, 130 that Ctrl-C has stopped it. Of
    several processes, none leaves the others waiting, whatever ends it.
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
