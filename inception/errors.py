"""The one base of all errors that a user can mend."""


class UserError(Exception):
    """Says what is wrong, where, and what would be right; commands show it without a trace."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; the message names the field, the value and what is right."""


class CheckpointError(UserError, RuntimeError):
    """A workdir or checkpoint that cannot be used; the message says why and what to do."""
