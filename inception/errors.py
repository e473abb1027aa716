"""The one base of all errors that a user can mend."""


class UserError(Exception):
    """Says what is wrong, where, and what would be right; main.py shows it without a trace."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; the message names the field, the value and what is right."""
