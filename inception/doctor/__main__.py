"""Examines a machine, its data and a config before a long run.

    python -m inception.doctor --config=configs/v3.py [--config.FIELD=VALUE ...] [--workdir=DIR]

Prints a row for each check: PASS, WARN (the run could start, but look at this) or FAIL (it could
not), with what to do about it, and exits with status 1 after a FAIL. Speeds are measured last, if
nothing has failed: the input's on the run's own data, the training step's on synthetic batches
(--config.dataset=fake examines everything else without data). On a CPU the step is measured with a
smaller batch where necessary, and the rows say so.

Nothing is left in the workdir. One process is examined, with its own devices and input.
"""

import sys
from collections.abc import Sequence

from inception import command_line, runtime
from inception.config import load
from inception.doctor.checks import STAGES, PlannedRun, attempt
from inception.doctor.findings import Finding, show
from inception.workdir.logbook import log


def examine(run: PlannedRun) -> bool:
    """Runs the checks, stage by stage, and prints a row for each as soon as it is known.

    Returns:
      Whether no check failed. Stages after a failure are skipped.
    """
    failures: list[Finding] = []
    for stage in STAGES:
        for check in stage:
            finding = attempt(check, run)
            known = finding in failures
            failures += [finding] if finding.status == "FAIL" else []
            show(check.__name__, finding._replace(text="as above") if known else finding)
        if failures:
            return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Examines the run that the command line describes."""
    parser = command_line.parser("python -m inception.doctor", __doc__, config=True)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--workdir", help="the run's workdir, perhaps in a bucket")
    args, overrides = command_line.parse(parser, argv)
    runtime.tune_host_runtime()  # as main.py does
    good = examine(PlannedRun(load(args.config, overrides), args.workdir))
    log("\nThe run can start." if good else "\nThe run could not start.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
