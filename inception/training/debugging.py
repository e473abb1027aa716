"""Checks while a step is dispatched: of transfers always, of NaNs with config.debug.nans.

The state and the batch of a step are on the devices. A transfer from the host would be a mistake
that costs time in every step, so JAX is told to refuse it.
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
    """Guards the call of a step.

    Args:
      step: Number of the step.
      nans: Whether to wait for the step and, if it makes a NaN, to compute it again operation by
        operation. This moves constants to the devices, so transfers are allowed then.

    Raises:
      TrainingError: If the step makes a NaN, naming the operation and the line.
      JaxRuntimeError: If the step transfers an array from the host.
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
