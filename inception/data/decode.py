"""Reads encoded images from files, and decodes them to pixels.

libjpeg-turbo (simplejpeg) decodes JPEG, Pillow the rest of `FORMATS`. The EXIF orientation is
ignored, as in TensorFlow and ImageNet pipelines. Damaged files are errors: most decoders silently
fill missing parts with gray. A PNG's ancillary chunks (color profiles, texts, their checksums) are
ignored, as they change no pixel.

Where values have more than 8 bits, the format must define black and white; nothing is guessed:

    16-bit (or 12-bit TIFF) unsigned    the type's whole range: the high byte
    floats in [0, 1]                    0 is black, 1 is white
    other integers in 0 to 255          as they are
    anything else                       a BadImage that gives the range of the values

The pixels of a JPEG are those of tf.io.decode_jpeg bit for bit: interpolated chroma, and the fast
integer DCT, TensorFlow's default and so the released code's. Files are decoded at full scale: at
half, by libjpeg's DCT scaling, a 500x375 photograph decodes only 12 % faster, and pixels resized
from it differ by 2 to 8 of 255.

If only a box is needed and `_jpeg_box.c` was built (`pip install -e .`), only the box of a baseline
JPEG is decoded, to the same pixels. Other files are decoded whole; a progressive JPEG would gain
nothing, for 97 % of its time goes into coefficients that every box needs.
"""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator

import numpy as np
import simplejpeg
from etils import epath
from PIL import Image

from inception.data import DataError
from inception.data.crops import Box, crop
from inception.data.paths import is_local

try:
    from inception.data import _jpeg_box
except ImportError:  # not built: there was no compiler, or no libjpeg-turbo
    _jpeg_box = None  # type: ignore[assignment]

ChooseBox = Callable[[int, int], Box]  # an image's height and width -> the box to decode

# The file formats that are decoded, by Pillow's names; an installation may lack some. Others that
# Pillow opens are programs (EPS), videos, or data that are no picture, such as HDF5.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO"),
    *("DIB", "DDS", "ICNS", "PCX", "QOI", "SGI"),
)
# Of files that are taken for images; their content decides how they are decoded.
SUFFIXES = tuple(
    suffix
    for suffix, kind in sorted(Image.registered_extensions().items())
    if kind == "MPO" or (kind in FORMATS and kind in Image.OPEN)  # MPO is JPEG with more after it
)
# A small file may have more, and so take all memory: a "decompression bomb", or a damaged header.
# This is Pillow's limit too, and 537 MB of pixels.
MAX_PIXELS = 178_956_970

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # a CMYK file with this marker stores inverted inks

# Of files that TurboJPEG refuses although they are complete, and Pillow reads: stray bytes between
# two segments, an unknown version (both in cats_vs_dogs), rare layouts of the chroma planes.
_ODDITIES = ("extraneous bytes before marker", "unknown JFIF revision", "subsampling")

# TIFF's numbers.
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_PILLOW_WARNS = MAX_PIXELS // 2  # pixels; above twice as many Pillow refuses an image
_LOCK = threading.Lock()


class BadImage(DataError):
    """An image that cannot be decoded, whole, into pixels."""


def read_file(path: str) -> bytes:
    """Reads a file on a disk or in a bucket (gs://...); any failure is a BadImage."""
    try:
        if not is_local(path):
            return epath.Path(path).read_bytes()
        with open(path, "rb") as file:  # noqa: PTH123 (a Path holds Python's lock thrice as long)
            return file.read()
    except Exception as error:  # a bucket's client raises many kinds
        raise BadImage(f"the file cannot be read: {error}") from error


def decode(
    image: bytes | np.ndarray, choose_box: ChooseBox | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, ... file to uint8 [height, width, 3], red first.

    Gray, CMYK, palette and 16-bit images become plain 8-bit RGB; an alpha channel is dropped.
    Decoded pixels may be given too, uint8 [height, width] or [height, width, 1 or 3].
    With `choose_box`, called once, only the pixels in the box that it returns.

    Raises:
      BadImage: If the file is truncated or corrupt, even outside the box, or not an image, has more
        than `max_pixels`, or values without defined black and white; or for another kind of array.
      MemoryError: If the pixels do not fit into memory.
    """
    if isinstance(image, np.ndarray):
        pixels = _rgb(image)
    elif image[:2] != _JPEG:
        pixels = _decode_other(image, max_pixels)
    elif choose_box and (size := _baseline_size(image, max_pixels)):
        box = choose_box(*size)
        part = _decode_box(image, box)
        return crop(_decode_jpeg(image, max_pixels), box) if part is None else part
    else:
        pixels = _decode_jpeg(image, max_pixels)
    return crop(pixels, choose_box(*pixels.shape[:2])) if choose_box else pixels


def is_whole_jpeg(head: bytes, tail: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file's beginning and end are those of a JPEG that `decode` accepts.

    False leaves the question open: of other files, and of a JPEG whose header is longer than
    `head`, only `decode` can tell.
    """
    if not head.startswith(_JPEG) or _JPEG_END not in tail:
        return False
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(head)
    except ValueError:
        return False
    return height * width <= max_pixels


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Pixels of one or three channels -> uint8 [height, width, 3]."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    is_image = pixels.ndim == 3 and pixels.shape[2] in (1, 3) and pixels.size
    if pixels.dtype != np.uint8 or not is_image:
        raise BadImage(
            f"expected uint8 pixels [height, width, 1 or 3], got {pixels.dtype} {pixels.shape}"
        )
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImage(
            f"{width}x{height} are {width * height:,} pixels, more than {max_pixels=:,}. Raise "
            "max_pixels, or shrink the image"
        )


def _baseline_size(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of a JPEG file that `_decode_box` may be able to read; None for others."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    possible = _jpeg_box and colorspace != "CMYK" and height * width <= max_pixels
    return (height, width) if possible else None


def _decode_box(data: bytes, box: Box) -> np.ndarray | None:
    """The pixels in a box; None for a damaged or unusual file, for `_decode_jpeg` to judge."""
    try:
        pixels, columns, left = _jpeg_box.decode_box(data, *box)
    except ValueError:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(-1, columns, 3)[:, left : left + box[3]]


def _decode_jpeg(data: bytes, max_pixels: int) -> np.ndarray:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colorspace != "CMYK":
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=True)
        inks = simplejpeg.decode_jpeg(data, "CMYK", fastdct=True)
    except ValueError as error:
        oddity = any(text in str(error) for text in _ODDITIES)
        if oddity and data.rstrip(b"\x00").endswith(_JPEG_END):
            return _decode_other(data, max_pixels)
        raise BadImage(f"JPEG of {len(data)} bytes: {error}") from error
    # The naive conversion of TensorFlow and Pillow: each color times black.
    light = (inks if _ADOBE in data else 255 - inks).astype(np.uint16)
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


def _decode_other(data: bytes, max_pixels: int) -> np.ndarray:
    try:
        with _unlimited():
            formats = [kind for kind in FORMATS if kind in Image.OPEN]
            image = Image.open(io.BytesIO(critical_chunks(data)), formats=formats)
        with image:
            _check_size(*image.size, max_pixels)
            if image.width * image.height > _PILLOW_WARNS:
                with _unlimited():
                    image.load()
            if image.mode.startswith(("I", "F")):
                return _rgb(_reduce(image))
            if getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _SIGNED:
                raise BadImage(
                    "signed 8-bit integers, whose black and white are not defined. Save the image "
                    "with unsigned 8 bits"
                )
            if image.mode == "La":  # premultiplied gray, which Pillow converts to this alone
                return np.asarray(image.convert("LA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds, even SyntaxError
        reason = str(error).partition(" <")[0]  # without an object's address
        raise BadImage(f"file of {len(data)} bytes, starting {data[:8]!r}: {reason}") from error


@contextlib.contextmanager
def _unlimited() -> Iterator[None]:
    """Lifts Pillow's limit of pixels, a global variable: ours is an argument."""
    with _LOCK:  # held while a large image is decoded, so these are decoded one at a time
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def critical_chunks(data: bytes) -> bytes:
    """A PNG file without its ancillary chunks (lower-case types); any other file as it is.

    Pillow refuses a file for a long text or a wrong checksum in them; libpng, and so TensorFlow and
    OpenCV, read the pixels, which do not depend on them. (Transparency does, and is dropped.)
    """
    if not data.startswith(_PNG):
        return data
    chunks, start = [_PNG], len(_PNG)
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])  # length, type and checksum
        if not data[start + 4] & 0x20:
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


def _reduce(image: Image.Image) -> np.ndarray:
    """Reduces gray of more than 8 bits to 8 if black and white are defined, see the module.

    Raises:
      BadImage: If they are not, with the range of the values.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,):
        values = values.view(np.uint32)  # Pillow reads them as signed ones
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        gray = values >> (tags.get(_BITS, (16,))[0] - 8)
    elif image.mode == "F" and low >= 0 and high <= 1:  # false for nan
        gray = np.round(values * 255)
    elif image.mode == "I" and low >= 0 and high <= 255:
        gray = values
    else:
        kind = "floats" if image.mode == "F" else "integers"
        right = "between 0 and 1" if image.mode == "F" else "from 0 to 255, or unsigned 16-bit"
        raise BadImage(
            f"{kind} from {low:g} to {high:g}, whose black and white are not defined. "
            f"Save the image with 8 bits, or with {kind} {right}"
        )
    pixels = gray.astype(np.uint8)
    return 255 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels
