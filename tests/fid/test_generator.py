"""A generator trained on digits while its FID is tracked, as a program of one's own does it.

Flow matching (arXiv 2210.02747) on scikit-learn's 8x8 digits: a small network learns which digit a
noisy one was, and sampling moves noise towards what it says. Every so many steps samples go from
the sampler through the network into moments, all in one jitted step on the devices; only the
finished statistics come to the host. The feature network is FID's at its smallest width with random
weights, which tells noise from digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inception import fid
from tests.fid.networks import loaded

PIXELS, HIDDEN, BATCH = 64, 256, 64
STEPS, EVERY, SAMPLES = 600, 300, 128


def init(key):
    """Weights of a network of three layers on a digit and the time."""
    sizes = [(PIXELS + 1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, PIXELS)]
    keys = jax.random.split(key, len(sizes))
    return [
        (jax.random.normal(each, size) * size[0] ** -0.5, jnp.zeros(size[1]))
        for each, size in zip(keys, sizes, strict=True)
    ]


def clean(params, x, time):
    """The digit in [-1, 1] that a mixture x [batch, 64] of noise and `time` parts of it shows."""
    x = jnp.concatenate([x, jnp.broadcast_to(time, (len(x), 1))], axis=1)
    for weights, bias in params[:-1]:
        x = jax.nn.gelu(x @ weights + bias)
    weights, bias = params[-1]
    return jnp.tanh(x @ weights + bias)


def loss(params, digits, key):
    """Of the digit on a straight line from noise to it."""
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, digits.shape)
    time = jax.random.uniform(time_key, (len(digits), 1))
    between = (1 - time) * noise + time * digits
    return ((clean(params, between, time) - digits) ** 2).mean()


def sample(params, key, count=BATCH, steps=20):
    """Images [count, 8, 8, 3] in [-1, 1]."""

    def follow(index, x):
        # The velocity is (digit - x) / (1 - time); the last step ends at the digit.
        return x + (clean(params, x, index / steps) - x) / (steps - index)

    x = jax.lax.fori_loop(0, steps, follow, jax.random.normal(key, (count, PIXELS)))
    return jnp.broadcast_to(x.reshape(count, 8, 8, 1), (count, 8, 8, 3))


@jax.jit
def measure_samples(moments, extract, params, key):
    """The accumulator after one more batch of samples; nothing leaves the devices."""
    images = fid.to_uint8(sample(params, key))
    return fid.add(moments, extract.features(images))


def track(extract, reference, params, key):
    """FID of SAMPLES samples."""
    moments = fid.empty(extract)
    for each in jax.random.split(key, SAMPLES // BATCH):
        moments = measure_samples(moments, extract, params, each)
    return fid.distance(reference, fid.finish(moments)["pooled"])


def digits():
    """scikit-learn's digits in [-1, 1], [n, 64]."""
    from sklearn.datasets import load_digits

    return (load_digits().data / 8 - 1).astype(np.float32)


def train(extract):
    """The FIDs before training and after every EVERY steps."""
    real = digits()
    images = np.asarray(fid.to_uint8(real[:SAMPLES].reshape(-1, 8, 8, 1)))
    rows = extract.features(jnp.asarray(images.repeat(3, axis=3)))["pooled"]
    reference = fid.statistics_of(np.asarray(rows), extract.origin("pooled"))
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, STEPS))
    params = init(jax.random.key(0))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, number):
        draw, noise = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        batch = jax.random.choice(draw, jnp.asarray(real), (BATCH,))
        updates, state = optimizer.update(jax.grad(loss)(params, batch, noise), state)
        return optax.apply_updates(params, updates), state

    fids = [track(extract, reference, params, jax.random.key(2))]
    for number in range(STEPS):
        params, state = step(params, state, number)
        if (number + 1) % EVERY == 0:
            fids.append(track(extract, reference, params, jax.random.key(2)))
    return fids


@pytest.mark.slow
def test_fid_falls_while_a_generator_learns_digits():
    before, *tracked = train(fid.Extractor(loaded()))
    print(before, tracked)
    assert tracked[-1] < 0.01 * before
    assert min(tracked) > 0
