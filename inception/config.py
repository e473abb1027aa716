"""Reads a config file, applies overrides, and refuses what makes no sense."""

import difflib
import logging
import math
import operator
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from inception import defaults
from inception.data.preprocessing import Preprocessing
from inception.errors import ConfigError
from inception.network.model import STEMS, Inception

Value = bool | int | float | str | list[float]
Fields = dict[str, Value]  # by full name: "seed", "model.stem"


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
    config = _run_file(Path(path))
    for override in overrides:
        name, equals, text = override.removeprefix("--").removeprefix("config.").partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not of the form --config.FIELD=VALUE")
        set_field(config, name, text)
    validate(config)
    return config


def _run_file(file: Path) -> ConfigDict:
    if not file.is_file():
        there = ", ".join(sorted(str(other) for other in file.parent.glob("[!_]*.py"))) or "nothing"
        raise ConfigError(f"config file {file} does not exist; {file.parent}/ has: {there}")
    root = str(file.resolve().parent.parent)  # config files import their parents as configs.NAME
    sys.path.insert(0, root)
    try:
        module = runpy.run_path(str(file))
        if "get_config" not in module:
            raise ValueError("it has no function get_config()")
        return module["get_config"]()
    except Exception as error:  # it is a program, and may fail in any way
        raise ConfigError(f"config file {file} cannot be used: {error!r}") from error
    finally:
        sys.path.remove(root)


def set_field(config: ConfigDict, name: str, text: str) -> None:
    """Sets the field `name`, such as "model.stem", to what `text` says in the field's type.

    Raises:
      ConfigError: for a field that does not exist, or a text that is not of its type.
    """
    kind = type(_default(name, flatten(defaults.get_config())))
    try:
        value = _parse(kind, text)
    except ValueError as error:
        raise ConfigError(f"config.{name}={text!r} is not of type {kind.__name__}") from error
    set_value(config, name, value)


def set_value(config: ConfigDict, name: str, value: Value) -> None:
    """Sets the field `name`, such as "model.stem".

    Raises:
      ConfigError: for a field that does not exist.
    """
    _default(name, flatten(defaults.get_config()))
    *groups, field = name.split(".")
    for group in groups:
        if group not in config:  # a new name in `evaluations`
            config[group] = ConfigDict()
        config = config[group]
    config[field] = value


def _default(name: str, fields: Fields) -> Value:
    """A field's default; that of a named evaluation's field is that of `eval`.

    Raises:
      ConfigError: for a field that does not exist.
    """
    group, _, rest = name.partition(".")
    alike = f"eval.{rest.partition('.')[2]}" if group == "evaluations" else name
    if alike not in fields:
        nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)[0]
        raise ConfigError(f"config.{name} does not exist; did you mean config.{nearest}?")
    return fields[alike]


def _parse(kind: type, text: str) -> Value:
    if kind is list:
        return [float(number) for number in text.split(",")]
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def flatten(config: ConfigDict) -> Fields:
    """All fields by their full names: {"seed": 0, ..., "model.stem": "factorized", ...}."""
    return traverse_util.flatten_dict(config.to_dict(), sep=".")


def preprocessing(config: ConfigDict) -> Preprocessing:
    """What the config's evaluation does to an image."""
    return Preprocessing(
        image_size=config.image_size,
        method=config.eval.preprocessing,
        crop_fraction=config.eval.crop_fraction,
        mean=tuple(config.input_mean),
        std=tuple(config.input_std),
    )


def named_evaluations(config: ConfigDict) -> dict[str, ConfigDict]:
    """The config of each further evaluation of config.evaluations, by its name."""
    named = {}
    for name, fields in config.evaluations.items():
        named[name] = config.copy_and_resolve_references()
        named[name].eval.update(fields)
        named[name].evaluations = ConfigDict()
    return named


def validate(config: ConfigDict) -> None:
    """Checks every field on its own and those that depend on each other.

    Fields that play no part beside another's value are warned of, so that sweeps may set them.

    Raises:
      ConfigError: naming the field, its value and what would be right.
    """
    fields, known = flatten(config), flatten(defaults.get_config())
    check_names_and_types(config)
    _check_ranges(fields)
    for name, evaluation in named_evaluations(config).items():
        if not name.replace("-", "_").isidentifier() or evaluation.eval.ensemble:
            raise ConfigError(
                f"config.evaluations.{name}: a name must be letters, digits, _ and -, as it names "
                f"a file, and ensemble={evaluation.eval.ensemble!r} must be empty in a run"
            )
        try:
            _check_ranges(flatten(evaluation))
        except ConfigError as error:
            raise ConfigError(f"config.evaluations.{name}: {error}") from error
    try:
        stages = Inception(**config.model).stages()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.model: {error}") from error
    _require(fields, ["freeze_until"], lambda value: value in ("", *stages), f"one of {stages}")
    smallest = STEMS[config.model.stem][1]
    _require(fields, ["image_size"], lambda value: value >= smallest, f"at least {smallest}")
    shorter = f"shorter than the run, config.num_epochs={config.num_epochs}"
    _require(fields, ["warmup_epochs"], lambda value: value < config.num_epochs, shorter)
    check_batch_size(config)
    if config.mixup_alpha:
        pairs = f"even, for config.mixup_alpha={config.mixup_alpha} mixes images in pairs"
        _require(fields, ["batch_size"], lambda value: value % 2 == 0, pairs)
    _check_memory(config)
    _warn_of_switches(fields, known)
    if config.freeze_until and not config.init_from:
        logging.warning(
            "config.freeze_until=%r keeps random weights: name others, config.init_from=WEIGHTS",
            config.freeze_until,
        )


def check_names_and_types(config: ConfigDict) -> None:
    """Compares with the defaults, for a config may come from a file or have been changed in Python.

    Raises:
      ConfigError: for a field that does not exist, is missing or of another type.
    """
    fields, known = flatten(config), flatten(defaults.get_config())
    for name, value in fields.items():
        if type(value) is not (kind := type(_default(name, known))):
            raise ConfigError(f"config.{name}={value!r} is not of type {kind.__name__}")
    for name in known:
        if name not in fields:
            raise ConfigError(f"config.{name} is missing; inception/defaults.py has every field")


def _check_ranges(fields: Fields) -> None:
    for name, choices in defaults.CHOICES.items():
        _require(fields, [name], choices.__contains__, f"one of {choices}")
    numbers = [name for name, value in fields.items() if isinstance(value, float)]
    _require(fields, numbers, math.isfinite, "a finite number")
    _require(fields, numbers, _is_float32, f"0 or further from it than {defaults.LEAST}")
    _require(fields, defaults.POSITIVE, lambda value: value > 0, "greater than 0")
    _require(fields, defaults.NOT_NEGATIVE, lambda value: value >= 0, "0 or more")
    _require(fields, defaults.FRACTIONS, lambda value: 0 <= value < 1, "at least 0 and below 1")
    for name, value in fields.items():
        if type(value) in (int, float):
            most = defaults.AT_MOST.get(name, defaults.MOST)
            _require(fields, [name], partial(operator.ge, most), f"at most {most:,}")
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    right = "printable, without blanks around it, at most 255 bytes between slashes"
    _require(fields, texts, _is_plain, right)
    _require(fields, ["input_mean", "input_std"], _are_three_numbers, "three finite numbers")
    _require(fields, ["input_std"], lambda value: min(value) > 0, "greater than 0")
    _require(fields, ["profile_steps"], _are_steps, "FIRST:LAST, as 10:13, or empty")


def _require(fields: Fields, names: Iterable[str], good: Callable[[Any], bool], right: str) -> None:
    for name in names:
        if not good(fields[name]):
            raise ConfigError(f"config.{name}={fields[name]!r}; it must be {right}")


def _is_float32(value: float) -> bool:
    return value == 0 or abs(value) >= defaults.LEAST


def _is_plain(value: str) -> bool:
    parts = value.split("/")
    return (
        value.isprintable()
        and value == value.strip()
        and len(value) < 4096  # what a path may have
        and max(len(part.encode()) for part in parts) <= 255
    )


def _are_three_numbers(value: list) -> bool:
    return len(value) == 3 and all(
        isinstance(x, float) and abs(x) <= defaults.MOST and _is_float32(x) for x in value
    )


def _are_steps(value: str) -> bool:
    if not re.fullmatch(r"\d{1,18}:\d{1,18}", value):
        return not value
    first, last = map(int, value.split(":"))
    return 1 <= first <= last


def _warn_of_switches(fields: Fields, known: Fields) -> None:
    for switch, values, names in defaults.SWITCHES:
        for name in names if fields[switch] not in values else ():
            if fields[name] != known[name]:
                logging.warning(
                    "config.%s=%r plays no part with config.%s=%r",
                    *(name, fields[name], switch, fields[switch]),
                )


def check_batch_size(config: ConfigDict, devices: int = 1) -> None:
    """Refuses a batch that does not split into equal micro-batches, over devices, in whole groups.

    A micro-batch smaller than a batch normalization group is one group, so may have any size.

    Raises:
      ConfigError: with the nearest numbers that would work.
    """
    steps, group = config.accumulation_steps, config.model.batch_norm_group
    whole = math.lcm(devices, max(1, group))  # a micro-batch of whole groups, equal on all devices
    share, rest = divmod(config.batch_size, steps)
    unit = devices if share <= group else whole
    if not rest and not share % unit:
        return
    below = max(share // whole * whole, min(group, share) // devices * devices)
    more = (share // devices + 1) * devices
    above = more if more <= group else (share // whole + 1) * whole
    raise ConfigError(
        f"config.batch_size={config.batch_size} does not split into "
        f"config.accumulation_steps={steps} micro-batches over {devices} device(s) in whole groups "
        f"of config.model.batch_norm_group={group}: use "
        + " or ".join(str(size * steps) for size in (below, above) if size)
    )


def _check_memory(config: ConfigDict) -> None:
    """Refuses batches that no host could hold."""
    for group, name in ((config, "batch_size"), (config.eval, "eval.batch_size")):
        gib = group.batch_size * config.image_size**2 * 3 / 2**30
        if gib > defaults.MAX_GIB:
            raise ConfigError(
                f"config.{name}={group.batch_size} images of config.image_size={config.image_size} "
                f"are {gib:,.0f} GiB; at most {defaults.MAX_GIB} can be held"
            )


def differences(old: dict, new: dict) -> dict[str, tuple]:
    """The fields in which two flattened configs differ, with both values."""
    names = dict.fromkeys([*old, *new])
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
