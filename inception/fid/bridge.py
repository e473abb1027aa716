"""Everything that this folder uses of the rest of the package."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inception import command_line
from inception.data.decode import critical_chunks
from inception.data.folder import images_below
from inception.data.paths import is_local, local_path
from inception.distributed.sharding import make_mesh, replicated, split
from inception.errors import UserError
from inception.network.fused import fold_batch_norm
from inception.network.model import Inception, blank_image
from inception.ops.convolution import is_onednn_used, prepare_kernels, with_kernels
from inception.ops.platforms import by_platform
from inception.workdir.files import as_json, write_bytes, write_text

__all__ = [
    "Inception",
    "Mesh",
    "UserError",
    "as_json",
    "by_platform",
    "check_layout",
    "command_line",
    "critical_chunks",
    "digest",
    "endpoints",
    "images_below",
    "is_fids",
    "is_local",
    "load_network",
    "local_path",
    "make_mesh",
    "open_data_set",
    "prepare",
    "replicated",
    "split",
    "weights_file",
    "write_bytes",
    "write_text",
]

FID_CLASSES = 1008


def open_data_set(name: str, split: str, data_dir: str) -> Any:
    """A prepared tfds data set; it need not have labels.

    Returns:
      A source with a length; its items are an encoded image or pixels, and anything.

    Raises:
      UserError: If the data set or the split is missing; the message says how to prepare it.
    """
    from inception.data.sources import open_source

    return open_source(name, split, data_dir, labeled=False)


# Fields by which networks with equal weights compute different features.
_FIELDS = ("avg_pool_counts_padding", "mixed_7c_pool", "batch_norm_epsilon")


def load_network(weights: str | os.PathLike) -> tuple[Inception, dict[str, Any]]:
    """The network and its variables, of whatever `inception.load_pretrained` takes."""
    from inception.weights import load_pretrained

    model, variables, _ = load_pretrained(weights)
    return model, variables


def weights_file(weights: str) -> str:
    """The file of a name or an address, downloaded if it is not on this machine; a path as it is.

    Raises:
      UserError: If it cannot be downloaded.
    """
    from inception.weights import locate

    published = locate.named(weights)
    return str(locate.locate(published)) if published else weights


def is_fids(model: Inception) -> bool:
    """Whether a network is the one that published values of FID were computed with."""
    return model.num_classes == FID_CLASSES and model.mixed_7c_pool == "max"


def digest(model: Inception, variables: dict[str, Any]) -> str:
    """SHA-256 of everything that features depend on, whatever file the weights came in.

    No feature depends on the auxiliary head, which is left out.
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

    Batch normalization is folded into the convolutions' kernels. These are in "kernels", in the
    order of use and in the layout that convolutions want; "params" keeps their shapes only. The
    logits lose their bias, because the Inception Score is defined without it.
    """
    model = model.clone(batch_norm_folded=True, dtype=jnp.float32)
    variables = jax.device_put(variables, replicated(mesh))
    prepared = _prepare(variables, model=model, size=size, layout=_layout())
    return model, jax.device_put(prepared, replicated(mesh))


def abstract(model: Inception, size: int, mesh: Mesh) -> tuple[Inception, dict[str, Any]]:
    """What `prepare` returns, as shapes and types on a mesh of any devices; nothing is computed."""
    init = partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), blank_image(size))
    model = model.clone(batch_norm_folded=True, dtype=jnp.float32)
    make = partial(_prepare, model=model, size=size, layout=_layout())

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))

    return model, jax.tree.map(placed, jax.eval_shape(make, variables))


def fids_model() -> Inception:
    """FID's network, without weights."""
    return Inception(
        FID_CLASSES,
        aux_head="none",
        mixed_7c_pool="max",
        batch_norm_scale=True,
        avg_pool_counts_padding=False,
    )


def _layout() -> str:
    """The layout that convolutions which are traced now expect of prepared kernels."""
    return "onednn" if is_onednn_used() else "plain"


@partial(jax.jit, static_argnames=("model", "size", "layout"))
def _prepare(variables: dict, *, model: Inception, size: int, layout: str) -> dict:
    folded = fold_batch_norm(variables, model.batch_norm_epsilon)
    logits = folded["params"]["Logits"]
    logits = {**logits, "bias": jnp.zeros_like(logits["bias"])}
    folded = {"params": {**folded["params"], "Logits": logits}}
    with prepare_kernels() as kernels:
        model.apply(folded, blank_image(size), aux_head=False)
    # No memory is needed to keep a shape.
    params = _map_kernels(lambda kernel: jnp.zeros((0, *kernel.shape)), folded["params"])
    return {"params": params, "kernels": {layout: kernels}}


def _map_kernels(change: Callable[[jax.Array], jax.Array], params: dict) -> dict:
    """Changes the kernels of convolutions: [height, width, channels, features], or their shapes."""
    return jax.tree.map(lambda leaf: change(leaf) if leaf.ndim >= 4 else leaf, params)


def check_layout(variables: dict) -> None:
    """Refuses weights that were prepared for convolutions of another platform.

    Raises:
      UserError: If what is traced now would read the kernels in another layout.
    """
    (found,) = variables["kernels"]
    if found != _layout():
        raise UserError(
            f"the weights are in the layout {found!r}, and convolutions for this platform need "
            f"{_layout()!r}: make the Extractor where its features are computed"
        )


def endpoints(model: Inception, variables: dict, inputs: jax.Array) -> dict[str, jax.Array]:
    """All endpoints and "logits" by name, for inputs float32 [batch, size, size, 3]."""
    (kernels,) = variables["kernels"].values()
    params = _map_kernels(lambda kept: jnp.zeros(kept.shape[1:]), variables["params"])
    with with_kernels(kernels):
        logits, found = model.apply({"params": params}, inputs, train=False, aux_head=False)
    return {**found, "logits": logits}
