"""Augmentation against tf.image on real photographs, and that nothing but the key decides."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from sklearn.datasets import load_sample_images

from inception.data import augment as aug
from inception.data.crops import AUGMENTATIONS
from tests import processes
from tests.oracles import SLIM_COLOR_ORDERS

pytestmark = pytest.mark.rounding

TOLERANCE = 2 / 255
# Between two programs for the same numbers: a compiler may round each of some thirty operations
# once or not at all, by half of 2^-23 of values up to 2. A gray level is a thousand times as much.
ROUNDING = 30 * 2**-23
RANGES = {
    "brightness": (-32 / 255, 32 / 255),
    "saturation": (0.5, 1.5),
    "hue": (-0.2, 0.2),
    "contrast": (0.5, 1.5),
}
SLIM_FAST_ORDERS = (("brightness", "saturation"), *[("saturation", "brightness")] * 3)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation

augment = jax.jit(aug.augment, static_argnums=2)
mixup = jax.jit(aug.mixup, static_argnums=3)


@pytest.fixture(scope="module")
def tf_image():
    tf = pytest.importorskip("tensorflow")
    tf.config.set_visible_devices([], "GPU")
    return tf.image


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """uint8 [5, 256, 256, 3]: people, cats, flowers, a temple; with pure black and white inside."""
    images = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    images += load_sample_images().images
    images = np.stack([image[:256, :256] for image in images])
    images[0, :8, :8] = 0
    images[0, 8:16, :8] = 255
    return images


@pytest.fixture(scope="module")
def crops(photographs) -> np.ndarray:
    """uint8 [20, 75, 75, 3]."""
    return np.concatenate([photographs[:, y : y + 75, 90:165] for y in (0, 64, 100, 181)])


def batch_keys(size: int, seed: int = 0, epoch: int = 0) -> jax.Array:
    return aug.keys(seed, np.full(size, epoch, np.int32), np.arange(size, dtype=np.int32))


def fixed_choices(size: int, **values) -> aug.Choices:
    return aug.Choices(**{name: jnp.full(size, value) for name, value in values.items()})


# Color against tf.image.


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("saturation", (0.0, 0.5, 0.77, 1.0, 1.31, 1.5, 4.0)),
        ("hue", (-0.5, -0.2, -0.07, 0.0, 0.03, 0.11, 0.2, 0.5)),
        ("contrast", (0.0, 0.5, 0.8, 1.0, 1.2, 1.5, 3.0)),
    ],
)
@pytest.mark.parametrize("stretch", [1.0, 1.6], ids=["inside", "beyond the unit interval"])
def test_operations_match_tensorflow(tf_image, photographs, name, factors, stretch):
    """Beyond [0, 1] too: that is what one operation hands to the next."""
    images = (photographs / np.float32(255) - 0.5) * np.float32(stretch) + 0.5
    ours = getattr(aug, f"adjust_{name}")
    theirs = getattr(tf_image, f"adjust_{name}")
    for factor in factors:
        expected = theirs(images, factor).numpy()
        colors = ours(np.moveaxis(images, -1, 0), factor)
        np.testing.assert_allclose(np.stack(colors, axis=-1), expected, atol=1e-5)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize(
    ("distort", "orders"),
    [(aug.distort_color, SLIM_COLOR_ORDERS), (aug.distort_color_fast, SLIM_FAST_ORDERS)],
)
def test_orders_match_slim(tf_image, photographs, distort, orders, order):
    """The shared sequence against slim's own, one operation of tf.image after the other."""
    rng = np.random.default_rng(order)
    distort = jax.jit(distort)
    images = photographs / np.float32(255)
    for _ in range(8):
        factors = {name: float(rng.uniform(*RANGES[name])) for name in RANGES}
        expected = images
        for name in orders[order]:
            expected = getattr(tf_image, f"adjust_{name}")(expected, factors[name])
        ours = distort(images, fixed_choices(len(images), flip=False, order=order, **factors))
        np.testing.assert_allclose(ours, np.clip(expected, 0, 1), atol=TOLERANCE / 100)


def test_orders_differ(photographs):
    """Otherwise the tests above could not tell them apart."""
    images = photographs / np.float32(255)
    factors = {"brightness": 0.1, "saturation": 1.4, "hue": 0.15, "contrast": 1.4}
    results = [
        aug.distort_color(images, fixed_choices(len(images), flip=False, order=order, **factors))
        for order in range(4)
    ]
    for first, second in itertools.combinations(results, 2):
        assert np.abs(first - second).max() > 10 * TOLERANCE


# What is drawn.


def test_choices_cover_their_ranges_evenly():
    size = 20_000
    choices = aug.draw(batch_keys(size))
    assert abs(np.mean(choices.flip) - 0.5) < 0.015
    np.testing.assert_allclose(np.bincount(choices.order) / size, [0.25] * 4, atol=0.015)
    for name, (low, high) in RANGES.items():
        quantiles = (np.sort(getattr(choices, name)) - low) / (high - low)
        distance = np.abs(quantiles - np.linspace(0, 1, size)).max()  # Kolmogorov-Smirnov
        assert distance < 2 / np.sqrt(size), name
    drawn = np.stack([np.asarray(values, np.float64) for values in choices])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.04


def test_keys_differ_in_each_of_their_parts():
    """And an epoch is no example: the pair (1, 2) is not (2, 1)."""
    epochs, examples = np.indices((3, 100)).reshape(2, -1)
    bits = [jax.random.key_data(aug.keys(seed, epochs, examples)) for seed in (0, 1)]
    assert len(np.unique(np.concatenate(bits), axis=0)) == 600


# Flip and scaling.


@pytest.mark.parametrize("augmentation", ["resnet", "flip"])
def test_flip_only_mirrors_whole_images(photographs, augmentation):
    images = np.concatenate([photographs[:, :32, :48]] * 4)
    keys, plain = batch_keys(len(images)), np.asarray(aug.scale_pixels(images))
    flipped = np.asarray(aug.draw(keys).flip)
    assert 0 < flipped.sum() < len(images)
    expected = np.where(flipped[:, None, None, None], plain[:, :, ::-1], plain)
    np.testing.assert_array_equal(aug.augment(keys, images, augmentation), expected)


@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.5,) * 3), IMAGENET])
def test_scaling_is_linear_and_exact_at_the_ends(compile, mean, std):
    """By default as the released code: convert_image_dtype, then minus 0.5, times 2."""
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 1, 3))
    out = np.asarray(compile(functools.partial(aug.scale_pixels, mean=mean, std=std))(levels))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (levels.astype(np.float64) / 255 - mean) / std, atol=1e-6)
    if mean == std:
        assert (out[0] == -1).all()
        assert (out[255] == 1).all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_mean_and_a_deviation_scale_what_is_augmented(crops, augmentation):
    mean, std = IMAGENET
    scale = jax.jit(functools.partial(aug.augment, mean=mean, std=std), static_argnums=2)
    plain = augment(batch_keys(len(crops)), crops, augmentation)
    scaled = scale(batch_keys(len(crops)), crops, augmentation)
    expected = ((plain + 1) / 2 - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_range_dtype_and_jit(crops, augmentation):
    keys = batch_keys(len(crops))
    jitted = augment(keys, crops, augmentation)
    assert jitted.dtype == jnp.float32
    assert jitted.shape == crops.shape
    assert jitted.min() >= -1
    assert jitted.max() <= 1
    np.testing.assert_allclose(jitted, aug.augment(keys, crops, augmentation), atol=ROUNDING)
    if augmentation in ("affine", "none"):
        np.testing.assert_array_equal(jitted, aug.scale_pixels(crops))


def test_gray_images_stay_gray():
    """Digits: saturation and hue must not invent color, nor divide by zero."""
    ramp = np.linspace(0, 255, 75 * 75).astype(np.uint8).reshape(1, 75, 75, 1)
    images = np.broadcast_to(ramp, (20, 75, 75, 3))
    out = np.asarray(augment(batch_keys(20), images, "inception"))
    np.testing.assert_allclose(out, out[..., :1] * np.ones(3), atol=1e-6)


# Nothing but (seed, epoch, example) decides.


@pytest.mark.parametrize("augmentation", ["inception", "inception_fast", "flip"])
def test_batch_does_not_matter(crops, augmentation):
    """The same image in a batch of 20 in any order, of 5 and of 1.

    Its choices are the same bit for bit; pixels too in batches of one size. For every size the
    compiler makes another program, which may round the last bit otherwise.
    """
    size = len(crops)
    epochs, examples = np.full(size, 3), np.arange(size) + 1_281_147

    def part(of) -> tuple[aug.Choices, np.ndarray]:
        keys = aug.keys(7, epochs[of], examples[of])
        return aug.draw(keys), np.asarray(augment(keys, crops[of], augmentation))

    choices, whole = part(slice(None))
    shuffled = np.random.default_rng(0).permutation(size)
    np.testing.assert_array_equal(part(shuffled)[1], whole[shuffled])
    for of in (shuffled, slice(0, 5), slice(15, 20), [13]):
        some_choices, images = part(of)
        for some, every in zip(some_choices, choices, strict=True):
            np.testing.assert_array_equal(some, np.asarray(every)[of])
        np.testing.assert_allclose(images, whole[of], atol=ROUNDING)


ON_EIGHT_DEVICES = """
import functools, sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from inception.data import augment as aug

images = np.load(sys.argv[1])
examples = np.arange(len(images))
labels = np.eye(len(images), dtype=np.float32)

def step(examples, images, labels):
    images = aug.augment(aug.keys(0, examples * 0 + 2, examples), images, "inception")
    return images, aug.mixup(jax.random.key(1), images, labels, 0.2)

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
sharded = NamedSharding(mesh, PartitionSpec("data"))
arrays = jax.device_put((examples, images, labels), sharded)
compiled = jax.jit(step, out_shardings=sharded).lower(*arrays).compile()
for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
    assert collective not in compiled.as_text(), collective
eight, one = compiled(*arrays), jax.jit(step)(examples, images, labels)
assert len(eight[0].sharding.device_set) == 8 and len(one[0].sharding.device_set) == 1
jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=4e-6), eight, one)
print('"same"')
"""


def test_eight_devices_give_the_same_numbers(photographs, tmp_path):
    """Also that nothing is sent from device to device, mixup's partners included."""
    path = tmp_path / "images.npy"
    np.save(path, np.concatenate([photographs[:4, 64:139, 64:139]] * 4))
    assert processes.result(processes.start(ON_EIGHT_DEVICES, path, devices=8)) == "same"


# Mixup.


def test_mixup_mixes_neighbors_with_one_weight():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (6, 4, 4, 3)).astype(np.float32)
    labels = np.eye(6, dtype=np.float32)
    mixed, mixed_labels = mixup(jax.random.key(3), images, labels, 1.0)
    weight = float(mixed_labels[0, 0])
    assert 0 < weight < 1
    partner = [1, 0, 3, 2, 5, 4]
    for result, plain in ((mixed, images), (mixed_labels, labels)):
        expected = weight * plain + (1 - weight) * plain[partner]
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_mixup_weight_follows_beta():
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha)."""
    alpha = 0.2
    images, labels = jnp.zeros((2, 1, 1, 3)), jnp.eye(2)
    weight = jax.jit(jax.vmap(lambda key: aug.mixup(key, images, labels, alpha)[1][0, 0]))
    weights = weight(jax.random.split(jax.random.key(0), 4000))
    assert abs(weights.mean() - 0.5) < 0.03
    assert abs(weights.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (8, 8, 3), (4, 8, 8, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="one key per image"):
        aug.augment(batch_keys(5), np.zeros(shape, np.uint8), "flip")


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_float_images_are_refused(augmentation):
    with pytest.raises(ValueError, match=r"float32.*uint8"):
        aug.augment(batch_keys(2), np.zeros((2, 8, 8, 3), np.float32), augmentation)


def test_mixup_refuses_what_it_cannot_pair():
    for size, labels in ((3, jnp.zeros((3, 10))), (2, jnp.zeros(2)), (2, jnp.zeros((4, 10)))):
        with pytest.raises(ValueError, match=f"batch of {size}"):
            aug.mixup(jax.random.key(0), jnp.zeros((size, 2, 2, 3)), labels, 0.2)
