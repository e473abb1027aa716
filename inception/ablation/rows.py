"""The rows of an ablation and their runs: which configs are compared, and what each run left.

A row is a config; it is run once per seed, each time in a workdir of its own.
"""

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

REFERENCE = "v3"  # what a setting such as digits.py is a change of


class AblationRow(NamedTuple):
    """A config that is compared with others.

    Its parent is the row that it is a change of: of those above it, the one that differs in the
    fewest fields, the first of several.
    """

    name: str  # of its file
    config: ConfigDict  # as it is run, with seed 0
    parent: str | None  # None for the first row
    changes: dict[str, tuple]  # fields that differ from the parent's: its value and the row's
    setting: dict[str, Any]  # fields, and their values, in which it is not run as its file says


class AblationRun(NamedTuple):
    """One run of a row."""

    row: str
    config: ConfigDict  # with its seed
    workdir: epath.Path

    def __str__(self) -> str:
        return f"{self.row}, seed {self.config.seed}"

    @property
    def training_images(self) -> int | None:
        """Number of them; None before the run has started."""
        return _read(self.workdir / "data.json").get("training_images")

    @property
    def results(self) -> dict | None:
        """The final evaluation if the run is finished, see `evaluator.Evaluator`; else None.

        It is finished when results.json is there and fits: every field of the config is the same,
        and so is the last step.
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
        """A number that the run has logged, such as "eval/ema_top1", by epoch."""
        steps_per_epoch = (self.training_images or 1) / self.config.batch_size
        lines = read_metrics(self.workdir)
        return {line["step"] / steps_per_epoch: line[name] for line in lines if name in line}

    @property
    def record(self) -> dict:
        """What the ablation noted about the run: "seconds", "error", "machine"; {} if nothing."""
        return _read(self._beside)

    def note(self, **facts: Any) -> None:
        """Adds to the record, beside the workdir: the error may be that this cannot be written."""
        write_json(self._beside, self.record | facts)

    @property
    def _beside(self) -> epath.Path:
        return self.workdir.parent / f"{self.workdir.name}.json"


def _read(file: epath.Path) -> dict:
    """A JSON file, or {} where there is none to be read or a crash has cut it off."""
    with contextlib.suppress(OSError, ValueError):
        return read_json(file) or {}
    return {}


def make_runs(rows: Sequence[AblationRow], seeds: int, workdir: epath.Path) -> list[AblationRun]:
    """The runs in their order: a row's seeds, which share a compiled program, follow each other."""
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

    All rows share the fields of `setting`, see `load_setting`, and `overrides`, "FIELD=VALUE",
    which have the last word.

    Raises:
      ConfigError: for a config or field that makes no sense; for a field that a row and the
        setting both change, to different values; for two rows that are one and the same.
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
                    f"{settled[field]!r}. Say which with --config.{field}=... for all rows, or set "
                    "fields one by one without --on"
                )
        config = load(file, [*shared, *overrides])
        if file.stem in [row.name for row in rows]:
            raise ConfigError(f"--configs names {file.stem} twice")
        changes = {row.name: differences(flatten(row.config), flatten(config)) for row in rows}
        parent = min(changes, key=lambda other: len(changes[other]), default=None)
        if parent and not changes[parent]:
            raise ConfigError(f"--configs: {file.stem} and {parent} are the same. Leave one out")
        changed = changes[parent] if parent else {}
        rows.append(AblationRow(file.stem, config, parent, changed, _changes(load(file), config)))
    return rows


def load_setting(file: Path) -> dict[str, Any]:
    """The fields, and their values, in which a config file differs from configs/v3.py.

    So configs/digits.py says how any row is run on the digits.
    """
    return _changes(load(config_file(REFERENCE)), load(file))


def _changes(old: ConfigDict, new: ConfigDict) -> dict[str, Any]:
    pairs = differences(flatten(old), flatten(new))
    return {field: value for field, (_, value) in pairs.items()}


def config_file(name: str) -> Path:
    """configs/NAME.py, from the working directory; a name that ends in .py is a path."""
    return Path(name) if name.endswith(".py") else Path("configs", f"{name}.py")
