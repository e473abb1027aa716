"""Publishes a run's weights: a folder for Hugging Face's hub or any other place, and its upload.

DIR/model.json, weights.safetensors    our own, as `weights.save` writes them
DIR/config.json, model.safetensors     timm's, if the network counts the padding in average pools
DIR/model.keras                        Keras's, if it does not
DIR/labels.txt, README.md              the names of the classes, one per line, and the model card
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from inception import config as config_fields
from inception.data.paths import local_path
from inception.errors import UserError
from inception.weights import card, timm_folder, transport
from inception.weights.export import export, foreign
from inception.weights.files import WeightsError
from inception.weights.pretrained import (
    DESCRIPTION_FILE,
    Pretrained,
    describe,
    from_run,
    load,
    save,
)
from inception.workdir.files import read_json

_KERAS, _LABELS, _CARD = "model.keras", "labels.txt", "README.md"
_USAGE = {
    "timm": 'import timm\nmodel = timm.create_model("local-dir:DIR", pretrained=True)',
    "keras": 'import keras\nmodel = keras.saving.load_model("DIR/model.keras")',
}


def add(commands: Any) -> None:
    """Adds the command to a parser's."""
    command = commands.add_parser("publish", help=_publish.__doc__)
    command.add_argument("workdir", metavar="RUN")
    command.add_argument("--output", metavar="DIR", required=True, type=local_path)
    command.add_argument("--license", default="", metavar="ID", help="such as apache-2.0")
    command.add_argument("--raw", action="store_true", help="not the running averages")
    command.add_argument("--push", default="", metavar="USER/REPO", help="uploads it to the hub")
    command.add_argument("--private", action="store_true", help="makes a new repository private")
    command.set_defaults(run=_publish)


def _publish(args: argparse.Namespace) -> None:
    """Write a folder that others can load, and upload it."""
    push = uploader(args.push, args.private) if args.push else None  # what is missing is said first
    print(*publish(args.workdir, args.output, args.license, ema=not args.raw), sep="\n")
    if push:
        print(f"uploaded to {push(args.output)}")


def publish(
    path: str | os.PathLike, output: Path, license: str = "", ema: bool = True
) -> list[str]:
    """Writes a run's weights for others, completely or not at all.

    A folder that has these weights already is kept as it is, an edited card too.

    Args:
      path: The run's workdir, or WORKDIR/checkpoints/STEP.
      output: The folder.
      license: Identifier of the hub, "" if not stated.
      ema: Whether to take the running averages of the weights.

    Returns:
      Notes on what was written, and what could not be.

    Raises:
      CheckpointError: If there is no such checkpoint.
      WeightsError: If the folder holds something else, or it does not read back the same.
    """
    from inception.workdir.identity import is_run  # Orbax takes seconds to import

    if not is_run(path):
        raise WeightsError(
            f"{path} is not a run, whose config and accuracy the card tells. Give a workdir or "
            "WORKDIR/checkpoints/STEP"
        )
    pretrained = from_run(path, ema)
    run = _read_run(path, pretrained, "ema" if ema else "raw")
    # Not the folders of this machine.
    pretrained = dataclasses.replace(pretrained, source=f"{run.name}/checkpoints/{run.step}")
    if output.exists() and (output.is_file() or any(output.iterdir())):
        if not _is_published(output, pretrained):
            raise WeightsError(
                f"{output} contains other files and was not overwritten. Name another folder"
            )
        return [f"{output} has these weights already and is kept as it is"]
    scratch = output.with_name(f".{output.name}-{os.getpid()}")
    try:
        notes = _write(pretrained, run, scratch, license)
        if output.exists():
            output.rmdir()  # it is empty
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [*notes, f"written to {output}"]


def _is_published(folder: Path, pretrained: Pretrained) -> bool:
    """Whether a folder has exactly these weights."""
    if not (folder / DESCRIPTION_FILE).is_file():
        return False
    there = load(folder)
    equal = jax.tree.map(np.array_equal, there.variables, pretrained.variables)
    return json.dumps(describe(there)) == json.dumps(describe(pretrained)) and jax.tree.all(equal)


def _read_run(path: str | os.PathLike, pretrained: Pretrained, weights: str) -> card.Run:
    from inception.workdir.identity import read_config, resolve_checkpoint

    workdir, _ = resolve_checkpoint(path)
    step, config = int(Path(pretrained.source).name), read_config(workdir)
    data = read_json(workdir / "data.json") or {}
    found = [
        evaluation
        for file in sorted(workdir.iterdir(), key=lambda file: file.name)
        if file.suffix == ".json" and file.name.startswith(("results", "eval_"))
        if (evaluation := _evaluation(file, step, config))
    ]
    images = data.get("training_images", 0)
    return card.Run(workdir.name, step, weights, config, images, found)


def _evaluation(
    file: epath.Path, step: int, config: ConfigDict
) -> tuple[Mapping[str, Any], ConfigDict] | None:
    """The results in a file with the config of that evaluation, if they are of the checkpoint."""
    results = read_json(file)
    members = results.get("members", [f"checkpoints/{step}"])
    alone = len(members) == 1 and members[0].endswith(f"checkpoints/{step}")
    if results.get("step") != step or not alone:
        return None
    named = config_fields.named_evaluations(config)
    config = named.get(file.stem.removeprefix("results_"), config).copy_and_resolve_references()
    config.eval.update(results.get("eval", {}))
    config.image_size = results.get("image_size", config.image_size)
    return results, config


def _write(pretrained: Pretrained, run: card.Run, folder: Path, license: str) -> list[str]:
    """Writes all files; returns notes."""
    save(folder, pretrained)
    usage = {
        "inception": "import inception\n"
        'model, variables, preprocessing = inception.load_pretrained("DIR")'
    }
    notes: list[str] = []
    library = "timm" if pretrained.model.avg_pool_counts_padding else "keras"
    if differs := foreign.differences(pretrained, library):
        notes.append(f"{library} cannot load it: {'; '.join(differs.values())}")
    else:
        notes += _write_other(pretrained, library, folder, license)
        usage[library] = _USAGE[library]
    if pretrained.labels:
        (folder / _LABELS).write_text("".join(f"{name}\n" for name in pretrained.labels))
    if not license:
        notes.append("the card states no license: --license=ID does")
    (folder / _CARD).write_text(card.write(pretrained, run, license, usage))
    return notes


def _write_other(pretrained: Pretrained, library: str, folder: Path, license: str) -> list[str]:
    """Writes timm's or Keras's files; returns notes."""
    if library == "keras":
        return export(pretrained, "keras", folder / _KERAS)
    notes = export(pretrained, "timm", folder / timm_folder.WEIGHTS_FILE)
    content = timm_folder.config(pretrained, license)
    (folder / timm_folder.CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")
    return notes


def uploader(repository: str, private: bool) -> Callable[[Path], str]:
    """A function that uploads a folder to a repository of the hub, and returns its address.

    The repository is made if there is none; what it has of the same names becomes its history.

    Raises:
      UserError: If nothing can be uploaded: no huggingface_hub, no connections allowed, or no name
        of a repository. The function raises it too.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"--push={repository} does not name a repository: it must be USER/REPO")
    if variable := transport.offline():
        raise UserError(f"--push={repository} needs a connection, and {variable} is set. Unset it")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError(
            f"--push needs huggingface_hub ({error}). Run pip install -r requirements-hub.txt"
        ) from error

    def upload(folder: Path) -> str:
        api = HfApi(endpoint=transport.endpoint())
        try:
            api.create_repo(repository, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"Add {folder.name}"
            )
        except Exception as error:  # its HTTP library's too, which changes with its version
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{folder} is written, but could not be uploaded to {repository} at "
                f"{api.endpoint} ({reason}). Run the same command again, with a token that may "
                "write in HF_TOKEN"
            ) from error
        return f"{api.endpoint}/{repository}"

    return upload
