"""Fine-tuning: a run that starts from weights instead of random values, `config.init_from`.

The fields that belong to the weights (defaults.FROM_WEIGHTS), without which they would compute
something else, are copied into the run's config and its config.json. So the weights are no longer
needed to continue the run, to evaluate it or to predict with it.
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

_HEAD = re.compile(r"\w+/(Logits|AuxLogits/\w+)/")  # the part of a head that a variable belongs to


def prepare(
    config: ConfigDict, workdir: epath.PathLike | None
) -> tuple[ConfigDict, Pretrained | None]:
    """The config of a run with the fields of its weights, and the weights.

    Args:
      config: Config as given by the user.
      workdir: Workdir of the run; None if there is none yet. If it has a checkpoint, the fields are
        read from its config.json, and the weights are not read.

    Returns:
      The config, unchanged without `init_from`; and the weights to start from, if any.

    Raises:
      WeightsError, CheckpointError: If the weights cannot be loaded.
      ConfigError: If the config is not valid with their fields.
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
    """A copy of the config with the fields that the weights determine."""
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
    """The first state of a run that starts from weights, which are its running averages too.

    The parts of the heads whose shapes differ keep the random values of `state`: the last layers if
    the number of classes differs, the auxiliary head's fully connected one if the image size does.

    Args:
      state: A first state of the same network.
      weights: Weights to start from.
      class_names: Class names of the data, () if it has none.
      mesh: Devices of the state.
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
    # Two copies, since a step gives its state's memory away.
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
    random_parts = f"; random: {', '.join(random)}" if random else ""
    log(f"starting from {weights.source}, {weights.model.num_classes} classes{random_parts}")
    if "Logits" not in random and weights.activation != "softmax":
        log(
            f"warning: the head of the weights was trained with a {weights.activation} of each "
            "class; here it is trained, evaluated and used with a softmax over the classes"
        )
    pairs = zip(weights.labels, class_names, strict=False)
    other = next(((old, new) for old, new in pairs if old != new), None)
    if "Logits" not in random and other:
        log(
            f"warning: class {other[0]!r} of the weights is {other[1]!r} in the data; the heads "
            "are kept, since the number of classes is the same"
        )
