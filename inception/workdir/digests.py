"""Checksums of a checkpoint's leaves, which reveal damage by a disk, a network or a copy.

Next to its arrays, a checkpoint has a file with the type, the shape and the SHA-256 of every leaf
as it was in memory, and a checksum of that file itself. Whichever file of a checkpoint is damaged,
a leaf that is read either has the saved values or is refused by name.
"""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from inception.errors import CheckpointError

FILE = "sha256.json"
Leaves = dict[str, tuple[str, str]]  # by name: "float32[3, 3]" and the SHA-256 of the bytes

# How TensorStore and gRPC report problems of the network, the credentials or the memory.
_TRANSIENT = re.compile(
    r"\b(UNAVAILABLE|UNAUTHENTICATED|PERMISSION_DENIED|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED)\b"
)
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not as it was saved; the message names the file or the leaf."""


def by_name(tree: Any) -> dict[str, Any]:
    """Every leaf of a tree by its path, "params/Logits/bias"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def describe(tree: Any) -> dict[str, str]:
    """Type and shape of every leaf by its path, "float32[3, 3]"."""
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in by_name(tree).items()}


def on_host(tree: Any) -> dict[str, np.ndarray]:
    """Host copies of the leaves of a replicated state, by path; all are copied at once.

    Leaves that are on the host already are returned as they are. On the CPU the copies share the
    state's memory, which JAX does not reuse while they exist, even if the state is donated.
    """
    leaves = by_name(tree)
    copies = {
        n: leaf.addressable_data(0) for n, leaf in leaves.items() if isinstance(leaf, jax.Array)
    }
    for copy in copies.values():
        copy.copy_to_host_async()
    return {name: np.asarray(copies.get(name, leaf)) for name, leaf in leaves.items()}


def write(file: epath.Path, version: int, leaves: Mapping[str, np.ndarray]) -> None:
    """Writes the checksums of `leaves`, of a checkpoint of format `version`."""
    kinds = describe(leaves)
    stored = {name: (kinds[name], _sha256(leaf)) for name, leaf in leaves.items()}
    text = json.dumps({"format": version, "leaves": stored})
    file.write_text(json.dumps({"content": text, "sha256": _sha256_of_text(text)}))


def read(file: epath.Path) -> tuple[int, Leaves]:
    """The format of a checkpoint and the checksums of its leaves.

    Raises:
      DamagedCheckpoint: If the file is damaged.
    """
    try:
        stored = json.loads(file.read_text())
        if _sha256_of_text(stored["content"]) != stored["sha256"]:
            raise ValueError("checksum mismatch")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{file} is damaged: {error}") from error
    content = json.loads(stored["content"])
    return content["format"], {name: tuple(leaf) for name, leaf in content["leaves"].items()}


def verify_kinds(found: Mapping[str, str], expected: Leaves) -> None:
    """Compares the names, types and shapes in a checkpoint's metadata with those that were saved.

    Raises:
      DamagedCheckpoint: Naming the first leaf that differs.
    """
    for name in [*expected, *found]:
        saved = expected[name][0] if name in expected else "absent"
        if (kind := found.get(name, "absent")) != saved:
            raise DamagedCheckpoint(f"{name} is {kind} and was saved as {saved}")


def verify(found: Mapping[str, Any], expected: Leaves) -> None:
    """Compares the values of some or all leaves of a checkpoint with those that were saved.

    Raises:
      DamagedCheckpoint: Naming the first leaf that differs.
    """
    for name, leaf in on_host(found).items():
        if _sha256(leaf) != expected[name][1]:
            raise DamagedCheckpoint(f"checksum of {name} does not match the saved one")


def is_damage(error: Exception) -> bool:
    """Whether a read error is due to damaged files, not the machine, network or permissions.

    Only damaged checkpoints are moved away. Which error means damage depends on the damaged file:
    the libraries that read it raise many kinds.
    """
    if isinstance(error, OSError):
        return isinstance(error, _MISSING) or error.errno == errno.EIO
    if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
        return False
    return not _TRANSIENT.search(str(error))


def first_line(error: Exception) -> str:
    """The first line of a library's error, without TensorStore's page of details."""
    if isinstance(error, CheckpointError):
        return str(error)
    text, *_ = f"{type(error).__name__}: {error}".splitlines()
    return text.partition(" [tensorstore_spec=")[0].partition(" [source locations=")[0]


def _sha256(leaf: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data).hexdigest()


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
