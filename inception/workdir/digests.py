"""Digests of a checkpoint's leaves: what a disk, a cable or a copy has changed is seen.

A checkpoint holds, beside its arrays, the type, the shape and the SHA-256 of the bytes of every
leaf as they were in memory, in a file that vouches for itself. So whatever file of the checkpoint
is damaged, what is read is what was saved, or is refused by name.
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

# TensorStore's and gRPC's words for trouble of the network, the credentials or the memory.
_PASSING = re.compile(
    r"\b(UNAVAILABLE|UNAUTHENTICATED|PERMISSION_DENIED|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED)\b"
)
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that does not hold what was saved; the message names the file or the leaf."""


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
    """Copies of the leaves of a replicated state, as this process has it, by their paths.

    Leaves that are on the host already are returned as they are.

    All are on their way from the devices at once. On the CPU they share the state's memory, which
    JAX gives to nobody else while they live, whatever the next step is allowed to overwrite.
    """
    leaves = by_name(tree)
    copies = {
        n: leaf.addressable_data(0) for n, leaf in leaves.items() if isinstance(leaf, jax.Array)
    }
    for copy in copies.values():
        copy.copy_to_host_async()
    return {name: np.asarray(copies.get(name, leaf)) for name, leaf in leaves.items()}


def write(file: epath.Path, version: int, leaves: Mapping[str, np.ndarray]) -> None:
    """Writes the digests of `leaves`, of a checkpoint of format `version`."""
    kinds = describe(leaves)
    stored = {name: (kinds[name], _sha256(leaf)) for name, leaf in leaves.items()}
    text = json.dumps({"format": version, "leaves": stored})
    file.write_text(json.dumps({"content": text, "sha256": _sha256_of_text(text)}))


def read(file: epath.Path) -> tuple[int, Leaves]:
    """The format of a checkpoint and the digests of its leaves.

    Raises:
      DamagedCheckpoint: if the file is damaged.
    """
    try:
        stored = json.loads(file.read_text())
        if _sha256_of_text(stored["content"]) != stored["sha256"]:
            raise ValueError("its own digest is another")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{file} is damaged: {error}") from error
    content = json.loads(stored["content"])
    return content["format"], {name: tuple(leaf) for name, leaf in content["leaves"].items()}


def verify_kinds(found: Mapping[str, str], expected: Leaves) -> None:
    """Compares names, types and shapes that a checkpoint says it has with those that were saved.

    Raises:
      DamagedCheckpoint: naming the first leaf that differs.
    """
    for name in [*expected, *found]:
        saved = expected[name][0] if name in expected else "absent"
        if (kind := found.get(name, "absent")) != saved:
            raise DamagedCheckpoint(f"{name} is {kind} and was saved as {saved}")


def verify(found: Mapping[str, Any], expected: Leaves) -> None:
    """Compares the values of leaves that were read, which may be some of the checkpoint's.

    Raises:
      DamagedCheckpoint: naming the first leaf that differs.
    """
    for name, leaf in on_host(found).items():
        if _sha256(leaf) != expected[name][1]:
            raise DamagedCheckpoint(f"the values of {name} are not those that were saved")


def is_damage(error: Exception) -> bool:
    """Whether an error in reading is of the files, not of the machine, the network or the rights.

    A checkpoint is set aside for damage only. What it is called depends on what is damaged: the
    libraries that read it raise errors of all kinds.
    """
    if isinstance(error, OSError):
        return isinstance(error, _MISSING) or error.errno == errno.EIO
    if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
        return False
    return not _PASSING.search(str(error))


def first_line(error: Exception) -> str:
    """What an error of a library says, in a line, without TensorStore's page of detail."""
    if isinstance(error, CheckpointError):
        return str(error)
    text, *_ = f"{type(error).__name__}: {error}".splitlines()
    return text.partition(" [tensorstore_spec=")[0].partition(" [source locations=")[0]


def _sha256(leaf: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data).hexdigest()


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
