"""The rows of an ablation, which are configs, and their runs, one for each seed."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from inception.config import differences, flatten, load
from inception.errors import CheckpointError, ConfigError
from inception.training import optimizers
from inception.workdir.files import read_json, write_json
from inception.workdir.identity import changed_fields
from inception.workdir.logbook import read_metrics

REFERENCE = "v3"  # the config that a setting such as digits.py changes


class AblationRow(NamedTuple):
    """A config that is compared with others.

    Attributes:
      name: Name of the config's file.
      config: The config as it is run, with seed 0.
      parent: Name of the row above that differs in the fewest fields; None for the first row.
      changes: Fields that differ from the parent's: (parent's value, own value).
      setting: Fields that differ from the config's file.
    """

    name: str
    config: ConfigDict
    parent: str | None
    changes: dict[str, tuple]
    setting: dict[str, Any]


class AblationRun(NamedTuple):
    """One run of a row.

    Attributes:
      row: Name of the row.
      config: The row's config with the run's seed.
      workdir: The run's workdir.
    """

    row: str
    config: ConfigDict
    workdir: epath.Path

    def __str__(self) -> str:
        return f"{self.row}, seed {self.config.seed}"

    @property
    def training_images(self) -> int | None:
        """Number of training images; None before the run has started."""
        return _read(self.workdir / "data.json").get("training_images")

    @property
    def results(self) -> dict | None:
        """The final evaluation, see `evaluator.Evaluator`; None if the run is not finished.

        A run is finished if its results.json belongs to the same config and to the last step.
        """
        results, images = _read(self.workdir / "results.json"), self.training_images
        if not results or not images:
            return None
        try:
            same = not changed_fields(self.workdir, self.config)
        except CheckpointError:
            return None
        last = optimizers.num_steps(self.config, images / self.config.batch_size)
        return results if same and results["step"] == last else None

    def curve(self, name: str) -> dict[float, float]:
        """A logged metric, such as "eval/ema_top1", by epoch."""
        steps_per_epoch = (self.training_images or 1) / self.config.batch_size
        lines = read_metrics(self.workdir)
        return {line["step"] / steps_per_epoch: line[name] for line in lines if name in line}

    @property
    def record(self) -> dict:
        """What the ablation recorded about the run: "seconds", "error", "machine"; perhaps {}."""
        return _read(self._record_file)

    def note(self, **facts: Any) -> None:
        """Adds to the record, a file next to the workdir, which may not be writable."""
        write_json(self._record_file, self.record | facts)

    @property
    def _record_file(self) -> epath.Path:
        return self.workdir.parent / f"{self.workdir.name}.json"


def _read(file: epath.Path) -> dict:
    """Reads a JSON file; {} if it is missing or was cut off by a crash."""
    with contextlib.suppress(OSError, ValueError):
        return read_json(file) or {}
    return {}


def make_runs(rows: Sequence[AblationRow], seeds: int, workdir: epath.Path) -> list[AblationRun]:
    """The runs in order; a row's seeds follow each other, as they share a compiled program."""
    runs = []
    for row in rows:
        for seed in range(seeds):
            config = row.config.copy_and_resolve_references()
            config.seed = seed
            runs.append(AblationRun(row.name, config, workdir / row.name / f"seed_{seed}"))
    return runs


def load_rows(
    names: Sequence[str], setting: Mapping[str, Any], overrides: Sequence[str] = ()
) -> list[AblationRow]:
    """Loads configs/NAME.py, or paths, and finds each one's parent.

    Args:
      names: Names of configs, or paths.
      setting: Fields that all rows take over, see `load_setting`.
      overrides: "FIELD=VALUE" for all rows; they take precedence.

    Raises:
      ConfigError: If a config or field is invalid, if a row and the setting change a field to
        different values, or if two rows are equal.
    """
    overridden = {override.partition("=")[0] for override in overrides}
    if "seed" in overridden:
        raise ConfigError("config.seed cannot be set here: --seeds=N runs seeds 0 to N-1")
    shared = [f"{name}={str(value).strip('[]')}" for name, value in setting.items()]
    settled = {name: value for name, value in setting.items() if name not in overridden}
    rows: list[AblationRow] = []
    for file in map(config_file, names):
        for field, value in load_setting(file).items():
            if settled.get(field, value) != value:
                raise ConfigError(
                    f"{file} and the setting of --on both change config.{field}, to {value!r} and "
                    f"{settled[field]!r}. Set it for all rows with --config.{field}="
                )
        config = load(file, [*shared, *overrides])
        if file.stem in [row.name for row in rows]:
            raise ConfigError(f"--configs names {file.stem} twice")
        changes = {row.name: differences(flatten(row.config), flatten(config)) for row in rows}
        parent = min(changes, key=lambda other: len(changes[other]), default=None)
        if parent and not changes[parent]:
            raise ConfigError(f"--configs: {file.stem} and {parent} are equal; leave one out")
        changed = changes[parent] if parent else {}
        rows.append(AblationRow(file.stem, config, parent, changed, _changes(load(file), config)))
    return rows


def load_setting(file: Path) -> dict[str, Any]:
    """Fields of a config file that differ from configs/v3.py, and their values.

    Those of configs/digits.py, for example, run any row on the digits.
    """
    return _changes(load(config_file(REFERENCE)), load(file))


def _changes(old: ConfigDict, new: ConfigDict) -> dict[str, Any]:
    pairs = differences(flatten(old), flatten(new))
    return {field: value for field, (_, value) in pairs.items()}


def config_file(name: str) -> Path:
    """configs/NAME.py, from the working directory; a name that ends in .py is a path."""
    return Path(name) if name.endswith(".py") else Path("configs", f"{name}.py")
