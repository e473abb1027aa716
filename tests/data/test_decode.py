"""decode: photographs through every kind of file, against TensorFlow, Pillow and the pixels."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from inception.data import DataError
from inception.data.decode import MAX_PIXELS, SUFFIXES, BadImage, decode, is_whole_jpeg, read_file


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


def test_gray_jpeg_is_tensorflows(photograph):
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


def test_16_bit_gray_keeps_its_high_byte(photograph):
    gray = photograph[..., 1].astype(np.uint16) * 256 + 77
    pixels = decode(encode(Image.fromarray(gray), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat(photograph[..., 1:2], 3, axis=2))


# What accompanies a PNG's pixels.


def chunk(name: bytes, content: bytes, flips: int = 0) -> bytes:
    """A part of a PNG file; `flips` damages its checksum."""
    checksum = zlib.crc32(name + content) ^ flips
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


METADATA = {
    "color profile": chunk(b"iCCP", b"display\0\0" + zlib.compress(bytes(1_500_000))),
    "text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"x":1},' * 200_000)),
    "international text": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1_600_000))),
    "checksum": chunk(b"pHYs", bytes(9), flips=1),
    "checksum of text": chunk(b"tEXt", b"a\0b", flips=1),
    "length": chunk(b"gAMA", b""),
    "unknown": chunk(b"abCd", b"anything"),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("where", ["before the pixels", "at the end"])
def test_what_accompanies_a_pngs_pixels_is_not_looked_at(photograph, name, where):
    tf = pytest.importorskip("tensorflow")
    png = encode(Image.fromarray(photograph), "PNG")
    at = 33 if where == "before the pixels" else len(png) - 12
    data = png[:at] + METADATA[name] + png[at:]
    np.testing.assert_array_equal(decode(data), photograph)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(data, np.uint8), 1), photograph[..., ::-1]
    )
    np.testing.assert_array_equal(tf.io.decode_png(data, channels=3), photograph)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_transparency_and_profiles_change_no_pixel(photograph, mode):
    image = Image.fromarray(photograph).convert(mode)
    transparency = {"transparency": 3} if mode in ("1", "L", "P") else {}
    data = encode(image, "PNG", gamma=0.5, icc_profile=b"profile", **transparency)
    np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


def test_a_pngs_own_chunks_are_still_checked(photograph):
    png = encode(Image.fromarray(photograph), "PNG")
    for place in (20, 30, png.index(b"IDAT") + 100):  # width, checksum, pixels
        damaged = bytearray(png)
        damaged[place] ^= 4
        with pytest.raises(BadImage):
            decode(bytes(damaged))


# More than 8 bits.

SLOPE = np.add.outer(np.arange(40), np.arange(50)) * 255 // 88  # gray, 0 to 255


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (SLOPE.astype(np.int32), SLOPE),
        (SLOPE.astype(np.uint32), SLOPE),
        (SLOPE.astype(np.int16), SLOPE),
        ((SLOPE / 255).astype(np.float32), SLOPE),
        (np.zeros((9, 9), np.float32), np.zeros((9, 9))),
        ((SLOPE * 257).astype(np.uint16), SLOPE),
        ((SLOPE * 257).astype(">u2"), SLOPE),
        ((SLOPE * 10).astype(np.uint16), SLOPE * 10 // 256),  # a dark one, as its format says
    ],
    ids=lambda array: str(array.dtype) if len(array) == 40 else "black",
)
def test_values_whose_range_is_stated_become_8_bits(values, expected):
    tags = {"tiffinfo": {339: 2}} if values.dtype == np.int16 else {}
    stored = values.view(np.uint16) if values.dtype == np.int16 else values
    stored = stored.view(np.int32) if values.dtype == np.uint32 else stored
    pixels = decode(encode(Image.fromarray(stored), "TIFF", **tags))
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_inverted_tiff_is_inverted_again():
    for values, white in ((SLOPE / 255, 1), (SLOPE.astype(np.uint16) * 257, 65535)):
        stored = (white - values).astype(np.float32 if white == 1 else np.uint16)
        data = encode(Image.fromarray(stored), "TIFF", tiffinfo={262: 0})
        np.testing.assert_array_equal(decode(data)[..., 0], SLOPE)


def test_12_bit_tiff_has_4095_for_white():
    values = np.array([[0, 4095, 2048, 16]])
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10])
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries
    np.testing.assert_array_equal(decode(data + bytes(4))[..., 0], values >> 4)


@pytest.mark.parametrize("maxval", [65535, 1000])
def test_16_bit_pgm(maxval):
    values = (SLOPE * maxval // 255).astype(">u2")
    data = b"P5 50 40 %d\n" % maxval + values.tobytes()
    assert np.abs(decode(data)[..., 0].astype(int) - SLOPE).max() <= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (SLOPE.astype(np.int32) * 1000, "integers from 0 to 255000"),
        (SLOPE.astype(np.int32) - 100, "integers from -100 to 155"),
        (SLOPE.astype(np.float32), "floats from 0 to 255"),
        (SLOPE.astype(np.float32) / 100 - 1, "floats from -1 to 1.55"),
        (np.full((9, 9), np.nan, np.float32), "floats from nan to nan"),
    ],
)
def test_values_whose_range_nobody_stated_are_errors(values, said):
    with pytest.raises(BadImage, match=said):
        decode(encode(Image.fromarray(values), "TIFF"))


def test_unsigned_32_bit_tiff_has_no_negative_values():
    signed = struct.pack("<HHIHH", 339, 3, 1, 2, 0)  # Pillow writes no unsigned ones
    data = encode(Image.fromarray(np.full((9, 9), 4_000_000_000, np.uint32).view(np.int32)), "TIFF")
    assert data.count(signed) == 1
    with pytest.raises(BadImage, match=r"integers from 4e\+09 to 4e\+09"):
        decode(data.replace(signed, signed[:8] + struct.pack("<HH", 1, 0)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"])
def test_tiff_of_every_mode_is_its_rgb(photograph, mode):
    image = Image.fromarray(photograph).convert(mode)
    np.testing.assert_array_equal(decode(encode(image, "TIFF")), np.asarray(image.convert("RGB")))


def test_gray_that_was_multiplied_by_its_alpha(photograph):
    """An extra sample of kind 1 in TIFF."""
    image = Image.fromarray(photograph).convert("LA")
    image.putalpha(128)
    kinds = (struct.pack("<HHIH", 338, 3, 1, kind) for kind in (2, 1))
    data = encode(image, "TIFF").replace(*kinds)
    assert Image.open(io.BytesIO(data)).mode == "La"
    assert decode(data).shape == photograph.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_of_a_file_that_is_decoded(photograph, suffix):
    mode = {".pgm": "L", ".pbm": "1", ".gif": "P", ".pfm": "F"}.get(suffix, "RGB")
    kind = Image.registered_extensions()[suffix]
    image = Image.fromarray(photograph).convert(mode)
    if mode == "F":
        image = Image.fromarray(np.asarray(image) / np.float32(255))
    pixels = decode(encode(image, kind))
    assert pixels.dtype == np.uint8
    assert pixels.shape == photograph.shape or (kind in ("ICO", "ICNS") and pixels.shape[2] == 3)


def test_folders_take_every_suffix_of_a_format_that_is_decoded(photograph):
    """And no other format that Pillow writes here is decoded."""
    image, kinds = Image.fromarray(photograph[:64, :64]), Image.registered_extensions()
    decoded = {kind for kind in {*kinds.values()} & Image.SAVE.keys() if _is_decoded(image, kind)}
    assert set(SUFFIXES) == {suffix for suffix, kind in kinds.items() if kind in decoded}
    assert {"JPEG", "PNG", "WEBP", "TIFF", "JPEG2000", "TGA", "ICO", "AVIF"} <= decoded


def _is_decoded(image, kind) -> bool:
    try:
        data = encode(image, kind)
    except (OSError, ValueError):  # of another mode, or by a program that is not installed
        return False
    try:
        return decode(data).shape[2] == 3
    except BadImage:
        return False


# Large images.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_limit_of_pixels_is_an_argument(photograph, kind, mode):
    mode = mode if kind in ("JPEG", "TIFF") else "RGB"
    data, size = encode(Image.fromarray(photograph).convert(mode), kind), 403 * 301
    assert decode(data, max_pixels=size).shape == photograph.shape
    for choose_box in (None, lambda height, width: (0, 0, height, width)):
        with pytest.raises(BadImage, match=r"403x301 are 121,303 pixels.*max_pixels=121,302"):
            decode(data, choose_box, max_pixels=size - 1)


def test_pillows_own_limit_is_the_default_and_left_as_it_is(photograph, monkeypatch):
    """A photograph of 108 megapixels, which Pillow warns of, is decoded without a word."""
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("inception.data.decode._PILLOW_WARNS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("PNG", "GIF", "BMP", "TIFF", "WEBP"):
            assert decode(encode(Image.fromarray(photograph), kind)).shape == photograph.shape
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_jpegs_header_and_end_are_those_that_decoding_needs(photograph):
    data = encode(Image.fromarray(photograph), "JPEG")
    assert is_whole_jpeg(data[:2000], data[-2:])
    assert not is_whole_jpeg(data[:2000], data[-2:], max_pixels=403 * 301 - 1)
    assert not is_whole_jpeg(data[:20], data[-2:])  # the header goes on
    assert not is_whole_jpeg(data[:2000], data[-4:-2])
    assert not is_whole_jpeg(encode(Image.fromarray(photograph), "PNG"), data[-2:])


def test_exif_orientation_is_ignored(photograph):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    data = encode(Image.fromarray(photograph), "JPEG", exif=exif)
    assert decode(data).shape == photograph.shape


def test_arrays(photograph):
    assert decode(photograph) is photograph
    for gray in (photograph[..., 0], photograph[..., :1]):
        assert decode(gray).shape == photograph.shape
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


def test_signed_8_bit_tiff_is_an_error():
    tifffile = pytest.importorskip("tifffile", reason="it writes such files")
    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(-128, 128).astype(np.int8).reshape(16, 16))
    with pytest.raises(BadImage, match="signed 8-bit integers"):
        decode(file.getvalue())
