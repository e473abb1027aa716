"""decode with a box: the pixels and the errors of the whole file, whoever decodes it."""

import io
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from inception.data import decode as module
from inception.data.crops import crop
from inception.data.decode import BadImage, decode
from inception.data.sources import ArraySource
from inception.data.stream import train_stream

LAYOUTS = ("444", "422", "420", "440", "411", "Gray")
SIZES = ((301, 403), (64, 64), (33, 17), (9, 200), (200, 7), (1, 1))


@pytest.fixture(params=["box", "whole"])
def decoder(request, monkeypatch) -> str:
    """Whether `_jpeg_box` decodes the box, or the whole file is decoded and cut."""
    if request.param == "whole":
        monkeypatch.setattr(module, "_jpeg_box", None)
    elif module._jpeg_box is None:
        pytest.skip("_jpeg_box was not built: pip install -e .")
    return request.param


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(load_sample_images().images[0][:301, :403])


def encode(pixels: np.ndarray, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def encode_layout(pixels: np.ndarray, layout: str, quality: int) -> bytes:
    """By TurboJPEG, which knows more layouts of the chroma planes than Pillow."""
    if layout == "Gray":
        pixels = np.ascontiguousarray(pixels[..., 1:2])
    colorspace = "GRAY" if layout == "Gray" else "RGB"
    return simplejpeg.encode_jpeg(pixels, quality, colorspace, layout)


def boxes(height: int, width: int, count: int) -> list[tuple[int, int, int, int]]:
    """Boxes anywhere, then at each edge and in each corner, and the whole image."""
    rng, found = np.random.default_rng(height * width), []
    for number in range(count):
        h, w = (int(rng.integers(1, n + 1)) for n in (height, width))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        y = (y, y, 0, height - h)[number % 4]
        x = (x, 0, width - w)[number % 3]
        found.append((y, x, h, w))
    return [*found, (0, 0, height, width)]


def assert_equal_in_boxes(data: bytes, count: int) -> None:
    whole = decode(data)
    for box in boxes(*whole.shape[:2], count):
        np.testing.assert_array_equal(decode(data, lambda *_, box=box: box), crop(whole, box))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_whole_file(decoder, photograph, layout, size):
    pixels = np.ascontiguousarray(photograph[: size[0], : size[1]])
    for quality in (30, 95):
        assert_equal_in_boxes(encode_layout(pixels, layout, quality), 30)


EXIF = Image.Exif()
EXIF[0x0112] = 6  # "rotate by 90 degrees", which decode ignores


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
        {"optimize": True},
        {"progressive": True},
        {"exif": EXIF},
        {"mode": "CMYK"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_pixels_of_rarer_files(decoder, photograph, subsampling, options):
    assert_equal_in_boxes(encode(photograph, subsampling=subsampling, **options), 12)


def test_colors_stored_as_they_are(decoder, photograph):
    assert_equal_in_boxes(encode(photograph, keep_rgb=True), 12)


def test_other_kinds_are_cut(decoder, photograph):
    buffer = io.BytesIO()
    Image.fromarray(photograph).save(buffer, "PNG")
    assert_equal_in_boxes(buffer.getvalue(), 4)
    np.testing.assert_array_equal(decode(photograph, lambda *_: (1, 2, 3, 4)), photograph[1:4, 2:6])


def outcome(data: bytes, box: tuple | None) -> bytes | str:
    """The box's pixels or, where there is none, those of all; or else the error."""
    try:
        return decode(data, box and (lambda *_: box)).tobytes()
    except BadImage as error:
        return str(error)


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("restarts", [0, 1])
def test_damage_outside_the_box_is_an_error_too(decoder, photograph, subsampling, restarts):
    """Of every tenth of the file; boxes at the top, at the bottom and between."""
    data = encode(photograph, subsampling=subsampling, restart_marker_rows=restarts)
    scan = data.index(b"\xff\xda") + 14
    damaged, rng = [], np.random.default_rng(0)
    for tenth in range(10):
        at = scan + (len(data) - scan) * tenth // 10
        damaged += [data[:at], data[:at] + b"\xff\xd9", data[:at] + bytes(9) + data[at:]]
        damaged.append(data[:at] + rng.bytes(40) + data[at + 40 :])
    damaged += [data[:-2] + bytes(9) + data[-2:], data[:scan] + bytes(99), data + b"\xff\xd9"]
    errors = 0
    for each in damaged:
        whole = outcome(each, None)
        errors += isinstance(whole, str)
        for box in ((0, 0, 20, 403), (140, 100, 31, 57), (290, 390, 11, 13)):
            if isinstance(whole, str):
                assert outcome(each, box) == whole
            else:
                pixels = np.frombuffer(whole, np.uint8).reshape(photograph.shape)
                assert outcome(each, box) == crop(pixels, box).tobytes()
    assert errors > 20


def test_a_box_is_chosen_once_and_knows_the_size(decoder, photograph):
    data, calls = encode(photograph), []
    stray = data.replace(b"\xff\xda", bytes(7) + b"\xff\xda", 1)  # Pillow reads that
    for file in (data, stray, encode(photograph, "CMYK"), encode(photograph, progressive=True)):
        decode(file, lambda *size: calls.append(size) or (5, 6, 7, 8))
    assert calls == [photograph.shape[:2]] * 4


def test_the_rest_of_a_baseline_file_is_left_alone(photograph, monkeypatch):
    pytest.importorskip("inception.data._jpeg_box")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    for layout in LAYOUTS:
        box = decode(encode_layout(photograph, layout, 90), lambda *_: (100, 100, 50, 50))
        assert box.shape == (50, 50, 3)


def test_threads_do_not_disturb_each_other(decoder, photograph):
    data, whole = encode(photograph), decode(encode(photograph))
    every = boxes(*whole.shape[:2], 200)
    with ThreadPool(4) as pool:
        parts = pool.map(lambda box: decode(data, lambda *_: box), every)
    for part, box in zip(parts, every, strict=True):
        np.testing.assert_array_equal(part, crop(whole, box))


@pytest.mark.parametrize("augmentation", ["inception", "resnet", "flip"])
def test_training_batches_are_the_same(photograph, monkeypatch, augmentation):
    files = [encode(photograph[at:], subsampling=at % 3) for at in range(12)]
    files[7] = files[7][:-900]

    def batch() -> dict[str, np.ndarray]:
        source = ArraySource(files, np.zeros(12, int))
        how = {"augmentation": augmentation, "on_bad_record": "skip", "image_size": 48}
        stream = train_stream(source, seed=1, batch_size=24, **how)
        first = next(stream)
        stream.close()
        return first

    part = batch()
    monkeypatch.setattr(module, "_jpeg_box", None)
    for name, values in batch().items():
        np.testing.assert_array_equal(values, part[name])


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, 0, 302, 5), (299, 0, 3, 5), (0, 400, 5, 4), (0, 0, 0, 5)]
)
def test_a_box_outside_is_refused(photograph, box):
    extension = pytest.importorskip("inception.data._jpeg_box")
    with pytest.raises(ValueError, match="inside"):
        extension.decode_box(encode(photograph), *box)
    for other in (b"", b"\xff\xd8", encode(photograph, "CMYK"), bytes(1000)):
        with pytest.raises(ValueError):  # noqa: PT011 (libjpeg's words)
            extension.decode_box(other, 0, 0, 1, 1)
