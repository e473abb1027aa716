"""crops: sampler and resizes against TensorFlow, evaluation against torchvision's arithmetic."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images

from inception.data import crops
from inception.data.preprocessing import INTERPOLATIONS, METHODS, Preprocessing

SHAPES = [(375, 500), (500, 333), (64, 64), (96, 480)]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(load_sample_images().images[0])  # 427 x 640


def smooth(height: int, width: int) -> np.ndarray:
    """A slope: any sensible resize of it is known in closed form."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([y * 200 / height, x * 200 / width, y + x]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_distributed_as_tensorflows(shape):
    tf = pytest.importorskip("tensorflow")
    count = 3000

    def theirs(seed):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            (*shape, 3),
            tf.zeros((1, 0, 4)),
            seed=(0, seed),
            min_object_covered=0.1,
            aspect_ratio_range=(0.75, 1.33),
            area_range=(0.05, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    expected = tf.map_fn(theirs, tf.range(count)).numpy()
    rng = np.random.default_rng(0)
    actual = np.array([crops.sample_distorted_box(rng, *shape) for _ in range(count)])
    for name, measure in {
        "y": lambda box: box[:, 0],
        "x": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "y where there is room": lambda box: box[:, 0] / (shape[0] - box[:, 2] + 1e-9),
    }.items():
        result = stats.ks_2samp(measure(actual), measure(expected))
        assert result.pvalue > 1e-3, (name, result)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 300), (3, 2), (8, 8)])
def test_boxes_lie_inside_and_keep_their_limits(shape):
    rng = np.random.default_rng(1)
    for _ in range(300):
        y, x, height, width = box = crops.sample_distorted_box(rng, *shape, area=(0.3, 0.6))
        assert y >= 0
        assert x >= 0
        assert 0 < height <= shape[0] - y
        assert 0 < width <= shape[1] - x
        if box != (0, 0, *shape):
            assert 0.3 <= height * width / (shape[0] * shape[1]) <= 0.6
            assert abs(width - height * 0.75) <= 0.5 or width >= height * 0.75 - 0.5
            assert width <= height * 1.33 + 0.5


def test_small_boxes_are_refused_where_they_cover_too_little():
    rng = np.random.default_rng(0)
    areas = [np.prod(crops.sample_distorted_box(rng, 375, 500)[2:]) for _ in range(500)]
    assert 0.1 <= min(areas) / (375 * 500) < 0.15
    areas = [
        np.prod(crops.sample_distorted_box(rng, 375, 500, min_object_covered=0)[2:])
        for _ in range(500)
    ]
    assert 0.05 <= min(areas) / (375 * 500) < 0.07


@pytest.mark.parametrize(("height", "width"), [(427, 640), (300, 200), (61, 75)])
def test_bilinear_and_nearest_are_tensorflows(photograph, height, width):
    tf = pytest.importorskip("tensorflow")
    image = photograph[:height, :width]
    bilinear = tf.image.resize(image, (139, 139), "bilinear", antialias=False).numpy()
    assert np.abs(crops.resize(image, 139, "bilinear") - bilinear).max() <= 1
    nearest = tf.image.resize(image, (139, 139), "nearest").numpy()
    # OpenCV rounds the scale to fixed point, so a tie may go the other way.
    assert (crops.resize(image, 139, "nearest") == nearest).mean() > 0.99


def assert_area_is_tensorflows(image: np.ndarray, size: int) -> None:
    tf = pytest.importorskip("tensorflow")
    expected = tf.image.resize(image[None], (size, size), method="area").numpy()[0]
    actual = crops.resize(np.ascontiguousarray(image), size, "area")
    difference = np.abs(actual - expected).max()  # half a gray level, and float32's rounding
    assert difference < 0.51, (image.shape, size, difference)


@pytest.mark.parametrize("kind", ["both shrink", "rows grow", "columns grow", "both grow"])
def test_area_is_tensorflows(kind):
    """Also of noise, and where a whole number of pixels of the result covers one of the image."""
    rng = np.random.default_rng(0)
    for size in (105, 60, 252, *rng.integers(2, 200, 12)):
        smaller, larger = (rng.integers(low, high + 1) for low, high in ((1, size), (size, 400)))
        height = smaller if kind in ("rows grow", "both grow") else larger
        width = smaller if kind in ("columns grow", "both grow") else larger
        assert_area_is_tensorflows(rng.integers(0, 256, (height, width, 3), np.uint8), size)
    image = rng.integers(0, 256, (105, 217, 3), np.uint8)
    for size in (252, 217, 105):
        assert_area_is_tensorflows(image, size)
        assert_area_is_tensorflows(image.transpose(1, 0, 2), size)


def test_area_of_training_boxes_is_tensorflows(photograph):
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(30):
        box = crops.sample_distorted_box(rng, *photograph.shape[:2])
        kinds.add((box[2] < 299, box[3] < 299))
        assert_area_is_tensorflows(crops.crop(photograph, box), 299)
    assert len(kinds) == 4


def test_area_is_opencvs_in_uint8(photograph):
    cv2 = pytest.importorskip("cv2")
    expected = cv2.resize(photograph, (299, 299), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(crops.resize(photograph, 299, "area") - expected).max() <= 1


@pytest.mark.parametrize("method", crops.RESIZE_METHODS)
@pytest.mark.parametrize(("shape", "size"), [((300, 400), 75), ((60, 90), 224)])
def test_no_method_moves_the_image(method, shape, size):
    """Half-pixel centers: resizing and flipping may change places."""
    image = np.ascontiguousarray(load_sample_images().images[1][: shape[0], : shape[1]])
    flipped = crops.resize(np.ascontiguousarray(image[:, ::-1]), size, method)[:, ::-1]
    difference = np.abs(crops.resize(image, size, method).astype(int) - flipped)
    assert difference.mean() < (1.5 if method == "nearest" else 0.2)


def train_crop(rng, image, augmentation, out):
    """What the training stream does to an image."""
    box = crops.train_box(rng, augmentation, *image.shape[:2])
    crops.train_resize(rng, crops.crop(image, box), augmentation, out)


@pytest.mark.parametrize("augmentation", crops.AUGMENTATIONS)
def test_train_crops_are_a_function_of_the_generator(photograph, augmentation):
    def crop(seed):
        out = np.zeros((96, 96, 3), np.uint8)
        train_crop(np.random.default_rng(seed), photograph, augmentation, out)
        return out

    np.testing.assert_array_equal(crop(1), crop(1))
    others = {crop(seed).tobytes() for seed in range(6)}
    assert len(others) == (1 if augmentation in ("flip", "none") else 6)
    assert all(abs(crop(seed).mean() - photograph.mean()) < 80 for seed in range(6))


def test_the_four_methods_are_drawn_alike(photograph):
    """Found out by resizing each box with all of them."""
    drawn = dict.fromkeys(crops.RESIZE_METHODS, 0)
    for seed in range(200):
        out = np.zeros((20, 20, 3), np.uint8)
        train_crop(np.random.default_rng(seed), photograph, "inception", out)
        box = crops.sample_distorted_box(np.random.default_rng(seed), *photograph.shape[:2])
        for method in drawn:
            expected = crops.resize(crops.crop(photograph, box), 20, method)
            drawn[method] += np.array_equal(out, expected)
    assert sum(drawn.values()) == 200
    assert min(drawn.values()) > 30


def test_affine_maps_are_drawn_from_the_stated_ranges():
    """Red is x and green is y, so a map can be read off its result by least squares."""
    height, width, size = 160, 240, 100
    y, x = np.mgrid[:height, :width]
    image = np.dstack([x, y, 0 * x]).astype(np.uint8)
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    places = np.dstack([columns, rows, np.ones_like(rows)])
    drawn = []
    for seed in range(300):
        out = np.zeros((size, size, 3), np.uint8)
        train_crop(np.random.default_rng(seed), image, "affine", out)
        seen = out[..., :2].astype(float)
        inside = ((seen > 1) & (seen < (width - 2, height - 2))).all(-1)
        right, down, middle = np.linalg.lstsq(places[inside], seen[inside], rcond=None)[0]
        angle = np.arctan2(right[1], right[0])
        c, s = np.cos(angle), np.sin(angle)
        along, across = down @ [[c, -s], [s, c]]
        scales = np.log([np.hypot(*right) / width * size, across / height * size])
        turns = np.degrees([angle, np.arctan2(along, across)])
        drawn.append([*turns, *scales, *(middle + 0.5) / (width, height) - 0.5])
    limits = np.array([16, 8, 0.16, 0.16, 0.1, 0.1])
    relative = np.array(drawn) / limits
    np.testing.assert_allclose(relative.max(0), 1, atol=0.04)
    np.testing.assert_allclose(relative.min(0), -1, atol=0.04)
    np.testing.assert_allclose(relative.std(0), 1 / np.sqrt(3), atol=0.08)  # uniform
    correlations = np.corrcoef(relative.T) - np.eye(6)
    assert np.abs(correlations).max() < 0.2


@pytest.mark.parametrize("augmentation", ["resnet", "affine"])
def test_every_pixel_of_a_large_image_is_read(augmentation):
    """A fine checkerboard must turn gray, not alias."""
    board = np.indices((800, 800)).sum(0) % 2 * 255
    out = np.zeros((32, 32, 3), np.uint8)
    train_crop(np.random.default_rng(0), np.dstack([board] * 3).astype(np.uint8), augmentation, out)
    assert np.abs(out.astype(int) - 127).max() < 20


@pytest.mark.parametrize("shape", [(427, 640), (333, 500), (500, 331), (8, 8)])
def test_central_crop_is_tensorflows(photograph, shape):
    tf = pytest.importorskip("tensorflow")
    image = photograph[: shape[0], : shape[1]]
    image = np.resize(image, (*shape, 3)) if image.shape[:2] != shape else image
    expected = tf.image.resize(tf.image.central_crop(image, 0.875), (96, 96)).numpy()
    actual = crops.eval_crops(image, Preprocessing(96))
    assert actual.shape == (1, 96, 96, 3)
    assert np.abs(actual[0] - expected).max() <= 1


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(427, 640), (427, 300), (100, 101)])
def test_resize_crop_is_torchvisions_arithmetic(photograph, shape, interpolation):
    image = photograph[: shape[0], : shape[1]]
    height, width = shape
    side = 342  # torchvision's resize_size for 299
    long = int(side * max(shape) / min(shape))
    resized = Image.fromarray(image).resize(
        (long, side) if width >= height else (side, long),
        Image.Resampling[interpolation.upper()],
    )
    top, left = int(round((resized.height - 299) / 2.0)), int(round((resized.width - 299) / 2.0))  # noqa: RUF046
    expected = np.asarray(resized.crop((left, top, left + 299, top + 299)))
    preprocessing = Preprocessing(299, "resize_crop", 0.875, interpolation)
    np.testing.assert_array_equal(crops.eval_crops(image, preprocessing)[0], expected)


STRIPS = [(8, 300), (300, 8), (40, 427), (427, 31), (2, 8), (427, 3), (5, 301)]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", STRIPS)
def test_a_part_of_what_is_resized_is_that_of_the_whole(
    photograph, monkeypatch, shape, interpolation
):
    image = photograph[: shape[0], : shape[1]]
    for size, fraction in ((20, 0.875), (64, 0.875), (64, 0.1)):  # both sides grow, or one or none
        preprocessing = Preprocessing(size, "resize_crop", fraction, interpolation)
        monkeypatch.setattr(crops, "_MAX_WASTE", 1e9)
        whole = crops.eval_crops(image, preprocessing)
        monkeypatch.setattr(crops, "_MAX_WASTE", 0)
        part = crops.eval_crops(image, preprocessing)
        difference = np.abs(part.astype(int) - whole)
        if interpolation == "nearest":  # a tie may go the other way
            assert (difference == 0).mean() > 0.85
        else:
            assert difference.max() <= 1


@pytest.mark.parametrize("shape", STRIPS)
def test_multi_crops_of_a_strip_are_those_of_the_whole(photograph, monkeypatch, shape):
    image = photograph[: shape[0], : shape[1]]
    monkeypatch.setattr(crops, "_MAX_WASTE", 1e9)
    whole = crops.multi_crop(image, 40, 144)
    monkeypatch.setattr(crops, "_MAX_WASTE", 0)
    assert np.abs(crops.multi_crop(image, 40, 144).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (2, 8000), (1, 1_000_000)])
def test_strips_make_no_large_images(monkeypatch, shape):
    """The whole, resized, would have up to 117 billion pixels."""
    made = []

    def antialiased(image, height, width, *more):
        made.append((height, width))
        return np.broadcast_to(image[:1, :1], (height, width, 3))

    monkeypatch.setattr(crops, "_antialiased", antialiased)
    image = np.zeros((*shape, 3), np.uint8)
    for interpolation in INTERPOLATIONS:
        crops.eval_crops(image, Preprocessing(299, "resize_crop", 0.875, interpolation))
    crops.multi_crop(image, 299, 144)
    assert made
    assert max(height * width for height, width in made) < 500**2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1_000_000), (60_000, 1), (1, 1)])
def test_every_shape_has_a_crop(method, shape):
    image = np.full((*shape, 3), 7, np.uint8)
    assert (crops.eval_crops(image, Preprocessing(32, method)) == 7).all()
    for name in crops.RESIZE_METHODS:
        assert (crops.resize(image, 32, name) == 7).all()


def test_resize_takes_the_whole_image_as_tensorflow(photograph):
    tf = pytest.importorskip("tensorflow")
    expected = tf.image.resize(photograph, (96, 96)).numpy()
    actual = crops.eval_crops(photograph, Preprocessing(96, "resize", crop_fraction=0.5))
    assert np.abs(actual[0] - expected).max() <= 1


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (299, 299)])
@pytest.mark.parametrize("count", [12, 144])
def test_multi_crop_counts_and_flips(shape, count):
    cut = crops.eval_crops(smooth(*shape), Preprocessing(75), count)
    assert cut.shape == (count, 75, 75, 3)
    np.testing.assert_array_equal(cut[1::2], cut[::2, :, ::-1])


def test_144_crops_cover_what_they_should():
    """On a slope the mean of each crop tells where it was cut."""
    cut = crops.multi_crop(smooth(448, 896), 224, 144).astype(float)
    cut = cut.reshape(4, 3, 6, 2, 224, 224, 3)
    rows, columns = cut[..., 0].mean((-1, -2)), cut[..., 1].mean((-1, -2))
    squares = columns[:, :, 5, 0]  # the whole squares, left to right, span the image
    np.testing.assert_allclose(squares, [[50, 100, 150]] * 4, atol=2)
    np.testing.assert_allclose(rows[:, :, 5], 100, atol=2)
    for scale, side in enumerate((256, 288, 320, 352)):
        step = (side - 224) / side * 100
        corners = rows[scale, 1, :5, 0] - 100
        np.testing.assert_allclose(corners, [-step, -step, step, step, 0], atol=2)
        across = columns[scale, 1, :5, 0] - 100
        np.testing.assert_allclose(across, np.array([-1, 1, -1, 1, 0]) * step / 2, atol=2)
