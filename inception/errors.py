"""The one base of all errors that a user can mend, and the paths that all refuse alike."""

from pathlib import Path


class UserError(Exception):
    """Says what is wrong, where, and what would be right; main.py shows it without a trace."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; the message names the field, the value and what is right."""


class CheckpointError(UserError, RuntimeError):
    """A workdir or checkpoint that cannot be used; the message says why and what to do."""


def local_path(name: str, path: str | Path, error: type[UserError]) -> Path:
    """The path that `name` was given, with ~ expanded.

    Raises:
      UserError: `error`, for a bucket's address.
    """
    if "://" in str(path):
        raise error(
            f"{name} {path} is not a local path: mount the bucket (with gcsfuse, for example) and "
            "give the folder it is mounted on"
        )
    return Path(path).expanduser()
