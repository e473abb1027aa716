"""Runs experiments of the paper, each config with several seeds, and reports on them.

    python -m inception.ablation --configs=v2,v2_rmsprop,v2_label_smoothing,v2_factorized_7x7,v3
        --seeds=3 --workdir=runs/table3 [--on=digits] [--config.FIELD=VALUE ...]

Each config (a row of the report) and seed is a run in WORKDIR/CONFIG/seed_SEED, one by one. A
failed run does not stop the others. Given again, the command continues interrupted runs, repeats
failed ones and skips finished ones. The report, WORKDIR/report.md and report.json with pictures, is
rewritten after every run.

--on=digits runs the rows on other data than ImageNet: all take over the fields in which
configs/digits.py differs from configs/v3.py.
"""

import datetime
import importlib.metadata
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import jax

from inception import command_line
from inception.ablation import report
from inception.ablation.rows import AblationRun, config_file, load_rows, load_setting, make_runs
from inception.distributed.processes import connect
from inception.distributed.sharding import is_main_process
from inception.errors import CheckpointError, UserError
from inception.training.loop import train_and_evaluate
from inception.workdir.identity import has_trained, read_config, resolve_workdir
from inception.workdir.logbook import log


def run_all(runs: Sequence[AblationRun], redraw: Callable[[], None]) -> bool:
    """Runs what is not finished, in order.

    Args:
      runs: All runs.
      redraw: Rewrites the report; called after every run, and once if all were finished.

    Returns:
      Whether no run failed.
    """
    left = [run for run in runs if not run.results]
    log(f"{len(runs)} runs, {len(runs) - len(left)} of them finished")
    good, start = True, time.perf_counter()
    for done, run in enumerate(left):
        number = f"run {runs.index(run) + 1} of {len(runs)}"
        seconds = (time.perf_counter() - start) / max(1, done) * (len(left) - done)
        time_left = f", about {datetime.timedelta(seconds=round(seconds))} left" if done else ""
        log(f"\n{number}: {run}{time_left}")
        if error := _try(run):
            log(f"{number} failed: {error}")
            good = False
        redraw()
    if not left:
        redraw()
    return good


def _try(run: AblationRun) -> str:
    """Trains and records the outcome; returns the error, "" if there was none."""
    error, trace, start = "", "", time.perf_counter()
    try:
        _check_epochs(run)
        train_and_evaluate(run.config, run.workdir)
    except Exception as exception:  # whatever it is, the other runs continue
        error = f"{type(exception).__name__}: {exception}"
        if not isinstance(exception, UserError):
            trace = traceback.format_exc()
            print(trace, file=sys.stderr)
    # Frees what JAX has traced for this run, 0.4 GB on a CPU.
    jax.clear_caches()
    try:
        seconds = run.record.get("seconds", 0) + time.perf_counter() - start
        run.note(error=error, traceback=trace, seconds=seconds, machine=_machine())
    except UserError as exception:
        return error or str(exception)
    return error


def _check_epochs(run: AblationRun) -> None:
    """Refuses to continue a run of other epochs: its learning rate had another schedule."""
    epochs = run.config.num_epochs
    if has_trained(run.workdir) and (trained := read_config(run.workdir).num_epochs) != epochs:
        raise CheckpointError(
            f"{run.workdir} holds a run of {trained:g} epochs, which cannot continue with "
            f"config.num_epochs={epochs:g}. Use another --workdir, or set num_epochs back"
        )


def _machine() -> str:
    """Devices and versions, e.g. "1 x NVIDIA H100 (Python 3.13.1, jax 0.12.0, ...)"."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return f"{device} (Python {platform.python_version()}, {versions})"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the given configs and reports on them."""
    parser = command_line.parser("python -m inception.ablation", __doc__, config=True)
    parser.add_argument("--configs", required=True, help="names in configs/, or paths: v2,v3")
    parser.add_argument("--seeds", type=int, default=3, help="runs per row (%(default)s)")
    parser.add_argument("--workdir", required=True, help="folder of the runs and the report")
    parser.add_argument(
        "--on", help="a config whose changes relative to v3 are applied to all rows: digits"
    )
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    args, overrides = command_line.parse(parser, argv)
    names = [name for name in args.configs.split(",") if name]
    if not names or args.seeds < 1:
        parser.error("--configs needs at least one name, and --seeds must be at least 1")
    setting = load_setting(config_file(args.on)) if args.on else {}
    rows = load_rows(names, setting, overrides)
    connect(args.distributed)
    workdir = resolve_workdir(args.workdir)
    runs = make_runs(rows, args.seeds, workdir)
    command = command_line.command_of(parser, argv)

    def redraw() -> None:
        if is_main_process():
            report.write(workdir, rows, runs, command)

    good = run_all(runs, redraw)
    log(f"\n{workdir / 'report.md'}: the report")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
