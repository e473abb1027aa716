"""Files to encoded images, and these to pixels.

JPEG goes through libjpeg-turbo (simplejpeg), everything else through Pillow. The EXIF orientation
is ignored, as TensorFlow and ImageNet pipelines do. Damaged files are errors: most decoders fill
what is missing with grey and say nothing.

The pixels of a JPEG are those of tf.io.decode_jpeg bit for bit: interpolated chroma, and the fast
integer DCT, TensorFlow's default and so what the released code trained with. Files are decoded at
full scale: at half, by libjpeg's DCT scaling, a 500x375 photograph decodes only 12 % faster, and
what is resized from it differs by 2 to 8 of 255 per pixel.

Where only a box is wanted and `_jpeg_box.c` was built (`pip install -e .`), a baseline JPEG is
decoded there alone, to the same pixels; all else is decoded whole. A progressive file, 97 % of
whose time goes into coefficients that every box needs, gains nothing.
"""

import io
from collections.abc import Callable

import numpy as np
import simplejpeg
from etils import epath
from PIL import Image

from inception.data import DataError
from inception.data.crops import Box, crop

try:
    from inception.data import _jpeg_box
except ImportError:  # not built: there was no compiler, or no libjpeg-turbo
    _jpeg_box = None  # type: ignore[assignment]

Choose = Callable[[int, int], Box]  # an image's height and width -> what of it is wanted

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # a CMYK file with this marker stores inverted inks

# What TurboJPEG refuses though the pixels are all there, and Pillow reads: stray bytes between two
# segments, a strange version (both in cats_vs_dogs), rare layouts of the chroma planes.
_ODDITIES = ("extraneous bytes before marker", "unknown JFIF revision", "subsampling")


# Above it a small file may take all memory: a "decompression bomb", or a damaged header.
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # Pillow's, 89 million


class BadImage(DataError):
    """An image that cannot be decoded, whole, into pixels."""


def read_file(path: str) -> bytes:
    """Reads a file on a disk or, gs://..., in a bucket; what keeps it from that is a BadImage."""
    try:
        if "://" in path:
            return epath.Path(path).read_bytes()
        with open(path, "rb") as file:  # noqa: PTH123 (a Path holds Python's lock thrice as long)
            return file.read()
    except Exception as error:  # a bucket's client raises all kinds
        raise BadImage(f"the file cannot be read: {error}") from error


def decode(image: bytes | np.ndarray, choose: Choose | None = None) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, ... file to uint8 [height, width, 3], red first.

    Grey, CMYK, palette and 16-bit images become plain 8-bit RGB; an alpha channel is dropped.
    Decoded pixels may be given too, uint8 [height, width] or [height, width, 1 or 3].
    With `choose`, called once, only the pixels in the box that it returns come back.

    Raises:
      BadImage: when the file is truncated or corrupt, be it outside the box, or no image, or the
        array is of another kind.
    """
    if isinstance(image, np.ndarray):
        pixels = _rgb(image)
    elif image[:2] != _JPEG:
        pixels = _decode_other(image)
    elif choose and (size := _baseline_size(image)):
        box = choose(*size)
        part = _decode_box(image, box)
        return crop(_decode_jpeg(image), box) if part is None else part
    else:
        pixels = _decode_jpeg(image)
    return crop(pixels, choose(*pixels.shape[:2])) if choose else pixels


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


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise BadImage(f"{width}x{height} pixels; at most {_MOST_PIXELS:,} are decoded")


def _baseline_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG file that `_decode_box` may be able to read."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    possible = _jpeg_box and colorspace != "CMYK" and height * width <= _MOST_PIXELS
    return (height, width) if possible else None


def _decode_box(data: bytes, box: Box) -> np.ndarray | None:
    """The pixels in a box; None for a file that is damaged or rare, which the rest looks into."""
    try:
        pixels, columns, left = _jpeg_box.decode_box(data, *box)
    except ValueError:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(-1, columns, 3)[:, left : left + box[3]]


def _decode_jpeg(data: bytes) -> np.ndarray:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if colorspace != "CMYK":
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=True)
        inks = simplejpeg.decode_jpeg(data, "CMYK", fastdct=True)
    except ValueError as error:
        oddity = any(text in str(error) for text in _ODDITIES)
        if oddity and data.rstrip(b"\x00").endswith(_JPEG_END):
            return _decode_other(data)
        raise BadImage(f"JPEG of {len(data)} bytes: {error}") from error
    # The naive conversion of TensorFlow and Pillow: each colour times black.
    light = (inks if _ADOBE in data else 255 - inks).astype(np.uint16)
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)


def _decode_other(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(*image.size)
            if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip it to white
                return _rgb((np.asarray(image) >> 8).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise a dozen kinds, SyntaxError among them
        reason = str(error).partition(" <")[0]  # without the address of an object
        raise BadImage(f"file of {len(data)} bytes, starting {data[:8]!r}: {reason}") from error
