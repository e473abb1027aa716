"""Examines a machine, its data and a config before a run of days is started.

    python -m inception.doctor --config=configs/v3.py [--config.FIELD=VALUE ...] [--workdir=DIR]

Prints a row per check: PASS, WARN (it would run, but look at this) or FAIL (it could not start),
with what to do below it; exits with status 1 after a FAIL. Nothing is measured before all that it
needs has passed. The input is measured on the run's own data, the step on made-up batches that lie
on the devices: without data, --config.dataset=fake examines all the rest.

On a CPU a step of a large batch takes minutes and more memory than there is: there the step is
measured with a smaller one and its memory is scaled, and the rows say so. Nothing is left in the
workdir. One process is examined, its devices against its own input.
"""

import sys
from collections.abc import Sequence

from inception import command_line, runtime
from inception.config import load
from inception.doctor.checks import STAGES, PlannedRun, attempt
from inception.doctor.findings import Finding, show
from inception.workdir.logbook import log


def examine(run: PlannedRun) -> bool:
    """Makes the checks, stage by stage, and prints a row for each as soon as it is known.

    Returns:
      Whether none failed. What comes after a stage with a failure is left out.
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
    """Prints the table of the config that the command line names."""
    parser = command_line.parser("python -m inception.doctor", __doc__, config=True)
    parser.add_argument("--config", required=True, help="a file such as configs/v3.py")
    parser.add_argument("--workdir", help="where the run will be kept; it may be in a bucket")
    args, overrides = command_line.parse(parser, argv)
    runtime.tune_host_runtime()  # as main.py, whose step is measured
    good = examine(PlannedRun(load(args.config, overrides), args.workdir))
    log("\nThe run can start." if good else "\nThe run could not start.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(command_line.run(main, command_line.SMALLER_BATCH))
