"""The page of measurements, from the files that the commands of measuring wrote.

`python -m benchmarks ... --output=docs/measured/NAME.json` writes one of them, and
`INCEPTION_PARITY=docs/measured/parity.json pytest ...` that of parity.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.speed import Spread

FOLDER = Path(__file__).parent / "measured"
_TITLES = {"train": "Training", "infer": "Inference"}
_ISA = {"native": "all instructions", "avx2": "without AVX-512"}
_PARITY = (
    'INCEPTION_PARITY=docs/measured/parity.json pytest -m "" -n0 tests/weights/test_parity_*.py'
)


def page() -> str:
    """All tables, each below the command that measured it."""
    parts = [
        "# Measured\n\nEvery number on this page was written into `docs/measured/` by the command "
        "above its table. What the columns mean, and what was not measured, is in "
        "[performance](../performance.md), [FID](../fid.md#speed) and [parity](../parity.md).\n",
        *(_networks(mode) for mode in _TITLES),
        _starts("memory", "Memory of training", _memory_row),
        _starts("startup", "Starts of training", _startup_row),
        _fid(),
        _parity(),
    ]
    return "\n".join(parts)


def read(name: str) -> Any:
    """The content of a file of measurements."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def _section(title: str, command: str, *tables: str) -> str:
    return "\n\n".join([f"## {title}", f"    {command}", *tables]) + "\n"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    align = ("left", *["right"] * (len(rows[0]) - 1))
    return tabulate(rows, "keys", "pipe", colalign=align, disable_numparse=True)


def _command(found: Mapping[str, Any]) -> str:
    """The command that wrote a file, with the flags that are not the default's."""
    given = found["arguments"]
    wanted = ("mode", "against", "batch", "seconds", "rounds", "isa")
    defaults = {"batch": "16", "seconds": 10.0, "isa": "native"}
    defaults["rounds"] = 1 if given["mode"] in ("startup", "memory") else 5
    flags = [f"--{name}={given[name]}" for name in wanted if given[name] != defaults.get(name)]
    return f"python -m benchmarks {' '.join(flags)} --output=docs/measured/{given['mode']}.json"


def _about(found: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    given = found["arguments"]
    return (
        f"{found['processor']}; {given['dtype']}, {given['size']}x{given['size']}; {packages}. "
        "The median of all rounds, and their range."
    )


def _networks(mode: str) -> str:
    found, tables = read(mode), []
    for each in found["measured"]:
        batch = each["results"][0]["batch"]
        tables.append(f"{batch} {'image' if batch == 1 else 'images'}, {_ISA[each['isa']]}:")
        tables.append(_table([*map(_network_row, each["results"])]))
    return _section(_TITLES[mode], _command(found), _about(found), *tables)


def _network_row(result: Mapping[str, Any]) -> dict[str, str]:
    return {
        "contender": result["contender"],
        "images/s": Spread(*result["images_per_second"]).text(),
        "ours / theirs": Spread(*result["ours_over_theirs"]).text(2),
        "peak memory": f"{result['peak_bytes'] / 2**30:.2f} GiB",
    }


def _starts(mode: str, title: str, row: Any) -> str:
    found = read(mode)
    pairs = zip(found["measured"][::2], found["measured"][1::2], strict=True)
    rows = [row(cold, warm) for cold, warm in pairs]
    return _section(title, _command(found), _about(found), _table(rows))


def _memory_row(cold: Mapping[str, Any], warm: Mapping[str, Any]) -> dict[str, str]:
    return {
        "contender": cold["contender"],
        "start and a step, compiling": f"{cold['peak_bytes'] / 2**30:.2f} GiB",
        "from the cache": f"{warm['peak_bytes'] / 2**30:.2f} GiB",
        "a step": f"{warm['step_peak_bytes'] / 2**30:.2f} GiB",
    }


def _startup_row(cold: Mapping[str, Any], warm: Mapping[str, Any]) -> dict[str, str]:
    return {
        "contender": cold["contender"],
        "first start": f"{cold['seconds']:.1f} s",
        "second start": f"{warm['seconds']:.1f} s",
        "second / first": f"{warm['seconds'] / cold['seconds']:.2f}",
        "first step": f"{cold['first_step_seconds']:.1f} s",
    }


def _fid() -> str:
    found = read("fid")
    about = f"{found['processor']}; {found['images']} PNG files of 256x256."
    command = "python -m benchmarks.fid --output=docs/measured/fid.json"
    return _section("FID", command, about, *map(_table, found["tables"]))


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
