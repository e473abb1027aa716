"""The identity of the run in a workdir: its config and its data.

A workdir is a folder on a disk or in a bucket, any path that etils.epath supports. It contains one
run: `config.json` (the resolved config), `data.json` (the classes and the number of training
images) and `checkpoints/`. A run continues only with the same config and data; a field that an
older version lacked has its default.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from inception import config as settings
from inception import defaults
from inception.data.paths import is_local
from inception.data.sources import Source
from inception.errors import CheckpointError
from inception.workdir.files import read_json, write_json
from inception.workdir.logbook import log

FORMAT = 2  # of the config.json that this version writes; without a number it is format 1

# A run may continue with other values of these: where its data is, what stops it, what it reports.
MAY_CHANGE = (
    "data_dir",
    "data_threads",
    "on_bad_record",
    "max_pixels",
    "num_epochs",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "keep_every_epochs",
    "keep_best",
    "max_nonfinite_steps",
    "spike_factor",
    "profile_steps",
    "deterministic",
    "debug.nans",
)
_FILE_SYSTEMS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def resolve_workdir(path: epath.PathLike) -> epath.Path:
    """The absolute path of a workdir, with ~ expanded; an address such as gs://BUCKET/RUN as it is.

    Raises:
      CheckpointError: For a bucket that cannot be reached, that no installed package supports, or
        whose path would be treated as a pattern.
    """
    text = os.fspath(path)
    if is_local(text):
        return epath.Path(text).expanduser().absolute()
    scheme, is_address, _ = text.partition("://")
    if not is_address:
        address = text.replace(":/", "://", 1)
        raise CheckpointError(f"workdir {text} is not an address; write {address}")
    if scheme not in _FILE_SYSTEMS:
        raise CheckpointError(
            f"workdir {text}: {scheme}:// is not supported. Use a local path or one of "
            + ", ".join(f"{known}://" for known in _FILE_SYSTEMS)
        )
    if patterns := sorted({*"*?[]"} & {*text}):
        raise CheckpointError(
            f"workdir {text} contains {' '.join(patterns)}, a pattern in a bucket. "
            "Choose a --workdir without it"
        )
    package = _FILE_SYSTEMS[scheme]
    try:
        epath.Path(text).exists()
    except ImportError as error:
        raise CheckpointError(
            f"workdir {text} needs a package that is not installed: pip install {package}"
        ) from error
    except Exception as error:  # of the package, of the network, of the credentials
        raise CheckpointError(
            f"workdir {text} cannot be reached: {error}. Check the bucket's name, the network and "
            "the credentials of this machine"
        ) from error
    return epath.Path(text)


def start_or_resume(workdir: epath.PathLike, config: ConfigDict, source: Source) -> None:
    """Writes config.json and data.json, after `check_resumable`.

    Raises:
      CheckpointError: See `check_resumable`.
      UserError: If the workdir cannot be written.
    """
    check_resumable(workdir, config, source)
    workdir = epath.Path(workdir)
    write_json(workdir / "config.json", {"format": FORMAT, **config.to_dict()})
    data = {"training_images": len(source), "classes": list(source.class_names)}
    write_json(workdir / "data.json", data)


def check_resumable(workdir: epath.PathLike, config: ConfigDict, source: Source) -> None:
    """Checks that `workdir` has no run, or one that can continue with this config and data.

    A run that ended before it had trained may be replaced.

    Raises:
      CheckpointError: Naming what differs: fields of the config, classes (which decide the labels)
        or the number of images (which decides their order).
    """
    if not has_trained(workdir):
        return
    if changed := _changed(workdir, config, lambda name: not _may_change(name)):
        raise CheckpointError(
            f"{workdir} holds a run of another config. Choose another --workdir, or change back:\n"
            + changed
        )
    kept, names = _read_data(workdir), list(source.class_names)
    if (old := kept.get("classes", names)) != names:
        raise CheckpointError(
            f"{workdir}/data.json lists other classes than the data now has ({len(old)} and "
            f"{len(names)}): {sorted({*old} ^ {*names})[:5] or 'their order differs'}. Restore the "
            "data, or choose another --workdir"
        )
    if (count := kept.get("training_images", len(source))) != len(source):
        raise CheckpointError(
            f"the run in {workdir} trains on {count:,} images and the data now has {len(source):,}."
            " Restore the data, or choose another --workdir"
        )


def has_trained(workdir: epath.PathLike) -> bool:
    """Whether `workdir` has checkpoints or metrics."""
    metrics = epath.Path(workdir) / "metrics.jsonl"
    return has_checkpoint(workdir) or (metrics.exists() and metrics.stat().length > 0)


def has_checkpoint(workdir: epath.PathLike) -> bool:
    """Whether `workdir` has a checkpoint."""
    folder = epath.Path(workdir) / "checkpoints"
    return folder.exists() and any(path.name.isdecimal() for path in folder.iterdir())


def check_model(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Checks that the run in `workdir` has the network of `config`.

    Raises:
      CheckpointError: Naming the fields that differ, or if there is no run.
    """
    if changed := _changed(workdir, config, lambda name: name.startswith("model.")):
        raise CheckpointError(f"{workdir} holds a run of another network. Set:\n{changed}")


def read_config(workdir: epath.PathLike) -> ConfigDict:
    """The config of the run in `workdir`, written by this or an older version.

    A missing field gets its default, which is how versions without the field behaved. An unknown
    field causes a warning and is left out.

    Raises:
      CheckpointError: If there is no run, config.json is invalid, or a newer version wrote it.
    """
    file = epath.Path(workdir) / "config.json"
    if not file.exists():
        raise CheckpointError(f"{workdir} holds no run: {file} does not exist")
    try:
        config = _with_defaults(file, read_json(file))
        settings.check_names_and_types(config)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file} is not a valid config.json: {error}") from error
    return config


def _with_defaults(file: epath.Path, stored: Any) -> ConfigDict:
    if not isinstance(stored, dict) or not isinstance(stored.get("format", 1), int):
        raise ValueError("it must be an object, and its format a number")
    if (version := stored.pop("format", 1)) > FORMAT:
        raise CheckpointError(
            f"{file} has format {version}, and this version reads up to {FORMAT}. Use the newer "
            "version that wrote it"
        )
    config = defaults.get_config()
    for name, value in settings.flatten(ConfigDict(stored)).items():
        if isinstance(config.get(name), ConfigDict):
            raise ValueError(f"{name}={value!r} must be an object of fields")
        try:
            settings.set_value(config, name, value)
        except settings.ConfigError:
            logging.warning(
                "%s: unknown field %s=%r (from an older version) is ignored", file, name, value
            )
    return config


def check_classes(owner: object, class_names: Sequence[str], source: Source) -> None:
    """Compares the classes of a network's training data with those of data to evaluate on.

    Other names cause only a warning, because the same class may have two names.

    Args:
      owner: Workdir or data set that `class_names` belong to, for messages.
      class_names: Names of the training data's classes; () if it has none.
      source: Data to evaluate on, with the same number of classes.

    Raises:
      CheckpointError: If the names are the same in another order, so that all labels are wrong.
    """
    trained, names = list(class_names), list(source.class_names)
    if not trained or not names or trained == names:
        return
    number = next(i for i, (old, new) in enumerate(zip(trained, names, strict=True)) if old != new)
    differ = f"class {number} is {trained[number]!r} for {owner} and {names[number]!r} in the data"
    if sorted(trained) == sorted(names):
        raise CheckpointError(
            f"{differ}: the classes are in another order. Sort them as in the run"
        )
    log(f"warning: {differ}; the results are valid only if both mean the same class")


def resolve_checkpoint(path: epath.PathLike) -> tuple[epath.Path, int | None]:
    """The workdir and step of WORKDIR/checkpoints/STEP; for WORKDIR the step is None, the newest.

    A folder with a config.json is a workdir, even if it is named checkpoints/12345.
    """
    path = resolve_workdir(path)
    named = path.parent.name == "checkpoints" and path.name.isdecimal()
    if named and not (path / "config.json").exists():
        return path.parent.parent, int(path.name)
    return path, None


def is_run(path: epath.PathLike) -> bool:
    """Whether a path is a run's workdir or one of its checkpoints, WORKDIR/checkpoints/STEP."""
    workdir, step = resolve_checkpoint(path)
    has_both = (workdir / "config.json").exists() and (workdir / "checkpoints").is_dir()
    return step is not None or has_both


def class_names(workdir: epath.PathLike) -> tuple[str, ...]:
    """The names of the classes of a run's training data; () if it has none."""
    return tuple(_read_data(workdir).get("classes", ()))


def _read_data(workdir: epath.PathLike) -> dict[str, Any]:
    file = epath.Path(workdir) / "data.json"
    try:
        return read_json(file) or {}
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def _may_change(name: str) -> bool:
    return name in MAY_CHANGE or name.startswith(("eval.", "evaluations."))


def changed_fields(workdir: epath.PathLike, config: ConfigDict) -> dict[str, tuple]:
    """The fields in which the run in `workdir` and a config differ, with both values.

    Fields that the weights of config.init_from decide are only in config.json, and not compared.

    Raises:
      CheckpointError: See `read_config`.
    """
    derived = defaults.FROM_WEIGHTS if config.init_from else ()
    stored = settings.flatten(read_config(workdir))
    changes = settings.differences(stored, settings.flatten(config))
    return {name: pair for name, pair in changes.items() if name not in derived}


def _changed(workdir: epath.PathLike, config: ConfigDict, matters: Callable[[str], bool]) -> str:
    return "\n".join(
        f"  config.{name}: {old!r} in the workdir, {new!r} now"
        for name, (old, new) in changed_fields(workdir, config).items()
        if matters(name)
    )
