"""Damaged images and lists: an error that names the file, or pixels; never anything else."""

import ast
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import inception
from inception import config as settings
from inception.data import DataError
from inception.data.decode import BadImage, decode
from inception.data.exclude import Excluded
from inception.data.sources import ArraySource, open_source
from inception.data.stream import eval_stream, train_stream
from inception.errors import UserError
from tests.fuzzing import fuzz

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")


def _encode(kind: str, mode: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, kind, **options)
    return file.getvalue()


FILES = [
    _encode("JPEG", "RGB"),
    _encode("JPEG", "L", progressive=True),
    _encode("JPEG", "CMYK"),
    _encode("PNG", "RGBA"),
    _encode("PNG", "P"),
    _encode("WEBP", "RGB"),
    _encode("GIF", "P"),
    _encode("BMP", "RGB"),
    _encode("TIFF", "RGB"),
]


def outcome(data: bytes) -> tuple | str:
    """What bytes become: pixels of a type and a shape, or "refused"."""
    try:
        pixels = decode(data)
    except BadImage:
        return "refused"
    return pixels.dtype, pixels.ndim, pixels.shape[2]


PIXELS = (np.uint8, 3, 3)


@pytest.mark.parametrize("data", FILES, ids=range(len(FILES)))
def test_whole_files_are_read(data):
    assert outcome(data) == PIXELS


@fuzz(max_examples=300)
@given(st.sampled_from(FILES), st.floats(0, 1), st.integers(0, 20))
def test_truncated_files(data, part, more):
    """Also with other bytes, or nothing, behind."""
    assert outcome(data[: int(part * len(data))] + bytes(more)) in (PIXELS, "refused")


@fuzz(max_examples=400)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_flipped_bits(data, flips):
    damaged = bytearray(data)
    for place, bits in flips:
        damaged[int(place * len(data))] ^= bits
    assert outcome(bytes(damaged)) in (PIXELS, "refused")


@fuzz(max_examples=300)
@given(st.sampled_from([data[:12] for data in FILES] + [b""]), st.binary(max_size=200))
def test_other_bytes(head, rest):
    assert outcome(head + rest) in (PIXELS, "refused")


def _png(width: int, height: int) -> bytes:
    """A small PNG file that claims to be large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        code = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", code)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10**6), 9)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _jpeg(width: int, height: int) -> bytes:
    """A small JPEG file that claims to be large."""
    data = bytearray(FILES[0])
    place = re.search(rb"\xff\xc0\x00\x11\x08", data)
    assert place
    data[place.end() : place.end() + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data",
    [_jpeg(65500, 65500), _jpeg(13500, 13500), _png(65500, 65500), _png(2**31 - 1, 2**31 - 1)],
    ids=["jpeg", "jpeg a little too large", "png", "png at its limit"],
)
def test_files_that_would_take_all_memory_are_refused(data):
    with pytest.raises(BadImage, match=r"65500|13500|2147483647|pixels"):
        decode(data)


@pytest.mark.parametrize("stream", ["train", "eval"])
def test_the_streams_name_a_damaged_file(tmp_path, stream):
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "good.jpg").write_bytes(FILES[3])  # a PNG, really
    (tmp_path / "train" / "b" / "bad.png").write_bytes(FILES[0][:300])
    source = open_source("folder", "train", str(tmp_path))
    crop = settings.preprocessing(inception.load_config("configs/digits.py"))
    batches = (
        train_stream(source, seed=0, image_size=75, batch_size=3)
        if stream == "train"
        else eval_stream(source, crop, batch_size=3)
    )
    with pytest.raises(BadImage, match=r"b/bad\.png"):
        next(batches)


@fuzz(max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.one_of(st.text(), st.integers().map(str), st.just("9" * 5000), st.just("٣"))
        ).map(lambda lines: "\n".join(lines).encode(errors="replace")),
    )
)
def test_any_list_of_excluded_images_is_read_or_refused(tmp_path, content):
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    source = ArraySource(np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 2])
    try:
        Excluded(file).check(source)
    except DataError as error:
        if "list.txt" not in str(error):
            raise AssertionError(f"{error} does not name the file") from error


@fuzz(max_examples=100)
@given(st.binary(max_size=100))
def test_any_file_of_class_names_is_read_or_refused(tmp_path, content):
    from inception.weights.__main__ import _read_labels

    file = tmp_path / "names.txt"
    file.write_bytes(content)
    try:
        names = _read_labels(file)
    except UserError as error:
        if "names.txt" not in str(error):
            raise AssertionError(f"{error} does not name the file") from error
    else:
        assert all(isinstance(name, str) for name in names)


_UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize(
    "file", [*Path("inception").rglob("*.py"), *Path("benchmarks").glob("*.py"), Path("main.py")]
)
def test_nothing_that_is_loaded_is_executed(file):
    """No unpickling: neither Python's, PyTorch's, NumPy's nor YAML's."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {each.arg: ast.unparse(each.value) for each in node.keywords}
        module, _, function = called.rpartition(".")
        assert module.split(".")[0] not in _UNPICKLES, f"{file}: {called}"
        assert options.get("allow_pickle", "False") == "False", f"{file}: {called}"
        assert called not in ("eval", "exec"), f"{file}: {called}"
        if called == "torch.load":
            assert options.get("weights_only") == "True", f"{file}: {called}"
        if module == "yaml" and function.startswith("load"):
            assert "Safe" in ast.unparse(node), f"{file}: {called}"
        if function == "load_model":
            assert options.get("safe_mode", "True") == "True", f"{file}: {called}"
