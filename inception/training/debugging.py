"""What is watched while a step is dispatched: transfers always, NaNs where config.debug.nans asks.

A step's state and batch are on the devices, so a transfer from the host would be an accident, paid
for at every step: JAX refuses it.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax

from inception.training.watch import TrainingError

_ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def guarded(step: int, nans: bool) -> Iterator[None]:
    """Around the call of a step.

    Args:
      step: its number.
      nans: wait for it, and compute it again, operation by operation, if it makes a NaN. (Which
        moves constants to the devices, so transfers are not guarded then.)

    Raises:
      TrainingError: if it has made a NaN, naming the operation and the line that made it.
      JaxRuntimeError: for a transfer.
    """
    if not nans:
        with jax.transfer_guard("disallow"):
            yield
        return
    try:
        with jax.debug_nans(True):
            yield
    except FloatingPointError as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if _ROOT in Path(frame.filename).parents]
        where = ", ".join(f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in ours[-3:])
        reason = str(error).splitlines()[0]
        raise TrainingError(f"step {step}: {reason}, at {where} (config.debug.nans)") from error
