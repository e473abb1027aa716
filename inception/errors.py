"""The errors that a user can fix, with one base class."""

# Exit status of a command that can be run again as it is: EX_TEMPFAIL of sysexits.h. Schedulers
# can be configured to do so; see launch/.
EX_TEMPFAIL = 75


class UserError(Exception):
    """Says what is wrong, where, and what would be right; commands print it without a traceback."""

    status = 1  # exit status of the command


class ConfigError(UserError, ValueError):
    """An invalid config; the message names the field, the value and what would be right."""


class CheckpointError(UserError, RuntimeError):
    """A workdir or checkpoint that cannot be used; the message says why and what to do."""
