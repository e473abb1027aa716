"""fused.py: the whole network as it is computed is the network as it is drawn, in every config."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inception
from inception.network.model import Inception
from tests.oracles import random_array, random_images

CONFIGS = sorted(path.stem for path in Path("configs").glob("[!_]*.py"))
OTHERS = {  # networks that no config has
    "FID's": {"mixed_7c_pool": "max", "batch_norm_scale": True, "aux_head": "none"},
    "torchvision's": {"batch_norm_scale": True, "avg_pool_counts_padding": True},
}
FAST = {"v3_robustness"}  # each takes twenty seconds
SIZE, BATCH, CLASSES = 107, 4, 5


def _networks() -> dict[str, list[str]]:
    """Each network's fields, and the configs that share it."""
    networks: dict[str, list[str]] = {}
    for name in CONFIGS:
        model = dict(inception.load_config(f"configs/{name}.py", ["init_from=x"]).model)
        for field in ("width_multiplier", "batch_norm_group", "batch_norm_decay", "dropout_rate"):
            del model[field]
        networks.setdefault(json.dumps(model, sort_keys=True), []).append(name)
    return networks


def _cases():
    cases = {names[-1]: json.loads(fields) for fields, names in _networks().items()}
    for name, fields in {**cases, **OTHERS}.items():
        marks = () if name in FAST else pytest.mark.slow
        yield pytest.param(fields, id=name, marks=marks)


@functools.cache
def _images() -> jax.Array:
    return jnp.asarray(random_images(SIZE, BATCH), jnp.float64)


@pytest.mark.parametrize("fields", list(_cases()))
def test_outputs_gradients_and_statistics_are_those_of_the_network_as_drawn(fields):
    """In float64, for a fresh network multiplies rounding by thousands."""
    with jax.enable_x64(True):
        model = Inception(
            CLASSES,
            **fields,
            width_multiplier=0.05,
            batch_norm_group=2,
            batch_norm_decay=0.5,
            dropout_rate=0.0,
            dtype=jnp.float64,
        )
        fused, drawn = _results(model), _results(model.clone(fuse=False))
        assert len(fused) > 300
        for name, expected in drawn.items():
            error = np.abs(fused[name] - expected).max()
            assert error <= 1e-5 * np.abs(expected).max(), name


def _results(model: Inception) -> dict[str, np.ndarray]:
    """Logits, endpoints, new statistics and gradients in training, and logits in evaluation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), _images())
    variables = jax.tree.map_with_path(
        lambda path, leaf: random_array(path[-1].key, leaf.shape, rng), shapes
    )

    # Compiled without LLVM's expensive passes, which take longer here than what they save.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(variables, images):
        def loss(params):
            (logits, endpoints), new = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},  # the same in both networks
            )
            heads = [logits, endpoints.get("aux_logits", logits)]
            losses = [jax.nn.logsumexp(head, axis=-1).mean() - head[:, 0].mean() for head in heads]
            return sum(losses), (endpoints, new)

        gradients, (endpoints, new) = jax.grad(loss, has_aux=True)(variables["params"])
        return gradients, endpoints, new, model.apply(variables, images)[0]

    leaves = jax.tree.leaves_with_path(run(variables, _images()))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def test_every_config_is_one_of_the_cases():
    assert sorted(name for names in _networks().values() for name in names) == CONFIGS
