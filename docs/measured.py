"""The page of measurements, from the files that the commands wrote.

`python -m benchmarks ... --output=docs/measurements/NAME.json` writes one of them, and
`INCEPTION_PARITY=docs/measurements/parity.json pytest ...` that of parity.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import speed, starts

FOLDER = Path(__file__).parent / "measurements"
_TITLES = {
    "train": "Training",
    "infer": "Inference",
    "memory": "Memory of training",
    "startup": "Starts of training",
}
_ISA = {"native": "all instructions", "avx2": "without AVX-512"}
_PARITY = (
    'INCEPTION_PARITY=docs/measurements/parity.json pytest -m "" -n0 tests/weights/test_parity_*.py'
)


def page() -> str:
    """All tables, each below the command that measured it."""
    parts = [
        "# Measured\n\nEvery number on this page was written into `docs/measurements/` by the "
        "command above its table. What the columns mean, and what was not measured, is in "
        "[performance](../performance.md), [FID](../fid.md#speed) and [parity](../parity.md).\n",
        *map(_networks, ("train", "infer")),
        *map(_starts, ("memory", "startup")),
        _fid(),
        _parity(),
    ]
    return "\n".join(parts)


def read(name: str) -> Any:
    """The content of a file of measurements."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def _section(title: str, command: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", f"    {command}", *parts]) + "\n"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    align = ("left", *["right"] * (len(rows[0]) - 1))
    return tabulate(rows, "keys", "pipe", colalign=align, disable_numparse=True)


def _about(found: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    given = found["arguments"]
    return f"{found['processor']}; {given['dtype']}, {given['size']}x{given['size']}; {packages}."


def _networks(mode: str) -> str:
    found = read(mode)
    parts = [f"{_about(found)} The median of all rounds, and their range."]
    for each in found["measured"]:
        results = [_result(result) for result in each["results"]]
        batch = results[0].batch
        parts.append(f"{batch} {'image' if batch == 1 else 'images'}, {_ISA[each['isa']]}:")
        parts.append(_table([*map(speed.row, results)]))
    return _section(_TITLES[mode], found["command"], *parts)


def _result(fields: Mapping[str, Any]) -> speed.Result:
    spreads = {name: speed.Spread(*v) for name, v in fields.items() if isinstance(v, list)}
    return speed.Result(**{**fields, **spreads})


def _starts(mode: str) -> str:
    found = read(mode)
    rows = starts.ROWS[mode]([starts.Start(**each) for each in found["measured"]])
    return _section(_TITLES[mode], found["command"], _about(found), _table(rows))


def _fid() -> str:
    found = read("fid")
    about = f"{found['processor']}; {found['images']} PNG files of 256x256."
    return _section("FID", found["command"], about, *map(_table, found["tables"]))


def _parity() -> str:
    rows = [
        {
            "source": each["source"],
            "compared": each["compared"],
            "images": each["images"],
            "largest difference": f"{each['difference']:.1e}",
            "at": each["at"],
        }
        for each in read("parity")
    ]
    return _section("Parity of networks", _PARITY, _table(rows))
