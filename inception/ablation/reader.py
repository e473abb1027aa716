"""Reads the tables of a report that an ablation has written."""

import re
from pathlib import Path

import pandas as pd

_HEADING = re.compile(r"^#+ +(.*)$")
_RULE = re.compile(r"^\|[\s:|-]+\|$")  # between a table's header and its rows
_SPREAD = re.compile(r"^(-?[\d.]+) ± ([\d.]+)$")


def read_report(file: str | Path) -> dict[str, pd.DataFrame]:
    """The tables of a report.md, by the heading that each is under.

    A column of numbers is float, missing ones NaN. A column NAME of "mean ± deviation" becomes two,
    NAME and "NAME ±". Intervals, "1.11 [0.42, 1.80]", stay text.
    """
    heading = ""
    lines: dict[str, list[list[str]]] = {}
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if match := _HEADING.match(line):
            heading = match[1]
        elif line.startswith("|") and not _RULE.match(line):
            lines.setdefault(heading, []).append(_cells(line))
    tables = {name: pd.DataFrame(rows, columns=head) for name, (head, *rows) in lines.items()}
    return {name: _with_numbers(table) for name, table in tables.items()}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name, column in table.items():
        spreads = column.str.extract(_SPREAD)
        if spreads.notna().all(axis=None):
            columns[name], columns[f"{name} ±"] = spreads[0].astype(float), spreads[1].astype(float)
            continue
        plain = column.str.replace(",", "").replace("-", None)
        numbers = pd.to_numeric(plain, errors="coerce")
        is_numeric = numbers.notna().any() and numbers.notna().equals(plain.notna())
        columns[name] = numbers if is_numeric else column
    return pd.DataFrame(columns)
