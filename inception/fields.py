"""What one field of a config is, and the checks of its values."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

Value = bool | int | float | str | list[float]

_MAX = 1e9  # more than any run needs; larger numbers overflow an int32 or a float32 somewhere
_MIN = 1e-30  # smaller numbers are 0 in float32


class Check(NamedTuple):
    """The values that a field may have.

    Attributes:
      right: What they are, such as "at least 1".
      accepts: Whether a value of the field's type is one of them.
    """

    right: str
    accepts: Callable[[Any], bool]


class Field(NamedTuple):
    """One field of a config.

    Attributes:
      default: Its value where no config file and no command sets it; it decides the type.
      check: The values that it may have.
      meaning: What it does, its unit, and where the paper or its released code has it.
      needs: Another field and the values of that field with which this one has an effect.
    """

    default: Value
    check: Check
    meaning: str
    needs: tuple[str, tuple[Value, ...]] | None = None


def one_of(*choices: Value) -> Check:
    """One of these values."""
    return Check(f"one of {choices}", choices.__contains__)


def at_least(low: float, high: float = _MAX) -> Check:
    """A number from `low` to `high`."""
    return Check(f"at least {low:,.0f} and at most {high:,.0f}", lambda x: low <= x <= high)


def above_0(high: float = _MAX) -> Check:
    """A number that is greater than 0, in float32 too, and not greater than `high`."""
    return Check(f"greater than 0 and at most {high:,.0f}", lambda x: _MIN <= x <= high)


def three(check: Check) -> Check:
    """Three numbers, each as in `check`."""

    def accepts(values: list) -> bool:
        return len(values) == 3 and all(isinstance(x, float) and check.accepts(x) for x in values)

    return Check(f"three numbers, each {check.right}", accepts)


def _is_range_of_steps(value: str) -> bool:
    if not re.fullmatch(r"\d{1,18}:\d{1,18}", value):
        return not value
    first, last = map(int, value.split(":"))
    return 1 <= first <= last


POSITIVE = above_0()
FRACTION = Check("at least 0 and below 1", lambda x: 0 <= x < 1)
SWITCH = one_of(False, True)
TEXT = Check("printable text", str.isprintable)
STEPS = Check("FIRST:LAST such as 10:13, or empty", _is_range_of_steps)
