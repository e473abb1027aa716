"""Sets of images of every kind, decoded as Pillow does it; what is wrong with one is a sentence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from inception.data.decode import decode as training_decode
from inception.fid.bridge import UserError
from inception.fid.images import decode, open_images
from tests.data.test_decode import METADATA
from tests.fid.networks import pictures


def _file(image, suffix="PNG", **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def _rgba():
    pixels = np.dstack([pictures(1, 9, 12)[0], np.arange(108, dtype=np.uint8).reshape(9, 12)])
    return Image.fromarray(pixels)


KINDS = {
    "gray": Image.fromarray(pictures(1, 9, 12)[0, ..., 0]),
    "alpha": _rgba(),
    "gray and alpha": _rgba().convert("LA"),
    "palette": _rgba().convert("RGB").quantize(7),
    "one bit": _rgba().convert("1"),
    "16 bit": Image.fromarray(np.arange(108, dtype=np.uint16).reshape(9, 12) * 5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_pillows(kind):
    data = _file(KINDS[kind])
    picture = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.pixels.shape == (9, 12, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.format == "PNG"
    assert picture.is_deep == (kind == "16 bit")


def test_alpha_is_dropped_and_16_bits_are_clipped():
    np.testing.assert_array_equal(decode(_file(KINDS["alpha"])).pixels, pictures(1, 9, 12)[0])
    assert decode(_file(KINDS["16 bit"])).pixels.max() == 255


def test_jpeg_is_decoded_as_pillow_does_and_not_as_for_training():
    """The fast DCT of training is off by a few of 255, which would move FID."""
    data = _file(Image.fromarray(skimage.data.coffee()), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data).pixels, expected)
    assert np.abs(training_decode(data).astype(int) - expected).max() > 0


@pytest.fixture
def folder(tmp_path):
    """Five images, one of them deeper and one hidden, of several suffixes."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for name, seed in (("b.png", 0), ("a.PNG", 1), ("c.webp", 2), (".hidden.png", 3)):
        Image.fromarray(pictures(1, 9, 12, seed)[0]).save(folder / name, lossless=True)
    Image.fromarray(pictures(1, 20, 8, 4)[0]).save(folder / "below" / "d.bmp")
    (folder / "notes.txt").write_text("not an image")
    return folder


def _read(images):
    return {name: read().pixels for name, read in images.items}


def test_a_folder_is_sorted_and_read_with_or_without_what_is_below(folder):
    images = open_images(str(folder))
    found = _read(images)
    assert images.count == 3
    assert [Path(name).name for name in found] == ["a.PNG", "b.png", "c.webp"]
    np.testing.assert_array_equal(found[str(folder / "b.png")], pictures(1, 9, 12, 0)[0])
    deep = open_images(str(folder), recursive=True)
    assert deep.count == 4
    assert _read(deep)[str(folder / "below" / "d.bmp")].shape == (20, 8, 3)


def test_links_that_lead_upwards_and_folders_called_like_images(folder):
    (folder / "below" / "up").symlink_to("..")
    (folder / "again").symlink_to("below")
    (folder / "holiday.png").mkdir()
    Image.fromarray(pictures(1, 8, 8, 5)[0]).save(folder / "holiday.png" / "e.png")
    assert open_images(str(folder)).count == 3
    deep = open_images(str(folder), recursive=True)
    assert deep.count == 5
    assert len({Path(name).resolve() for name in _read(deep)}) == 5


@pytest.mark.parametrize("name", METADATA)
def test_what_accompanies_a_pngs_pixels_is_not_looked_at(name):
    png = _file(Image.fromarray(pictures(1, 9, 12)[0]))
    picture = decode(png[:33] + METADATA[name] + png[33:])
    np.testing.assert_array_equal(picture.pixels, pictures(1, 9, 12)[0])
    with pytest.raises(ValueError, match="not a whole image"):
        decode(png[:29] + bytes(4) + png[33:])  # the checksum of the image's size


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_transparency_and_profiles_change_no_pixel(mode):
    image = Image.fromarray(pictures(1, 9, 12)[0]).convert(mode)
    transparency = (3, 4, 5) if mode == "RGB" else 3
    data = _file(image, gamma=0.5, icc_profile=b"profile", transparency=transparency)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data).pixels, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_what_pillow_clips_is_deep(dtype):
    picture = decode(_file(Image.fromarray(np.full((8, 8), 300, dtype)), "TIFF"))
    assert picture.is_deep
    assert np.unique(picture.pixels).tolist() == [255]


def test_a_zip_is_read_as_the_folder_is(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
        archive.writestr("__MACOSX/b.png", b"")
    images = open_images(str(tmp_path / "images.zip"))
    names = ["a.PNG", "b.png", "below/d.bmp", "c.webp"]
    assert images.count == 4
    found = _read(images)
    assert [name.removeprefix(f"{tmp_path}/images.zip/") for name in found] == names
    np.testing.assert_array_equal(found[f"{tmp_path}/images.zip/b.png"], pictures(1, 9, 12, 0)[0])


@pytest.mark.parametrize("shape", [(5, 9, 12, 3), (5, 9, 12, 1), (5, 9, 12)])
@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed.npz"])
def test_arrays_are_read_row_by_row(shape, suffix, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    path = tmp_path / f"images.{suffix}"
    save = {"npy": np.save, "npz": np.savez}.get(suffix, np.savez_compressed)
    save(path, pixels)
    images = open_images(str(path))
    assert images.count == 5
    for index, (name, found) in enumerate(_read(images).items()):
        assert name == f"{path}[{index}]"
        expected = np.broadcast_to(pixels[index].reshape(9, 12, -1), (9, 12, 3))
        np.testing.assert_array_equal(found, expected)


def test_a_tfds_data_set_is_read(tmp_path):
    images = open_images("tfds:digits:validation[:3]", data_dir=str(tmp_path))
    found = _read(images)
    assert images.count == len(found) == 3
    assert {pixels.shape for pixels in found.values()} == {(8, 8, 3)}
    for wrong in ("tfds:digits", "tfds:", "tfds::test"):
        with pytest.raises(UserError, match="must be tfds:NAME:SPLIT"):
            open_images(wrong)
    with pytest.raises(UserError, match="split 'nothing' of digits"):
        open_images("tfds:digits:nothing", data_dir=str(tmp_path))


def _array(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def _wrong(tmp_path):
    """Paths, and what is said of each."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    Image.fromarray(pictures(1, 8, 8)[0]).save(tmp_path / "outer" / "inner" / "a.png")
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    (tmp_path / "stats.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (tmp_path / "movie.mp4").write_bytes(b"")
    zipfile.ZipFile(tmp_path / "none.zip", "w").close()
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    _array(tmp_path / "objects.npy", np.array([{}, 3], object))
    _array(tmp_path / "floats.npy", np.zeros((2, 8, 8, 3), np.float32))
    _array(tmp_path / "fortran.npy", np.asfortranarray(np.zeros((2, 8, 8, 3), np.uint8)))
    _array(tmp_path / "channels.npy", np.zeros((2, 3, 8, 8), np.uint8))
    return {
        "nothing": "does not exist",
        "empty": "has no images",
        "outer": "in its subfolders only: add --recursive",
        "bad.zip": "damaged or not a zip file",
        "bad.npz": "damaged",
        "bad.npy": "damaged",
        "stats.pkl": "is a pickle, which can run code and is not read",
        "movie.mp4": "is not a folder, FILE.zip, FILE.npz or FILE.npy",
        "none.zip": "has no images",
        "other.npz": r"no images in an array arr_0 or images; it has \['weights'\]",
        "objects.npy": "holds Python objects",
        "floats.npy": r"holds float32 \[2, 8, 8, 3\].*fid.to_uint8",
        "fortran.npy": "in C order",
        "channels.npy": r"uint8 \[2, 3, 8, 8\].*\[n, height, width, 3\]",
    }


def test_what_is_not_a_set_of_images_is_one_sentence(tmp_path):
    for name, message in _wrong(tmp_path).items():
        with pytest.raises(UserError, match=message) as error:
            open_images(str(tmp_path / name))
        assert name in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"no image", _file(KINDS["alpha"])[:60], b""])
def test_a_file_that_is_not_a_whole_image_is_an_error(data):
    with pytest.raises(ValueError, match="not a whole image"):
        decode(data)


def test_an_array_that_ends_early_is_an_error(tmp_path):
    path = _array(tmp_path / "images.npy", pictures(3, 8, 8))
    path.write_bytes(path.read_bytes()[:-100])
    *_, (name, read) = open_images(str(path)).items
    assert name.endswith("[2]")
    with pytest.raises(ValueError, match="ends before it"):
        read()


@pytest.mark.parametrize("change", ["written", "removed"])
def test_a_file_that_changes_meanwhile_is_named(folder, change):
    images = open_images(str(folder))
    images.check()
    if change == "removed":
        (folder / "b.png").unlink()
    else:
        (folder / "b.png").write_bytes(b"another")
    with pytest.raises(UserError, match=r"b.png changed while it was read"):
        images.check()


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match="empty path"):
        open_images("")
