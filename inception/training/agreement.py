"""Before several processes train together: do they have the same program, libraries and data?

Each computes its part of every step from what it has itself. Where that differs, a run would go
on with wrong results, or hang. So each process tells what it has and process 0 compares.
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

_MAY_DIFFER = ("data_dir", "data_threads")  # fields, also of `eval`: a host's own disks and cores
# What decides the order, the pixels or the arithmetic.
_LIBRARIES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "libtpu", "flax", "optax", "orbax-checkpoint"),
    *("numpy", "grain", "tensorflow-datasets", "array_record"),
    *("simplejpeg", "opencv-python-headless", "pillow"),
)
_MOST_NAMED = 5  # differences in a message
_ROOT = Path(__file__).parents[1]


class DisagreementError(UserError, RuntimeError):
    """Processes that cannot run together; the message names what differs, and where."""


def check(
    config: ConfigDict, workdir: epath.Path, sources: dict[str, Source], variables: Any = None
) -> None:
    """Compares this process with all others, when they all have come here; alone, does nothing.

    Args:
      config: of the run.
      workdir: of the run, which all processes must see.
      sources: the data by what it is for.
      variables: of the network that the run starts from, NumPy arrays; None if it does not.

    Raises:
      DisagreementError: in every process, naming what differs.
      ProcessStopped: if another one has stopped before.
    """
    if processes.process_index_and_count()[1] == 1:
        return
    mine = json.dumps(facts(config, workdir, sources, variables))
    if verdict := processes.gather_and_reduce(
        mine, lambda told: compare([json.loads(each) for each in told])
    ):
        raise DisagreementError(verdict)


def facts(
    config: ConfigDict, workdir: epath.Path, sources: dict[str, Source], variables: Any = None
) -> dict[str, Any]:
    """What must be the same everywhere, by name.

    Fields, versions, data, digests of the code, and of the weights that the run starts from:
    the same path or name may hold others on another host.
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


def compare(told: list[dict[str, Any]]) -> str:
    """What differs between processes, told in their order, as a sentence; "" if nothing does."""
    differences = [
        f"{name} is {first!r} in process 0 and {value!r} in process {number}"
        for name in dict.fromkeys(itertools.chain(*told))
        for number, other in enumerate(told)
        if (value := other.get(name)) != (first := told[0].get(name))
    ]
    if not differences:
        return ""
    more = f", and {len(differences) - _MOST_NAMED} more" if len(differences) > _MOST_NAMED else ""
    return (
        f"{'; '.join(differences[:_MOST_NAMED])}{more}. All processes need the same command, code, "
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
