"""The result of a check, as a row of a table."""

import textwrap
from typing import NamedTuple

from inception.workdir.logbook import log


class Finding(NamedTuple):
    """The result of a check, and what to do about it."""

    text: str
    advice: str = ""
    status: str = "PASS"  # or "WARN" or "FAIL"

    @classmethod
    def judge(cls, text: str, advice: str, *, warn: bool = False, fail: bool = False) -> "Finding":
        """A finding that has the advice unless it passes."""
        return cls(text, advice, "FAIL" if fail else "WARN") if warn or fail else cls(text)


def show(name: str, finding: Finding) -> None:
    """Prints a row, and the advice below it."""
    advice = [f"-> {line}" for line in finding.advice.splitlines()]
    cell = textwrap.indent("\n".join([finding.text, *advice]), " " * 23).lstrip()
    log(f"{finding.status:6}{name.replace('_', ' '):17}{cell}")
