"""Files to encoded images, and these to pixels.

JPEG goes through libjpeg-turbo (simplejpeg), everything else through Pillow. The EXIF orientation
is ignored, as TensorFlow and ImageNet pipelines do. Damaged files are errors: most decoders fill
what is missing with gray and say nothing. What accompanies a PNG's pixels (color profiles, texts,
their checksums) is not looked at, for it changes none.

Black and white of more than 8 bits are taken from the format, and nothing is guessed:

    16-bit (or 12-bit TIFF) unsigned    the type's whole range: the high byte
    floats in [0, 1]                    0 is black, 1 is white
    other integers in 0 to 255          as they are
    all else                            a BadImage that says which values there are

The pixels of a JPEG are those of tf.io.decode_jpeg bit for bit: interpolated chroma, and the fast
integer DCT, TensorFlow's default and so what the released code trained with. Files are decoded at
full scale: at half, by libjpeg's DCT scaling, a 500x375 photograph decodes only 12 % faster, and
what is resized from it differs by 2 to 8 of 255 per pixel.

Where only a box is wanted and `_jpeg_box.c` was built (`pip install -e .`), a baseline JPEG is
decoded there alone, to the same pixels; all else is decoded whole. A progressive file, 97 % of
whose time goes into coefficients that every box needs, gains nothing.
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

try:
    from inception.data import _jpeg_box
except ImportError:  # not built: there was no compiler, or no libjpeg-turbo
    _jpeg_box = None  # type: ignore[assignment]

Choose = Callable[[int, int], Box]  # an image's height and width -> what of it is wanted

# What names of images end in; their content decides how they are decoded.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm"),
)
# Above it a small file may take all memory: a "decompression bomb", or a damaged header. This is
# where Pillow refuses to open one, and 537 MB of pixels.
MAX_PIXELS = 178_956_970

_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # a CMYK file with this marker stores inverted inks

# What TurboJPEG refuses though the pixels are all there, and Pillow reads: stray bytes between two
# segments, a strange version (both in cats_vs_dogs), rare layouts of the chroma planes.
_ODDITIES = ("extraneous bytes before marker", "unknown JFIF revision", "subsampling")

_WHITE_IS_ZERO, _BITS, _PHOTOMETRIC = 0, 258, 262  # of TIFF
_LARGE = MAX_PIXELS // 2  # above, Pillow warns of an image, and then refuses it
_LOCK = threading.Lock()


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


def decode(
    image: bytes | np.ndarray, choose: Choose | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, ... file to uint8 [height, width, 3], red first.

    Gray, CMYK, palette and 16-bit images become plain 8-bit RGB; an alpha channel is dropped.
    Decoded pixels may be given too, uint8 [height, width] or [height, width, 1 or 3].
    With `choose`, called once, only the pixels in the box that it returns come back.

    Raises:
      BadImage: when the file is truncated or corrupt, be it outside the box, or not an image, has
        more than `max_pixels` or values whose black and white are not stated; or when the array is
        of another kind.
      MemoryError: when the pixels do not fit into what is free.
    """
    if isinstance(image, np.ndarray):
        pixels = _rgb(image)
    elif image[:2] != _JPEG:
        pixels = _decode_other(image, max_pixels)
    elif choose and (size := _baseline_size(image, max_pixels)):
        box = choose(*size)
        part = _decode_box(image, box)
        return crop(_decode_jpeg(image, max_pixels), box) if part is None else part
    else:
        pixels = _decode_jpeg(image, max_pixels)
    return crop(pixels, choose(*pixels.shape[:2])) if choose else pixels


def is_whole_jpeg(head: bytes, tail: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file's beginning and end are those of a JPEG that `decode` takes.

    Of all other files, and of a JPEG whose header is longer than `head`, only `decode` can say.
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
            "max_pixels, or make the image smaller"
        )


def _baseline_size(data: bytes, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of a JPEG file that `_decode_box` may be able to read."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    possible = _jpeg_box and colorspace != "CMYK" and height * width <= max_pixels
    return (height, width) if possible else None


def _decode_box(data: bytes, box: Box) -> np.ndarray | None:
    """The pixels in a box; None for a file that is damaged or rare, which the rest looks into."""
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
            image = Image.open(io.BytesIO(_critical_chunks(data)))
        with image:
            _check_size(*image.size, max_pixels)
            if image.width * image.height > _LARGE:
                with _unlimited():
                    image.load()
            if image.mode.startswith(("I", "F")):
                return _rgb(_reduce(image))
            if image.mode == "La":  # premultiplied gray, which Pillow converts to this alone
                return np.asarray(image.convert("LA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds, SyntaxError among them
        reason = str(error).partition(" <")[0]  # without the address of an object
        raise BadImage(f"file of {len(data)} bytes, starting {data[:8]!r}: {reason}") from error


@contextlib.contextmanager
def _unlimited() -> Iterator[None]:
    """Takes away Pillow's limit of pixels, a global variable: ours is an argument."""
    with _LOCK:  # so that large images, which need it while they are decoded, are so one by one
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _critical_chunks(data: bytes) -> bytes:
    """A PNG file without its ancillary chunks, whose types begin with a small letter; any other.

    Pillow refuses a file for a long text or a wrong checksum there; libpng, and so TensorFlow and
    OpenCV, read its pixels, which depend on none of them. (Transparency does, and is dropped.)
    """
    if not data.startswith(_PNG):
        return data
    kept, place = [_PNG], len(_PNG)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])  # length, type and checksum
        if not data[place + 4] & 0x20:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _reduce(image: Image.Image) -> np.ndarray:
    """Gray of more than 8 bits to 8, where black and white are stated; see the module.

    Raises:
      BadImage: where they are not, with the range of the values.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    low, high = values.min(), values.max()
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        gray = values >> (tags.get(_BITS, (16,))[0] - 8)
    elif image.mode == "F" and low >= 0 and high <= 1:  # neither holds of nan
        gray = np.round(values * 255)
    elif image.mode == "I" and low >= 0 and high <= 255:
        gray = values
    else:
        kind = "floats" if image.mode == "F" else "integers"
        right = "between 0 and 1" if image.mode == "F" else "from 0 to 255, or unsigned 16-bit"
        raise BadImage(
            f"{kind} from {low:g} to {high:g}, of which nothing says what is black and what white. "
            f"Save the image with 8 bits, or with {kind} {right}"
        )
    pixels = gray.astype(np.uint8)
    return 255 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels
