"""Signals of one process: the first is noted, the second interrupts, and the status says which."""

import signal
import threading

import jax
import pytest

from inception.distributed.preemption import Interrupted, preemption
from inception.errors import EX_TEMPFAIL


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, EX_TEMPFAIL), (signal.SIGINT, 130)]
)
def test_a_signal_is_noted_and_decides_the_status(number, status):
    before = signal.getsignal(number)

    def run():
        with preemption() as stop:
            assert not stop()
            signal.raise_signal(number)
            assert stop()
            raise Interrupted("stopped at step 2")

    with pytest.raises(Interrupted) as stopped:
        run()
    assert stopped.value.status == status
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once():
    def run():
        with preemption():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        run()
    assert not isinstance(stopped.value, Interrupted)


def test_outside_of_the_main_thread_signals_are_left_alone():
    before, answers = signal.getsignal(signal.SIGTERM), []

    def run():
        with preemption() as stop:
            answers.extend([stop(), signal.getsignal(signal.SIGTERM) is before])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert answers == [False, True]


def test_errors_of_one_process_alone_pass():
    with pytest.raises(jax.errors.JaxRuntimeError), preemption():
        raise jax.errors.JaxRuntimeError("INTERNAL: mine")
