"""Ctrl-C and SIGTERM (a machine that is taken back): finish the step, save it, then stop.

An evaluation is left after the batch at hand; its state was saved before it.

A run that has stopped so exits with status 75, "run me again", or with 130, the shell's, after
Ctrl-C. Of several processes it is enough that one is told: JAX's coordination service agrees on a
step, at most a second later, after which all save and stop. Nothing is exchanged at other steps.
What it counts is how often each process has asked, in steps and in evaluations.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.experimental import multihost_utils

from inception.distributed import processes
from inception.errors import EX_TEMPFAIL


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and has; the message says how far it came."""

    status = EX_TEMPFAIL  # of the command that it ends


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], bool]]:
    """Around the steps and evaluations; yields a function that says after each whether to stop.

    Of several processes all must ask it equally often.

    A second signal interrupts at once. Outside of Python's main thread there are no signals: there
    they do what they did before. When another of several processes is lost, this one ends here.
    """
    several = jax.process_count() > 1
    received: list[int] = []

    def note(number: int, _) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        if several:
            signal.raise_signal(signal.SIGTERM)  # JAX passes it on
        line = "stopping as soon as the state is saved; once more to stop at once"
        print(f"\n{processes.name()}{line}", flush=True)

    # SIGTERM has been JAX's own since several processes were connected.
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
    """Handles signals while it lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
