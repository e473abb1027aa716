"""The README.md of published weights: a model card, as Hugging Face's hub reads it.

Its head is YAML, written as JSON, which is YAML too. It says nothing of the machine that trained:
paths of data, workdirs and weights are left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ml_collections import ConfigDict

from inception import config as settings
from inception import defaults
from inception.data.datasets import eval_data
from inception.data.preprocessing import Preprocessing
from inception.weights import registry
from inception.weights.pretrained import Pretrained

_HUB_DATASETS = {"imagenet2012": "imagenet-1k"}  # their names there
_PLACES = ("data_dir", "ensemble", "exclude", "init_from")  # paths of the machine
_METHODS = {
    "inception": "the central {fraction:.1%} of each side, resized to {size}x{size} without "
    "antialiasing",
    "resize_crop": "the shorter side resized to {side} with antialiasing, then the central "
    "{size}x{size}",
    "resize": "the whole image resized to {size}x{size} without antialiasing",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The run that a card describes.

    Attributes:
      name: Name of the run.
      step: Step of the checkpoint.
      weights: "ema" or "raw", which of its weights are published.
      config: The run's config.
      images: Number of images that it trained on, 0 if unknown.
      evaluations: Results of this checkpoint as evaluation writes them, each with the config that
        it was made with.
    """

    name: str
    step: int
    weights: str
    config: ConfigDict
    images: int
    evaluations: Sequence[tuple[Mapping[str, Any], ConfigDict]]


def write(pretrained: Pretrained, run: Run, license: str, usage: Mapping[str, str]) -> str:
    """The card.

    Args:
      pretrained: The weights.
      run: The run that they are from.
      license: Identifier of the hub, such as "apache-2.0", or "" if not stated.
      usage: Lines of Python that load the weights, by library.
    """
    parts = [
        _head(run, license, usage),
        f"# {run.name}",
        f"An Inception network (arXiv 1512.00567) for {pretrained.model.num_classes} classes, "
        f"trained on {run.config.dataset}: step {run.step:,}, "
        + ("running averages of the weights." if run.weights == "ema" else "the raw weights."),
        "## Accuracy",
        _accuracy(run),
        "## Input",
        _input(pretrained.preprocessing),
        "## Use",
        "DIR is this folder; on the hub, write hf-hub:USER/REPO instead of it (in timm, instead "
        "of local-dir:DIR)."
        if "keras" not in usage
        else "DIR is this folder.",
        *(f"{library}:\n\n{_code(lines)}" for library, lines in usage.items()),
        "The names of the classes are in labels.txt, in the order of the outputs."
        if pretrained.labels
        else "The names of the classes are not known.",
        "## Training",
        f"Data: {run.config.dataset}, split {run.config.split}"
        + (f", {run.images:,} images." if run.images else "."),
        _base(run.config),
        "What the config sets otherwise than inception/defaults.py:",
        _code("\n".join(f"{name} = {value!r}" for name, value in changed(run.config).items())),
        "## License",
        f"{license}" if license else "Not stated by those who trained these weights.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def changed(config: ConfigDict) -> dict[str, Any]:
    """The fields of a config that differ from the defaults, without paths."""
    usual = settings.flatten(defaults.get_config())
    return {
        name: value
        for name, value in settings.flatten(config).items()
        if name.rpartition(".")[2] not in _PLACES and usual.get(name) != value
    }


def _head(run: Run, license: str, usage: Mapping[str, str]) -> str:
    base, dataset = registry.find(run.config.init_from), _HUB_DATASETS.get(run.config.dataset)
    library = next((name for name in ("timm", "keras") if name in usage), "jax")
    fields: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "inception", library],
        "license": license or "unknown",
    }
    if dataset:
        fields["datasets"] = [dataset]
    if base and base.repository:
        fields["base_model"] = base.repository
    if run.evaluations:
        results = [_index(*each, run.weights) for each in run.evaluations]
        fields["model-index"] = [{"name": run.name, "results": results}]
    return "\n".join(["---", *(f"{name}: {json.dumps(v)}" for name, v in fields.items()), "---"])


def _index(results: Mapping[str, Any], config: ConfigDict, weights: str) -> dict[str, Any]:
    name, _ = eval_data(config)
    return {
        "task": {"type": "image-classification"},
        "dataset": {
            "name": name,
            "type": _HUB_DATASETS.get(name, name),
            "split": results["split"],
        },
        "metrics": [
            {"type": "accuracy", "name": label, "value": results[weights][key]}
            for key, label in (("top1", "top-1"), ("top5", "top-5"))
        ],
    }


def _accuracy(run: Run) -> str:
    """A table, with a row for either kind of weights of each evaluation."""
    if not run.evaluations:
        return "This checkpoint was not evaluated."
    kinds = {"ema": "running averages", "raw": "raw"}
    rows = ["| data | images | crop | weights | top-1 | top-5 |", "|---|---|---|---|---|---|"]
    for results, config in run.evaluations:
        left_out = f" ({results['excluded']:,} left out)" if results.get("excluded") else ""
        data = f"{eval_data(config)[0]}, {results['split']}"
        for kind, name in kinds.items():
            published = " (published here)" if kind == run.weights else ""
            found = results[kind]
            rows.append(
                f"| {data} | {results['examples']:,}{left_out} | {_crop(config)} | "
                f"{name}{published} | {found['top1']:.2%} | {found['top5']:.2%} |"
            )
    return "\n".join(rows)


def _crop(config: ConfigDict) -> str:
    """The crop of an evaluation."""
    if config.eval.crops > 1:
        return f"{config.eval.crops} crops of {config.image_size}x{config.image_size}"
    return resized(settings.preprocessing(config))


def resized(preprocessing: Preprocessing) -> str:
    """Resize and crop in words."""
    size, fraction = preprocessing.image_size, preprocessing.crop_fraction
    text = _METHODS[preprocessing.method]
    return text.format(size=size, fraction=fraction, side=round(size / fraction))


def _input(preprocessing: Preprocessing) -> str:
    return (
        f"RGB, {resized(preprocessing)}, {preprocessing.interpolation}; then (x / 255 - mean) / "
        f"std with mean {preprocessing.mean} and std {preprocessing.std}."
    )


def _base(config: ConfigDict) -> str:
    """The weights that training started from; of a path only its last part."""
    if not config.init_from:
        return "It started from random weights."
    if base := registry.find(config.init_from):
        terms = f" ({base.license}, {base.license_url})" if base.license else ""
        return f"It started from the weights {base.name}{terms}."
    return f"It started from other weights, called {PurePath(config.init_from).name}."


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
