"""What is measured, and who can be measured.

A contender is a function that makes a `Contender` from a `Case`. It imports its libraries itself,
in the process that is to run it.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from inception.errors import UserError

ROOT = Path(__file__).parents[1]  # of the repository
OURS = "ours"
STORED = 4  # batches that an input may have ready: more than any contender prefetches


@dataclasses.dataclass(frozen=True)
class Case:
    """What one contender is to do, in plain values: it is sent to a process as JSON.

    Attributes:
      contender: Name in `CONTENDERS`, or "ours, ..." for a variant of ours.
      mode: Key of `CONTENDERS`.
      threads: Number of threads, and on Linux of cores, that the contender may use.
      fields: All fields of a config by full name, such as "batch_size" and "model.stem".
      num_classes: Number of logits.
    """

    contender: str
    mode: str
    threads: int
    fields: Mapping[str, Any]
    num_classes: int = 1000

    @property
    def batch(self) -> int:
        """Images of a step."""
        return self.fields["batch_size"]

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.fields["image_size"]

    @property
    def dtype(self) -> str:
        """Type of the activations, "float32" or "bfloat16"."""
        return self.fields["dtype"]


@dataclasses.dataclass(frozen=True)
class Contender:
    """A contender that is ready to run.

    Attributes:
      step: Starts one step on a batch; it may return before the step is done.
      wait: Returns when all steps are done.
      description: What a step does, in a few words.
      device_bytes: Returns the accelerator's peak memory; None on a CPU.
      stored: Number of results that may be ready in advance; as many steps precede a measurement.
    """

    step: Callable[[], object]
    wait: Callable[[], object]
    description: str
    device_bytes: Callable[[], int | None] = lambda: None
    stored: int = 0


def _ours(case: Case) -> Contender:
    from benchmarks import ours

    return ours.train(case) if case.mode == "train" else ours.infer(case)


def _flax_naive(case: Case) -> Contender:
    from benchmarks import flax_naive

    return flax_naive.train(case) if case.mode == "train" else flax_naive.infer(case)


def _torch(case: Case) -> Contender:
    from benchmarks import torch_networks

    return torch_networks.train(case) if case.mode == "train" else torch_networks.infer(case)


def _keras(case: Case) -> Contender:
    from benchmarks import keras_network

    return keras_network.infer(case)


def _input(case: Case) -> Contender:
    from benchmarks import inputs

    return inputs.data(case)


class Entry(NamedTuple):
    """How a contender is made, and the packages that it needs besides ours."""

    make: Callable[[Case], Contender]
    packages: tuple[str, ...] = ()


_NETWORKS = {
    OURS: Entry(_ours),
    "torchvision": Entry(_torch, ("torch", "torchvision")),
    "timm": Entry(_torch, ("torch", "timm")),
    "timm-compile": Entry(_torch, ("torch", "timm")),
    "flax-naive": Entry(_flax_naive),
}
CONTENDERS: dict[str, dict[str, Entry]] = {  # by mode and name
    "train": _NETWORKS,
    "infer": _NETWORKS | {"keras": Entry(_keras, ("tensorflow", "keras"))},
    "data": {
        OURS: Entry(_input),
        "tf.data": Entry(_input, ("tensorflow",)),
        "torchvision": Entry(_input, ("torch", "torchvision")),
        "pillow": Entry(_input),
    },
}


def check(mode: str, name: str) -> None:
    """Requires an opponent that can be measured here.

    Raises:
      UserError: If it is unknown, or needs a package that is not installed.
    """
    opponents = {other: entry for other, entry in CONTENDERS[mode].items() if other != OURS}
    if name not in opponents:
        raise UserError(f"--against={name} with --mode={mode}: use one of {', '.join(opponents)}")
    packages = opponents[name].packages
    if missing := [package for package in packages if not importlib.util.find_spec(package)]:
        raise UserError(
            f"--against={name} needs {' and '.join(missing)}: "
            "pip install -r requirements.txt -r requirements-oracles.txt"
        )


def prepare(case: Case) -> Contender:
    """Imports and builds the contender; its network may be compiled later."""
    return CONTENDERS[case.mode][case.contender.partition(",")[0]].make(case)
