"""Reads a config file, sets fields of it, and refuses values that cannot be run."""

import difflib
import logging
import math
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from flax import traverse_util
from ml_collections import ConfigDict

from inception.data.preprocessing import Preprocessing
from inception.defaults import FIELDS
from inception.errors import ConfigError
from inception.fields import Check, Field, Value, at_least, one_of
from inception.network.model import STEMS, Inception

_MAX_GIB = 64  # of a batch's uint8 images over all hosts, which keep about four batches each


def load(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file and sets single fields of it.

    Args:
      path: Python file with a function get_config(), such as configs/v3.py.
      overrides: "batch_size=256", "model.stem=7x7"; "--config.batch_size=256" is the same.

    Returns:
      The checked config.

    Raises:
      ConfigError: If the file or a field does not exist, or a value cannot be run.
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
        problem = "is a folder" if file.is_dir() else "does not exist"
        raise ConfigError(f"config file {file} {problem}{_suggestion(file)}")
    root = str(file.resolve().parent.parent)  # config files import their parents as configs.NAME
    sys.path.insert(0, root)
    try:
        module = runpy.run_path(str(file))
        if "get_config" not in module:
            raise ValueError("it has no function get_config()")
        return module["get_config"]()
    except Exception as error:  # a config file is a program, which may fail in any way
        raise ConfigError(f"config file {file} cannot be used: {error!r}") from error
    finally:
        sys.path.remove(root)


def _suggestion(file: Path) -> str:
    """The config file whose name is nearest, in the same folder or in configs/."""
    folders = (Path("configs"), file.parent)
    files = {other.stem: other for folder in folders for other in folder.glob("[!_]*.py")}
    nearest = difflib.get_close_matches(file.stem, files, n=1, cutoff=0.0)
    return f"; did you mean {files[nearest[0]]}?" if nearest else ""


def set_field(config: ConfigDict, name: str, text: str) -> None:
    """Sets the field `name`, such as "model.stem", to what `text` says in the field's type.

    Raises:
      ConfigError: If the field does not exist, or the text is not of its type.
    """
    kind = type(_find(name).default)
    try:
        value = _parse(kind, text)
    except ValueError as error:
        raise ConfigError(f"config.{name}={text!r} is not of type {kind.__name__}") from error
    set_value(config, name, value)


def set_value(config: ConfigDict, name: str, value: Value) -> None:
    """Sets the field `name`, such as "model.stem".

    Raises:
      ConfigError: If the field does not exist.
    """
    _find(name)
    *groups, field = name.split(".")
    for group in groups:
        if group not in config:  # a new name in `evaluations`
            config[group] = ConfigDict()
        config = config[group]
    config[field] = value


def _find(name: str) -> Field:
    """The field of this name; a named evaluation has the fields of `eval`.

    Raises:
      ConfigError: If the field does not exist.
    """
    group, _, rest = name.partition(".")
    row = f"eval.{rest.partition('.')[2]}" if group == "evaluations" else name
    if row not in FIELDS:
        nearest = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"config.{name} does not exist; did you mean config.{nearest}?")
    return FIELDS[row]


def _parse(kind: type, text: str) -> Value:
    if kind is list:
        return [float(number) for number in text.split(",")]
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def flatten(config: ConfigDict) -> dict[str, Value]:
    """All fields by their full names: {"seed": 0, ..., "model.stem": "factorized", ...}."""
    return traverse_util.flatten_dict(config.to_dict(), sep=".")


def differences(old: dict, new: dict) -> dict[str, tuple]:
    """The fields in which two flattened configs differ, with both values."""
    names = dict.fromkeys([*old, *new])
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


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
    """Checks every field alone, then those that depend on each other.

    Warns of fields that are set but have no effect because of another field's value; sweeps do so.

    Raises:
      ConfigError: If a value cannot be run; names the field, its value and what would be right.
    """
    check_names_and_types(config)
    for name, value in flatten(config).items():
        _require(name, value, _find(name).check)
    _check_network(config)
    _check_evaluations(config)
    if config.warmup_epochs >= config.num_epochs:
        raise ConfigError(
            f"config.warmup_epochs={config.warmup_epochs}; it must be shorter than the run, "
            f"config.num_epochs={config.num_epochs}"
        )
    check_batch_size(config)
    if config.mixup_alpha and config.batch_size % 2:
        raise ConfigError(
            f"config.batch_size={config.batch_size}; it must be even, for "
            f"config.mixup_alpha={config.mixup_alpha} mixes images in pairs"
        )
    _check_memory(config)
    _warn_without_effect(config)


def check_names_and_types(config: ConfigDict) -> None:
    """Compares with the defaults, for a config may come from a file or have been changed in Python.

    Raises:
      ConfigError: If a field does not exist, is missing or has a value of another type.
    """
    fields = flatten(config)
    for name, value in fields.items():
        if type(value) is not (kind := type(_find(name).default)):
            raise ConfigError(f"config.{name}={value!r} is not of type {kind.__name__}")
    for name in FIELDS:
        if name not in fields:
            raise ConfigError(f"config.{name} is missing; inception/defaults.py has every field")


def _require(name: str, value: Value, check: Check) -> None:
    if not check.accepts(value):
        raise ConfigError(f"config.{name}={value!r}; it must be {check.right}")


def _check_network(config: ConfigDict) -> None:
    """Checks which choices go together, the frozen stages and the size of the images."""
    try:
        stages = Inception(**config.model).stages()
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error
    _require("freeze_until", config.freeze_until, one_of("", *stages))
    _require("image_size", config.image_size, at_least(STEMS[config.model.stem][1]))


def _check_evaluations(config: ConfigDict) -> None:
    for name, fields in config.evaluations.items():
        if not name.replace("-", "_").isidentifier():
            raise ConfigError(
                f"config.evaluations.{name}: the name must be a letter followed by letters, "
                "digits, _ or -, for it names a file"
            )
        if ensemble := fields.get("ensemble"):
            raise ConfigError(
                f"config.evaluations.{name}.ensemble={ensemble!r}; it must be empty, for a run "
                "evaluates its own network"
            )


def _warn_without_effect(config: ConfigDict) -> None:
    fields = flatten(config)
    for name, field in FIELDS.items():
        if field.needs and fields[name] != field.default:
            other, values = field.needs
            if fields[other] not in values:
                logging.warning(
                    "config.%s=%r has no effect when config.%s=%r",
                    *(name, fields[name], other, fields[other]),
                )
    if config.freeze_until and not config.init_from:
        logging.warning(
            "config.freeze_until=%r freezes random weights; set config.init_from",
            config.freeze_until,
        )


def check_batch_size(config: ConfigDict, devices: int = 1) -> None:
    """Refuses a batch that does not split into equal micro-batches, over devices, in whole groups.

    A micro-batch smaller than a batch normalization group is one group, so may have any size.

    Raises:
      ConfigError: If it does not; names the nearest numbers that would work.
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
    for name, value in flatten(config).items():
        if name.endswith("batch_size"):
            gib = value * config.image_size**2 * 3 / 2**30
            if gib > _MAX_GIB:
                raise ConfigError(
                    f"config.{name}={value} images of config.image_size={config.image_size} take "
                    f"{gib:,.0f} GiB; at most {_MAX_GIB} can be held"
                )
