"""What a program sets for its whole process.

Importing the package sets none of it; it sets only two environment variables, which JAX and etils
read when they start and which results depend on (inception/__init__.py).

The commands call `configure` before anything else (command_line.run); a script or a notebook may.
Without it everything works, but programs are compiled again in every process, and the libraries
below print what they like.
"""

import contextlib
import ctypes
import functools
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import jax


@functools.cache  # a second call has no effect
def configure() -> None:
    """Keeps compiled programs on disk, and silences the libraries where they repeat an error.

    * JAX keeps compiled programs in ~/.cache/inception, or where JAX_COMPILATION_CACHE_DIR says;
      nowhere if there is no home directory, as in a container whose user has none.
    * Orbax, asyncio and gcsfs no longer print the traceback of an error that they also raise.
    * TensorFlow logs errors only.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        with contextlib.suppress(RuntimeError):
            cache = Path.home() / ".cache" / "inception"
            jax.config.update("jax_compilation_cache_dir", str(cache))
    logging.getLogger("absl").addFilter(_is_not_orbax_traceback)
    logging.getLogger("asyncio").addFilter(_is_not_unretrieved)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    sys.unraisablehook = functools.partial(_print_unraisable, sys.unraisablehook)
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # JAX sets 1, with warnings
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it announces them
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def tune_host_runtime() -> None:
    """Makes steps on a CPU faster. Call it before JAX starts a device.

    For programs that only train: memory that was freed is never returned to the system. By default
    glibc returns the gigabyte of a step, and the system fills page after page with zeros again. It
    can keep only the main thread's memory, so steps are dispatched from there.

    Python collects garbage less often, which takes a third of the time of tracing a step.
    """
    gc.set_threshold(50_000, 20, 100)
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        set_option = ctypes.CDLL(None).mallopt
        # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h; older versions of glibc refuse the
        # first.
        if set_option(-3, 2**31 - 1):
            set_option(-1, 2**31 - 1)


def hide_gpus_from_tensorflow() -> None:
    """Keeps TensorFlow off the GPUs, whose memory JAX needs. Call it before TensorFlow computes."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # the program has used TensorFlow's GPUs already
        tf.config.set_visible_devices([], "GPU")


def _is_not_orbax_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _is_not_unretrieved(record: logging.LogRecord) -> bool:
    """TensorStore leaves one such error per array."""
    return "exception was never retrieved" not in record.getMessage()


def _print_unraisable(print_other: Any, unraisable: Any) -> None:
    if "Event loop is closed" not in str(unraisable.exc_value):
        print_other(unraisable)
