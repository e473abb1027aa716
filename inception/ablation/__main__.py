"""Compares experiments of the paper: every config with several seeds, then a report.

    python -m inception.ablation --configs=v2,v2_rmsprop,v2_label_smoothing,v2_factorized_7x7,v3
        --seeds=3 --workdir=runs/table3 [--on=digits] [--config.FIELD=VALUE ...]

Each config and seed is a run of its own in WORKDIR/CONFIG/seed_SEED, one after the other. What is
finished is not run again, what was interrupted continues, and a run that fails does not stop the
others: the same command may be given as often as needed, and only redraws once all is done. The
report, WORKDIR/report.md with its pictures and report.json, is renewed after every run.

--on=digits runs every row on other data than ImageNet: it applies the fields in which
configs/digits.py differs from configs/v3.py.
"""

import argparse
import datetime
import importlib.metadata
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from inception.ablation import report
from inception.ablation.rows import Cell, load_rows, load_setting, make_cells
from inception.config import parse_args
from inception.errors import CheckpointError, UserError
from inception.logbook import log
from inception.sharding import connect, is_main_process
from inception.train import train as train_config
from inception.workdir import as_workdir, has_trained, read_config


def run(
    cells: Sequence[Cell],
    after: Callable[[], None],
    train: Callable[[ConfigDict, Path], dict] = train_config,
) -> bool:
    """Runs what is not finished, one cell after the other.

    Args:
      cells: in the order to run.
      after: called whenever a cell has been run, and once if there was nothing to run.
      train: `inception.train`.

    Returns:
      Whether no cell failed.
    """
    left = [cell for cell in cells if not cell.results]
    log(f"{len(cells)} cells, {len(cells) - len(left)} of them finished")
    good, start = True, time.perf_counter()
    for done, cell in enumerate(left):
        number = f"cell {cells.index(cell) + 1} of {len(cells)}"
        seconds = (time.perf_counter() - start) / max(1, done) * (len(left) - done)
        time_left = f", about {_duration(seconds)} left" if done else ""
        log(f"\n{number}: {cell.row}, seed {cell.seed}{time_left}")
        error = _run(cell, train)
        if error:
            log(f"{number} failed: {error}")
        good = good and not error
        after()
    if not left:
        after()
    return good


def _run(cell: Cell, train: Callable[[ConfigDict, Path], dict]) -> str:
    """Trains a cell and notes how that went; returns the reason if it failed."""
    error, trace, start = "", "", time.perf_counter()
    try:
        _check_epochs(cell)
        train(cell.config, cell.directory)
    except Exception as exception:  # whatever it is, the other cells can do without this one
        error = f"{type(exception).__name__}: {exception}"
        if not isinstance(exception, UserError):
            trace = traceback.format_exc()
            print(trace, file=sys.stderr)
    # JAX would keep what it has traced for this run, 0.4 GB on a CPU.
    jax.clear_caches()
    if is_main_process():
        seconds = cell.record.get("seconds", 0) + time.perf_counter() - start
        try:
            cell.note(error=error, traceback=trace, seconds=seconds, machine=_machine())
        except UserError as exception:
            return error or str(exception)
    return error


def _check_epochs(cell: Cell) -> None:
    """Refuses to go on with a run of fewer epochs as if it were one of all: its schedule was not.

    Raises:
      CheckpointError: naming both.
    """
    if not has_trained(cell.directory):
        return
    epochs = read_config(cell.directory).num_epochs
    if epochs != cell.config.num_epochs:
        raise CheckpointError(
            f"{cell.directory} holds a run of {epochs:g} epochs, which cannot be made one of "
            f"{cell.config.num_epochs:g}: use another --workdir, or set num_epochs back"
        )


def _machine() -> str:
    """What runs this, "1 x NVIDIA H100 (Python 3.13.1, jax 0.12.0, ...)"."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    python = f"Python {platform.python_version()}"
    device = jax.devices()[0].device_kind
    return f"{jax.device_count()} x {device} ({', '.join([python, *versions])})"


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cells that the command line asks for and reports on them."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m inception.ablation",
        description="Runs configs with several seeds each and compares them in a report.",
    )
    parser.add_argument("--configs", required=True, help="names in configs/, or paths: v2,v3")
    parser.add_argument("--seeds", type=int, default=3, help="a row's runs (%(default)s)")
    parser.add_argument("--workdir", required=True, help="where the runs and the report are kept")
    parser.add_argument("--on", help="a config whose difference from v3 all rows take over: digits")
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    args, overrides = parse_args(parser, words)
    names = [name for name in args.configs.split(",") if name]
    if not names:
        parser.error("--configs names no config")
    if args.seeds < 1:
        parser.error(f"--seeds={args.seeds}: it must be at least 1")
    try:
        setting = load_setting(args.on) if args.on else {}
        rows = load_rows(names, setting, overrides)
        if args.distributed:
            connect()
        workdir = as_workdir(args.workdir)
        cells = make_cells(rows, args.seeds, workdir)
        command = shlex.join(["python", "-m", "inception.ablation", *words])

        def redraw() -> None:
            if is_main_process():
                report.write(workdir, rows, cells, command)

        good = run(cells, redraw)
    except (OSError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(stopped or "interrupted", file=sys.stderr)
        return 130
    log(f"\n{workdir / 'report.md'}: what came out")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
