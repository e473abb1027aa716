"""Evaluates the checkpoints of runs, alone or together, and writes what came out.

What is counted, and how, is evaluator.py.
"""

import itertools
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from inception import config as config_lib
from inception import sharding
from inception.data.sources import Source
from inception.datasets import eval_data, open_eval_source
from inception.errors import CheckpointError, ConfigError
from inception.evaluator import Evaluator
from inception.files import read_json, write_json
from inception.logbook import log, summary
from inception.workdir import (
    TrainedRun,
    check_classes,
    check_model,
    resolve_checkpoint,
    resolve_workdir,
    restore_run,
)


def evaluate_run(
    config: ConfigDict,
    workdir: epath.PathLike,
    step: int | None = None,
    source: Source | None = None,
) -> dict:
    """Evaluates the newest checkpoint of a workdir, or that of `step`, raw and EMA weights.

    Prints a line and writes the results to WORKDIR/eval_SPLIT_STEP.json, with a picture of the
    confusion matrix for up to 50 classes. With config.eval.ensemble, the runs or checkpoints that
    it names are evaluated together instead, and the workdir only receives the results.

    Args:
      config: as in training; eval.* may be others.
      workdir: of a run.
      step: which checkpoint; None for the newest.
      source: the images; None for the config's evaluation split.

    Returns:
      The results, see `Evaluator`, with the settings: "members" (the checkpoints), "dataset",
      "data_dir", "image_size", "dtype" and "eval" (of the config).

    Raises:
      CheckpointError: if there is no such checkpoint, it holds another network, or its classes
        are not the data's.
      ConfigError: for a config that makes no sense.
    """
    config_lib.validate(config)
    workdir = resolve_workdir(workdir)
    located = _locate_members(config, workdir, step)
    source = source or open_eval_source(config)
    mesh = sharding.make_mesh()
    members = [
        restore_run(directory, number, dtype=config.dtype, mesh=mesh)
        for directory, number in located
    ]
    for member in members:
        if member.model.num_classes != source.num_classes:
            raise CheckpointError(
                f"the run in {member.workdir} has {member.model.num_classes} classes and the data "
                f"has {source.num_classes}. Evaluate it on data of the same classes"
            )
        check_classes(member.workdir, member.class_names, source)
    if len({(member.workdir, member.step) for member in members}) < len(members):
        raise ConfigError(f"config.eval.ensemble={config.eval.ensemble!r} names a checkpoint twice")
    models, scalings = zip(
        *((member.model, member.preprocessing) for member in members), strict=True
    )
    evaluator = Evaluator(config, source, models, mesh, scalings)
    last = max(member.step for member in members)
    settings = _settings(config, members)
    results = settings | evaluator(members, last)
    log(f"step {last}  {summary(results)}")
    if evaluator.listed > results["excluded"]:
        listed = f"of {evaluator.listed:,} images in {config.eval.exclude}"
        log(f"warning: {listed} some are not in the split")
    name = _free_name(workdir, _results_name(config, members), settings)
    write_results(workdir, name, results, source.class_names)
    return results


def _locate_members(
    config: ConfigDict, workdir: epath.Path, step: int | None
) -> list[tuple[epath.Path, int | None]]:
    """The workdirs and steps to evaluate together: config.eval.ensemble's, or this one alone."""
    paths = [name.strip() for name in config.eval.ensemble.split(",") if config.eval.ensemble]
    if not all(paths):
        raise ConfigError(
            f"config.eval.ensemble={config.eval.ensemble!r}; it must be DIR1,DIR2,... without gaps"
        )
    if paths and step is not None:
        raise ConfigError(
            f"--step={step} and config.eval.ensemble: name WORKDIR/checkpoints/{step} in it instead"
        )
    if paths:
        return [resolve_checkpoint(path) for path in paths]
    check_model(workdir, config)
    return [(workdir, step)]


def _settings(config: ConfigDict, members: Sequence[TrainedRun]) -> dict:
    """What a file of results is of."""
    dataset, data_dir = eval_data(config)
    return {
        "members": [str(member.workdir / "checkpoints" / str(member.step)) for member in members],
        "dataset": dataset,
        "data_dir": data_dir,
        "image_size": config.image_size,
        "dtype": config.dtype,
        "eval": config.eval.to_dict(),
    }


def _results_name(config: ConfigDict, members: Sequence[TrainedRun]) -> str:
    """What a file of results is called: by data set, split, step or number of members, crops."""
    dataset, _ = eval_data(config)
    other = [dataset] if dataset != members[0].config.dataset else []
    which = str(members[0].step) if len(members) == 1 else f"ensemble_of_{len(members)}"
    crops = [f"{config.eval.crops}_crops"] if config.eval.crops > 1 else []
    words = "_".join(["eval", *other, config.eval.split, which, *crops])
    return "".join(c if c.isalnum() else "_" for c in words)


def _free_name(workdir: epath.Path, name: str, settings: dict) -> str:
    """NAME, or NAME_2 and so on, where no evaluation of other settings has left its results."""

    def is_free(name: str) -> bool:
        there = read_json(workdir / f"{name}.json")
        return there is None or all(there.get(key) == value for key, value in settings.items())

    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(filter(is_free, names))


def write_results(
    workdir: epath.PathLike, name: str, results: dict, class_names: Sequence[str]
) -> None:
    """Writes NAME.json and, for up to 50 classes, the picture NAME_confusion.png."""
    workdir = epath.Path(workdir)
    write_json(workdir / f"{name}.json", results)
    if sharding.is_main_process() and "confusion" in results["ema"]:
        from inception import confusion_plot  # matplotlib takes a second

        with (workdir / f"{name}_confusion.png").open("wb") as file:
            confusion_plot.draw(results, class_names).savefig(file)
