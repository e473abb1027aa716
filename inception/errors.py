"""The one base of all errors that a user can mend."""

# A command's exit status for "run it again": sysexits.h's EX_TEMPFAIL. Schedulers can be told to;
# see launch/.
EX_TEMPFAIL = 75


class UserError(Exception):
    """Says what is wrong, where, and what would be right; commands show it without a trace."""

    status = 1  # of the command that it ends


class ConfigError(UserError, ValueError):
    """A config that cannot be run; the message names the field, the value and what is right."""


class CheckpointError(UserError, RuntimeError):
    """A workdir or checkpoint that cannot be used; the message says why and what to do."""
