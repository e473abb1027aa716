"""How our network with imported weights is compared with the source's own network.

A difference is the largest of an array's values, relative to the array's largest value, on a CPU:
outputs in float32, as they are used; gradients and a forward pass in training in float64, since in
float32 rounding grows from layer to layer and switches one of millions of ReLUs or maxima of a pool
now and then.

INCEPTION_PARITY=docs/measurements/parity.json pytest -m "" -n0 tests/weights/test_parity_*.py
writes what was measured; see conftest.py.
"""

from functools import partial

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from inception.weights import verify
from inception.workdir.files import write_json
from tests.oracles import in_float64

# Outputs were at most 3e-6 apart, compiled for two kinds of processor, and in float64 3e-12.
OUTPUTS, IN_FLOAT64 = 1e-5, 1e-10

MEASURED: list[tuple[str, str, str, verify.Difference]] = []


def write(path: str) -> None:
    """Writes what was measured; docs/measured.py makes a table of it."""
    rows = [
        {
            "source": source,
            "compared": what,
            "images": images,
            "difference": worst.relative,
            "at": worst.endpoint,
        }
        for source, what, images, worst in sorted(MEASURED, key=lambda row: row[:3])
    ]
    write_json(path, rows)


def difference(source, what, images, ours: dict, theirs: dict) -> float:
    """The largest relative difference of any array, which is noted; both must have the same."""
    assert ours.keys() == theirs.keys()
    worst = max(verify.compare(ours, theirs), key=lambda each: each.relative)
    shape = "x".join(map(str, images.shape[:3]))
    MEASURED.append((source, what, shape, worst))
    print(worst)
    return worst.relative


def gradients_of(pretrained, head: str, images, cotangent) -> dict:
    """The gradients of sum(head * cotangent) by our names, in float64.

    For the images and the parameters; for the auxiliary head, only its own.
    """
    aux_head = head == "aux_logits"
    model, variables = pretrained.model.clone(dtype=np.float64), in_float64(pretrained.variables)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(params, images):
        both = variables | {"params": params}
        logits, endpoints = model.apply(both, images, aux_head=aux_head)
        return ((endpoints | {"logits": logits})[head] * cotangent).sum()

    of_params, of_images = gradient(variables["params"], images)
    found = flatten_dict({"params": of_params}, sep="/")
    own = {name: a for name, a in found.items() if ("AuxLogits" in name) == aux_head}
    return own if aux_head else own | {"images": of_images}


def after_training(pretrained, images, aux_head: bool) -> tuple[dict, dict]:
    """Endpoints of a forward pass in training without dropout, and the new statistics: float64."""
    model = pretrained.model.clone(dropout_rate=0.0, dtype=np.float64)

    @jax.jit
    def forward(variables, images):
        return model.apply(variables, images, True, aux_head, mutable=["batch_stats"])

    (logits, endpoints), new = forward(*in_float64((pretrained.variables, images)))
    return endpoints | {"logits": logits}, flatten_dict(new, sep="/")
