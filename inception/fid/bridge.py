"""All that this folder uses of the rest of the package: the network and the command line."""

import hashlib
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inception import command_line
from inception.distributed.sharding import make_mesh, replicated, split
from inception.errors import UserError
from inception.network.fused import fold_batch_norm
from inception.network.model import Inception, blank_image
from inception.ops.convolution import prepare_kernels, with_kernels
from inception.workdir.files import as_json, write_text

__all__ = [
    "Inception",
    "Mesh",
    "UserError",
    "as_json",
    "command_line",
    "digest",
    "endpoints",
    "is_fids",
    "load_network",
    "make_mesh",
    "open_data_set",
    "prepare",
    "replicated",
    "split",
    "write_text",
]

FID_CLASSES = 1008


def open_data_set(name: str, split: str, data_dir: str) -> Any:
    """A prepared tfds data set: len() of it, and [index], an encoded image or pixels, and a label.

    Raises:
      UserError: for a data set or split that is not there, saying how to prepare it.
    """
    from inception.data.sources import open_source

    return open_source(name, split, data_dir)


# What makes two networks with equal weights compute different features.
_FIELDS = ("avg_pool_counts_padding", "mixed_7c_pool", "batch_norm_epsilon")


def load_network(weights: str | os.PathLike) -> tuple[Inception, dict[str, Any]]:
    """The network and its variables, of whatever `inception.load_pretrained` takes."""
    from inception.weights import load_pretrained

    model, variables, _ = load_pretrained(weights)
    return model, variables


def is_fids(model: Inception) -> bool:
    """Whether it is the network that published values of FID were computed with."""
    return model.num_classes == FID_CLASSES and model.mixed_7c_pool == "max"


def digest(model: Inception, variables: dict[str, Any]) -> str:
    """SHA-256 of all that decides about features, whatever file the weights came in.

    The auxiliary head plays no part in any feature and is left out.
    """
    found = hashlib.sha256(repr([(name, getattr(model, name)) for name in _FIELDS]).encode())
    for path, leaf in sorted(
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ):
        if "AuxLogits" not in path:
            array = np.ascontiguousarray(leaf, np.float32)
            found.update(f"{path}{list(array.shape)}".encode())
            found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def prepare(
    model: Inception, variables: dict[str, Any], size: int, mesh: Mesh
) -> tuple[Inception, dict[str, Any]]:
    """The float32 network for inference, and its weights on every device of the mesh.

    Batch normalization is folded into the kernels, and these are also there as convolutions want
    them ("kernels", in order). The logits lose their bias: the Inception Score is defined without
    it.
    """
    model = model.clone(batch_norm_folded=True, dtype=jnp.float32)
    variables = jax.device_put(variables, replicated(mesh))
    return model, jax.device_put(_prepare(variables, model=model, size=size), replicated(mesh))


@partial(jax.jit, static_argnames=("model", "size"))
def _prepare(variables: dict, *, model: Inception, size: int) -> dict:
    folded = fold_batch_norm(variables, model.batch_norm_epsilon)
    logits = folded["params"]["Logits"]
    logits = {**logits, "bias": jnp.zeros_like(logits["bias"])}
    folded = {"params": {**folded["params"], "Logits": logits}}
    with prepare_kernels() as kernels:
        model.apply(folded, blank_image(size), aux_head=False)
    return {**folded, "kernels": kernels}


def endpoints(model: Inception, variables: dict, inputs: jax.Array) -> dict[str, jax.Array]:
    """All endpoints and "logits" by name, for inputs float32 [batch, size, size, 3]."""
    with with_kernels(variables["kernels"]):
        params = {"params": variables["params"]}
        logits, found = model.apply(params, inputs, train=False, aux_head=False)
    return {**found, "logits": logits}
