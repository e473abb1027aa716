"""Fine-tuning: a run that starts from weights instead of noise, `config.init_from`.

What the weights were trained with, without which they mean something else (defaults.FROM_WEIGHTS),
becomes the run's config and stands in its config.json: to continue it, to evaluate it and to
predict with it, the weights that it started from need not be there any more.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from inception import config as settings
from inception.defaults import FROM_WEIGHTS
from inception.distributed import sharding
from inception.training.state import TrainState
from inception.weights import Pretrained, describe, load_any
from inception.workdir.identity import has_checkpoint, read_config
from inception.workdir.logbook import log

_HEAD = re.compile(r"\w+/(Logits|AuxLogits/\w+)/")  # a part of a head, in a variable's name


def prepare(
    config: ConfigDict, workdir: epath.PathLike | None
) -> tuple[ConfigDict, Pretrained | None]:
    """What a run is trained with: the config with the weights' fields, and the weights.

    Args:
      config: of the command.
      workdir: of the run, None where it has none yet. If it has a checkpoint, its config.json has
        the weights' fields, and the weights are not read.

    Returns:
      The config, unchanged without `init_from`; and the weights to start from, if any.

    Raises:
      WeightsError, CheckpointError: if they cannot be loaded.
      ConfigError: if the config makes no sense with their fields.
    """
    if not config.init_from:
        return config, None
    if workdir and has_checkpoint(workdir):
        return _adopt(config, settings.flatten(read_config(workdir))), None
    weights = load_any(config.init_from)
    described = describe(weights)
    fields = {f"model.{name}": value for name, value in described["model"].items()}
    scaling = {name: list(getattr(weights.preprocessing, name)) for name in ("mean", "std")}
    fields |= {f"input_{name}": value for name, value in scaling.items()}
    adopted = _adopt(config, fields)
    if changed := settings.differences(settings.flatten(config), settings.flatten(adopted)):
        values = (f"{name}={new}" for name, (_, new) in changed.items())
        log(f"from {config.init_from}: {', '.join(values)}")
    return adopted, weights


def _adopt(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """The config with the fields that the weights decide."""
    adopted = config.copy_and_resolve_references()
    for name in FROM_WEIGHTS:
        if name != "model.aux_head" or config.model.aux_head != "none":
            settings.set_value(adopted, name, fields[name])
    if adopted != config:
        settings.validate(adopted)
    return adopted


def start(
    state: TrainState, weights: Pretrained, class_names: Sequence[str], mesh: Mesh
) -> TrainState:
    """The first state of a run that starts from weights; its running averages are these, too.

    Of the heads, a part of another shape stays as it is in `state`, random: the last layers where
    the number of classes is another, and the side head's fully connected layer where the images
    are of another size.

    Args:
      state: a first state of the same network.
      weights: to start from.
      class_names: of the data, () if it has none.
      mesh: that the state lies on.
    """
    fresh = flatten_dict(state.variables("raw"), sep="/")
    loaded = flatten_dict(weights.variables, sep="/")
    parts = {name: match[1] for name in fresh if (match := _HEAD.match(name))}
    random = {part for name, part in parts.items() if loaded[name].shape != fresh[name].shape}
    values = {
        name: leaf if parts.get(name) in random else np.asarray(loaded[name], leaf.dtype)
        for name, leaf in fresh.items()
    }
    _log_start(sorted(random), weights, class_names)
    # Two copies: a step gives its state's memory away.
    twice = jax.jit(
        lambda tree: (jax.tree.map(jnp.copy, tree), jax.tree.map(jnp.copy, tree)),
        out_shardings=sharding.replicated(mesh),
    )
    raw, ema = twice(unflatten_dict(values, sep="/"))
    return dataclasses.replace(
        state,
        params=raw["params"],
        batch_stats=raw["batch_stats"],
        ema_params=ema["params"],
        ema_batch_stats=ema["batch_stats"],
    )


def _log_start(random: Sequence[str], weights: Pretrained, class_names: Sequence[str]) -> None:
    anew = f"; random: {', '.join(random)}" if random else ""
    log(f"starting from {weights.source}, {weights.model.num_classes} classes{anew}")
    pairs = zip(weights.labels, class_names, strict=False)
    other = next(((old, new) for old, new in pairs if old != new), None)
    if "Logits" not in random and other:
        log(
            f"warning: what is {other[0]!r} in the weights is {other[1]!r} in the data; the heads "
            "are kept, for the number of classes is the same"
        )
