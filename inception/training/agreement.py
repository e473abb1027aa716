"""Checks that all processes of a run have the same config, code, libraries and data.

Every process computes its part of each step with its own program and data. If they differ, a run
gives wrong results or hangs. So every process publishes what it has, and process 0 compares.
"""

import hashlib
import importlib.metadata
import itertools
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from inception import config as settings
from inception.data.sources import Source
from inception.distributed import processes
from inception.errors import UserError
from inception.workdir.digests import by_name

_MAY_DIFFER = ("data_dir", "data_threads")  # fields, also of `eval`: disks and cores of a host
# Libraries that determine the order of examples, the pixels or the arithmetic.
_LIBRARIES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "libtpu", "flax", "optax", "orbax-checkpoint"),
    *("numpy", "grain", "tensorflow-datasets", "array_record"),
    *("simplejpeg", "opencv-python-headless", "pillow"),
)
_MAX_NAMED = 5  # differences in a message
_ROOT = Path(__file__).parents[1]


class DisagreementError(UserError, RuntimeError):
    """Processes that cannot train together; the message says what differs."""


def check(
    config: ConfigDict, workdir: epath.Path, sources: dict[str, Source], variables: Any = None
) -> None:
    """Compares all processes; waits for them. Does nothing if there is only one.

    Args:
      config: Config of the run.
      workdir: Workdir of the run, which all processes must share.
      sources: Data by purpose, such as "training".
      variables: Variables that the run starts from, NumPy arrays; None for a fresh start.

    Raises:
      DisagreementError: In every process, naming what differs.
      ProcessStopped: If another process has stopped.
    """
    if processes.process_index_and_count()[1] == 1:
        return
    mine = json.dumps(facts(config, workdir, sources, variables))
    if verdict := processes.gather_and_reduce(
        mine, lambda texts: compare([json.loads(text) for text in texts])
    ):
        raise DisagreementError(verdict)


def facts(
    config: ConfigDict, workdir: epath.Path, sources: dict[str, Source], variables: Any = None
) -> dict[str, Any]:
    """What must be equal in all processes, by name.

    Config, versions, data, digests of the code and of the weights that the run starts from: one
    path or name may hold other weights on another host.
    """
    fields = settings.flatten(config)
    code = sorted(_ROOT.rglob("*.py"))
    checkpoints = workdir / "checkpoints"
    steps = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
    return {
        "number of processes": processes.process_index_and_count()[1],
        **{
            f"config.{name}": value
            for name, value in fields.items()
            if name.rpartition(".")[2] not in _MAY_DIFFER
        },
        **{f"number of {name} images": len(source) for name, source in sources.items()},
        **{f"classes of {name}": _digest(source.class_names) for name, source in sources.items()},
        f"digest of the weights of config.init_from={config.init_from!r}": _of_arrays(variables),
        "workdir": str(workdir),
        "newest checkpoint": max((int(step) for step in steps if step.isdecimal()), default=None),
        "Python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        **{
            f"inception/{file.relative_to(_ROOT).as_posix()}": _digest(file.read_bytes())
            for file in code
        },
    }


def compare(facts: list[dict[str, Any]]) -> str:
    """A sentence on what differs between the facts of processes 0, 1, ...; "" if nothing does."""
    differences = [
        f"{name} is {first!r} in process 0 and {value!r} in process {number}"
        for name in dict.fromkeys(itertools.chain(*facts))
        for number, other in enumerate(facts)
        if (value := other.get(name)) != (first := facts[0].get(name))
    ]
    if not differences:
        return ""
    more = f", and {len(differences) - _MAX_NAMED} more" if len(differences) > _MAX_NAMED else ""
    return (
        f"{'; '.join(differences[:_MAX_NAMED])}{more}. All processes need the same command, code, "
        "libraries and data"
    )


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _of_arrays(tree: Any) -> str | None:
    if tree is None:
        return None
    digest = hashlib.sha256()
    for name, array in sorted(by_name(tree).items()):
        digest.update(f"{name} {array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
