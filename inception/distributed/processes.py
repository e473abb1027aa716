"""Several processes that run one program together: how they connect, exchange texts, and exit.

They connect to JAX's coordination service, which process 0 runs. What goes through it are short
texts; no device takes part, so this works before JAX has started one, and a process that waits
learns that another has stopped. (The functions of `jax.experimental.multihost_utils` compute on
the devices, where such a process would hang.)
"""

import contextlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # not public; Orbax uses it, too

from inception.errors import EX_TEMPFAIL, ConfigError, UserError

HEARTBEAT_TIMEOUT = 60  # seconds without a heartbeat until JAX ends all other processes
INIT_TIMEOUT = 300  # seconds for all processes to start
SHUTDOWN_TIMEOUT = 10  # seconds that a process which ends by an error waits for the others
_STOPPED = "inception/stopped"
# How the messages of JAX's errors begin, of whatever class, when devices or processes do not
# answer.
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
    """Another process has stopped, so this one cannot continue; running the command again may."""

    status = EX_TEMPFAIL


class _CoordinationService:
    """JAX's coordination service: the one place that needs a private module of JAX."""

    def process_index_and_count(self) -> tuple[int, int]:
        # Unlike jax.process_index(), this does not start a device.
        return global_state.process_id, global_state.num_processes

    def put(self, key: str, text: str) -> None:
        """Stores a text for all processes; has no effect if the key exists."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # it exists
            self._client.key_value_set(key, text)

    def get(self, key: str, seconds: float = 0) -> str | None:
        """The text of a key, which is waited for; None if it does not exist by then."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if seconds:
                return self._client.blocking_key_value_get(key, round(1000 * seconds))
            return self._client.key_value_try_get(key)
        return None

    @property
    def _client(self) -> Any:
        return global_state.client


_service = _CoordinationService()
_rounds = itertools.count()


def connect(
    distributed: bool = True,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    save_on_sigterm: bool = True,
) -> None:
    """Connects the processes that run this program together. Call it before JAX starts a device.

    Args:
      distributed: Whether JAX finds the processes by itself: on TPU pods, under Slurm, Open MPI and
        Kubernetes, or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
      coordinator: HOST:PORT of process 0, if JAX does not find it.
      num_processes: Number of processes, if JAX does not find it.
      process_id: Index of this process, from 0, if JAX does not find it.
      save_on_sigterm: Whether SIGTERM is left to `preemption`, or ends the process as usual.

    Raises:
      ConfigError: For flags that do not go together, or if the processes cannot connect.
    """
    explicit = (coordinator, num_processes, process_id)
    if not distributed and explicit == (None, None, None):
        return
    _check_flags(distributed, *explicit)
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
        raise ConfigError(f"could not connect to the other processes: {error} {_HOW}") from error
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(f"{name()}%(levelname)s: %(message)s"))


def _check_flags(
    distributed: bool, coordinator: str | None, count: int | None, index: int | None
) -> None:
    """Refuses flags that are incomplete or contradict each other."""
    flags = {"--coordinator": coordinator, "--num_processes": count, "--process_id": index}
    given = " ".join(f"{name}={value}" for name, value in flags.items() if value is not None)
    if distributed and given:
        raise ConfigError(f"{given} cannot be used with --distributed, which finds the processes")
    if distributed:
        return
    if coordinator is None or count is None or index is None:
        raise ConfigError(f"{given} alone is not enough: {_HOW}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT of process 0")
    if not 0 <= index < count:
        raise ConfigError(
            f"--num_processes={count} --process_id={index}: there must be at least one process, "
            "numbered from 0"
        )


def _from_environment(name: str) -> int | None:
    text = os.environ.get(f"JAX_{name}")
    if text is not None and not text.isdecimal():
        raise ConfigError(f"JAX_{name}={text!r} must be a number")
    return int(text) if text else None


def process_index_and_count() -> tuple[int, int]:
    """The index of this process and the number of processes; (0, 1) for a single one."""
    return _service.process_index_and_count()


def name() -> str:
    """The prefix of this process's log lines: "[process 3/4] "; "" for a single process."""
    index, count = process_index_and_count()
    return f"[process {index}/{count}] " if count > 1 else ""


def publish(key: str, text: str) -> None:
    """Sends a text to all processes; only the first text of a key counts."""
    _service.put(key, text)


def wait_for(key: str) -> str:
    """Waits for the text that some process publishes under `key`.

    Raises:
      ProcessStopped: If a process has stopped instead.
    """
    while True:
        if (text := _service.get(key, seconds=2)) is not None:
            return text
        if reason := _service.get(_STOPPED):
            raise ProcessStopped(reason)


def gather_and_reduce(text: str, combine: Callable[[Sequence[str]], str]) -> str:
    """Combines one text from each process; waits for all. Every process must call it.

    Args:
      text: The text of this process.
      combine: Function of the texts of all processes, in their order; runs in process 0.

    Returns:
      The result of `combine`, the same in every process.

    Raises:
      ProcessStopped: If a process has stopped instead.
    """
    index, count = process_index_and_count()
    if count == 1:
        return combine([text])
    key = f"inception/agreements/{next(_rounds)}"
    publish(f"{key}/{index}", text)
    if index == 0:
        publish(f"{key}/result", combine([wait_for(f"{key}/{other}") for other in range(count)]))
    return wait_for(f"{key}/result")


def exit_if_peer_lost(error: BaseException) -> None:
    """Ends this process, one of several, at once if the error means that another one is gone.

    An exception would not do: what it passes on its way, such as a checkpoint that is being saved,
    would wait for the process that is gone.
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
    """Ends this process, one of several, after an error; waits up to 10 s for the others to end.

    Python's own exit would wait for the others, while they wait for this process in a sum over the
    devices. A single process just returns.
    """
    if process_index_and_count()[1] == 1:
        return
    publish(_STOPPED, f"{name()}has stopped with status {status}; its log says why")
    shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(SHUTDOWN_TIMEOUT)
    _exit(status)


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
