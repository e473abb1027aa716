"""Ctrl-C and SIGTERM (a machine that is taken back): finish the step, keep it, then stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax

from inception.logbook import log


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop and has; the message says how far it came."""


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a signal has come; a second one interrupts at once.

    Of several processes none could stop alone, and outside of Python's main thread there are no
    signals: there the function says no, and signals do what they did before.
    """
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def note(number: int, _) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log("\nstopping after this step, which is saved; once more to stop at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
