"""Evaluates checkpoints and imported weights, alone or as an ensemble, and writes the results.

Which members there are is members.py, and what is counted is evaluator.py.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from inception.config import validate
from inception.data.datasets import eval_data, open_eval_source
from inception.data.sources import Source
from inception.distributed import sharding
from inception.evaluation.evaluator import Evaluator
from inception.evaluation.members import Member, find
from inception.workdir.files import as_json, read_json, write_json
from inception.workdir.identity import resolve_workdir
from inception.workdir.logbook import log, summary


def evaluate_run(
    config: ConfigDict,
    workdir: epath.PathLike,
    step: int | None = None,
    source: Source | None = None,
) -> dict:
    """Evaluates a checkpoint of the run in `workdir`, its raw and its EMA weights.

    Prints a line and writes the results to WORKDIR/eval_SPLIT_STEP.json, with a plot of the
    confusion matrix for up to 50 classes. With config.eval.ensemble, the runs, checkpoints or
    imported weights that it names are evaluated together instead, and the workdir only receives the
    results. The same holds for config.init_from if there is no run in the workdir.

    Args:
      config: Config as in training; the fields eval.* may differ.
      workdir: Workdir of the run.
      step: Step of the checkpoint; None for the newest.
      source: Images to evaluate on; None for the config's evaluation split.

    Returns:
      The results, see `Evaluator`, with the settings: "members" (paths of checkpoints or weights),
      "dataset", "data_dir", "image_size", "dtype" and "eval" (of the config); with imported weights
      the members' "preprocessing" in place of "image_size".

    Raises:
      CheckpointError: If there is no such checkpoint, or its network or classes differ from the
        config's or the data's.
      WeightsError: If the weights cannot be found.
      ConfigError: If the config is not valid.
      DataError: If no image is left to count.
    """
    validate(config)
    workdir = resolve_workdir(workdir)
    source = source or open_eval_source(config)
    mesh = sharding.make_mesh()
    members = find(config, workdir, step, source, mesh)
    evaluator = Evaluator(
        config,
        source,
        [member.model for member in members],
        mesh,
        [member.preprocessing for member in members],
        [member.classes for member in members],
    )
    last = max(member.step for member in members)
    settings = _settings(config, members)
    results = settings | evaluator(members, last)
    for member in members:
        if member.has_own_preprocessing:
            log(f"{member.path}: {member.preprocessing}")
    log(f"step {last}  {summary(results)}")
    if evaluator.listed > results["excluded"]:
        log(
            f"warning: of {evaluator.listed:,} images in {config.eval.exclude} some are not in the "
            "split"
        )
    name = _free_name(workdir, _results_name(config, members), settings)
    write_results(workdir, name, results, source.class_names)
    return results


def _settings(config: ConfigDict, members: Sequence[Member]) -> dict:
    """The settings that a file of results belongs to."""
    dataset, data_dir = eval_data(config)
    settings = {
        "members": [member.path for member in members],
        "dataset": dataset,
        "data_dir": data_dir,
        "image_size": config.image_size,
        "dtype": config.dtype,
        "eval": config.eval.to_dict(),
    }
    if any(member.has_own_preprocessing for member in members):
        preprocessings = [dataclasses.asdict(member.preprocessing) for member in members]
        settings["preprocessing"] = json.loads(as_json(preprocessings))
        del settings["image_size"]
    return settings


def _results_name(config: ConfigDict, members: Sequence[Member]) -> str:
    """Name of a file of results, by data set, split, step or number of members, and crops."""
    dataset, _ = eval_data(config)
    other = [dataset] if dataset != members[0].dataset else []
    which = members[0].name if len(members) == 1 else f"ensemble_of_{len(members)}"
    crops = [f"{config.eval.crops}_crops"] if config.eval.crops > 1 else []
    words = "_".join(["eval", *other, config.eval.split, which, *crops])
    return "".join(c if c.isalnum() else "_" for c in words)


def _free_name(workdir: epath.Path, name: str, settings: dict) -> str:
    """NAME, NAME_2, ...: the first without results of other settings."""

    def is_free(name: str) -> bool:
        stored = read_json(workdir / f"{name}.json")
        return stored is None or all(stored.get(key) == value for key, value in settings.items())

    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(filter(is_free, names))


def write_results(
    workdir: epath.PathLike, name: str, results: dict, class_names: Sequence[str]
) -> None:
    """Writes NAME.json and, for up to 50 classes, the plot NAME_confusion.png."""
    workdir = epath.Path(workdir)
    write_json(workdir / f"{name}.json", results)
    if sharding.is_main_process() and "confusion" in results["ema"]:
        from inception.evaluation import confusion_plot  # its libraries take seconds to import

        with (workdir / f"{name}_confusion.png").open("wb") as file:
            confusion_plot.draw(results, class_names).savefig(file)
