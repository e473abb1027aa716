"""The rows of an ablation and their cells: which configs are compared, and what each run left.

A row is a config, a cell one run of it with one seed, in a directory of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from inception import optimizers
from inception.config import ConfigError, differences, flatten, load
from inception.logbook import read_metrics, write_json

REFERENCE = "v3"  # what a setting such as digits.py is a change of


@dataclass(frozen=True)
class Row:
    """A config that is compared with others.

    Attributes:
      name: of its file.
      config: as it is run, with seed 0.
      parent: the row that it is a change of: of those above it, the one that differs in the fewest
        fields (the first of several). None for the first row.
      changes: the fields that differ from the parent's, with the parent's value and its own.
      setting: the fields, and their values, in which it is not run as its file says.
    """

    name: str
    config: ConfigDict
    parent: str | None
    changes: dict[str, tuple]
    setting: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a row.

    Attributes:
      row: the name of its row.
      seed: of the run.
      config: of the run.
      directory: its workdir.
    """

    row: str
    seed: int
    config: ConfigDict
    directory: Path

    @property
    def results(self) -> dict | None:
        """The final evaluation if the run is finished, see `evaluate.Evaluator`; else None.

        It is finished when results.json is there and fits: every field of the config is the same,
        and so is the last step.
        """
        stored = _read(self.directory / "config.json")
        results = _read(self.directory / "results.json")
        if stored is None or results is None:
            return None
        if differences(flatten(ConfigDict(stored)), flatten(self.config)):
            return None
        if self.steps_per_epoch is None:
            return None
        last = optimizers.num_steps(self.config, self.steps_per_epoch)
        return results if results["step"] == last else None

    @property
    def training_images(self) -> int | None:
        """Number of them; None before the run has started."""
        return (_read(self.directory / "data.json") or {}).get("training_images")

    @property
    def steps_per_epoch(self) -> float | None:
        """Training images over the batch size; None before the run has started."""
        return self.training_images and self.training_images / self.config.batch_size

    def curve(self, name: str) -> dict[int, float]:
        """A number that the run has logged, such as "eval/ema_top1", by step."""
        lines = read_metrics(self.directory)
        return {line["step"]: line[name] for line in lines if name in line}

    @property
    def record(self) -> dict:
        """What the ablation noted about the run: "seconds", "error", "machine"; {} if nothing."""
        return _read(self._record) or {}

    def note(self, **facts: Any) -> None:
        """Adds to the record."""
        write_json(self._record, self.record | facts)

    @property
    def _record(self) -> Path:
        """Beside the workdir, for the reason may be that this cannot be written."""
        return self.directory.with_name(f"{self.directory.name}.json")


def _read(file: Path) -> Any:
    """A JSON file, or None where there is none to be read or a crash has cut it off."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def make_cells(rows: Sequence[Row], seeds: int, workdir: str | Path) -> list[Cell]:
    """The cells in the order in which they run: a row's seeds follow each other.

    A row's program does not depend on the seed, so the compilation cache serves all but the first.
    """
    cells = []
    for row in rows:
        for seed in range(seeds):
            config = row.config.copy_and_resolve_references()
            config.seed = seed
            cells.append(Cell(row.name, seed, config, Path(workdir, row.name, f"seed_{seed}")))
    return cells


def load_rows(
    names: Sequence[str], setting: Mapping[str, Any], overrides: Sequence[str] = ()
) -> list[Row]:
    """Loads the configs of an ablation and finds each one's parent.

    Args:
      names: configs/NAME.py, or paths.
      setting: fields that all rows share, see `load_setting`.
      overrides: "--config.FIELD=VALUE" for all rows; they have the last word.

    Raises:
      ConfigError: for a config or field that makes no sense; for a field that a row and the
        setting both change, to different values; for two rows that are one and the same.
    """
    overridden = {override.partition("=")[0].removeprefix("--config.") for override in overrides}
    if "seed" in overridden:
        raise ConfigError("config.seed cannot be set here: --seeds=N runs seeds 0 to N-1")
    shared = [f"{name}={value}" for name, value in setting.items()]
    rows: list[Row] = []
    for name in names:
        _check_setting(name, setting, overridden)
        file, name = config_file(name), Path(name).stem
        config = load(file, [*shared, *overrides])
        if name in [row.name for row in rows]:
            raise ConfigError(f"--configs names {name} twice")
        changes = {row.name: differences(flatten(row.config), flatten(config)) for row in rows}
        parent = min(changes, key=lambda other: len(changes[other]), default=None)
        if parent and not changes[parent]:
            raise ConfigError(f"{name} and {parent} are the same config here: leave one out")
        changed = changes[parent] if parent else {}
        rows.append(Row(name, config, parent, changed, _changes(load(file), config)))
    return rows


def load_setting(name: str) -> dict[str, Any]:
    """The fields, and their values, in which configs/NAME.py differs from configs/v3.py.

    So configs/digits.py says how any row is run on the digits: data, size, width, schedule.
    """
    return _changes(load(config_file(REFERENCE)), load(config_file(name)))


def _changes(old: ConfigDict, new: ConfigDict) -> dict[str, Any]:
    pairs = differences(flatten(old), flatten(new))
    return {field: value for field, (_, value) in pairs.items()}


def config_file(name: str) -> Path:
    """configs/NAME.py; a name that ends in .py is a path."""
    return Path(name) if name.endswith(".py") else Path("configs", f"{name}.py")


def _check_setting(name: str, setting: Mapping[str, Any], settled: set[str]) -> None:
    """Refuses a row whose own change the setting would undo, or the row the setting's."""
    for field, value in load_setting(name).items():
        if field in setting and setting[field] != value and field not in settled:
            raise ConfigError(
                f"{config_file(name)} and the setting of --on both change config.{field}, to "
                f"{value!r} and {setting[field]!r}: say which with --config.{field}=..., for all "
                "rows, or set fields one by one without --on"
            )
