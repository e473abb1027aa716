"""What is measured, and who can do it.

Every side is a function of a `Work` that returns a `Side`. Ours are in this folder, the opponents
in the repository's benchmarks/, which is imported only in the process of the side that is asked
for. So this file, which all processes share, needs nothing but Python.
"""

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inception.errors import UserError

ROOT = Path(__file__).parents[1]  # of the repository
OURS = "ours"
STORED = 4  # batches of an input: more than any of the sides prefetches

# By mode: the module and the packages of every side. A side named "ours, ..." is a variant of ours.
_TORCH, _TIMM = ("torch", "torchvision"), ("torch", "timm")
_NETWORKS = {
    OURS: ("benchmarks.ours", ()),
    "torchvision": ("benchmarks.torch_networks", _TORCH),
    "timm": ("benchmarks.torch_networks", _TIMM),
    "timm-compile": ("benchmarks.torch_networks", _TIMM),
    "flax-naive": ("benchmarks.flax_naive_sides", ()),
}
SIDES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "train": _NETWORKS,
    "infer": _NETWORKS | {"keras": ("benchmarks.keras_network", ("tensorflow", "keras"))},
    "data": {
        OURS: ("benchmarks.our_input", ()),
        "tf.data": ("benchmarks.inputs", ("tensorflow",)),
        "torchvision": ("benchmarks.inputs", _TORCH),
        "pillow": ("benchmarks.inputs", ()),
    },
}


@dataclasses.dataclass(frozen=True)
class Work:
    """One side's work, in plain values: it is sent to the side's process as JSON.

    Attributes:
      side: its name in `SIDES`, "ours", or "ours, ..." for a variant.
      mode: a key of `SIDES`.
      threads: that the side may use; on Linux its process is kept on as many cores.
      fields: all of a config's, by full name: "batch_size", "model.stem".
      num_classes: of the logits.
    """

    side: str
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
        """Of the activations, "float32" or "bfloat16"."""
        return self.fields["dtype"]


@dataclasses.dataclass(frozen=True)
class Side:
    """A side that is ready to run.

    Attributes:
      step: starts one step on the batch; it may return before the step is done.
      wait: returns when all steps are done.
      does: what a step is, in a few words.
      device_bytes: the most memory of an accelerator that was in use; None on a CPU.
      stored: results that may lie ready from before; so many steps are made before time is taken.
    """

    step: Callable[[], object]
    wait: Callable[[], object]
    does: str
    device_bytes: Callable[[], int | None] = lambda: None
    stored: int = 0


def check(mode: str, side: str) -> None:
    """Refuses a side that cannot be measured here.

    Raises:
      UserError: when it is unknown, or its package or the repository's benchmarks/ is not there.
    """
    sides = SIDES[mode]
    if side not in sides or side == OURS:
        known = ", ".join(name for name in sides if name != OURS)
        raise UserError(f"--against={side} is no opponent in --mode={mode}: use one of {known}")
    module, packages = sides[side]
    if not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():
        raise UserError(
            f"--against={side}: the opponents are in the repository's benchmarks/, not in the "
            "installed package. Run `python -m benchmarks` in a checkout"
        )
    if missing := [name for name in packages if not importlib.util.find_spec(name)]:
        raise UserError(
            f"--against={side} needs {' and '.join(missing)}: "
            "pip install -r requirements.txt -r requirements-oracles.txt"
        )


def prepare(work: Work) -> Side:
    """Imports and builds the side; the network and its step may be compiled later."""
    module, _ = SIDES[work.mode][work.side.partition(",")[0]]
    return getattr(importlib.import_module(module), work.mode)(work)
