"""The same network in fewer passes over memory: four rewrites, each exact up to rounding.

1. 1x1 convolutions that read one input are computed as one, and so are their normalizations: the
   input is read once, and the gradient for it is written once.
2. An average pool before such a 1x1 is taken after it, where there are fewer channels: both are
   linear, and the pool's weights do not depend on the channel.
3. A maximum pool after a normalization without a scale is taken before it: normalization and ReLU
   keep the order of a channel's values, and the rest is done for a quarter of the pixels.
4. For inference, normalization is folded into the convolution before it.

`concat` and `run` are drop-in replacements of those in layers.py, with the same parameters.
docs/performance.md has what each is worth.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, zip_longest

import flax.linen as nn
import jax
import jax.numpy as jnp

from inception.network import layers
from inception.network.batch_norm import Coefficients
from inception.network.layers import Branch, ConvBN, activation, add_bias, sequence
from inception.network.pools import AvgPool, Pool
from inception.ops.convolution import conv
from inception.ops.normalize import Pool as PoolFunction

Head = tuple[AvgPool | None, ConvBN]  # how a branch begins: a 1x1, perhaps with a pool before it


def concat(x: jax.Array, *branches: Branch) -> jax.Array:
    """`layers.concat` with rewrites 1 and 2."""
    heads, rests = zip(*map(_split, branches), strict=True)
    siblings = [head for head in heads if head]
    if len(siblings) < 2:
        return layers.concat(x, *branches)
    outputs = iter(_together(x, siblings))
    parts = [
        sequence(rest, next(outputs) if head else x)
        for head, rest in zip(heads, rests, strict=True)
    ]
    return jnp.concatenate(parts, axis=-1)


def _split(branch: Branch) -> tuple[Head | None, Branch]:
    """A branch's head, if it begins with one, and the rest."""
    match branch:
        case [ConvBN(kernel=(1, 1), stride=1) as first, *rest]:
            return (None, first), rest
        case [AvgPool() as pool, ConvBN(kernel=(1, 1), stride=1) as first, *rest]:
            return (pool, first), rest
    return None, branch


def _together(x: jax.Array, heads: Sequence[Head]) -> list[jax.Array]:
    """The outputs of `heads` on one input, computed by one convolution."""
    groups = defaultdict[tuple, list[ConvBN]](list)  # those that continue alike
    for pool, head in heads:
        groups[pool, head.relu].append(head)
    ordered = [head for group in groups.values() for head in group]
    kernels, biases = zip(
        *(head.conv.kernel_and_bias(x.shape[-1]) for head in ordered), strict=True
    )
    bias_of = dict(zip((head.name for head in ordered), biases, strict=True))
    y = conv(x, jnp.concatenate(kernels, axis=-1))
    outputs: dict[str | None, jax.Array] = {}
    for (pool, relu), group in groups.items():
        ends = list(accumulate(head.width for head in group))
        part, y = jnp.split(y, [ends[-1]], axis=-1)
        part = pool(part) if pool else part
        names = [head.name for head in group]
        if group[0].norm is None:
            bias = jnp.concatenate([bias_of[name] for name in names])
            part = activation(add_bias(part, bias), relu)
        else:
            (part,) = _batch_norm(part, group, [None])
        outputs |= zip(names, jnp.split(part, ends[:-1], axis=-1), strict=True)
    return [outputs[head.name] for _, head in heads]


def _batch_norm(
    y: jax.Array, convs: Sequence[ConvBN], pools: Sequence[PoolFunction | None]
) -> list[jax.Array]:
    """Joined normalizations and ReLUs of the convolutions' outputs `y`: the result of each pool."""
    norms, widths = [conv.bn for conv in convs], [conv.width for conv in convs]
    coefficients = [norm.coefficients(width) for norm, width in zip(norms, widths, strict=True)]
    joined = Coefficients(*map(jnp.concatenate, zip(*coefficients, strict=True)))
    results = [norms[0].with_coefficients(y, joined, convs[0].relu, pool) for pool in pools]
    _, statistics = results[0]
    if statistics is not None:
        parts = jnp.split(statistics, list(accumulate(widths[:-1])), axis=-1)
        for norm, part in zip(norms, parts, strict=True):
            norm.update(part)
    return [output for output, _ in results]


def run(
    stages: Sequence[nn.Module], x: jax.Array, frozen: Collection[str] = ()
) -> Iterator[tuple[str, jax.Array]]:
    """`layers.run` with rewrite 3."""
    pooled = None  # the next stage's output, where it is known already
    for stage, following in zip_longest(stages, stages[1:]):
        if pooled is not None:
            x, pooled = pooled, None
        elif isinstance(stage, ConvBN) and isinstance(following, Pool) and _keeps_order(stage):
            x, pooled = _batch_norm(stage.conv(x), [stage], [None, following.pool])
        else:
            x = stage(x)
        if stage.name in frozen:
            x, pooled = jax.lax.stop_gradient((x, pooled))
        yield str(stage.name), x


def _keeps_order(conv: ConvBN) -> bool:
    """Whether the order of a channel's values is the same before and after normalization."""
    return conv.norm is not None and not conv.bn.scale


def fold_batch_norm(variables: dict, epsilon: float) -> dict:
    """Rewrite 4: the variables of the network whose `ConvBN.norm` is None.

    With the running statistics, normalization is a factor and an offset per channel: the factor
    goes into the kernel and the offset becomes the bias.

    Args:
      variables: "params" and "batch_stats" of a network of `ConvBN`.
      epsilon: Epsilon of its batch normalization.

    Returns:
      "params" alone.
    """

    def fold(params: dict, statistics: dict) -> dict:
        if "bn" not in params:
            return {
                name: fold(child, statistics.get(name, {})) if isinstance(child, dict) else child
                for name, child in params.items()
            }
        mean, var = statistics["bn"]["mean"], statistics["bn"]["var"]
        factor = params["bn"].get("scale", 1.0) * jax.lax.rsqrt(var + epsilon)
        kernel = params["conv"]["kernel"] * factor.reshape(1, 1, 1, -1)
        bias = params["bn"]["bias"] - mean * factor
        return {"conv": {"kernel": kernel, "bias": bias}}

    return {"params": fold(variables["params"], variables["batch_stats"])}
