"""Ctrl-C and SIGTERM (a machine that is taken back): finish the step, save it, then stop.

An evaluation is stopped after the current batch; its state was saved before it.

A run that was stopped exits with status 75, "run me again", or after Ctrl-C with 130, the shell's.
With several processes it is enough that one gets the signal: through JAX's coordination service
they agree on a step, at most a second later, after which all save and stop. Nothing is exchanged
at other steps. What the service counts is how often each process has asked.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm

from inception.distributed import processes
from inception.errors import EX_TEMPFAIL


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and has; the message says how far it came."""

    status = EX_TEMPFAIL  # exit status of the command


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], bool]]:
    """Context of the steps and evaluations; yields a function that says whether to stop.

    With several processes, all must call that function equally often.

    A second signal interrupts at once. Outside of Python's main thread, signals are not handled.
    If another process is lost, this one ends here.
    """
    several = jax.process_count() > 1
    received: list[int] = []

    def note(number: int, _) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if several:
            signal.raise_signal(signal.SIGTERM)  # JAX tells the other processes
        line = "stopping as soon as the state is saved; press Ctrl-C again to stop at once"
        with tqdm.external_write_mode():  # clears the line of progress
            print(f"\n{processes.name()}{line}", flush=True)

    # With several processes, JAX handles SIGTERM itself.
    asked = itertools.count(1)
    agreed = lambda: multihost_utils.reached_preemption_sync_point(next(asked))  # noqa: E731
    stop = agreed if several else lambda: bool(received)
    numbers = [signal.SIGINT] if several else [signal.SIGINT, signal.SIGTERM]
    try:
        with _handling(note, numbers):
            yield stop
    except Interrupted as stopped:
        stopped.status = 130 if received == [signal.SIGINT] and not several else EX_TEMPFAIL
        raise
    except Exception as error:
        processes.exit_if_peer_lost(error)
        raise


@contextlib.contextmanager
def _handling(handler: Callable, numbers: Sequence[int]) -> Iterator[None]:
    """Handles signals inside the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
