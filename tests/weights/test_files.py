"""Files: recognized by content, read without executing anything, refused when damaged or absurd."""

import struct
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy

from inception.weights import WeightsError, files
from tests.pth_files import write_pth
from tests.weight_files import write_hdf5

ARRAYS = {"a/weights": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}


def read(path) -> tuple[str, dict]:
    with files.open_tensors(path) as tensors:
        return tensors.format, {name: tensors.read(name) for name in tensors.shapes}


def write_checkpoint(prefix, *, v2: bool):
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, array in ARRAYS.items():
            v1.get_variable(name, initializer=array)
        session.run(v1.global_variables_initializer())
        version = v1.train.SaverDef.V2 if v2 else v1.train.SaverDef.V1
        v1.train.Saver(write_version=version).save(session, str(prefix), write_meta_graph=False)
    return prefix


KINDS = {".safetensors": "safetensors", ".h5": "keras", ".pth": "pytorch", ".pt": "pytorch"}


@pytest.fixture(
    params=["x.safetensors", "x.h5", "x.pth", "x.pt", "x.ckpt", "y.ckpt", "y.ckpt.index"]
)
def file(request, tmp_path):
    """One file of each format, by any name."""
    path = tmp_path / request.param
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(ARRAYS, path)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as hdf5:
            hdf5["a/weights"], hdf5["b"] = ARRAYS.values()
    elif path.suffix in (".pth", ".pt"):
        write_pth(path, ARRAYS, stream=path.suffix == ".pt")
    else:
        write_checkpoint(tmp_path / f"{path.name[0]}.ckpt", v2=path.name[0] == "y")
    return path


def test_every_format_gives_names_shapes_and_arrays(file):
    kind, arrays = read(file)
    assert kind == KINDS.get(file.suffix, "tensorflow")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_the_suffix_does_not_matter(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "x.safetensors")
    renamed = (tmp_path / "x.safetensors").rename(tmp_path / "x.bin")
    assert read(renamed)[0] == "safetensors"


@pytest.mark.parametrize("kept", [0, 1, 9, 60, 0.5, -1])
def test_files_cut_off_are_refused_by_name(file, kept):
    data = files.files_of(file)[-1]
    content = data.read_bytes()
    most = int(len(content) * kept) if isinstance(kept, float) else kept
    data.write_bytes(content[: min(most, len(content) - 1)])
    with pytest.raises(WeightsError, match=file.name[0]):
        read(file)


def test_random_damage_is_refused_or_changes_nothing_but_values(file):
    data = files.files_of(file)[0]
    content = bytearray(data.read_bytes())
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(100):
        damaged = content.copy()
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(256)
        data.write_bytes(damaged)
        try:
            outcomes.add(read(file)[0])
        except WeightsError:
            outcomes.add("refused")
    assert outcomes <= {KINDS.get(file.suffix, "tensorflow"), "refused"}


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 100, b"GIF89a" + b"\x00" * 50])
def test_files_of_other_kinds_are_refused(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.ckpt"):
        read(tmp_path / "x.ckpt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"weights file .*nothing\.ckpt not found"):
        read(tmp_path / "nothing.ckpt")


def test_the_home_of_nobody_is_a_file_that_is_missing():
    with pytest.raises(WeightsError, match=r"weights file ~nobody-of-this-name/x\.pth not found"):
        read("~nobody-of-this-name/x.pth")


def test_large_files_and_archives_are_refused_unread(tmp_path):
    with (tmp_path / "x.safetensors").open("wb") as stream:
        stream.truncate(files.MAX_BYTES + 1)  # takes no room
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_zip_bombs_are_refused_unpacked(tmp_path, monkeypatch):
    bomb = tmp_path / "x.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10_000_000))
    assert bomb.stat().st_size < 20_000
    monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
    with pytest.raises(WeightsError, match="10000000"):
        read(bomb)


def test_an_absurd_header_of_safetensors_is_refused(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_hdf5_does_not_reach_outside_its_file(tmp_path):
    secret = write_hdf5(tmp_path / "other.h5", {"a": (2,)})
    (tmp_path / "raw").write_bytes(bytes(8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["linked"] = h5py.ExternalLink(str(secret), "a")
        file.create_dataset("external", (2,), "f4", external=[(str(tmp_path / "raw"), 0, 8)])
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "a", (2,))
        file.create_virtual_dataset("virtual", layout)
        file["own"] = np.ones(1, np.float32)
    assert set(read(tmp_path / "x.h5")[1]) == {"own"}


@pytest.mark.parametrize("name", ["m[1].ckpt", "m*.ckpt", "m\\?.ckpt"])
@pytest.mark.parametrize("v2", [False, True])
def test_the_path_of_a_tensorflow_checkpoint_is_no_pattern(tmp_path, name, v2):
    write_checkpoint(tmp_path / "plain", v2=v2)
    for part in tmp_path.glob("plain*"):
        part.rename(part.with_name(part.name.replace("plain", name)))
    kind, arrays = read(tmp_path / name)
    assert (kind, len(files.files_of(tmp_path / name))) == ("tensorflow", 1 + v2)
    np.testing.assert_array_equal(arrays["b"], ARRAYS["b"])


def test_the_hash_is_of_all_files(tmp_path):
    prefix = write_checkpoint(tmp_path / "y.ckpt", v2=True)
    before = files.sha256(prefix)
    data = files.files_of(prefix)[1]
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert files.sha256(prefix) != before
