"""Reads a config file, applies overrides, and refuses what makes no sense."""

import argparse
import difflib
import itertools
import math
import runpy
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from inception.data import crops
from inception.errors import ConfigError
from inception.model import STEMS, Inception

CHOICES = {
    "augmentation": crops.AUGMENTATIONS,
    "dtype": ("float32", "bfloat16"),
    "on_bad_record": ("fail", "skip"),
    "optimizer": ("rmsprop", "momentum"),
    "schedule": ("staircase", "cosine"),
    "eval.preprocessing": crops.PREPROCESSINGS,
    "eval.crops": crops.CROPS,
    "eval.classes": ("all", "present"),
}
POSITIVE = (
    "image_size",
    "batch_size",
    "accumulation_steps",
    "num_epochs",
    "rmsprop_epsilon",
    "aux_loss_weight",
    "learning_rate",
    "learning_rate_batch",
    "decay_rate",
    "decay_epochs",
    "eval.batch_size",
    "eval.every_epochs",
    "eval.crop_fraction",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
)
NOT_NEGATIVE = (
    "seed",
    "data_threads",
    "mixup_alpha",
    "clip_norm",
    "weight_decay",
    "warmup_epochs",
)
FRACTIONS = ("label_smoothing", "ema_decay", "rmsprop_decay", "momentum")
# Where the first field has none of these values, the others play no part and must be left alone.
SWITCHES = (
    ("optimizer", ("rmsprop",), ("rmsprop_decay", "rmsprop_epsilon")),
    ("schedule", ("staircase",), ("decay_rate", "decay_epochs")),
    ("model.aux_head", ("plain", "bn", "dropout"), ("aux_loss_weight",)),
    ("eval.crops", (1,), ("eval.preprocessing", "eval.crop_fraction")),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file and changes single fields of it.

    Args:
      path: a Python file with a function get_config(), such as configs/v3.py.
      overrides: "batch_size=256", "model.stem=7x7", also spelled "--config.batch_size=256".

    Returns:
      The checked config.

    Raises:
      ConfigError: for a file, field or value that does not exist or makes no sense.
    """
    file = Path(path)
    if not file.is_file():
        there = ", ".join(sorted(str(other) for other in file.parent.glob("[!_]*.py"))) or "nothing"
        raise ConfigError(f"config file {path} does not exist; {file.parent}/ has: {there}")
    root = str(file.resolve().parent.parent)  # config files import their parents as configs.NAME
    sys.path.insert(0, root)
    try:
        module = runpy.run_path(str(file))
        if "get_config" not in module:
            raise ValueError("it has no function get_config()")
        config = module["get_config"]()
    except Exception as error:  # it is a program, and may fail in any way
        raise ConfigError(f"config file {path} cannot be used: {error!r}") from error
    finally:
        sys.path.remove(root)
    for override in overrides:
        name, equals, text = override.removeprefix("--").removeprefix("config.").partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not of the form --config.FIELD=VALUE")
        set_field(config, name, text)
    validate(config)
    return config


def parse_args(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line in which every --config.FIELD=VALUE is an override, and says so.

    Returns:
      The parser's own arguments, and the overrides for `load`. What is neither ends the program
      with the parser's usage.
    """
    parser.epilog = "Any field of configs/base.py can be set: --config.FIELD=VALUE."
    args, rest = parser.parse_known_args(argv)
    overrides = [word for word in rest if word.startswith("--config.")]
    if unknown := [word for word in rest if word not in overrides]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    return args, overrides


def set_field(config: ConfigDict, name: str, text: str) -> None:
    """Sets the field `name`, such as "model.stem", to what `text` says in the field's type."""
    fields = flatten(config)
    _check_name(name, fields)
    kind = type(fields[name])
    try:
        value = _parse(kind, text)
    except ValueError as error:
        raise ConfigError(f"config.{name}={text!r} is not of type {kind.__name__}") from error
    config.update_from_flattened_dict({name: value})


def _check_name(name: str, fields: Collection[str]) -> None:
    if name not in fields:
        nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
        raise ConfigError(f"config.{name} does not exist; did you mean config.{nearest}?")


def _parse(kind: type, text: str) -> bool | int | float | str:
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def flatten(config: ConfigDict) -> dict[str, bool | int | float | str]:
    """All fields by their full names: {"seed": 0, ..., "model.stem": "factorized", ...}."""
    flat: dict = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def validate(config: ConfigDict) -> None:
    """Checks every field on its own and those that depend on each other.

    Raises:
      ConfigError: naming the field, its value and what would be right.
    """
    fields, defaults = flatten(config), flatten(base.get_config())
    _check_names_and_types(fields, defaults)
    _require(fields, CHOICES, lambda name, value: value in CHOICES[name], "one of {}")
    numbers = [name for name, value in fields.items() if isinstance(value, float)]
    _require(fields, numbers, lambda _, value: math.isfinite(value), "a finite number")
    _require(fields, POSITIVE, lambda _, value: value > 0, "greater than 0")
    _require(fields, NOT_NEGATIVE, lambda _, value: value >= 0, "0 or more")
    _require(fields, FRACTIONS, lambda _, value: 0 <= value < 1, "at least 0 and below 1")
    _require(fields, ["seed"], lambda _, value: value < 2**32, "below 2**32")
    _require(fields, ["eval.crop_fraction"], lambda _, value: value <= 1, "at most 1")
    try:
        Inception(**config.model)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.model: {error}") from error
    smallest = STEMS[config.model.stem][1]
    _require(fields, ["image_size"], lambda _, value: value >= smallest, f"at least {smallest}")
    shorter = f"shorter than the run, config.num_epochs={config.num_epochs}"
    _require(fields, ["warmup_epochs"], lambda _, value: value < config.num_epochs, shorter)
    _check_switches(fields, defaults)
    check_batch_size(config)


def _check_names_and_types(fields: dict, defaults: dict) -> None:
    """Compares with base.py, for a config may have been changed in Python too."""
    for name, value in fields.items():
        _check_name(name, defaults)
        if type(value) is not (kind := type(defaults[name])):
            raise ConfigError(f"config.{name}={value!r} is not of type {kind.__name__}")
    for name in defaults:
        if name not in fields:
            raise ConfigError(f"config.{name} is missing; configs/base.py has every field")


def _check_switches(fields: dict, defaults: dict) -> None:
    for switch, values, names in SWITCHES:
        for name in names if fields[switch] not in values else ():
            if fields[name] != defaults[name]:
                raise ConfigError(
                    f"config.{name}={fields[name]!r} plays no part with config.{switch}="
                    f"{fields[switch]!r}, only with {' or '.join(map(repr, values))}: leave it at "
                    f"{defaults[name]!r}"
                )


def check_batch_size(config: ConfigDict, devices: int = 1) -> None:
    """Refuses a batch that does not split into equal micro-batches, over devices, in whole groups.

    A micro-batch smaller than a batch normalization group is one group, so may have any size.

    Raises:
      ConfigError: with the nearest numbers that would work.
    """
    steps, group = config.accumulation_steps, config.model.batch_norm_group

    def splits(size: int) -> bool:
        share = size // steps
        return size % (steps * devices) == 0 and (share <= group or share % max(1, group) == 0)

    if splits(config.batch_size):
        return
    below = next(filter(splits, range(config.batch_size - 1, 0, -1)), None)
    above = next(filter(splits, itertools.count(config.batch_size + 1)))
    raise ConfigError(
        f"config.batch_size={config.batch_size} does not split into "
        f"config.accumulation_steps={steps} micro-batches over {devices} device(s) in whole groups "
        f"of config.model.batch_norm_group={group}: use "
        + " or ".join(str(size) for size in (below, above) if size)
    )


def _require(fields, names, good, right: str) -> None:
    for name in names:
        if not good(name, fields[name]):
            right = right.format(CHOICES.get(name))
            raise ConfigError(f"config.{name}={fields[name]!r}; it must be {right}")


def differences(old: dict, new: dict) -> dict[str, tuple]:
    """The fields in which two flattened configs differ, with both values."""
    names = dict.fromkeys([*old, *new])
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
