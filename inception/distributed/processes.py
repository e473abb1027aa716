"""Several processes that run the program together: how they find each other, talk, and end.

They meet at JAX's coordination service, which process 0 keeps. What goes through it are short texts
between hosts; nothing here touches a device, so it works before JAX has started one.
"""

import contextlib
import ctypes
import gc
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from jax._src import distributed as service  # no public name; Orbax takes it from here, too

from inception.errors import EX_TEMPFAIL, ConfigError, UserError

# Seconds without a sign of life after which a process counts as dead, and JAX ends all others.
HEARTBEAT_TIMEOUT = 60
INIT_TIMEOUT = 300  # seconds for all processes to start
SHUTDOWN_TIMEOUT = 10  # seconds that a process which ends by an error waits for the others
_STOPPED = "inception/stopped"
_agreements = itertools.count()
# How errors of JAX's begin, of whatever class, when devices or processes do not answer.
_UNREACHABLE = (
    "UNKNOWN:",
    "INTERNAL:",
    "UNAVAILABLE:",
    "DEADLINE_EXCEEDED:",
    "ABORTED:",
    "CANCELLED:",
)
_HOW = (
    "--distributed finds the others on TPU pods and under Slurm, Open MPI and Kubernetes; "
    "elsewhere every process needs --coordinator=HOST:PORT (of process 0), --num_processes=N and "
    "--process_id=0 to N-1"
)


class ProcessStopped(UserError, RuntimeError):
    """Another process has stopped, so that this one cannot go on; the same command may."""

    status = EX_TEMPFAIL


def tune_host_runtime() -> None:
    """Lets a CPU's steps work in memory that they have had; call it before JAX starts a device.

    By default glibc gives the gigabyte of a step back, and the system fills page after page with
    zeros again. Only the memory of the main thread can be kept, so steps run in that. For programs
    that are a run's alone: nothing that is freed goes back to the system any more.

    Python looks for unused objects less often, which takes a third of the time while a step is
    traced.
    """
    gc.set_threshold(50_000, 20, 100)
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        set_option = ctypes.CDLL(None).mallopt
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h; an older glibc refuses the first.
        if set_option(-3, 2**31 - 1):
            set_option(-1, 2**31 - 1)


def connect(
    distributed: bool = True,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    save_on_sigterm: bool = True,
) -> None:
    """Joins the processes that run this program together; call it before JAX starts a device.

    Args:
      distributed: whether JAX is to find them, on TPU pods and under Slurm, Open MPI and
        Kubernetes, or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
      coordinator: HOST:PORT of process 0, to say it all instead.
      num_processes: how many there are.
      process_id: which of them this one is, from 0.
      save_on_sigterm: whether SIGTERM is left to `preemption`, or ends the process as usual.

    Raises:
      ConfigError: for flags that do not go together, or if the others are not found.
    """
    said = (coordinator, num_processes, process_id)
    if not distributed and said == (None, None, None):
        return
    _check(distributed, *said)
    if distributed:
        num_processes, process_id = map(_from_environment, ("NUM_PROCESSES", "PROCESS_ID"))
    else:
        logging.warning("process %d of %d waits for %s", process_id, num_processes, coordinator)
    jax.config.update("jax_enable_preemption_service", save_on_sigterm)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method=None if distributed else "deactivate",
            initialization_timeout=INIT_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the processes do not meet: {error} {_HOW}") from error
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(f"{name()}%(levelname)s: %(message)s"))


def _check(
    distributed: bool, coordinator: str | None, count: int | None, number: int | None
) -> None:
    """Refuses flags that leave something open, or say it twice."""
    flags = {"--coordinator": coordinator, "--num_processes": count, "--process_id": number}
    given = " ".join(f"{name}={value}" for name, value in flags.items() if value is not None)
    if distributed and given:
        raise ConfigError(f"{given}: leave out --distributed, which finds the processes by itself")
    if distributed:
        return
    if coordinator is None or count is None or number is None:
        raise ConfigError(f"{given} alone is not enough: {_HOW}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT of process 0")
    if not 0 <= number < count:
        raise ConfigError(
            f"--num_processes={count} --process_id={number}: there must be at least one process, "
            "numbered from 0"
        )


def _from_environment(name: str) -> int | None:
    text = os.environ.get(f"JAX_{name}")
    if text is not None and not text.isdecimal():
        raise ConfigError(f"JAX_{name}={text!r} must be a number")
    return int(text) if text else None


def process_index_and_count() -> tuple[int, int]:
    """The number of this process and how many there are, (0, 1) of one alone."""
    return service.global_state.process_id, service.global_state.num_processes


def name() -> str:
    """Tells this process apart in its log lines: "[process 3/4] ", "" of one alone."""
    number, count = process_index_and_count()
    return f"[process {number}/{count}] " if count > 1 else ""


def _client() -> Any:
    return service.global_state.client


def publish(key: str, text: str) -> None:
    """Lets all processes know a text; only the first text of a key counts."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # it is there
        _client().key_value_set(key, text)


def wait_for(key: str) -> str:
    """The text that some process tells under this key; waits for it.

    Raises:
      ProcessStopped: if a process has stopped instead.
    """
    client = _client()
    while True:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # not yet
            return client.blocking_key_value_get(key, 2000)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            raise ProcessStopped(client.key_value_try_get(_STOPPED))


def gather_and_reduce(text: str, combine: Callable[[Sequence[str]], str]) -> str:
    """What process 0 makes of the texts of all processes; waits until all have told theirs.

    Args:
      text: of this process. All must come here equally often.
      combine: makes one of all, which are in the processes' order.

    Raises:
      ProcessStopped: if a process has stopped instead.
    """
    number, count = process_index_and_count()
    if count == 1:
        return combine([text])
    key = f"inception/agreements/{next(_agreements)}"
    publish(f"{key}/{number}", text)
    if number == 0:
        publish(f"{key}/result", combine([wait_for(f"{key}/{other}") for other in range(count)]))
    return wait_for(f"{key}/result")


def exit_if_peer_lost(error: BaseException) -> None:
    """Ends this process, one of several, at once if the error means that another one is gone.

    It cannot be left by an exception: what is on the way out, such as a checkpoint that is being
    saved, would wait for the process that is gone.
    """
    reason: BaseException | None = error
    while reason and not str(reason).startswith(_UNREACHABLE):
        reason = reason.__cause__
    if not reason or process_index_and_count()[1] == 1:
        return
    logging.error(
        "another process has stopped or cannot be reached, so this one stops too; the same command "
        "continues from the newest checkpoint (%s)",
        str(reason).partition("\n")[0],
    )
    _exit(EX_TEMPFAIL)


def exit_together(status: int) -> None:
    """Ends this process, one of several, by an error: in order if all end now, else without them.

    Left to itself, Python would wait for the others at its end, while they wait for this one in a
    sum over devices. One process alone just goes on to its own end.
    """
    if process_index_and_count()[1] == 1:
        return
    publish(_STOPPED, f"{name()}has stopped with status {status}; its log says why")
    orderly = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    orderly.start()
    orderly.join(SHUTDOWN_TIMEOUT)
    _exit(status)


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
