"""Digests of leaves: of bytes and not of values, and in a file that vouches for itself."""

import errno
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.workdir import digests
from inception.workdir.digests import DamagedCheckpoint

LEAVES = {
    "count": np.int32(7) * np.ones((), np.int32),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def test_what_was_written_is_read(tmp_path):
    digests.write(tmp_path / "file", 3, LEAVES)
    version, leaves = digests.read(tmp_path / "file")
    assert version == 3
    assert leaves["w"] == ("float32[2, 3]", hashlib.sha256(LEAVES["w"].tobytes()).hexdigest())
    assert leaves["half"][0] == "bfloat16[3]"
    digests.verify_kinds(digests.describe(LEAVES), leaves)
    digests.verify(jax.tree.map(jnp.asarray, LEAVES), leaves)
    digests.verify({"w": jnp.asarray(LEAVES["w"])}, leaves)  # a part


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w", LEAVES["w"] + np.spacing(LEAVES["w"])),
        ("w", LEAVES["w"] * np.where(LEAVES["w"] == 0, -1, 1)),  # -0.0 == 0.0
        ("count", np.zeros((), np.int32)),
    ],
)
def test_another_value_is_named(tmp_path, name, value):
    digests.write(tmp_path / "file", 3, LEAVES)
    _, leaves = digests.read(tmp_path / "file")
    with pytest.raises(DamagedCheckpoint, match=f"checksum of {name} "):
        digests.verify({name: jnp.asarray(value, LEAVES[name].dtype)}, leaves)


@pytest.mark.parametrize("change", [{"w": None}, {"w": "float32[3, 2]"}, {"more": "int32[]"}])
def test_other_names_shapes_and_types_are_named(tmp_path, change):
    digests.write(tmp_path / "file", 3, LEAVES)
    _, leaves = digests.read(tmp_path / "file")
    kinds = digests.describe(LEAVES) | change
    kinds = {name: kind for name, kind in kinds.items() if kind}
    with pytest.raises(DamagedCheckpoint, match=next(iter(change))):
        digests.verify_kinds(kinds, leaves)


def test_every_bit_of_the_file_counts(tmp_path):
    """No flipped bit leaves other digests: it is seen, or changes what JSON does not mean."""
    file = tmp_path / "file"
    digests.write(file, 3, {"w": LEAVES["w"]})
    whole, text = digests.read(file), file.read_bytes()
    for position in range(len(text)):
        for bit in range(8):
            damaged = bytearray(text)
            damaged[position] ^= 1 << bit
            file.write_bytes(damaged)
            try:
                assert digests.read(file) == whole
            except DamagedCheckpoint as error:
                assert str(file) in str(error)  # noqa: PT017
    for part in (b"", text[: len(text) // 2], b"[]", b'{"content": 1, "sha256": 2}'):
        file.write_bytes(part)
        with pytest.raises(DamagedCheckpoint):
            digests.read(file)


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (FileNotFoundError("gone"), True),
        (OSError(errno.EIO, "the disk"), True),
        (ValueError("DATA_LOSS: Error decoding"), True),
        (KeyError("w"), True),
        (PermissionError(errno.EACCES, "no right"), False),
        (ConnectionError("no network"), False),
        (MemoryError(), False),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (ValueError("UNAVAILABLE: the bucket"), False),
    ],
)
def test_trouble_of_the_moment_is_no_damage(error, damage):
    assert digests.is_damage(error) == damage
