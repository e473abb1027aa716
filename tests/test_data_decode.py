"""decode: photographs through every kind of file, against TensorFlow, Pillow and the pixels."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from inception.data import DataError
from inception.data.decode import BadImage, decode, read_file


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(load_sample_images().images[0][:301, :403])


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_tensorflows(photograph, subsampling, progressive):
    tf = pytest.importorskip("tensorflow")
    options = {"quality": 90, "subsampling": f"4:{subsampling[1]}:{subsampling[2]}"}
    data = encode(Image.fromarray(photograph), "JPEG", progressive=progressive, **options)
    np.testing.assert_array_equal(decode(data), tf.io.decode_jpeg(data, channels=3).numpy())


def test_grey_jpeg_is_tensorflows(photograph):
    tf = pytest.importorskip("tensorflow")
    data = encode(Image.fromarray(photograph).convert("L"), "JPEG")
    pixels = decode(data)
    np.testing.assert_array_equal(pixels, tf.io.decode_jpeg(data, channels=3).numpy())
    assert (pixels == pixels[..., :1]).all()


def test_cmyk_jpeg_with_adobes_inverted_inks(photograph):
    data = encode(Image.fromarray(photograph).convert("CMYK"), "JPEG", quality=98)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - photograph).mean() < 3


def test_cmyk_jpeg_without_the_adobe_marker(photograph):
    inverted = 255 - np.asarray(Image.fromarray(photograph).convert("CMYK"))
    data = encode(Image.fromarray(inverted, "CMYK"), "JPEG", quality=98)  # inverts once more
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    data = data[:at] + data[at + 16 :]
    assert np.abs(decode(data).astype(int) - photograph).mean() < 3


def test_ycck_jpeg(photograph):
    """TurboJPEG stores CMYK as YCCK, with the marker and so inverted."""
    inks = np.dstack([photograph, np.full_like(photograph[..., :1], 255)])
    data = simplejpeg.encode_jpeg(inks, quality=98, colorspace="CMYK")
    assert np.abs(decode(data).astype(int) - photograph).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_lossless_files_keep_every_pixel(photograph, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(photograph), kind, **options)
    np.testing.assert_array_equal(decode(data), photograph)


def test_alpha_is_dropped_and_palette_resolved(photograph):
    image = Image.fromarray(photograph)
    transparent = image.copy()
    transparent.putalpha(Image.fromarray(photograph[..., 0]))
    np.testing.assert_array_equal(decode(encode(transparent, "PNG")), photograph)
    palette = image.quantize(64)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encode(palette, "PNG")), expected)


def test_16_bit_grey_keeps_its_high_byte(photograph):
    grey = photograph[..., 1].astype(np.uint16) * 256 + 77
    pixels = decode(encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat(photograph[..., 1:2], 3, axis=2))


def test_exif_orientation_is_ignored(photograph):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    data = encode(Image.fromarray(photograph), "JPEG", exif=exif)
    assert decode(data).shape == photograph.shape


def test_arrays(photograph):
    assert decode(photograph) is photograph
    for grey in (photograph[..., 0], photograph[..., :1]):
        assert decode(grey).shape == photograph.shape
    for wrong in (photograph / 255.0, np.zeros((2, 8, 8, 3), np.uint8), photograph[:0]):
        with pytest.raises(BadImage):
            decode(wrong)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"])
def test_truncated_jpegs_are_errors(photograph, mode, kept, ending):
    data = encode(Image.fromarray(photograph).convert(mode), "JPEG", quality=90)
    with pytest.raises(BadImage):
        decode(data[: int(kept * len(data))] + ending)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9])
def test_other_truncated_files_are_errors(photograph, kind, kept):
    data = encode(Image.fromarray(photograph), kind)
    with pytest.raises(BadImage):
        decode(data[: int(kept * len(data))])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<html>404</html>", bytes(1000)])
def test_what_is_no_image_is_an_error_that_users_see(data):
    with pytest.raises(DataError, match="bytes"):
        decode(data)


def test_harmless_bytes_between_segments_are_read_over(photograph):
    data = encode(Image.fromarray(photograph), "JPEG", quality=90)
    scan = data.index(b"\xff\xda")
    for stuffed in (data[:scan] + bytes(7) + data[scan:], data[:-2] + bytes(9) + data[-2:]):
        assert np.abs(decode(stuffed).astype(int) - decode(data)).mean() < 1.5  # another DCT
    with pytest.raises(BadImage):
        decode(data[:scan] + bytes(7) + data[scan : len(data) // 2])


def test_files_are_read_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"content")
    assert read_file(str(tmp_path / "a.jpg")) == b"content"
    for path in (tmp_path, tmp_path / "none.jpg", "nowhere://a.jpg"):
        with pytest.raises(BadImage, match="cannot be read"):
            read_file(str(path))
