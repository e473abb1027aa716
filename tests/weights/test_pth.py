"""PyTorch's files without PyTorch: equal to torch.load bit for bit, and refused when they harm."""

import importlib.util
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from inception.weights import WeightsError, files, pickles, pth
from tests.pth_files import Call, Global, Pickle, write_pth

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "float64": np.arange(3) / 7,
    "float16": np.array([[1, np.inf]], np.float16),
    "bfloat16": np.array([1, 2.5, -3], jnp.bfloat16),
    "int64": np.array(-5),
    "int32": np.array([2**31 - 1], np.int32),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "repeated": np.broadcast_to(np.float32(3), (2, 5)),
}

# Saves all that torch.save has a form of its own for, and what torch.load makes of it, as bytes.
TORCH = """
import argparse, collections, numpy as np, torch
from torch import nn
types = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 "
         "uint16 uint32 uint64").split()
torch.manual_seed(0)
base = torch.randn(100)
state = {t: (torch.randn(3, 4) * 50).abs().to(getattr(torch, t)) for t in types}
state |= {
    "shared": base, "strided": base[3:50:2], "transposed": base.view(10, 10).t(),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": torch.ones(1).expand(7, 9), "scalar": torch.tensor(3), "empty": torch.zeros(0, 5),
    "parameter": nn.Parameter(torch.randn(3)), "buffer": nn.Buffer(torch.randn(3)),
}
state["with_state"] = nn.Parameter(torch.randn(2))
state["with_state"].note = "kept with the tensor"
content = {
    "state": collections.OrderedDict(state), "args": argparse.Namespace(lr=0.1), "set": {1, (2,)},
    "numpy": np.ones(3), "scalar": np.float64(1), "device": torch.device("cpu"), "frozen":
    frozenset([1]), "size": torch.Size([1, 2]), "sparse": torch.ones(2).to_sparse(), (1, 2): 3,
    "plain": [1, 2.5, None, True, -7, 2**70, "\\u00e9", b"x", bytearray(b"y"), (), 1j],
    "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
}
for protocol in (2, 4, 5):
    torch.save(content, f"zip{protocol}.pth", pickle_protocol=protocol)
    torch.save(content, f"stream{protocol}.pth", pickle_protocol=protocol,
               _use_new_zipfile_serialization=False)
np.savez("bytes.npz", **{
    name: tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    for name, tensor in torch.load("zip2.pth", weights_only=False)["state"].items()
})
with open("types", "w") as file:
    for name, tensor in state.items():
        print(name, str(tensor.dtype).removeprefix("torch."), *tensor.shape, file=file)
model = nn.Linear(2, 3)
torch.save(model, "model.pth")
torch.save({"model": model}, "nested.pth", _use_new_zipfile_serialization=False)
torch.jit.script(model).save("script.pth")
torch.save(torch.ones(2), "tensor.pth")
z = torch.ones(2, dtype=torch.complex64)
torch.save({"negative": z.conj().imag, "plain": torch.ones(3)}, "negative.pth")
torch.save({"conjugate": z.conj(), "plain": torch.ones(3)}, "conjugate.pth")
torch.save({"float8": torch.ones(2).to(torch.float8_e4m3fn), "plain": torch.ones(3)}, "float8.pth")
"""


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory):
    """Written by PyTorch in a process of its own, since this one may have TensorFlow."""
    if not importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is not installed: requirements-oracles.txt")
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-W", "ignore", "-c", TORCH], cwd=folder, check=True)
    return folder


def read(path) -> dict[str, np.ndarray]:
    with files.open_tensors(path) as tensors:
        assert tensors.format == "pytorch"
        arrays = {name: tensors.read(name) for name in tensors.shapes}
        assert {name: array.shape for name, array in arrays.items()} == tensors.shapes
    return arrays


def require_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("file", ["zip2", "zip4", "zip5", "stream2", "stream4", "stream5"])
def test_tensors_are_torch_loads_bit_for_bit(torch_files, file):
    arrays = read(torch_files / f"{file}.pth")
    expected = np.load(torch_files / "bytes.npz")
    lines = [line.split() for line in (torch_files / "types").read_text().splitlines()]
    assert list(arrays) == [f"state/{name}" for name, *_ in lines]
    for name, dtype, *shape in lines:
        found = arrays[f"state/{name}"]
        assert (found.dtype.name, found.shape) == (dtype, tuple(map(int, shape)))
        assert found.tobytes() == expected[name].tobytes()


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("model", r"torch\.nn\.modules\.linear\.Linear, which is not executed"),
        ("nested", r"torch\.nn\.modules\.linear\.Linear, which is not executed"),
        ("script", "TorchScript"),
        ("tensor", "has no named tensors"),
    ],
)
def test_models_and_programs_are_refused(torch_files, file, named):
    with pytest.raises(WeightsError, match=rf"{file}\.pth.*{named}.*model\.state_dict\(\)"):
        read(torch_files / f"{file}.pth")


@pytest.mark.parametrize(
    ("file", "named"),
    [("negative", "the neg bit"), ("conjugate", "the conj bit"), ("float8", "torch.float8_e4m3fn")],
)
def test_a_tensor_that_would_be_read_wrongly_is_refused_by_name(torch_files, file, named):
    with files.open_tensors(torch_files / f"{file}.pth") as tensors:
        assert tensors.shapes == {file: (2,), "plain": (3,)}
        require_equal(tensors.read("plain"), np.ones(3, np.float32))
        with pytest.raises(WeightsError, match=rf"{file}\.pth has a tensor {file} .*{named}"):
            tensors.read(file)


@pytest.mark.parametrize("stream", [False, True])
def test_arrays_come_in_the_type_that_they_are_stored_in(tmp_path, stream):
    arrays = read(write_pth(tmp_path / "x.pth", {"epoch": 3, "a": ARRAYS}, stream=stream))
    assert arrays.keys() == {f"a/{name}" for name in ARRAYS}
    for name, array in ARRAYS.items():
        require_equal(arrays[f"a/{name}"], array)


def test_tensors_in_a_list_are_numbered(tmp_path):
    content = {"a": {"list": [np.ones(1), np.zeros(2)], "losses": [1, 2]}}
    assert list(read(write_pth(tmp_path / "x.pth", content))) == ["a/list/0", "a/list/1"]


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_executed(tmp_path, stream):
    called = Call(Global("builtins open"), (str(tmp_path / "executed"), "w"))
    path = write_pth(tmp_path / "x.pth", {"b": np.ones(2), "evil": called}, stream=stream)
    require_equal(read(path)["b"], np.ones(2))
    with pytest.raises(WeightsError, match=r"builtins\.open, which is not executed"):
        read(write_pth(tmp_path / "y.pth", {"evil": called}, stream=stream))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("stream", [False, True])
def test_big_endian_files_are_refused(tmp_path, stream):
    path = write_pth(tmp_path / "x.pth", {"b": np.ones(2)}, stream=stream, byteorder=b"big")
    with pytest.raises(WeightsError, match=r"x\.pth was written on a big-endian machine"):
        read(path)


@pytest.mark.parametrize("content", [3, [np.ones(2)], {}, {"a": {"b": 1}}, {1: np.ones(2)}])
def test_what_holds_no_tensors_by_name_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match=r"x\.pth has no named tensors"):
        read(write_pth(tmp_path / "x.pth", content))


def test_a_pickle_of_another_program_is_refused(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + Pickle().of({"a": 1}) + b".")
    with pytest.raises(WeightsError, match=r"x\.pkl is a pickle that torch\.save did not write"):
        read(tmp_path / "x.pkl")


@pytest.mark.parametrize("stream", [False, True])
def test_a_changed_value_in_an_archive_is_noticed(tmp_path, stream):
    path = write_pth(tmp_path / "x.pth", {"b": np.full(9, 7, np.uint8)}, stream=stream)
    path.write_bytes(path.read_bytes().replace(b"\x07" * 9, b"\x07" * 8 + b"\x08"))
    if stream:  # which has no checksums
        assert read(path)["b"][-1] == 8
    else:
        with pytest.raises(WeightsError, match=r"the checksum of archive/data/0 does not match"):
            read(path)


def test_compressed_archives_are_refused(tmp_path):
    path = write_pth(tmp_path / "x.pth", {"b": np.zeros(100_000)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=r"x\.pth is a compressed archive"):
        read(path)


def _view(offset: int, shape: tuple, strides: tuple, elements: int = 4, dtype: str = "Float"):
    """A stream with a tensor of this geometry and four floats."""
    place = Pickle().of(("storage", Global(f"torch {dtype}Storage"), "0", "cpu", elements, None))
    rest = map(Pickle().of, (offset, shape, strides, False, {}))
    name = b"c" + b"torch._utils\n_rebuild_tensor_v2\n"
    tensor = name + b"(" + place + b"Q" + b"".join(rest) + b"tR"
    content = b"\x80\x02}(" + Pickle().of("b") + tensor + b"u."
    head = [Pickle().of(part) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts = [b"\x80\x02" + part + b"." for part in head]
    keys = b"\x80\x02" + Pickle().of(["0"]) + b"."
    return b"".join(parts) + content + keys + struct.pack("<q4f", 4, 0, 1, 2, 3)


def test_views_within_their_storage_are_read(tmp_path):
    for view, expected in [((1, (2,), (2,)), [1, 3]), ((3, (1, 1), (99, 7)), [[3]])]:
        (tmp_path / "x.pth").write_bytes(_view(*view))
        assert read(tmp_path / "x.pth")["b"].tolist() == expected


@pytest.mark.parametrize(
    "view",
    [
        (1, (4,), (1,)),  # one too far
        (0, (2,), (4,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (2**61,)),
        (2**61, (1,), (1,)),
        (0, (2**40, 2**40), (0, 0)),  # repeated
        (0, (2**62,), (1,)),
        (0, (2**700,), (1,)),
        (0, (1,) * 40, (1,) * 40),
        (0, (2, 2), (1,)),
        (0, ("2",), (1,)),
        (0, (2,), (1,), 2**60),  # a storage that is not there
        (0, (2,), (1,), -4),
        (0, (2,), (1,), 4, "Double"),
    ],
)
def test_impossible_views_are_refused(tmp_path, view):
    (tmp_path / "x.pth").write_bytes(_view(*view))
    with pytest.raises(WeightsError, match=r"x\.pth cannot be read"):
        read(tmp_path / "x.pth")


def _nested(depth: int) -> dict:
    content: dict = {"b": np.ones(1)}
    for _ in range(depth):
        content = {"a": content}
    return content


def test_absurd_files_are_refused_by_name(tmp_path, monkeypatch):
    assert read(write_pth(tmp_path / "x.pth", _nested(pth.MAX_DEPTH)))
    for content, named in [
        (_nested(pth.MAX_DEPTH + 1), "no named tensors"),
        ({"a" * (pth.MAX_NAME + 1): np.ones(1)}, f"a name of {pth.MAX_NAME + 1} characters"),
    ]:
        with pytest.raises(WeightsError, match=named):
            read(write_pth(tmp_path / "x.pth", content))
    monkeypatch.setattr(pth, "MAX_ENTRIES", 3)
    with pytest.raises(WeightsError, match="more than 3 entries"):
        read(write_pth(tmp_path / "x.pth", dict.fromkeys("abcd", 1)))
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 50)
    with pytest.raises(WeightsError, match="more than 50 instructions"):
        read(write_pth(tmp_path / "x.pth", {"a": [0] * 100}))


@pytest.mark.parametrize("stream", [False, True])
def test_damage_is_one_sentence_and_takes_no_memory(tmp_path, stream):
    path = write_pth(tmp_path / "x.pth", {"epoch": 2**70, "m": ARRAYS}, stream=stream)
    whole, rng, messages = path.read_bytes(), np.random.default_rng(0), []
    tracemalloc.start()
    for turn in range(400):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), rng.integers(1, 4)):
            value, length = rng.choice([0, 255, rng.integers(256)]), rng.choice([1, 1, 4])
            damaged[position : position + length] = bytes([value]) * length
        path.write_bytes(damaged[: len(whole) * turn // 200 + 1] if turn < 200 else damaged)
        try:
            read(path)
        except WeightsError as error:
            messages.append(str(error))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(messages) > 250
    assert all(str(path) in message and "\n" not in message for message in messages)
    assert peak < 20e6
